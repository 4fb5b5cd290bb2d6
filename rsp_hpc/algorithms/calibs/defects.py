"""defects: pixels that must not be used, from the combined bias, dark and flats of a detector.

Bright (hot) pixels by their dark current, dark and over-responsive ones by the flats against their surroundings, wild ones by the
bias; and "vampire" pixels: a bright core that has taken the charge of the ring of dark pixels about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import CombinedFrames
from ...products.electronics import Verdict

__all__ = ["DefectsConfig", "build_defects", "smooth_plane", "vampires"]


class DefectsConfig(Config):
    """What makes a pixel a defect."""

    hot_rate: float = parameter(5.0, "hot: dark current above the detector's median by this", unit="electron/s", above=0.0)
    hot_sigma: float = parameter(6.0, "and by so many times its error", unit="sigma", above=0.0)
    dead_flat: float = parameter(0.5, "dead: response below this fraction of its surroundings", low=0.0, high=1.0)
    bright_flat: float = parameter(1.5, "bad: response above this multiple of its surroundings", low=1.0)
    bias_sigma: float = parameter(30.0, "bad: bias off its surroundings by so many times the noise of a frame", unit="sigma", above=0.0)
    vampire_core: float = parameter(1.3, "vampire: response of the core, mean of 3 x 3 pixels, above this", above=1.0)
    vampire_ring: float = parameter(0.97, "and mean of the ring about it below this fraction of the surroundings", low=0.0, high=1.0)
    vampire_radius: int = parameter(8, "outer radius of the ring; all within it is bad", unit="pixel", low=3, high=50)
    suspect_fraction: float = parameter(0.02, "suspect: a larger fraction of the detector is bad", above=0.0, high=1.0)
    bad_fraction: float = parameter(0.2, "bad: the same", above=0.0, high=1.0)


def build_defects(bias: CombinedFrames | None, dark: CombinedFrames | None, flats: Sequence[CombinedFrames],
                  config: DefectsConfig) -> tuple[np.ndarray, Verdict]:
    """The defects of a detector.

    Parameters
    ----------
    bias, dark, flats : what there is, of any bands; a pixel is bad that any of them says is

    Returns
    -------
    (ny, nx) bool; Verdict, with the number of pixels of each kind

    Raises
    ------
    BadData
        There is no frame at all.
    """
    products = [product for product in (bias, dark, *flats) if product is not None]
    if not products:
        raise BadData("defects: no bias, dark or flat; build one of them first")
    shape = products[0].image.shape
    kinds = {name: np.zeros(shape, bool) for name in ("unknown", "wild", "hot", "dark", "bright", "vampire")}
    for product in products:
        if product.image.shape != shape:
            raise BadData(f"defects: the {product.kind} is {product.image.shape[1]} x {product.image.shape[0]} pixels, the "
                          f"{products[0].kind} {shape[1]} x {shape[0]}; build them of one binning")
        kinds["unknown"] |= ~np.isfinite(product.image)
    with np.errstate(invalid="ignore"):
        if bias is not None:
            kinds["wild"] = np.abs(bias.image - smooth_plane(bias.image)) > config.bias_sigma * max(bias.noise, 1.0)
        if dark is not None:
            excess = dark.image - np.nanmedian(dark.image)
            kinds["hot"] = excess > np.maximum(config.hot_rate, config.hot_sigma * np.sqrt(dark.variance))
        for flat in flats:
            surroundings = smooth_plane(flat.image)
            kinds["dark"] |= (flat.image < config.dead_flat * surroundings) | ~(flat.image > 0)
            kinds["bright"] |= flat.image > config.bright_flat * surroundings
            kinds["vampire"] |= vampires(flat.image, smooth_plane(flat.image, 6 * config.vampire_radius), config)
    bad = np.logical_or.reduce(list(kinds.values()))
    fraction = float(bad.mean())
    verdict = Verdict(statistics={f"{name}_pixels": float(plane.sum()) for name, plane in kinds.items()} | {"fraction": fraction})
    if fraction > config.suspect_fraction:
        verdict = verdict.but("bad" if fraction > config.bad_fraction else "suspect", f"{fraction:.1%} of the pixels are defects")
    return bad, verdict


def vampires(flat: np.ndarray, surroundings: np.ndarray, config: DefectsConfig) -> np.ndarray:
    """(ny, nx) bool: all pixels within the radius of a core that is bright while the ring about it is dark."""
    from scipy.ndimage import uniform_filter

    ratio = np.where(np.isfinite(flat) & (surroundings > 0.0), flat / np.where(surroundings > 0.0, surroundings, 1.0), 1.0)
    core = uniform_filter(np.clip(ratio, 0.0, 3.0).astype(np.float32), 3)
    bad, (ny, nx), reach = np.zeros(flat.shape, bool), flat.shape, config.vampire_radius
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    disc, ring = np.hypot(y, x) <= reach + 0.5, (np.hypot(y, x) <= reach + 0.5) & (np.hypot(y, x) > 2.5)
    for row, column in zip(*np.nonzero(core > config.vampire_core)):
        inside = reach <= row < ny - reach and reach <= column < nx - reach
        if not inside or core[row, column] < core[row - 2:row + 3, column - 2:column + 3].max():
            continue
        place = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
        if ratio[place][ring].mean() < config.vampire_ring:
            bad[place] |= disc
    return bad


def smooth_plane(plane: np.ndarray, size: int = 15) -> np.ndarray:
    """Median of size x size pixels, of every n-th pixel in each direction (five by five of them): what the surroundings are like."""
    from scipy.ndimage import median_filter

    step = max(1, size // 5)
    filled = np.where(np.isfinite(plane), plane, np.nanmedian(plane))
    coarse = median_filter(filled[step // 2::step, step // 2::step], 5, mode="nearest")
    rows, columns = (np.minimum(np.arange(size) // step, limit - 1) for size, limit in zip(plane.shape, coarse.shape))
    return coarse[np.ix_(rows, columns)]
