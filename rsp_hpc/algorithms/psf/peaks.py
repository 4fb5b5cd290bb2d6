"""Star-like peaks of an image without a catalogue, for the first guess of the PSF."""

from __future__ import annotations

import numpy as np

from ...errors import BadData
from ...products.image import MaskedImage
from ...products.mask import bits

__all__ = ["adaptive_moments", "compact_mode", "find_peaks", "row_quantile"]

BLOCK = 16
"""One peak at most per block of this side: the brightest pixel."""
HALF = 10
MAX_PEAKS = 200
WINDOW = 4.0
"""Sigma of the round window in which the distortion of long peaks is measured."""


def find_peaks(image: MaskedImage, bad_planes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Adaptive moments (Ixx, Iyy, Ixy) of star-like peaks, (n, 3) float64, and the distortions of all peaks, long ones
    included, (m, 2) in a round window; the sky may still be in the image.

    A peak is the brightest pixel of its surroundings, all its four neighbours are lit (cosmic rays end abruptly on some
    side), and no bad pixel is near.

    Raises
    ------
    BadData
        The image has no pixel with data.
    """
    y, x = _block_maxima(image, bad_planes)
    if len(x) == 0 and not image.good(*bad_planes).any():
        raise BadData("the image has no good pixel: check saturation, defects and the raw file")
    if min(image.box.shape) < 3 * BLOCK:
        return np.empty((0, 3)), np.empty((0, 2))
    inside = (x >= HALF) & (y >= HALF) & (x < image.box.nx - HALF) & (y < image.box.ny - HALF)
    stamps, sky, noise, x, y = _cut(image, bad_planes, x[inside], y[inside])
    peak = stamps[:, HALF, HALF]
    ring = np.stack([stamps[:, HALF + dy, HALF + dx] for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))])
    starlike = (peak > 10.0 * noise) & (ring.min(axis=0) > 0.2 * peak) & (peak >= stamps[:, HALF - 3:HALF + 4,
                                                                                   HALF - 3:HALF + 4].max(axis=(1, 2)))
    chosen = np.flatnonzero(starlike)
    chosen = chosen[np.argsort(-(peak / noise)[chosen], kind="stable")[:MAX_PEAKS]]
    if len(chosen) == 0:
        return np.empty((0, 3)), np.empty((0, 2))
    moments = adaptive_moments(stamps[chosen])
    trace = moments[:, 0] + moments[:, 1]
    with np.errstate(invalid="ignore"):
        round_ = np.hypot(moments[:, 0] - moments[:, 1], 2.0 * moments[:, 2]) < 0.4 * trace
        return moments[np.isfinite(trace) & round_ & (trace > 0.8)], _distortions(stamps[chosen])


def _distortions(stamps: np.ndarray) -> np.ndarray:
    """(n, 2): (e1, e2) of second moments in a fixed round window, which long trails have too."""
    u = np.arange(-HALF, HALF + 1)
    weight = stamps * np.exp(-0.5 * (u[:, None] ** 2 + u**2) / WINDOW**2)
    xx, yy, xy = ((weight * product).sum(axis=(1, 2)) for product in (u * u + 0 * u[:, None], (u * u)[:, None], u[:, None] * u))
    with np.errstate(all="ignore"):
        found = np.stack([(xx - yy) / (xx + yy), 2.0 * xy / (xx + yy)], axis=1)
    return found[np.isfinite(found).all(axis=1)]


def _block_maxima(image: MaskedImage, bad_planes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the brightest pixel of each whole block; blocks without a good pixel are left out."""
    ny, nx = (n // BLOCK for n in image.box.shape)
    where, peak = np.zeros((ny, nx), int), np.full((ny, nx), -np.inf, np.float32)
    for row in range(ny):  # a strip of blocks stays in cache
        part = np.s_[row * BLOCK:(row + 1) * BLOCK, :nx * BLOCK]
        values = np.where(_good(image, part, bad_planes), image.image[part], -np.inf)
        blocks = values.reshape(BLOCK, nx, BLOCK).swapaxes(0, 1).reshape(nx, BLOCK * BLOCK)
        where[row] = blocks.argmax(axis=1)
        peak[row] = blocks[np.arange(nx), where[row]]
    row, column = np.divmod(np.arange(ny * nx), max(nx, 1))
    where, peak = where.ravel(), peak.ravel()
    known = np.flatnonzero(np.isfinite(peak))
    known = known[np.argsort(-peak[known], kind="stable")[:20 * MAX_PEAKS]]
    return row[known] * BLOCK + where[known] // BLOCK, column[known] * BLOCK + where[known] % BLOCK


def _good(image: MaskedImage, part, bad_planes: tuple[str, ...]) -> np.ndarray:
    """`image.good` of a part of the image."""
    variance = image.variance[part]
    return (image.mask[part] & np.uint32(bits(*bad_planes)) == 0) & np.isfinite(image.image[part]) & (variance > 0) & np.isfinite(variance)


def _cut(image: MaskedImage, bad_planes: tuple[str, ...], x: np.ndarray, y: np.ndarray):
    """Sky-subtracted stamps without bad pixels, the sky and noise around each, and their centres."""
    offset = np.arange(-HALF, HALF + 1)
    rows, columns = y[:, None, None] + offset[:, None], x[:, None, None] + offset[None, :]
    good = _good(image, (rows, columns), bad_planes)
    radius = np.hypot(offset[:, None], offset[None, :])
    clean = (good | (radius > 6.0)).all(axis=(1, 2))
    rows, columns, good, x, y = rows[clean], columns[clean], good[clean], x[clean], y[clean]
    stamps = np.where(good, image.image[rows, columns], np.nan).astype(float)
    border = stamps[:, radius > 8.5]
    if len(stamps) == 0:
        return stamps, np.empty(0), np.empty(0), x, y
    known = np.isfinite(border).sum(axis=1) > 20
    stamps, border, x, y = stamps[known], border[known], x[known], y[known]
    sky = row_quantile(border, 0.4)  # below the median: neighbours add
    scatter = 1.4826 * row_quantile(np.abs(border - sky[:, None]), 0.5)
    noise = np.maximum(np.sqrt(image.variance[y, x].astype(float)), scatter)
    return np.nan_to_num(stamps - sky[:, None, None]), sky, noise, x, y


def row_quantile(values: np.ndarray, quantile: float) -> np.ndarray:
    """(n,): a quantile of each row without its NaNs, of which no row is full; the nearest value below."""
    count = np.isfinite(values).sum(axis=1)
    return np.sort(values, axis=1)[np.arange(len(values)), ((count - 1) * quantile).astype(int)]


def adaptive_moments(stamps: np.ndarray, iterations: int = 20) -> np.ndarray:
    """(n, 3) float64: adaptive moments of many stamps at once, centroid included; NaN where they do not converge.

    Gaussian weight of matched shape and centre (Bernstein & Jarvis 2002, AJ 123, 583, section 3).
    """
    half = stamps.shape[-1] // 2
    grid = np.arange(-half, half + 1, dtype=float)
    n = len(stamps)
    cx, cy, xx, yy, xy = np.zeros(n), np.zeros(n), np.full(n, 2.0), np.full(n, 2.0), np.zeros(n)
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            determinant = xx * yy - xy * xy
            u, v = grid[None, None, :] - cx[:, None, None], grid[None, :, None] - cy[:, None, None]
            a, b, c = ((q / determinant)[:, None, None] for q in (yy, xx, xy))
            weight = np.exp(-0.5 * (a * u * u + b * v * v - 2.0 * c * u * v)) * stamps
            total = weight.sum(axis=(1, 2))
            mx, my = (weight * u).sum(axis=(1, 2)) / total, (weight * v).sum(axis=(1, 2)) / total
            cx, cy = cx + 2.0 * mx, cy + 2.0 * my
            xx = 2.0 * ((weight * u * u).sum(axis=(1, 2)) / total - mx * mx)
            yy = 2.0 * ((weight * v * v).sum(axis=(1, 2)) / total - my * my)
            xy = 2.0 * ((weight * u * v).sum(axis=(1, 2)) / total - mx * my)
        fine = (xx * yy - xy * xy > 0.05) & (xx > 0) & (np.hypot(cx, cy) < 2.0)
        fine &= np.maximum(xx, yy) < (0.6 * half) ** 2
    return np.where(fine[:, None], np.stack([xx, yy, xy], axis=1), np.nan)


def compact_mode(values: np.ndarray, width: float = 0.1) -> float:
    """The smallest value about which the sample is dense: where `width` either side holds 0.6 of the most it holds anywhere.

    Of sizes, this is where the stars are, also among more galaxies, which are larger and of all sizes.
    """
    values = np.sort(values)
    count = np.searchsorted(values, values + width, "right") - np.searchsorted(values, values - width, "left")
    first = int(np.argmax(count >= 0.6 * count.max()))
    last = int(np.searchsorted(values, values[first] + width, "right"))
    best = first + int(np.argmax(count[first:last]))
    return float(np.median(values[np.abs(values - values[best]) <= width]))
