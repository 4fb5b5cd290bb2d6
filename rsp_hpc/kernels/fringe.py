"""fringe: sums for the fit of a pattern, and its subtraction (csrc/fringe.c)."""

from __future__ import annotations

import numpy as np

from . import call, lib, pointer

__all__ = ["cell_sums", "subtract"]


def cell_sums(planes: tuple[np.ndarray, np.ndarray, np.ndarray | None], bad: int, pattern: np.ndarray | None,
              cells: tuple[np.ndarray, np.ndarray], amplitude: float) -> np.ndarray:
    """(my, mx, 6) float64: number of good pixels and sums of v, p, p^2, v p, v^2 in each cell (csrc/rsp.h, rsp_fringe_cells).

    planes : image float32, mask uint32, exclude bool or None, all (ny, nx); pattern (ny, nx) float32, or None: zero
    cells : level and limit of each cell, (my, mx) float32
    """
    image, mask, exclude = planes
    shape, (level, limit) = image.shape, cells
    out = np.empty((*level.shape, 6))
    hide = None if exclude is None else np.ascontiguousarray(exclude, np.bool_).view(np.uint8)
    call(lib.rsp_fringe_cells, *shape, pointer(image, "f4"), pointer(mask, "u4", shape), pointer(hide, "u1", shape), bad,
         pointer(pattern, "f4", shape), *level.shape, pointer(level, "f4"), pointer(limit, "f4", level.shape), amplitude,
         pointer(out, "f8"))
    return out


def subtract(image: np.ndarray, pattern: np.ndarray, amplitude: float) -> None:
    """image -= amplitude * pattern where that is finite, in place; both float32 of one shape."""
    call(lib.rsp_fringe_subtract, image.size, amplitude, pointer(pattern, "f4", image.shape), pointer(image, "f4"))
