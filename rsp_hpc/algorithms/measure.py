"""measure: positions, fluxes, shapes and flags of the sources of one image.

`measure` fits positions too (visits); `measure_forced` keeps given positions (coadds, forced photometry). Column names
and units are Rubin's where the meaning is the same; `sizeExcess` is ours.

PSF flux and position are a least-squares fit with equal weights on all pixels (weights that follow a source's own noise
bias its flux); errors carry the variance plane through it, times `noise_correlation` where pixels are correlated. The flux
at a fitted position is too high by variance / flux, as the position climbs the noise in two dimensions: `_without_climb`.
Shapes: Bernstein & Jarvis 2002, AJ 123, 583. Kron fluxes: Kron 1980, ApJS 43, 305. Blendedness: Bosch et al. 2018,
PASJ 70, S5, section 4.9.11.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import measure as kernel
from ..products.catalogue import Catalogue, Column
from ..products.footprints import Children, Detections
from ..products.image import MaskedImage
from ..products.mask import PLANES, bits
from ..products.psf import Psf

__all__ = ["MeasureConfig", "measure", "measure_forced"]

CHUNK = 2048
"""Sources per call of the kernel: bounds the memory of PSF stamps."""

BAND = 64
"""Sources are measured in bands of so many rows, from left to right: their pixels then are in cache."""

ANYWHERE = {"bad": "BAD", "cr": "CR", "edge": "EDGE", "interpolated": "INTRP", "nodata": "NO_DATA", "saturated": "SAT",
            "suspect": "SUSPECT"}
CENTRE = {"crCenter": "CR", "interpolatedCenter": "INTRP", "saturatedCenter": "SAT", "suspectCenter": "SUSPECT"}
ON_COADDS = {"clipped": "CLIPPED", "inexact_psf": "INEXACT_PSF", "sensor_edge": "SENSOR_EDGE"}


class MeasureConfig(Config):
    """What is measured on each source."""

    radii: tuple[float, ...] = parameter((3.0, 6.0, 9.0, 12.0, 17.0, 25.0), "aperture radii; 3 gives ap03Flux",
                                         unit="pixel")
    max_shift: float = parameter(2.0, "a fitted position further than this from its peak is refused", unit="pixel",
                                 above=0.0, high=4.0)
    local_background: bool = parameter(True, "whether the sky about each source is measured, in a ring")
    ring: tuple[float, float] = parameter((3.0, 6.0), "radii between which the sky about a source is measured", unit="FWHM")
    ring_clip: float = parameter(3.0, "pixels of the ring further off are left out", unit="sigma", above=0.5)
    psf_size_error: float = parameter(0.01, "relative error of the PSF's second moment, for star-galaxy separation",
                                      low=0.0, high=0.5)
    galaxy_size: float = parameter(0.5, "mean second moment of galaxies over the PSF's, for star-galaxy separation",
                                   above=0.0)
    never_planes: tuple[str, ...] = parameter(("NO_DATA", "UNMASKEDNAN"), "pixels without a value")
    reject_planes: tuple[str, ...] = parameter(("BAD", "CR", "SAT"), "pixels without a value unless interpolated")


def measure(image: MaskedImage, detections: Detections, children: Children | None, psf: Psf, config: MeasureConfig,
            noise_correlation=1.0) -> Catalogue:
    """Measure all peaks of an image, positions included.

    Parameters
    ----------
    image : MaskedImage, sky subtracted
    detections : Detections of this image
    children : Children of this image (`deblend`), or None: blends are measured as they are
    psf : Psf of the image
    config : MeasureConfig
    noise_correlation : float or (n,) array, factor on the variance of sums

    Returns
    -------
    Catalogue
        One row per peak, in the order of the detections; fluxes in the image's unit, positions in its pixels.

    Raises
    ------
    BadData
        The detections belong to another box.
    """
    table = _run(image, detections, children, (detections.x, detections.y), psf, config, noise_correlation,
                 config.max_shift)
    blend = detections.n_peaks[detections.footprint]
    extra = {"footprintArea": detections.areas[detections.footprint], "deblend_parentNPeaks": blend,
             "detect_snr": detections.snr}
    if children is not None:
        extra["deblend_skipped"] = (children.flags & Children.NOT_DEBLENDED) != 0
        extra["deblend_deblendedAsPsf"] = (children.flags & Children.POINT_SOURCE) != 0
    columns = [Column("footprintArea", "i4", "pixel", "pixels of the footprint"),
               Column("deblend_parentNPeaks", "i4", "", "peaks in the footprint"),
               Column("detect_snr", "f4", "", "significance of a point source at the peak"),
               Column("deblend_skipped", "?", "", "left blended: footprint too large or too many peaks"),
               Column("deblend_deblendedAsPsf", "?", "", "got its share of the blend as a point source")]
    return table.with_columns([c for c in columns if c.name in extra], extra)


def measure_forced(image: MaskedImage, detections: Detections | None, children: Children | None, x, y, psf: Psf,
                   config: MeasureConfig, noise_correlation=1.0) -> Catalogue:
    """Measure at given positions.

    Parameters
    ----------
    image, psf, config, noise_correlation : as in `measure`
    detections : Detections whose peaks the positions belong to, row by row (footprints of other sources are then left
        out); None: the image counts as it is
    children : Children of this image with the same peaks, or None
    x, y : (n,) float64, pixel

    Returns
    -------
    Catalogue
        One row per position, in this order; x and y are the given ones, their errors what a fit would have.

    Raises
    ------
    BadData
        The detections belong to another box or have another number of peaks.
    """
    return _run(image, detections, children, (x, y), psf, config, noise_correlation, 0.0)


def _run(image, detections, children, positions, psf, config, noise_correlation, max_shift) -> Catalogue:
    """Call the kernel in chunks and put the table together."""
    x, y = (np.ascontiguousarray(np.atleast_1d(v), float) for v in positions)
    if detections is not None and (detections.box != image.box or len(detections) != len(x)):
        raise BadData(f"measure: {len(detections)} peaks on {detections.box} do not belong to {len(x)} positions on "
                      f"{image.box}; detect on this image")
    planes = tuple(np.ascontiguousarray(plane) for plane in (image.image, image.variance, image.mask))
    planes += (None if detections is None else detections.labels,)
    select = bits(*config.never_planes), bits(*config.reject_planes), bits("INTRP")
    correlation = np.ascontiguousarray(np.broadcast_to(np.asarray(noise_correlation, float), x.shape))
    parts, order = [], np.lexsort((x, y // BAND))
    for first in range(0, max(len(x), 1), CHUNK):
        rows = order[first:first + CHUNK]
        sources = {"xy": np.stack([x[rows] - image.box.x0, y[rows] - image.box.y0], axis=1),
                   "footprints": np.full(len(x[rows]), -1, np.int32) if detections is None else detections.footprint[rows],
                   "psf": np.ascontiguousarray(psf.stamps(x[rows], y[rows]), np.float32),
                   "correlation": correlation[rows]}
        if children is not None:
            sources.update(child_boxes=children.boxes[rows], child_offsets=children.offsets[rows],
                           child_values=children.values)
        parts.append(kernel.measure_sources(planes, select, sources, max_shift, config.radii))
    back = np.argsort(order)
    measured = kernel.Measured(*(np.concatenate(planes)[back] for planes in zip(*parts)))
    table = _catalogue(measured, image, config, max_shift > 0.0)
    return _with_local_background(table, (planes, select), image, correlation, config) if config.local_background else table


def _with_local_background(table: Catalogue, pixels, image: MaskedImage, correlation: np.ndarray, config: MeasureConfig) -> Catalogue:
    """The sky that is left about each source. Fluxes do not have it subtracted: its error is larger than most residuals."""
    trace = table["ixxPSF"] + table["iyyPSF"]
    fwhm = 2.3548 * np.sqrt(0.5 * np.median(trace[np.isfinite(trace)])) if np.isfinite(trace).any() else np.nan
    level, used = np.full((len(table), 3), np.nan), np.zeros(len(table))
    if np.isfinite(fwhm):
        xy = np.stack([table["x"] - image.box.x0, table["y"] - image.box.y0], axis=1)
        radii = tuple(fwhm * radius for radius in config.ring)
        level = kernel.local_background(*pixels, np.ascontiguousarray(xy), radii, config.ring_clip)
        used = level[:, 2] / (np.pi * (radii[1]**2 - radii[0]**2))
    columns = [Column("localBackground", "f4", image.unit, "sky left per pixel, from a ring about the source; not subtracted"),
               Column("localBackgroundErr", "f4", image.unit, "standard error of localBackground"),
               Column("localBackground_flag", "?", "", "less than a tenth of the ring can be used")]
    return table.with_columns(columns, {"localBackground": level[:, 0], "localBackgroundErr": level[:, 1] * np.sqrt(correlation),
                                        "localBackground_flag": ~(used > 0.1)})


def _catalogue(measured: kernel.Measured, image: MaskedImage, config: MeasureConfig, fitted: bool) -> Catalogue:
    """The kernel's numbers as named columns with flags."""
    entries: list[tuple[Column, np.ndarray]] = []

    def add(name, dtype, unit, doc, array):
        entries.append((Column(name, dtype, unit, doc), array))

    value, flag, pixel = measured.value, measured.flag, "pixel**2"
    add("x", "f8", "pixel", "position", value("x") + image.box.x0)
    add("y", "f8", "pixel", "position", value("y") + image.box.y0)
    for name, doc in (("xErr", "standard error of x"), ("yErr", "standard error of y")):
        add(name, "f4", "pixel", doc, value(name))
    add("xyCov", "f4", pixel, "covariance of x and y", value("xyCov"))
    add("centroid_flag", "?", "", "position not fitted; it is the peak's, or the given one", flag("noCentroid"))
    _add_fluxes(add, measured, image.unit, config, fitted)
    moved = fitted & ~flag("noCentroid")
    for name, lost in (("ixx", value("xErr")**2), ("iyy", value("yErr")**2), ("ixy", value("xyCov"))):
        lost = np.where(moved & np.isfinite(lost), lost, 0.0)  # about its own fitted centre a source is too compact
        add(name, "f8", pixel, "adaptive second moment", value(name) + lost)
        add(name + "Err", "f4", pixel, f"standard error of {name}", value(name + "Err"))
        add(name + "PSF", "f8", pixel, "adaptive second moment of the PSF", value(name + "PSF"))
    add("i_flag", "?", "", "no adaptive moments", flag("noShape"))
    add("invalidPsfFlag", "?", "", "the PSF is not known here", flag("noPsf"))
    _add_extendedness(add, measured, config, moved)
    _add_pixel_flags(add, measured)
    return Catalogue([column for column, _ in entries], {column.name: array for column, array in entries})


def _without_climb(flux: np.ndarray, error: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Flux F at a fitted position, less what the fit gained by climbing the noise: solves F = true + error^2 / true.

    To first order each fitted coordinate adds half of error^2 / true; below twice the error half of the flux is left.
    """
    with np.errstate(invalid="ignore"):
        return np.where(fitted, 0.5 * (flux + np.sqrt(np.maximum(flux**2 - 4.0 * error**2, 0.0))), flux)


def _add_fluxes(add, measured: kernel.Measured, unit: str, config: MeasureConfig, fitted: bool) -> None:
    """PSF, aperture and Kron fluxes."""
    value, flag = measured.value, measured.flag
    flux = _without_climb(value("psfFlux"), value("psfFluxErr"), np.isfinite(value("xErr")) & ~flag("noCentroid") & fitted)
    add("psfFlux", "f8", unit, "flux of the fitted PSF", flux)
    add("psfFluxErr", "f8", unit, "standard error of psfFlux", value("psfFluxErr"))
    add("psfFlux_area", "f4", "pixel", "effective area of the PSF", value("psfArea"))
    add("psfFlux_flag", "?", "", "psfFlux is missing or doubtful", flag("noPixels") | flag("psfCut"))
    add("psfFlux_flag_edge", "?", "", "a tenth or more of the PSF's weight has no data", flag("psfCut"))
    add("psfFlux_flag_noGoodPixels", "?", "", "too few pixels for a PSF flux", flag("noPixels"))
    for k, radius in enumerate(config.radii):
        name = f"ap{radius:02.0f}Flux"
        flux, error, absent = measured.apertures[:, k].T
        add(name, "f8", unit, f"flux within {radius:g} pixel", flux)
        add(name + "Err", "f8", unit, f"standard error of {name}", error)
        add(name + "_flag", "?", "", "missing pixels in the aperture", ~(absent <= 0.0))
    add("kronRad", "f4", "pixel", "Kron radius: first radial moment; the aperture is 2.5 times larger", value("kronRad"))
    add("kronFlux", "f8", unit, "flux in the Kron aperture", value("kronFlux"))
    add("kronFluxErr", "f8", unit, "standard error of kronFlux", value("kronFluxErr"))
    add("kronFlux_flag", "?", "", "kronFlux is missing or lacks pixels",
        flag("kronCut") | ~np.isfinite(value("kronFlux")))
    add("kronFlux_flag_used_minimum_radius", "?", "", "no Kron radius: smallest aperture", flag("kronSmallest"))


def _add_extendedness(add, measured: kernel.Measured, config: MeasureConfig, moved: np.ndarray) -> None:
    """Star or galaxy: the probability that the size beyond the PSF's is more than errors.

    Stars scatter about zero by the error and by the PSF's own; galaxies' excess has an exponential distribution.
    Equal odds before; both likelihoods are exact for Gaussian errors.
    """
    from scipy.special import log_ndtr

    value = measured.value
    psf = 0.5 * (value("ixxPSF") + value("iyyPSF"))
    lost = np.where(moved, 0.5 * (value("xErr")**2 + value("yErr")**2), 0.0)  # as of the moments
    excess, error = value("excess") + np.nan_to_num(lost), np.hypot(value("excessErr"), config.psf_size_error * psf)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = config.galaxy_size * psf
        log_star = -0.5 * (excess / error)**2 - np.log(error * np.sqrt(2.0 * np.pi))
        log_galaxy = 0.5 * (error / mean)**2 - excess / mean - np.log(mean) + log_ndtr(excess / error - error / mean)
        probability = 1.0 / (1.0 + np.exp(np.clip(log_star - log_galaxy, -700.0, 700.0)))
    missing = ~np.isfinite(probability)
    add("sizeExcess", "f4", "pixel**2", "second moment per axis beyond the PSF's, by the fit of a broadened PSF", excess)
    add("sizeExcessErr", "f4", "pixel**2", "standard error of sizeExcess", value("excessErr"))
    add("sizeExtendedness", "f8", "", "probability of a galaxy from sizeExcess, 0 star .. 1 galaxy", probability)
    add("sizeExtendedness_flag", "?", "", "no sizeExtendedness", missing)
    add("extendedness", "f8", "", "0 star, 1 galaxy: sizeExtendedness above one half",
        np.where(missing, np.nan, (probability > 0.5).astype(float)))
    add("extendedness_flag", "?", "", "no extendedness", missing)
    add("blendedness", "f4", "", "share of the light under the source that is not its own", value("blendedness"))
    add("blendedness_flag", "?", "", "no blendedness", ~np.isfinite(value("blendedness")))


def _add_pixel_flags(add, measured: kernel.Measured) -> None:
    """Mask planes in the footprint, and in the central 3x3 pixels."""
    anywhere, centre = measured.masks.T
    for name, plane in {**ANYWHERE, **ON_COADDS}.items():
        add(f"pixelFlags_{name}", "?", "", f"in the footprint: {PLANES[plane].meaning}", (anywhere & bits(plane)) != 0)
    for name, plane in {**CENTRE, **{f"{name}Center": plane for name, plane in ON_COADDS.items()}}.items():
        add(f"pixelFlags_{name}", "?", "", f"at the centre: {PLANES[plane].meaning}", (centre & bits(plane)) != 0)
    add("pixelFlags_offimage", "?", "", "the position is off the image", measured.flag("offImage"))
