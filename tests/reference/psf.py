"""Slow twin of csrc/psf.c: the same stamps by explicit matrices, the grid by dense normal equations."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares


def taps(d: float) -> np.ndarray:
    """Weights of the pixels -5 .. 5 about the nearest one, for a source d right of it."""
    u = d + np.arange(-5, 6)
    weight = np.sinc(u) * np.exp(9.0 * (np.sqrt(1.0 - (u / 5.5) ** 2) - 1.0))
    return weight / weight.sum()


def matrix(shift: float, side: int) -> np.ndarray:
    """(side, side): moves a 1-D stamp by `shift`; zero outside of it."""
    whole = int(np.rint(shift))
    out = np.zeros((side, side))
    for pixel in range(side):
        for tap, weight in zip(range(-5, 6), taps(shift - whole)):
            if 0 <= pixel - whole + tap < side:
                out[pixel, pixel - whole + tap] = weight
    return out


def draw(grid: np.ndarray, terms: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(n, side, side): as kernels.psf.draw."""
    side = grid.shape[-1]
    return np.array([matrix(dy, side) @ np.tensordot(term, grid, 1) @ matrix(dx, side).T for term, (dx, dy) in zip(terms, shift)])


def solve(stars: dict, mean: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid and the covariance of each pixel's coefficients from the inverse of the whole matrix's blocks."""
    n, side, _ = stars["data"].shape
    n_terms, area = len(mean), side**2
    normal, right = np.diag(precision.ravel()), (precision * mean).ravel()
    for s in range(n):
        dx, dy = stars["shift"][s]
        kernel = stars["flux"][s] * np.einsum("ab,cd->acbd", matrix(dy, side), matrix(dx, side)).reshape(area, area)
        design = np.concatenate([term * kernel for term in stars["terms"][s]], axis=1)
        weight = stars["weight"][s].ravel()
        normal += design.T @ (weight[:, None] * design)
        right += design.T @ (weight * (stars["data"][s].ravel() - stars["sky"][s]))
    blocks = normal.reshape(n_terms, area, n_terms, area)[:, np.arange(area), :, np.arange(area)]
    covariance = np.linalg.inv(blocks).transpose(1, 2, 0).reshape(n_terms, n_terms, side, side)
    return np.linalg.solve(normal, right).reshape(mean.shape), covariance


def refit(stars: dict, grid: np.ndarray, sky_prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) flux, x, y, sky, and (n,) chi2 without the prior's share, by scipy's minimiser."""
    found, chi2 = [], []
    for s in range(len(stars["flux"])):
        def pulls(p):
            model = p[0] * draw(grid, stars["terms"][s:s + 1], p[None, 1:3])[0] + p[3]
            return np.append((np.sqrt(stars["weight"][s]) * (stars["data"][s] - model)).ravel(),
                             np.sqrt(sky_prior[s, 1]) * (p[3] - sky_prior[s, 0]))

        start = np.array([stars["flux"][s], *stars["shift"][s], stars["sky"][s]])
        fit = least_squares(pulls, start, x_scale=[start[0], 1.0, 1.0, 1.0], xtol=1e-14, ftol=1e-14, gtol=1e-14)
        found.append(fit.x)
        chi2.append((fit.fun[:-1] ** 2).sum())
    return np.array(found), np.array(chi2)


def modes(stars: dict, grid: np.ndarray, sky_prior: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As kernels.psf.modes, by lstsq with numerical derivatives."""
    amplitudes, covariances = [], []
    for s, flux in enumerate(stars["flux"]):
        term, shift, root = stars["terms"][s:s + 1], stars["shift"][s], np.sqrt(stars["weight"][s].ravel())
        model = draw(grid, term, shift[None])[0].ravel()
        slope = [(draw(grid, term, shift[None] + step)[0] - draw(grid, term, shift[None] - step)[0]).ravel() / 2e-4
                 for step in (np.array([1e-4, 0.0]), np.array([0.0, 1e-4]))]
        columns = [draw(plane[None], np.ones((1, 1)), shift[None])[0].ravel() for plane in planes] + [model, *slope]
        design = np.stack([*(flux * column for column in columns), np.ones_like(model)], axis=1) * root[:, None]
        prior = np.zeros((1, design.shape[1]))
        prior[0, -1] = np.sqrt(sky_prior[s, 1])
        residual = root * (stars["data"][s].ravel() - stars["sky"][s] - flux * model)
        design = np.concatenate([design, prior])
        residual = np.append(residual, prior[0, -1] * (sky_prior[s, 0] - stars["sky"][s]))
        amplitudes.append(np.linalg.lstsq(design, residual, rcond=None)[0][:len(planes)])
        covariances.append(np.linalg.pinv(design.T @ design)[:len(planes), :len(planes)])
    return np.array(amplitudes), np.array(covariances)
