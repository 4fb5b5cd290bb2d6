"""background: the sky of a detector or patch on a mesh, and its subtraction.

The image is cut into equal cells of about `mesh` pixels. In each, a normal distribution cut close above its mode is
fitted to the pixel histogram (Cohen 1950, Ann. Math. Stat. 21, 557): sources only add light, so the lower side tells
the sky also where the field is crowded. Cells without enough sky are filled from their neighbours, the mesh is median
filtered, and a natural bicubic spline runs through the cell centres.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import background as kernel
from ..products.background import Background
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["BackgroundConfig", "evaluate_background", "fit_background", "subtract_background"]


class BackgroundConfig(Config):
    """How the sky of an image is modelled."""

    mesh: int = parameter(128, "side of a mesh cell; images smaller than that get one cell", unit="pixel", low=8)
    lower_cut: float = parameter(3.0, "pixels further below the sky are left out", unit="sigma", above=0.5, high=7.0)
    upper_cut: float = parameter(1.0, "pixels further above the sky are left out; low resists crowding", unit="sigma",
                                 above=0.0, high=7.0)
    upper_cut_excluded: float = parameter(2.0, "the same where sources are excluded: less biased by the skewness of "
                                               "photon noise", unit="sigma", above=0.0, high=7.0)
    min_fraction: float = parameter(0.1, "cells with a smaller share of good pixels are filled from neighbours",
                                    low=0.0, high=1.0)
    filter_size: int = parameter(3, "side of the median filter over cells, odd; 1 = none", unit="cell", low=1, high=9)
    bad_planes: tuple[str, ...] = parameter(("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN"),
                                            "mask planes whose pixels are no sky")


def fit_background(image: MaskedImage, config: BackgroundConfig, exclude: np.ndarray | None = None) -> Background:
    """Model the sky.

    Parameters
    ----------
    image : MaskedImage, sky not subtracted
    config : BackgroundConfig
    exclude : (ny, nx) bool, optional, more pixels to leave out, such as those of detected sources

    Raises
    ------
    BadData
        No cell has enough good pixels.
    """
    ny, nx = image.box.shape
    if ny == 0 or nx == 0:
        raise BadData("background: the image has no pixels; check the detector's regions")
    cells = max(1, round(ny / config.mesh)), max(1, round(nx / config.mesh))
    cuts = config.lower_cut, config.upper_cut if exclude is None else config.upper_cut_excluded
    level, noise, fraction = kernel.cell_statistics(np.ascontiguousarray(image.image), np.ascontiguousarray(image.mask),
                                                    bits(*config.bad_planes), cells, cuts, exclude)
    bad = ~np.isfinite(level) | (fraction < config.min_fraction)
    if bad.all():
        raise BadData(f"background: no mesh cell has {config.min_fraction:.0%} good pixels "
                      f"(best {fraction.max():.1%}); mask or exposure is unusable, leave it out")
    level, noise = (_median_filter(_fill(plane, bad), config.filter_size) for plane in (level, noise))
    return Background(level.astype(np.float32), noise.astype(np.float32), config.mesh, image.box)


def evaluate_background(background: Background) -> np.ndarray:
    """(ny, nx) float32: the sky at each pixel of the background's box, in the image's unit."""
    sky = np.empty(background.box.shape, np.float32)
    kernel.apply_spline(background.level, sky, keep=False, sign=1.0)
    return sky


def subtract_background(image: MaskedImage, background: Background) -> None:
    """Subtract the sky in place; mask and variance stay.

    Raises
    ------
    BadData
        The background belongs to another box.
    """
    if image.box != background.box:
        raise BadData(f"background of {background.box} cannot be subtracted from an image on {image.box}; fit it there")
    pixels = np.ascontiguousarray(image.image)
    kernel.apply_spline(background.level, pixels, keep=True, sign=-1.0)
    if pixels is not image.image:
        image.image[:] = pixels


def _fill(plane: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Bad cells become the mean of their good neighbours, from the rim of each hole inwards."""
    values, missing = np.where(bad, 0.0, plane.astype(float)), bad.copy()
    while missing.any():
        weight, total = _neighbour_sum((~missing).astype(float)), _neighbour_sum(values)
        rim = missing & (weight > 0)
        values[rim] = total[rim] / weight[rim]
        missing &= ~rim
    return values


def _neighbour_sum(plane: np.ndarray) -> np.ndarray:
    """Sum over the 3x3 cells about each."""
    padded = np.pad(plane, 1)
    ny, nx = plane.shape
    return sum(padded[j:j + ny, i:i + nx] for j in range(3) for i in range(3))


def _median_filter(plane: np.ndarray, size: int) -> np.ndarray:
    """Median over size x size cells; beyond the border the mesh is mirrored through its edge value, which keeps slopes."""
    half = min(size // 2, min(plane.shape) - 1)
    if half <= 0:
        return plane
    padded = np.pad(plane, half, mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * half + 1, 2 * half + 1))
    return np.median(windows, axis=(-2, -1))
