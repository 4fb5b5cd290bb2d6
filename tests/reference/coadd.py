"""Slow twin of csrc/coadd.c: one pixel at a time, in double precision."""

import numpy as np


def clipped_mean(inputs, shape, rules):
    """As `rsp_hpc.kernels.coadd.clipped_mean`."""
    halo = 2
    full = (shape[0] + 2 * halo, shape[1] + 2 * halo)
    n = len(inputs)
    values, variances, masks = np.full((n, *full), np.nan), np.full((n, *full), np.inf), np.zeros((n, *full), np.uint32)
    for k, given in enumerate(inputs):
        for y, x in np.ndindex(given.image.shape):
            row, column = y + given.y0 + halo, x + given.x0 + halo
            if 0 <= row < full[0] and 0 <= column < full[1]:
                values[k, row, column], variances[k, row, column] = given.image[y, x], given.variance[y, x]
                masks[k, row, column] = given.mask[y, x]
    ok = np.isfinite(values) & np.isfinite(variances)
    weight = np.array([given.weight for given in inputs]) / max(given.weight for given in inputs)
    image, variance = np.full(shape, np.nan), np.full(shape, np.inf)
    mask, count, clipped = np.zeros(shape, np.uint32), np.zeros(shape, np.uint16), np.zeros(n, np.int64)
    for y, x in np.ndindex(shape):
        at = (slice(None), y + halo, x + halo)
        around = (slice(None), slice(y, y + 2 * halo + 1), slice(x, x + 2 * halo + 1))
        use, v, u = ok[at].copy(), values[at], variances[at]
        lost = masks[at][~use]
        gone = _clip(use, v, u, weight, (values[around], ok[around]), rules)
        mask[y, x] |= np.bitwise_or.reduce(masks[at][ok[at]], initial=0) & rules["carry"]
        mask[y, x] |= np.bitwise_or.reduce(lost, initial=0) & (rules["rejected"] | rules["edge"])
        saturated = weight[~ok[at]][(lost & rules["saturated"]) != 0].sum()
        if saturated and saturated / (saturated + weight[use].sum()) > rules["max_saturated"]:
            mask[y, x] |= rules["saturated"]
        clipped[gone] += 1
        count[y, x] = use.sum()
        if gone:
            mask[y, x] |= rules["clipped"]
        if not use.any():
            mask[y, x] |= rules["no_data"]
            continue
        image[y, x] = (weight * np.where(use, v, 0.0)).sum() / weight[use].sum()
        variance[y, x] = (weight[use]**2 * u[use]).sum() / weight[use].sum()**2
    return image, variance, mask, count, clipped


def _clip(use, v, u, weight, around, rules):
    """Take inputs out of `use`, the worst first; returns them."""
    gone, most = [], max(1, use.sum() // 3)
    while len(gone) < most and use.sum() >= rules["min_inputs"]:
        excess = {}
        for k in np.flatnonzero(use):
            rest = use.copy()
            rest[k] = False
            mean = (weight[rest] * v[rest]).sum() / weight[rest].sum()
            others = (weight[rest]**2 * u[rest]).sum() / weight[rest].sum()**2
            limit = rules["kappa"] * np.sqrt(u[k] + others)
            if abs(v[k] - mean) > limit:
                limit += rules["tolerance"] * max(0.0, _range(around, gone + [k], weight) - 4.0 * np.sqrt(others))
                if abs(v[k] - mean) > limit:
                    excess[k] = abs(v[k] - mean) / limit
        if not excess:
            break
        worst = max(excess, key=excess.get)
        gone.append(worst)
        use[worst] = False
    return gone


def _range(around, out, weight):
    """Range of the weighted mean of the inputs that are not out, over the neighbourhood."""
    values, ok = around[0], around[1].copy()
    ok[out] = False
    w = weight[:, None, None] * ok
    total = w.sum(axis=0)
    means = (w * np.where(ok, values, 0.0)).sum(axis=0)[total > 0] / total[total > 0]
    return np.ptp(means) if means.size else 0.0
