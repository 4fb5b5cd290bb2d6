"""objects: one patch of multi-band coadds to a catalogue of objects. The flow of the objects stage, step by step."""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import NothingToDo
from ..products.catalogue import Catalogue, Column
from ..products.coadd import Coadd
from ..products.footprints import Children, Detections
from ..products.ids import object_ids
from ..products.psf import CellPsf
from ..products.skymap import Patch, Tract
from .deblend import DeblendConfig, deblend
from .detect import DetectConfig, detect_multiband
from .measure import MeasureConfig, measure, measure_forced

__all__ = ["ObjectsConfig", "measure_objects"]


class ObjectsConfig(Config):
    """How objects are found and measured on coadds."""

    detect: DetectConfig = DetectConfig()
    deblend: DeblendConfig = DeblendConfig()
    measure: MeasureConfig = MeasureConfig()
    star_limit: float = parameter(0.5, "refExtendedness above which an object counts as a galaxy", low=0.0, high=1.0)


COLUMNS = (
    Column("objectId", "i8", "", "tract, patch and counter packed: products.ids"),
    Column("parentObjectId", "i8", "", "object of the brightest peak of the same blend; 0 for objects that are not blended"),
    Column("tract", "i4", "", "tract that measured the object"),
    Column("patch", "i4", "", "patch that measured the object"),
    Column("coord_ra", "f8", "deg", "right ascension of the reference band, ICRS"),
    Column("coord_dec", "f8", "deg", "declination of the reference band, ICRS"),
    Column("coord_raErr", "f4", "deg", "error of coord_ra times cos(dec)"),
    Column("coord_decErr", "f4", "deg", "error of coord_dec"),
    Column("coord_flag", "?", "", "no band has a good centroid: the position is that of the peak"),
    Column("x", "f8", "pixel", "column in the tract's pixels, zero-based"),
    Column("y", "f8", "pixel", "row in the tract's pixels, zero-based"),
    Column("refBand", "i1", "", "number of the reference band among the catalogue's bands, bluest first"),
    Column("refExtendedness", "f4", "", "0 star to 1 galaxy, in the reference band"),
    Column("detect_significance", "f4", "", "significance of the peak in all bands together, sigma"),
    Column("deblend_nPeaks", "i4", "", "peaks in the object's footprint"),
    Column("deblend_skipped", "?", "", "the blend was left as it is: too large or too many peaks"),
    Column("detect_isPatchInner", "?", "", "in the inner area of the patch"),
    Column("detect_isTractInner", "?", "", "in the inner area of the tract"),
    Column("detect_isPrimary", "?", "", "the one measurement of this object to use"),
)


def measure_objects(tract: Tract, patch: Patch, coadds: dict[str, Coadd], config: ObjectsConfig) -> Catalogue:
    """Detect on all bands together, deblend and measure each band, force positions of the reference band on all.

    Parameters
    ----------
    tract, patch : where the coadds lie
    coadds : band -> Coadd, bluest first; all on the patch's outer box

    Returns
    -------
    Catalogue with COLUMNS and, per band b, b_psfFlux, b_psfFluxErr, ... as `measure_forced` names them

    Raises
    ------
    NothingToDo
        Nothing was detected.
    """
    images = {band: combined.image.copy() for band, combined in coadds.items()}
    psfs = {band: combined.psf for band, combined in coadds.items()}
    noise = {band: combined.noise_correlation for band, combined in coadds.items()}
    detections = detect_multiband(images, psfs, config.detect, noise)
    if len(detections) == 0:
        raise NothingToDo(f"tract {tract.number} patch {patch.index}: nothing detected")
    children = {band: deblend(images[band], detections, psfs[band], config.deblend) for band in images}
    local = {band: _at(noise[band], psfs[band], detections.x, detections.y) for band in images}
    free = {band: measure(images[band], detections, children[band], psfs[band], config.measure,
                          noise_correlation=local[band]) for band in images}
    reference = _reference_band(list(free.values()))
    x, y, x_err, y_err, lost = _positions(list(free.values()), reference, detections)
    forced = {band: measure_forced(images[band], detections, children[band], x, y, psfs[band], config.measure,
                                   noise_correlation=local[band]) for band in images}
    base = _base(tract, patch, detections, (x, y, x_err, y_err, lost))
    base["refBand"] = reference
    base["refExtendedness"] = np.choose(reference, [table["extendedness"] for table in free.values()])
    base["deblend_skipped"] = np.any([part.flags & Children.NOT_DEBLENDED for part in children.values()], axis=0)
    catalogue = Catalogue(COLUMNS, base)
    for band, table in forced.items():
        catalogue = _with_band(catalogue, band, table, coadds[band])
    return catalogue


def _at(noise: np.ndarray, psf: CellPsf, x, y) -> np.ndarray:
    """(n,) noise correlation of the cells at these positions; 1 where a cell has no input."""
    value = noise[psf.index(x, y)]
    return np.where(np.isfinite(value), value, 1.0)


def _reference_band(tables: list[Catalogue]) -> np.ndarray:
    """(n,) int8: the band in which each object's PSF flux is most significant."""
    snr = np.array([np.where(table["psfFlux_flag"] | table["centroid_flag"], -np.inf,
                             table["psfFlux"] / table["psfFluxErr"]) for table in tables])
    return np.argmax(np.nan_to_num(snr, nan=-np.inf), axis=0).astype(np.int8)


def _positions(tables: list[Catalogue], reference: np.ndarray, detections: Detections):
    """Centroid and errors of the reference band (pixel); the peak, without errors, where it has none."""
    chosen = [np.choose(reference, [table[name] for table in tables]) for name in ("x", "y", "xErr", "yErr")]
    lost = np.choose(reference, [table["centroid_flag"] for table in tables]).astype(bool)
    lost |= ~np.isfinite(chosen[0]) | ~np.isfinite(chosen[1])
    x, y = np.where(lost, detections.x, chosen[0]), np.where(lost, detections.y, chosen[1])
    return x, y, np.where(lost, np.nan, chosen[2]), np.where(lost, np.nan, chosen[3]), lost


def _base(tract: Tract, patch: Patch, detections: Detections, position) -> dict[str, np.ndarray]:
    """Ids, positions, and which region owns each object."""
    x, y, x_err, y_err, lost = position
    n = len(x)
    ids = object_ids(tract.number, patch.index, n)
    ra, dec = tract.wcs.pixel_to_sky(x, y)
    scale = tract.wcs.pixel_scale / 3600.0
    n_peaks = detections.n_peaks[detections.footprint]
    inner, tract_inner = patch.inner.contains(x, y), tract.contains(ra, dec)
    return {"objectId": ids, "parentObjectId": np.where(n_peaks > 1, ids[detections.starts[detections.footprint]], 0),
            "tract": np.full(n, tract.number), "patch": np.full(n, patch.index), "coord_ra": ra, "coord_dec": dec,
            "coord_raErr": x_err * scale, "coord_decErr": y_err * scale, "coord_flag": lost, "x": x, "y": y,
            "detect_significance": detections.snr, "deblend_nPeaks": n_peaks, "detect_isPatchInner": inner,
            "detect_isTractInner": tract_inner, "detect_isPrimary": inner & tract_inner}


def _with_band(catalogue: Catalogue, band: str, table: Catalogue, combined: Coadd) -> Catalogue:
    """The catalogue with one band's columns. (The coadd's PSF carries the aperture correction of its inputs.)"""
    columns = [column._replace(name=f"{band}_{column.name}") for column in table.columns.values() if column.name not in ("x", "y")]
    arrays = {column.name: table[column.name[len(band) + 1:]] for column in columns}
    box = combined.image.box
    row, column = (np.clip(np.rint(catalogue[axis]).astype(int) - start, 0, size - 1)
                   for axis, start, size in (("y", box.y0, box.ny), ("x", box.x0, box.nx)))
    columns.append(Column(f"{band}_inputCount", "i4", "", "visits in the coadd at the object's position"))
    return catalogue.with_columns(columns, {**arrays, f"{band}_inputCount": combined.n_inputs[row, column]})
