"""What only all detectors of a visit together can tell: the focal plane's solution, the zero points, the verdict on the night.

Runs once a visit, on what its detectors found of the reference catalogue: no pixels are needed. A detector that could not be
matched, or whose stars gave no zero point, is placed by the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import numpy as np

from ..errors import BadData
from ..products.catalogue import Catalogue, Column
from ..products.geometry import project
from ..products.photocal import PhotoCal, magnitude_of
from ..products.reference import ReferenceCatalogue
from ..products.visit import VisitDetector
from ..products.wcs import Wcs
from .astrometry import AstrometryConfig, pair_by_wcs
from .focalplane import DetectorStars, FocalPlaneConfig, FocalPlaneFit, fit_focal_plane
from .photometry import PhotometryConfig
from .zeropoints import DetectorFluxes, VisitZeroPoints, fit_visit_zero_points

__all__ = ["MATCH_COLUMNS", "matched_stars", "photometry_of_band", "place_sources", "solve_visit"]

_PAIR_RADIUS = 0.5  # arcsec: largest distance of a pair by the focal plane's solution

MATCH_COLUMNS = (
    Column("detector", "i4", "", "detector number"),
    Column("source", "i8", "", "row among the detector's sources"),
    Column("x", "f8", "pixel", "measured position"), Column("y", "f8", "pixel", "measured position"),
    Column("xErr", "f4", "pixel", "error of x"), Column("yErr", "f4", "pixel", "error of y"),
    Column("refRa", "f8", "deg", "reference star at the epoch of the visit"),
    Column("refDec", "f8", "deg", "reference star at the epoch of the visit"),
    Column("refRaErr", "f4", "mas", "error of refRa times cos(dec)"), Column("refDecErr", "f4", "mas", "error of refDec"),
    Column("refFlux", "f8", "nJy", "flux of the reference star in the visit's band"),
    Column("refFluxErr", "f8", "nJy", "error of refFlux"),
    Column("refColor", "f4", "mag", "colour of the reference star less that where the colour term vanishes"),
    Column("isStar", "?", "", "the reference catalogue calls it a star"),
    Column("offsetRa", "f4", "mas", "reference less fitted position, ra times cos(dec)"),
    Column("offsetDec", "f4", "mas", "reference less fitted position, dec"),
    Column("usedAstrometry", "?", "", "in the fit of the positions"),
)


def matched_stars(detector: int, sources: Catalogue, reference: ReferenceCatalogue, pairs, context) -> Catalogue:
    """The matched stars of a detector as a table: what the visit's solution, and later the survey's, is made of.

    Parameters
    ----------
    pairs : rows (sources, reference)
    context : (band, PhotometryConfig); the reference is at the epoch of the visit
    """
    band, config = context
    s, r = pairs
    flux = reference.of_band(band) if band in reference.flux else (np.full(len(reference), np.nan),) * 2
    color = np.full(len(reference), np.nan)
    if band in config.color and all(name in reference.flux for name in config.color[band]):
        blue, red = (magnitude_of(reference.flux[name]) for name in config.color[band])
        color = blue - red - config.color_zero
    arrays = {"detector": np.full(len(s), detector), "source": s, **{name: sources[name][s] for name in ("x", "y", "xErr", "yErr")},
              "refRa": reference.ra[r], "refDec": reference.dec[r], "refRaErr": reference.ra_err[r],
              "refDecErr": reference.dec_err[r], "refFlux": flux[0][r], "refFluxErr": flux[1][r], "refColor": color[r],
              "isStar": reference.is_star[r], "offsetRa": np.full(len(s), np.nan), "offsetDec": np.full(len(s), np.nan),
              "usedAstrometry": np.zeros(len(s), bool)}
    return Catalogue(MATCH_COLUMNS, arrays)


def photometry_of_band(config: PhotometryConfig, band: str) -> PhotometryConfig:
    """The configuration with the colour term of a band."""
    return config.model_copy(update={"color_term": config.color_terms.get(band, config.color_term)})


def solve_visit(visits: Sequence[VisitDetector], reference: ReferenceCatalogue | None,
                config: tuple[AstrometryConfig, FocalPlaneConfig, PhotometryConfig]) -> list[VisitDetector | BadData]:
    """The detectors of a visit with one solution: positions, zero points, summaries. Pixels are not looked at.

    Parameters
    ----------
    visits : all detectors of the visit that are there, by number: the result follows this order
    reference : around the visit, at its epoch; None: there is nothing to solve

    Returns
    -------
    One entry per detector: the detector, or why it cannot be used.
    """
    astrometry, plane, photometry = config
    if reference is None:
        return list(visits)
    fit = _focal_plane(visits, reference, (astrometry, plane, photometry))
    placed = list(visits) if fit is None else [_placed(visit, fit, i) for i, visit in enumerate(visits)]
    if fit is not None:
        placed = [_with_matches(visit, fit, i, (reference, astrometry, photometry)) for i, visit in enumerate(placed)]
    good = [i for i, visit in enumerate(placed) if visit.wcs_known]
    result: list[VisitDetector | BadData] = [BadData(visit.problem) for visit in placed]
    for i, visit in zip(good, _with_zero_points([placed[i] for i in good], photometry)):
        result[i] = visit
    return result


def _stars_of(visit: VisitDetector) -> DetectorStars:
    m = visit.matches
    use = m["isStar"] & (m["xErr"] > 0) & (m["yErr"] > 0)
    m = m.rows(use & np.isfinite(m["x"] + m["y"] + m["xErr"] + m["yErr"]))
    return DetectorStars(visit.guess or visit.wcs, visit.background.box, *(np.asarray(m[name], float) for name in (
        "x", "y", "xErr", "yErr", "refRa", "refDec")), m["refRaErr"] / 1e3, m["refDecErr"] / 1e3)


def _focal_plane(visits: Sequence[VisitDetector], reference: ReferenceCatalogue, config) -> FocalPlaneFit | None:
    """The focal plane's solution from the detectors' own matches, then from all stars near it; None if there is none."""
    astrometry, plane, photometry = config
    if len(visits) < 2 or any((visit.guess or visit.wcs) is None for visit in visits):
        return None
    try:
        first = fit_focal_plane([_stars_of(visit) for visit in visits], plane)
        if strangers := first.strangers():
            visits = [replace(v, matches=v.matches.rows(slice(0, 0))) if i in strangers else v for i, v in enumerate(visits)]
            first = fit_focal_plane([_stars_of(visit) for visit in visits], plane)
        again = [_with_matches(visit, first, i, (reference, astrometry, photometry)) for i, visit in enumerate(visits)]
        return fit_focal_plane([_stars_of(visit) for visit in again], plane)
    except BadData:
        return None


def _with_matches(visit: VisitDetector, fit: FocalPlaneFit, number: int, context) -> VisitDetector:
    """A detector with all pairs that the focal plane's solution finds, and their offsets from it."""
    reference, astrometry, photometry = context
    wcs = fit.wcs(number)
    error = max(float(np.max(side)) for side in fit.error(number, *visit.background.box.corners().T))
    radius = min(6.0 * float(np.hypot(error, max(fit.scatter / 1e3, 0.01))) + 0.05, _PAIR_RADIUS)
    near = reference.around(wcs, visit.background.box, 2.0)
    pairs = pair_by_wcs(visit.sources, near, wcs, radius, astrometry)
    matches = matched_stars(visit.detector_id, visit.sources, near, pairs, (visit.exposure.band, photometry))
    xi, eta = project(matches["refRa"], matches["refDec"], *wcs.pixel_to_sky(matches["x"], matches["y"]))
    limit = 3.6e6 / 1e3 * np.hypot(xi, eta) <= radius
    return replace(visit, matches=matches.with_columns((), {"offsetRa": 3.6e6 * xi, "offsetDec": 3.6e6 * eta,
                                                            "usedAstrometry": limit & matches["isStar"]}))


def _placed(visit: VisitDetector, fit: FocalPlaneFit, number: int) -> VisitDetector:
    """A detector with the focal plane's solution: WCS, positions, errors, summary."""
    wcs, kept = fit.wcs(number), fit.kept[number]
    sources = place_sources(visit.sources, wcs, fit.error(number, visit.sources["x"], visit.sources["y"]), fit.scatter / 1e3)
    rms = [float(np.sqrt(np.mean(side[number][kept] ** 2))) if kept.any() else float("nan") for side in (fit.east, fit.north)]
    middle = np.array([[visit.background.box.x0 + 0.5 * visit.background.box.nx], [visit.background.box.y0 + 0.5 * visit.background.box.ny]])
    summary = {**visit.summary, "astrometric_rms_east_arcsec": rms[0], "astrometric_rms_north_arcsec": rms[1],
               "n_astrometric_stars": float(kept.sum()), "astrometric_scatter_mas": fit.scatter,
               "astrometric_error_mas": 1e3 * float(np.max(fit.error(number, *middle))), "n_focal_plane_stars": float(fit.n_stars)}
    return replace(visit, wcs=wcs, wcs_known=True, sources=sources, summary=summary)


def place_sources(sources: Catalogue, wcs: Wcs, solution: tuple[np.ndarray, np.ndarray], scatter: float = 0.0) -> Catalogue:
    """The sources with the positions of a WCS, and errors: the centroid's, the scatter (arcsec) and the solution's share.

    The columns raErr, decErr hold all of it; raErr_fit, decErr_fit only the solution's share, which neighbours have in common.
    """
    ra, dec = wcs.pixel_to_sky(sources["x"], sources["y"])
    if not len(sources):
        return sources.with_columns(ERROR_COLUMNS, {name: np.zeros(0) for name in ("raErr_fit", "decErr_fit")})
    middle = float(np.nanmedian(sources["x"])), float(np.nanmedian(sources["y"]))
    jacobian = wcs.local_jacobian(*middle)
    variance = np.stack([sources["xErr"].astype(float) ** 2, sources["yErr"].astype(float) ** 2])
    centroid = jacobian**2 @ variance
    total = [np.sqrt(c + scatter**2 + share**2) / 3600.0 for c, share in zip(centroid, solution)]
    shares = [np.broadcast_to(share, len(sources)) / 3600.0 for share in solution]
    return sources.with_columns(ERROR_COLUMNS, {"ra": ra, "dec": dec, "raErr": total[0], "decErr": total[1],
                                                "raErr_fit": shares[0], "decErr_fit": shares[1]})


ERROR_COLUMNS = (
    Column("ra", "f8", "deg", "right ascension, ICRS"), Column("dec", "f8", "deg", "declination, ICRS"),
    Column("raErr", "f4", "deg", "error of ra times cos(dec): centroid, atmosphere and astrometric solution"),
    Column("decErr", "f4", "deg", "error of dec: centroid, atmosphere and astrometric solution"),
    Column("raErr_fit", "f4", "deg", "the astrometric solution's share of raErr, common to neighbours"),
    Column("decErr_fit", "f4", "deg", "the astrometric solution's share of decErr, common to neighbours"),
)


def _with_zero_points(visits: list[VisitDetector], config: PhotometryConfig) -> list[VisitDetector | BadData]:
    """The detectors with the visit's zero points; each keeps its own, or has none, where all together have too few stars."""
    if not visits:
        return []
    exposure = visits[0].exposure
    config = photometry_of_band(config, exposure.band)
    try:
        fit = fit_visit_zero_points([_fluxes(visit, visits[0]) for visit in visits], config, exposure.band, exposure.exposure_time)
    except BadData as error:
        return [visit if visit.photocal_known else BadData(visit.problem or str(error)) for visit in visits]
    return [_rescaled(visit, photocal if len(visits) > 1 or not visit.photocal_known else visit.photocal, fit)
            for visit, photocal in zip(visits, fit.photocals)]


def _fluxes(visit: VisitDetector, first: VisitDetector) -> DetectorFluxes:
    m = visit.matches
    m = m.rows(m["isStar"] & ~visit.sources["psfFlux_flag"][m["source"]])
    rows = m["source"]
    xi, eta = project(m["refRa"], m["refDec"], *first.wcs.crval)
    return DetectorFluxes(visit.sources["psfFlux"][rows] / visit.photocal.scale,
                          visit.sources["psfFluxErr"][rows] / visit.photocal.scale, m["refFlux"], m["refFluxErr"],
                          np.asarray(m["refColor"], float), xi, eta)


def _rescaled(visit: VisitDetector, photocal: PhotoCal, fit: VisitZeroPoints) -> VisitDetector:
    """A detector with another zero point: fluxes, depth, and the visit's numbers."""
    factor = photocal.scale / visit.photocal.scale
    arrays = {name: visit.sources[name] * factor for name, column in visit.sources.columns.items() if column.unit == "nJy"}
    summary = dict(visit.summary)
    summary.update(zero_point_mag=photocal.zero_point, zero_point_err_mag=photocal.zero_point_err,
                   zero_point_scatter_mag=photocal.scatter, n_photometric_stars=float(photocal.n_stars),
                   zero_point_visit_err_mag=fit.visit_err, zero_point_spread_mag=fit.spread, cloud_rms_mag=fit.surface,
                   extinction_mag=fit.extinction, color_term=fit.color_term, photometric=float(fit.photometric),
                   airmass=visit.exposure.airmass)
    if "depth_5sigma_mag" in summary:
        summary["depth_5sigma_mag"] -= 2.5 * float(np.log10(factor))
    return replace(visit, photocal=photocal, photocal_known=True, summary=summary,
                   sources=visit.sources.with_columns((), arrays) if factor != 1.0 else visit.sources)
