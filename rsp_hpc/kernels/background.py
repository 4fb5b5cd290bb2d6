"""Face of csrc/background.c: sky statistics of mesh cells, and the spline through them."""

from __future__ import annotations

import numpy as np

from . import call, lib, pointer

__all__ = ["apply_spline", "cell_statistics"]


def cell_statistics(image, mask, bad: int, cells: tuple[int, int], cuts: tuple[float, float], exclude=None):
    """Level, noise and share of good pixels of each mesh cell.

    Parameters
    ----------
    image : (ny, nx) float32
    mask : (ny, nx) uint32
    bad : int, mask bits that exclude a pixel
    cells : (my, mx), number of cells
    cuts : (lower, upper), sigma: where the fitted normal distribution is cut
    exclude : (ny, nx) bool or uint8, optional, more pixels to leave out

    Returns
    -------
    level, noise, fraction : (my, mx) float32; NaN, NaN, 0 in cells without good pixels
    """
    ny, nx = image.shape
    level, noise, fraction = (np.empty(cells, np.float32) for _ in range(3))
    if exclude is not None:
        exclude = np.ascontiguousarray(exclude).view(np.uint8)
    call(lib.rsp_background_cells, ny, nx, pointer(image, "f4"), pointer(mask, "u4", image.shape),
         pointer(exclude, "u1", image.shape), bad, *cells, *cuts,
         pointer(level, "f4"), pointer(noise, "f4"), pointer(fraction, "f4"))
    return level, noise, fraction


def apply_spline(level, image, keep: bool, sign: float) -> None:
    """In place: image = keep * image + sign * (bicubic spline through `level`); both float32, 2-D."""
    call(lib.rsp_background_apply, *level.shape, pointer(level, "f4"), *image.shape, float(keep), sign,
         pointer(image, "f4"))
