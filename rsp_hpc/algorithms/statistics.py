"""Robust numbers: weighted medians, scatter from the median absolute deviation, scatter beyond the known errors."""

from __future__ import annotations

import numpy as np

__all__ = ["intrinsic_scatter", "robust_sigma", "weighted_median"]

_MAD_TO_SIGMA = 1.4826


def robust_sigma(values: np.ndarray) -> float:
    """Standard deviation of a normal distribution with the values' median absolute deviation; NaN for no values."""
    values = np.asarray(values, float)
    return float(_MAD_TO_SIGMA * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value that splits the sum of the weights in halves (the mean of two if it falls between them)."""
    order = np.argsort(values, kind="stable")
    values, total = np.asarray(values, float)[order], np.cumsum(np.asarray(weights, float)[order])
    low, high = np.searchsorted(total, 0.5 * total[-1], "left"), np.searchsorted(total, 0.5 * total[-1], "right")
    return float(0.5 * (values[low] + values[min(high, len(values) - 1)]))


def intrinsic_scatter(residuals: np.ndarray, sigma: np.ndarray, dof: float) -> float:
    """The scatter s >= 0 beyond the errors sigma for which sum(residual^2 / (sigma^2 + s^2)) = dof.

    0 where the errors explain the residuals, or where dof is not positive.
    """
    squares, variance = np.asarray(residuals, float) ** 2, np.asarray(sigma, float) ** 2
    if dof <= 0 or not np.any(squares > 0) or np.sum(squares / np.maximum(variance, 1e-300)) <= dof:
        return 0.0
    low, high = 0.0, float(np.sum(squares) / dof)  # the sum falls with s^2, and is below dof at the upper end
    for _ in range(60):
        middle = 0.5 * (low + high)
        if np.sum(squares / (variance + middle)) > dof:
            low = middle
        else:
            high = middle
    return float(np.sqrt(0.5 * (low + high)))
