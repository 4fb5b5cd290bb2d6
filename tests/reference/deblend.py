"""Slow twin of csrc/deblend.c's templates for point sources: non-negative least squares of all peaks together."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls


def point_shares(image, inside, psfs: list[np.ndarray]) -> np.ndarray:
    """(n, ny, nx): each peak's pixels; psfs are the peaks' PSFs on the whole image, zero beyond their stamps."""
    templates = [np.where(inside, np.maximum(psf, 0.0), 0.0) for psf in psfs]
    flux, _ = nnls(np.stack([t.ravel() for t in templates], axis=1), np.where(inside, image, 0.0).ravel())
    model = flux[:, None, None] * np.stack(templates)
    total = model.sum(axis=0)
    return np.where(total > 0, image * model / np.where(total > 0, total, 1.0), 0.0)
