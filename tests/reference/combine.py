"""Slow twin of kernels.combine: the clipped mean, one pixel at a time in double precision."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm


def clipped_mean(images, options, variances=None, masks=None, weights=None, noise=None):
    """(mean, variance, count, mask, clipped) as rsp.h describes them; a Python loop over pixels."""
    images = np.asarray(images, np.float64)
    n, shape = len(images), images.shape[1:]
    mean, variance = np.full(shape, np.nan), np.full(shape, np.inf)
    count, out_mask, clipped = np.zeros(shape, int), np.zeros(shape, np.uint32), np.zeros(n, int)
    for at in np.ndindex(shape):
        column = (slice(None), *at)
        x = images[column]
        v = None if variances is None else np.asarray(variances, np.float64)[column]
        m = np.zeros(n, np.uint32) if masks is None else np.asarray(masks)[column]
        one = _pixel(x, v, m, weights, noise, options)
        mean[at], variance[at], count[at], out_mask[at] = one[:4]
        clipped += one[4]
    return mean, variance, count, out_mask, clipped


def _pixel(x, v, m, weights, noise, o):
    present = np.isfinite(x) & (m & o.absent_bits == 0)
    valid = present & (m & o.reject_bits == 0)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    if v is not None:
        valid &= (v > 0) & np.isfinite(v)
        if weights is None:
            w = np.where(valid, 1 / np.where(valid, v, 1), 0)
    valid &= w > 0
    flags = o.rejected_bit if (present & ~valid).any() else 0
    for bit in (1 << b for b in range(32)):
        has = ((m & bit) != 0) & (m & o.absent_bits == 0)
        if o.majority_bits & bit and has.any() and has.sum() >= o.majority_fraction * (m & o.absent_bits == 0).sum():
            flags |= bit
    if not valid.any():
        return np.nan, np.inf, 0, flags | o.no_data_bit, np.zeros(len(x), int)
    kept, spread, noise_at = _kept(x, v, valid, w, noise, o)
    if not kept.any():
        flags |= o.clipped_bit
        kept, spread, noise_at = _kept(x, v, valid, w, noise, o._replace(iterations=0))
    lost = valid & ~kept
    flags |= (o.clipped_bit if lost.any() else 0) | int(np.bitwise_or.reduce(m[kept] & o.or_bits))
    mean = np.average(x[kept], weights=w[kept])
    if v is None and noise is None:
        s2 = np.average((x[kept] - mean)**2, weights=w[kept]) * kept.sum() / (kept.sum() - 1) if kept.sum() > 1 else np.inf
        noise_at = np.full(len(x), s2)
    return mean, (w**2 * noise_at)[kept].sum() / w[kept].sum()**2, kept.sum(), flags, lost


def _kept(x, v, valid, w, noise, o):
    """Who survives the clipping: (n,) bool, and the variances at the last centre."""
    good = np.sort(x[valid])
    q = (len(good) - 1) // 4
    centre = np.median(good)
    spread = 1.0
    if len(good) > 1:
        spread = (good[-1 - q] - good[q]) / (2 * norm.ppf((len(good) - q - 0.375) / (len(good) + 0.25)))
    clips = o.iterations > 0 and len(good) >= o.min_inputs
    kept = valid
    for k in range(max(1, o.iterations)):
        if k:
            mean = np.average(x[kept], weights=w[kept]) if kept.any() else centre
            if kept.sum() > 1:
                spread = np.sqrt(np.average((x[kept] - mean)**2, weights=w[kept]) * kept.sum() / (kept.sum() - 1))
            centre = mean
        if v is not None:
            at = np.where(valid, v, 1)
        elif noise is not None:
            at = noise[:, 0] + noise[:, 1] * max(centre, 0)
        else:
            at = np.full(len(x), spread**2)
        kappa = np.where(x < centre, o.kappa_low, o.kappa_high)
        kept = valid & ((x - centre)**2 <= kappa**2 * (at + (o.relative * centre)**2)) if clips else valid
    return kept, spread, at
