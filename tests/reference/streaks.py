"""Votes of points for lines, one by one."""

from __future__ import annotations

import numpy as np


def hough(x, y, shape, first_rho) -> np.ndarray:
    votes = np.zeros(shape, np.int32)
    for k in range(shape[0]):
        theta = np.pi * k / shape[0]
        bins = np.float32(x) * np.float32(np.cos(theta)) + np.float32(y) * np.float32(np.sin(theta)) - np.float32(first_rho)
        bins = np.trunc(bins + np.float32(0.5)).astype(int)
        np.add.at(votes[k], bins[(bins >= 0) & (bins < shape[1])], 1)
    return votes
