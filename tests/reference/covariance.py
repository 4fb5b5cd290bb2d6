"""Slow twin of csrc/covariance.c: the difference as a masked array, one lag at a time."""

from __future__ import annotations

import numpy as np


def pair_sums(first, second, masks, options, n_lags):
    """(product, count, used, difference): as kernels.covariance.pair_sums, in double precision."""
    ratio, limit, skip = options
    ny, nx = first.shape
    v, u = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    surface = ratio[0] + ratio[1] * u + ratio[2] * v + ratio[3] * u**2 + ratio[4] * u * v + ratio[5] * v**2
    with np.errstate(invalid="ignore"):
        d = first.astype(float) - surface * second.astype(float)
        used = (np.abs(d) <= limit) & ((masks[0] | masks[1]) & np.uint32(skip) == 0)
    d = np.where(used, d, 0.0)
    product, count = np.zeros((n_lags, 2 * n_lags - 1)), np.zeros((n_lags, 2 * n_lags - 1), int)
    for j in range(n_lags):
        for i in range(1 - n_lags, n_lags):
            one, other = np.s_[:ny - j, max(0, -i):nx - max(0, i)], np.s_[j:, max(0, i):nx - max(0, -i)]
            product[j, n_lags - 1 + i] = (d[one] * d[other]).sum()
            count[j, n_lags - 1 + i] = (used[one] & used[other]).sum()
    return product, count, used, d
