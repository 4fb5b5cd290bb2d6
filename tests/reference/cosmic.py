"""Slow twin of csrc/cosmic.c: the same tests on whole planes, in double precision."""

import numpy as np

DEAD = 6.0  # sigma below the sky
NEAREST = ((0, 1), (1, 0), (1, 1), (1, -1))  # (rows, columns) to one neighbour of each opposite pair
PAIRS = (*NEAREST, (0, 2), (2, 0))


def find_hits(image, mask, variance, sky, options):
    """(mask, number of pixels newly hit); the inputs stay."""
    out = mask.copy()
    frontier = passes(image, out, variance, sky, options, options.peak, options.edge, options.contrast)
    out[frontier] |= options.hit_bit
    n = frontier.sum()
    for _ in range(options.rounds):
        downhill = image.astype(float) - sky <= brightest_around(np.where(frontier, image.astype(float) - sky, -np.inf))
        contrast = np.where(downhill, options.grow_contrast, options.contrast)
        frontier = dilated(frontier, 1) & passes(image, out, variance, sky, options, options.grow_peak, options.grow_edge, contrast)
        out[frontier] |= options.hit_bit
        n += frontier.sum()
    return out, n


def passes(image, mask, variance, sky, options, peak, edge, contrast):
    """(ny, nx) bool: pixels that pass the peak and the edge test and are far from saturated ones."""
    hit = mask & options.hit_bit != 0
    good = (mask & options.skip_bits == 0) & np.isfinite(image) & np.isfinite(variance)
    excess = np.where(good, image.astype(float) - sky, np.nan)
    noise = np.where(good, variance.astype(float), np.nan)
    with np.errstate(invalid="ignore"):
        dead = ~hit & (excess < 0) & (excess**2 > DEAD**2 * noise)
    excess = np.where(dead, np.nan, excess)
    value, spread = replaced(excess, noise, good, hit, options.sigma)
    steep = np.zeros(image.shape, bool)
    for rows, columns in PAIRS:
        slope, allowed = slope_of(rows, columns, options.sigma), contrast ** (1 if (rows, columns) in NEAREST else 2)
        pair = shifted(value, rows, columns) + shifted(value, -rows, -columns)
        above = excess - 0.5 * slope * pair
        total = noise + (options.relative * excess) ** 2 + 0.25 * slope**2 * (
            shifted(spread, rows, columns) + shifted(spread, -rows, -columns))
        with np.errstate(invalid="ignore"):
            steep |= (above > 0) & (above**2 > edge**2 * total) & (0.5 * slope * pair < allowed * excess)
    with np.errstate(invalid="ignore"):
        bright = (excess > 0) & (excess**2 > peak**2 * noise)
    return good & ~hit & steep & bright & ~dilated(mask & options.saturated_bit != 0, options.margin)


def replaced(excess, noise, good, hit, sigma):
    """Hit pixels take the least bound that clean pairs set to them; their own value without any."""
    clean, spread = np.where(good & ~hit, excess, np.nan), np.where(good & ~hit, noise, np.nan)
    bounds = np.stack([0.5 * slope_of(*pair, sigma) * (shifted(clean, *pair) + shifted(clean, -pair[0], -pair[1]))
                       for pair in NEAREST])
    spreads = np.stack([0.25 * slope_of(*pair, sigma) ** 2 *
                        (shifted(spread, *pair) + shifted(spread, -pair[0], -pair[1])) for pair in NEAREST])
    best = np.where(np.isnan(bounds), np.inf, bounds).argmin(axis=0)[None]
    bound, its_noise = (np.take_along_axis(planes, best, 0)[0] for planes in (bounds, spreads))
    use = hit & good & np.isfinite(bound)
    return np.where(use, bound, excess), np.where(use, its_noise, noise)


def slope_of(rows, columns, sigma):
    """The most that a pixel can be over the mean of a pair, for a PSF of this width."""
    return np.exp(0.5 * (rows**2 + columns**2) / sigma**2)


def shifted(plane, rows, columns):
    """The plane's value `rows`, `columns` away; NaN beyond the border."""
    ny, nx = plane.shape
    reach = max(abs(rows), abs(columns))
    padded = np.pad(plane, reach, constant_values=np.nan)
    return padded[reach + rows:reach + rows + ny, reach + columns:reach + columns + nx]


def brightest_around(plane):
    """Largest value within one pixel (NaN left out)."""
    return np.nanmax([np.nan_to_num(shifted(plane, j, i), nan=-np.inf) for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=0)


def dilated(plane, reach):
    """Pixels within `reach` (square) of a set one."""
    return sum(np.nan_to_num(shifted(plane.astype(float), j, i))
               for j in range(-reach, reach + 1) for i in range(-reach, reach + 1)) > 0
