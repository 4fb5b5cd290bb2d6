"""The brighter-fatter correction as its definition says, slowly: shifts by a sum over lags, charge across each border."""

from __future__ import annotations

import numpy as np


def shifts(charge: np.ndarray, kernel: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
    """Sum over d of kernel[d] charge[pixel + d]; charges beyond the edge are those at the edge."""
    ny, nx = charge.shape
    total = np.zeros(charge.shape)
    for j in range(kernel.shape[0]):
        for i in range(kernel.shape[1]):
            rows = np.clip(np.arange(ny) + j - centre[0], 0, ny - 1)
            columns = np.clip(np.arange(nx) + i - centre[1], 0, nx - 1)
            total += kernel[j, i] * charge[np.ix_(rows, columns)]
    return total


def moved_back(flux: np.ndarray, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Change of each pixel: half the shift times the mean of two pixels goes back across each border."""
    change = np.zeros(flux.shape)
    across = 0.25 * east[:, :-1] * (flux[:, :-1] + flux[:, 1:])
    change[:, :-1] -= across
    change[:, 1:] += across
    across = 0.25 * north[:-1] * (flux[:-1] + flux[1:])
    change[:-1] -= across
    change[1:] += across
    return change


def correct(image: np.ndarray, east: np.ndarray, north: np.ndarray | None, centres, passes: int, share: float) -> np.ndarray:
    """The corrected image, float64; without `north`, `east` is the potential. centres : [y, x] of lag zero of both."""
    measured = now = image.astype(float)
    for number in range(passes):
        charge = measured if number == 0 else share * measured + (1.0 - share) * now
        right = shifts(charge, east, centres[0])
        if north is None:
            up = right - np.vstack([right[1:], right[-1:]])
            right = right - np.hstack([right[:, 1:], right[:, -1:]])
        else:
            up = shifts(charge, north, centres[1])
        now = measured + moved_back(now, right, up)
    return now
