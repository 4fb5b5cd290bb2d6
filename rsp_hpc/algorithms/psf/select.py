"""Which sources are clean, isolated, unresolved stars."""

from __future__ import annotations

import numpy as np

from ...errors import BadData
from ...products.catalogue import Catalogue
from ...products.image import MaskedImage
from ...products.psf import polynomial_terms
from .config import FWHM_OF_SIGMA, PsfConfig
from .peaks import compact_mode

__all__ = ["select_stars"]

FLAGS = ("centroid_flag", "i_flag", "psfFlux_flag", "pixelFlags_saturatedCenter", "pixelFlags_crCenter",
         "pixelFlags_suspectCenter", "pixelFlags_interpolatedCenter", "pixelFlags_saturated", "pixelFlags_offimage",
         "pixelFlags_nodata")
LOCUS = 0.7
"""Sources a tenth to three tenths larger (in the logarithm of the area) than those on the locus, relative to these."""
TWINS, TWIN_REACH = 0.25, 40.0
"""Of the bright sources, with a companion at one and the same distance and direction: a double image; pixels."""


def select_stars(image: MaskedImage, sources: Catalogue, config: PsfConfig) -> np.ndarray:
    """Rows of the catalogue that look like clean, isolated, unresolved stars, brightest first.

    Parameters
    ----------
    sources : what `measure` gives: x, y, psfFlux, psfFluxErr, ixx, iyy, ixy, pixelFlags_*

    Returns
    -------
    (n,) int64; may be empty, where there are no stars or all is galaxies

    Raises
    ------
    BadData
        Every star is there twice.
    """
    flux, size = sources["psfFlux"], sources["ixx"] + sources["iyy"]
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = flux / sources["psfFluxErr"]
        usable = np.isfinite(snr) & np.isfinite(size) & (size > 0) & (snr > config.min_snr)
    for name in FLAGS:
        if name in sources:
            usable &= ~sources[name]
    box = image.box.grow(-6)
    usable &= box.contains(sources["x"], sources["y"])
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return rows
    _refuse_twins(sources.rows(rows))
    rows = rows[_on_locus(sources.rows(rows), image)]
    rows = rows[_isolated(sources, rows, config)]
    return _spread(sources, rows, image, config)


def _refuse_twins(sources: Catalogue) -> None:
    """BadData if many bright sources have a companion at one and the same offset: the telescope moved during the exposure."""
    bright = np.argsort(-sources["psfFlux"], kind="stable")[:300]
    x, y = sources["x"][bright], sources["y"][bright]
    dx, dy = x[:, None] - x, y[:, None] - y
    i, j = np.nonzero((np.hypot(dx, dy) < TWIN_REACH) & ((dy > 0) | ((dy == 0) & (dx > 0))))
    offset = np.stack([dx[i, j], dy[i, j]], axis=1)
    if len(offset) < 8:
        return
    alike = np.hypot(*(offset[:, None] - offset[None, :2000]).transpose(2, 0, 1)) < 1.0
    count, at = alike.sum(axis=0).max(), offset[int(alike.sum(axis=0).argmax())]
    expected = len(offset) * 2.0 / TWIN_REACH**2  # by chance, within a pixel of any offset
    if count > max(8.0, TWINS * len(bright), 5.0 * expected):
        raise BadData(f"{count} of {len(bright)} bright sources have a companion {at[0]:+.0f}, {at[1]:+.0f} pixel away: the "
                      "image is double; leave the exposure out")


def _on_locus(sources: Catalogue, image: MaskedImage) -> np.ndarray:
    """Which sources lie on the locus of stars: the mode of the size, allowed to vary slowly over the detector."""
    size = np.log(sources["ixx"] + sources["iyy"])
    trace = sources["ixx"] + sources["iyy"]
    shape = np.stack([(sources["ixx"] - sources["iyy"]) / trace, 2.0 * sources["ixy"] / trace])
    bright = np.argsort(-sources["psfFlux"], kind="stable")[:max(20, len(size) // 2)]
    mode = compact_mode(size[bright])
    larger = ((size[bright] > mode + 0.1) & (size[bright] < mode + 0.3)).sum()
    if larger > LOCUS * (np.abs(size[bright] - mode) < 0.1).sum():
        return np.zeros(len(size), bool)  # sizes thin out from here on: galaxies
    on = np.abs(size - mode) < 0.25
    if on.sum() < 4:
        return on
    terms = polynomial_terms(sources["x"], sources["y"], image.box, 1 if on.sum() >= 12 else 0)
    for _ in range(5):
        keep = np.ones(len(size), bool)
        for values, floor in ((size, 0.03), (shape[0], 0.02), (shape[1], 0.02)):
            residual = values - terms @ np.linalg.lstsq(terms[on], values[on], rcond=None)[0]
            middle = np.median(residual[on])
            scatter = 1.4826 * np.median(np.abs(residual[on] - middle))
            keep &= np.abs(residual - middle) < np.clip(4.0 * scatter, floor, 0.2)
        if keep.sum() < 4 or (keep == on).all():
            break
        on = keep
    return on


def _isolated(sources: Catalogue, rows: np.ndarray, config: PsfConfig) -> np.ndarray:
    """Which rows have no neighbour that matters; nearer ones are tolerated where too few stars would be left."""
    fwhm = FWHM_OF_SIGMA * np.sqrt(0.5 * np.median(sources["ixx"][rows] + sources["iyy"][rows]))
    x, y, flux = (sources[name] for name in ("x", "y", "psfFlux"))
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (flux > 0))
    order = known[np.argsort(x[known])]
    quiet = np.zeros(len(rows), bool)
    for radius, factor in ((4.0, 1.0), (3.0, 2.0), (2.0, 4.0)):
        reach, limit = radius * fwhm, factor * config.max_neighbour
        first = np.searchsorted(x[order], x[rows] - reach)
        last = np.searchsorted(x[order], x[rows] + reach)
        for k, row in enumerate(rows):
            near = order[first[k]:last[k]]
            near = near[(np.hypot(x[near] - x[row], y[near] - y[row]) < reach) & (near != row)]
            quiet[k] = flux[near].sum() <= limit * flux[row]
        if quiet.sum() >= 25:
            break
    return quiet


def _spread(sources: Catalogue, rows: np.ndarray, image: MaskedImage, config: PsfConfig) -> np.ndarray:
    """At most `max_stars` rows, the brightest of each of 4 x 4 parts of the detector in turn."""
    rows = rows[np.argsort(-sources["psfFlux"][rows], kind="stable")]
    box = image.box
    part = (np.clip(4 * (sources["x"][rows] - box.x0) // box.nx, 0, 3) * 4
            + np.clip(4 * (sources["y"][rows] - box.y0) // box.ny, 0, 3)).astype(int)
    rank = np.zeros(len(rows), int)
    for number in range(16):
        rank[part == number] = np.arange((part == number).sum())
    chosen = np.argsort(rank, kind="stable")[:config.max_stars]
    return rows[np.sort(chosen)]
