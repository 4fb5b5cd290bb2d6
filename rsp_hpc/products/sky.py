"""The sky of a whole visit: small tables of super-bins from its detectors, and the model of the focal plane fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SkyBins", "VisitSky"]


@dataclass(frozen=True)
class SkyBins:
    """The sky of one detector in super-bins, objects masked, and where they are on the focal plane.

    Attributes
    ----------
    level, error : (by, bx) float32, electron; NaN where too few pixels are empty
    frame : (by, bx) float32, the sky frame there (how an empty sky looks after the flat); one without a frame
    frame_mesh : (my, mx) float32, the same in the cells of the detector's background mesh
    shape : (ny, nx) of the detector, pixel
    origin : (x, y) of the detector's pixel (0, 0) on the focal plane, mm
    step : ((dx/dcolumn, dx/drow), (dy/dcolumn, dy/drow)), mm per pixel
    """

    level: np.ndarray
    error: np.ndarray
    frame: np.ndarray
    frame_mesh: np.ndarray
    shape: tuple[int, int]
    origin: tuple[float, float]
    step: tuple[tuple[float, float], tuple[float, float]]

    def places(self, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Focal-plane x, y (mm) of the centres of (rows, columns) equal cells of the detector; each of the shape `cells`."""
        row, column = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in zip(cells, self.shape))
        column, row = np.meshgrid(column, row)
        step = np.asarray(self.step)
        return (self.origin[0] + step[0, 0] * column + step[0, 1] * row, self.origin[1] + step[1, 0] * column + step[1, 1] * row)

    def corners(self) -> np.ndarray:
        """(4, 2): the detector's corners on the focal plane, mm."""
        column, row = (np.array(ends) * (n - 1) for ends, n in zip(((0, 1, 1, 0), (0, 0, 1, 1)), self.shape[::-1]))
        return np.asarray(self.origin) + np.stack([column, row], -1) @ np.asarray(self.step).T


@dataclass(frozen=True)
class VisitSky:
    """One smooth sky for all detectors of a visit: frame * (polynomial of the focal plane + piston of the detector).

    Attributes
    ----------
    coefficients : (order + 1, order + 1) float64, electron, of T_i(u) T_j(v), zero for i + j > order; [0, 0] is the sky frame's amplitude
    covariance : (k, k) float64, electron^2, of the coefficients with i + j <= order, in the order of `numpy.nonzero` over [i, j]
    center, radius : mm; u, v = (x - center) / radius
    detectors : (n,) int64, numbers; pistons, piston_err : (n,) float64, electron
    scatter : float, electron, of the bins about the model beyond their errors
    n_bins, n_kept : bins with a sky, and those of them that the model was fitted to: light that is no sky is left out
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    center: tuple[float, float]
    radius: float
    detectors: np.ndarray
    pistons: np.ndarray
    piston_err: np.ndarray
    scatter: float
    n_bins: int
    n_kept: int

    @property
    def order(self) -> int:
        """Total order of the polynomial."""
        return len(self.coefficients) - 1
