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
                dx, dy = (xx - x)[near].astype(float), (yy - y)[near].astype(float)
                weight = np.exp(-0.5 * (dx**2 + dy**2) / options.sigma**2)
                value = surface(dx, dy, image[near].astype(float), weight, 6)
                if value is None and ring < min(options.radius + 2, options.max_radius):
                    continue
                if value is None:
                    value = surface(dx, dy, image[near].astype(float), weight, 3)
                out[0][y, x] = np.average(image[near].astype(float), weights=weight) if value is None else value
                out[2][y, x] = options.inflation * np.average(variance[near].astype(float), weights=weight)
                out[1][y, x] |= options.done_bit
                n += 1
                break
    return *out, n


def surface(dx, dy, value, weight, k):
    """The constant of a surface of the first k of 1, x, y, x^2, xy, y^2; None if the points do not determine it."""
    terms = np.stack([np.ones_like(dx), dx, dy, dx**2, dx * dy, dy**2], axis=-1)[:, :k]
    normal = terms.T @ (terms * weight[:, None])
    if len(dx) < k + 2 or not determined(normal):
        return None
    return np.linalg.solve(normal, terms.T @ (weight * value))[0]


def determined(normal):
    """Whether each term has a part of its own: Cholesky's pivots against the diagonal."""
    for i in range(len(normal)):
        rest = normal[i, i] - (normal[i, :i] @ np.linalg.solve(normal[:i, :i], normal[:i, i]) if i else 0.0)
        if not rest > 1e-2 * normal[i, i]:
            return False
    return True
