"""Slow twin of csrc/interpolate.c."""

import numpy as np


def interpolate(image, mask, variance, options):
    """(image, mask, variance, number filled); the inputs stay."""
    good = (mask & options.avoid_bits == 0) & np.isfinite(image) & np.isfinite(variance)
    out = image.copy(), mask.copy(), variance.copy()
    n = 0
    yy, xx = np.indices(image.shape)
    for y, x in zip(*np.nonzero(mask & options.fill_bits)):
        distance = np.maximum(abs(yy - y), abs(xx - x))
        for ring in range(options.radius, options.max_radius + 1):
            near = good & (distance <= ring) & (distance > 0)
            if near.sum() >= 4:
                weight = np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2)[near] / options.sigma**2)
                out[0][y, x] = np.average(image[near].astype(float), weights=weight)
                out[2][y, x] = options.inflation * np.average(variance[near].astype(float), weights=weight)
                out[1][y, x] |= options.done_bit
                n += 1
                break
    return *out, n
