"""Sums for the fit of a pattern, cell by cell, as their definition says."""

from __future__ import annotations

import numpy as np


def cell_sums(image, mask, exclude, bad, pattern, level, limit, amplitude) -> np.ndarray:
    """(my, mx, 6): number of good pixels, sums of v, p, p^2, v p, v^2."""
    (ny, nx), (my, mx) = image.shape, level.shape
    out = np.zeros((my, mx, 6))
    for j in range(my):
        for i in range(mx):
            at = np.s_[j * ny // my:(j + 1) * ny // my, i * nx // mx:(i + 1) * nx // mx]
            v, p = image[at].astype(float) - level[j, i], pattern[at].astype(float)
            with np.errstate(invalid="ignore"):
                good = np.isfinite(v) & np.isfinite(p) & (mask[at] & bad == 0) & (np.abs(v - amplitude * p) < limit[j, i])
            if exclude is not None:
                good &= ~exclude[at]
            v, p = v[good], p[good]
            out[j, i] = len(v), v.sum(), p.sum(), (p * p).sum(), (v * p).sum(), (v * v).sum()
    return out
