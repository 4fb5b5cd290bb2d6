"""Slow twin of csrc/background.c: cut normal distributions by maximum likelihood, splines by scipy."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import ndtr


def cell_statistics(values: np.ndarray, lower: float, upper: float) -> tuple[float, float]:
    """Mean and sigma of the normal distribution whose part between the cuts the values are."""
    values = values[np.isfinite(values)].astype(float)
    mean = np.median(values)
    sigma = 1.4826 * np.median(np.abs(values - mean))
    for _ in range(60):
        low, high = mean - lower * sigma, mean + upper * sigma
        part = values[(values > low) & (values < high)]

        def cost(p):
            width = np.exp(p[1])
            share = ndtr((high - p[0]) / width) - ndtr((low - p[0]) / width)
            return 0.5 * (part.var() + (part.mean() - p[0])**2) / width**2 + p[1] + np.log(share)

        new = minimize(cost, (mean, np.log(sigma)), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-11}).x
        change = abs(new[0] - mean) + abs(np.exp(new[1]) - sigma)
        mean, sigma = new[0], np.exp(new[1])
        if change < 1e-4 * sigma:
            break
    return mean, sigma


def spline_sky(level: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Natural bicubic spline through cell centres, straight beyond the outermost."""
    along_y = _axis(level.astype(float), shape[0])
    return _axis(along_y.T, shape[1]).T


def _axis(level: np.ndarray, n: int) -> np.ndarray:
    m = len(level)
    u = (np.arange(n) + 0.5) * m / n - 0.5
    if m == 1:
        return np.repeat(level, n, axis=0)
    spline = CubicSpline(np.arange(m), level, bc_type="natural")
    inside = np.clip(u, 0, m - 1)
    return spline(inside) + (u - inside)[:, None] * spline(inside, 1)
