"""Slow twin of csrc/warp.c: one output pixel at a time, weights from the formula instead of a table."""

import numpy as np


def lanczos(x, order):
    """sinc(x) sinc(x / order) within |x| < order."""
    return np.where(np.abs(x) < order, np.sinc(x) * np.sinc(x / order), 0.0)


def weights(position, order=3):
    """First tap and the 2 order weights of unit sum at a position."""
    first = int(np.floor(position)) - order + 1
    w = lanczos(np.arange(first, first + 2 * order) - position, order)
    return first, w / w.sum()


def positions(grid, offset, shape, step=32):
    """Cubic interpolation of a grid at all output pixels: (ny, nx)."""
    def matrix(n, start, nodes):
        result = np.zeros((n, nodes))
        for k in range(n):
            tile, t = divmod(k + start, step)
            t /= step
            result[k, tile:tile + 4] = (-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2,
                                        -(t + 1) * t * (t - 2) / 2, (t + 1) * t * (t - 1) / 6)
        return result

    return matrix(shape[0], offset[0], grid.shape[0]) @ grid @ matrix(shape[1], offset[1], grid.shape[1]).T


def warp(planes, grid, rules, offset, shape):
    """As `rsp_hpc.kernels.warp.warp`."""
    image, variance, mask = planes
    ny, nx = image.shape
    xs, ys, scale = (positions(values, offset, shape) for values in grid)
    out = np.full(shape, np.nan), np.full(shape, np.inf), np.full(shape, rules["no_data"], np.uint32)
    for row, column in np.ndindex(shape):
        x, y = xs[row, column], ys[row, column]
        if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
            continue
        (x0, wx), (y0, wy) = weights(x), weights(y)
        w = np.outer(wy, wx)
        rows, columns = np.mgrid[y0:y0 + 6, x0:x0 + 6]
        w[np.abs(w) < 1e-6] = 0.0
        inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        rows, columns = np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1)
        v, u, m = image[rows, columns], variance[rows, columns], mask[rows, columns]
        middle = np.ix_(np.clip([y0 + 2, y0 + 3], 0, ny - 1), np.clip([x0 + 2, x0 + 3], 0, nx - 1))
        near = np.bitwise_or.reduce(mask[middle], axis=None)
        used, bad, known = w != 0, (m & rules["bad"]) != 0, (u > 0) & np.isfinite(u)
        hole = used & inside & (~np.isfinite(v) | (bad & ((m & rules["interpolated"]) == 0)))
        share = np.abs(w[inside & (bad | ~known)]).sum()
        if (used & ~inside).any():
            out[2][row, column] = near | rules["no_data"] | rules["edge"]
        elif hole.any() or share > rules["max_bad"] * np.abs(w).sum() or not (used & known).any():
            out[2][row, column] = near | rules["no_data"] | rules["rejected"]
        else:
            s = scale[row, column]
            out[0][row, column] = s * (w * np.where(used, v, 0.0)).sum()
            good = used & known
            out[1][row, column] = s * s * (w[good]**2 * u[good]).sum() * (w**2).sum() / (w[good]**2).sum()
            out[2][row, column] = near | (rules["interpolated"] if share > 0 else 0)
    return out
