"""Slow twin of csrc/measure.c, moments.c, aperture.c: scipy's minimiser, oversampled circles, plain fixed points."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares


def gaussian_psf(dx: float, dy: float, sigma: float, half: int) -> np.ndarray:
    """(2 half + 1)^2: a Gaussian of unit flux, sampled, (dx, dy) from the middle pixel."""
    y, x = np.mgrid[-half:half + 1, -half:half + 1]
    return np.exp(-0.5 * ((x - dx)**2 + (y - dy)**2) / sigma**2) / (2.0 * np.pi * sigma**2)


def psf_fit(stamp, variance, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Flux, x, y (from the middle) by unweighted least squares, and their covariance with the true variances."""
    half = stamp.shape[0] // 2

    def model(p):
        return (p[0] * gaussian_psf(p[1], p[2], sigma, half)).ravel()

    fit = least_squares(lambda p: model(p) - stamp.ravel(), (stamp.sum(), 0.0, 0.0), x_scale=(stamp.sum(), 1.0, 1.0),
                        xtol=1e-12, ftol=1e-12)
    inverse = np.linalg.inv(fit.jac.T @ fit.jac)
    return fit.x, inverse @ (fit.jac.T * variance.ravel() @ fit.jac) @ inverse


def circle_weights(side: int, dx: float, dy: float, radius: float, over: int = 100) -> np.ndarray:
    """Share of each pixel inside a circle, by over x over points per pixel."""
    grid = (np.arange(side * over) + 0.5) / over - 0.5 - side // 2
    inside = (grid[None, :] - dx)**2 + (grid[:, None] - dy)**2 < radius**2
    return inside.reshape(side, over, side, over).mean(axis=(1, 3))


def adaptive_moments(stamp, dx: float, dy: float) -> np.ndarray:
    """xx, yy, xy by the plain fixed point M = 2 <r r>."""
    half = stamp.shape[0] // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(float)
    x, y = x - dx, y - dy
    m = np.array([[2.0, 0.0], [0.0, 2.0]])
    for _ in range(500):
        inverse = np.linalg.inv(m)
        w = stamp * np.exp(-0.5 * (inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y))
        new = 2.0 * np.array([[(w * x * x).sum(), (w * x * y).sum()], [(w * x * y).sum(), (w * y * y).sum()]]) / w.sum()
        if np.abs(new - m).max() < 1e-10:
            break
        m = new
    return np.array([m[0, 0], m[1, 1], m[0, 1]])


def ring_level(image, variance, good, where, ring, clip):
    """Clipped mean of the good pixels between two radii, its error, their number."""
    y, x = np.mgrid[:image.shape[0], :image.shape[1]]
    r = np.hypot(x - where[0], y - where[1])
    inside = good & (r >= ring[0]) & (r <= ring[1])
    values, noise = image[inside].astype(float), variance[inside].astype(float)
    keep, used = np.ones(len(values), bool), -1
    for _ in range(5):
        if not keep.any():
            break
        level, sigma, done = values[keep].mean(), values[keep].std(), keep.sum() == used
        used, result = keep.sum(), (values[keep].mean(), np.sqrt(noise[keep].sum()) / keep.sum(), keep.sum())
        if done:
            break
        keep = np.abs(values - level) <= clip * sigma
    return result if used > 0 else (np.nan, np.nan, 0)
