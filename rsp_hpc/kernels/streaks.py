"""streaks: votes of points for straight lines (csrc/streaks.c)."""

from __future__ import annotations

import numpy as np

from . import call, lib, pointer

__all__ = ["hough"]


def hough(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], first_rho: float) -> np.ndarray:
    """(n_theta, n_rho) int32 votes for x cos(theta) + y sin(theta) = rho, theta = pi k / n_theta, rho = first_rho + 0, 1, ..."""
    x, y = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32)
    votes = np.empty(shape, np.int32)
    call(lib.rsp_streaks_hough, len(x), pointer(x, "f4"), pointer(y, "f4", x.shape), *shape, first_rho, pointer(votes, "i4"))
    return votes
