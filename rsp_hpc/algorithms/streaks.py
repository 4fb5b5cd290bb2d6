"""streaks: trails of satellites and aircraft: straight, long, of constant width; their pixels get the plane STREAK.

The image less its sky is binned; cells that stand out vote for straight lines (Hough transform), so that a trail far below the
noise of a pixel is found. The line with most votes over chance is refined on the cells near it; its profile, the median along
the line at each distance, does not see the stars on it, and gives the width; stretches without light at its ends are left out.
Then the next line is looked for in what is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..kernels import streaks as kernel
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["Streak", "StreaksConfig", "find_streaks"]

UNUSABLE = ("BAD", "SAT", "NO_DATA", "UNMASKEDNAN", "CR")
STRETCHES = 24
"""Parts of a line whose light is asked for one by one."""

BESIDE = (8, 15)
"""Cells: distance of the parallel lines whose votes are chance."""


class StreaksConfig(Config):
    """How trails are found and masked."""

    apply: bool = parameter(False, "whether trails are looked for")
    bin: int = parameter(4, "side of the cells that vote", unit="pixel", low=1, high=32)
    threshold: float = parameter(2.5, "cells above this vote", unit="sigma", low=1.0)
    significance: float = parameter(12.0, "votes over chance of a line, in its standard deviations", unit="sigma", low=5.0)
    fraction: float = parameter(0.15, "and as a share of the cells on the line", low=0.0, high=1.0)
    min_length: float = parameter(400.0, "shorter trails are left to others", unit="pixel", low=10.0)
    reach: int = parameter(40, "a trail is at most so wide on each side", unit="pixel", low=4, high=500)
    profile: float = parameter(3.0, "its light ends where the profile falls below this", unit="sigma", low=1.0)
    margin: int = parameter(2, "pixels masked beyond that", unit="pixel", low=0, high=100)
    most: int = parameter(10, "trails per detector at most", low=0, high=1000)


class Streak(NamedTuple):
    """A trail: from (x0, y0) to (x1, y1) along its middle, pixel; half of the masked width, pixel; peak of the profile and its error,
    electron per pixel; significance of its votes."""

    x0: float
    y0: float
    x1: float
    y1: float
    half_width: float
    peak: float
    peak_error: float
    significance: float


def find_streaks(image: MaskedImage, config: StreaksConfig) -> list[Streak]:
    """Set STREAK along the trails, in place, brightest line first; the trails found.

    Parameters
    ----------
    image : MaskedImage, electron, its sky subtracted
    """
    if min(image.box.shape) < 4 * config.bin:
        return []
    lit = _lit_cells(image, config)
    found: list[Streak] = []
    while len(found) < config.most:
        line = _best_line(lit, config)
        if line is None:
            break
        theta, rho, significance = _refined(lit, *line, config)
        streak = _measured(image, theta, rho, significance, config)
        if streak is not None:
            found.append(streak)
            _mask_line(image, streak)
        y, x = np.nonzero(lit)
        distance = np.abs(x * np.cos(theta) + y * np.sin(theta) - rho)
        wide = 2.0 + (streak.half_width if streak else config.margin) / config.bin
        lit[y[distance <= wide], x[distance <= wide]] = False
        if (distance <= wide).sum() == 0:
            break
    return found


def _lit_cells(image: MaskedImage, config: StreaksConfig) -> np.ndarray:
    """(cells) bool: cells that stand out."""
    size = config.bin
    ny, nx = (side // size * size for side in image.box.shape)
    good = image.good(*UNUSABLE)[:ny, :nx]

    def total(plane):
        return np.where(good, plane[:ny, :nx], 0).reshape(ny // size, size, nx // size, size).sum(axis=(1, 3), dtype=np.float64)

    light, variance = total(image.image), total(image.variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = light / np.sqrt(variance)
    return np.nan_to_num(snr) > config.threshold


def _best_line(lit: np.ndarray, config: StreaksConfig) -> tuple[float, float, float] | None:
    """(theta, rho, significance) of the line with most votes over chance, in cells; None if there is none."""
    y, x = np.nonzero(lit)
    if len(x) < 10:
        return None
    ny, nx = lit.shape
    diagonal = int(np.ceil(np.hypot(ny, nx)))
    shape = (int(np.ceil(0.75 * np.pi * diagonal / 2.0)) * 2, 2 * diagonal + 3)
    votes = kernel.hough(x, y, shape, -diagonal - 1.0)
    theta = np.pi * np.arange(shape[0]) / shape[0]
    length = _chords(theta, np.arange(shape[1]) - diagonal - 1.0, nx, ny)
    chance = np.maximum(max(len(x) / lit.size, 1e-4) * length, _beside(votes))
    excess = (votes - chance) / np.sqrt(chance + 1.0)
    excess[(length * config.bin < config.min_length) | (votes - chance < config.fraction * length)] = 0.0
    at = np.unravel_index(np.argmax(excess), shape)
    if not excess[at] >= config.significance:
        return None
    return float(theta[at[0]]), float(at[1] - diagonal - 1.0), float(excess[at])


def _beside(votes: np.ndarray) -> np.ndarray:
    """Mean votes of parallel lines, the larger one of both sides: what a galaxy or a cluster adds to all lines through it."""
    total = np.pad(np.cumsum(votes, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    at = np.arange(votes.shape[1])
    sides = []
    for sign in (-1, 1):
        low, high = sorted((sign * BESIDE[0], sign * BESIDE[1]))
        low, high = np.clip(at + low, 0, len(at)), np.clip(at + high + 1, 0, len(at))
        sides.append((total[:, high] - total[:, low]) / np.maximum(high - low, 1))
    return np.maximum(*sides)


def _chords(theta: np.ndarray, rho: np.ndarray, nx: int, ny: int) -> np.ndarray:
    """Number of cells that each line has in the image: votes go one per cell and angle, so area over width of the strip."""
    cosine, sine = np.cos(theta)[:, None], np.sin(theta)[:, None]
    middle = 0.5 * (nx - 1) * cosine + 0.5 * (ny - 1) * sine
    half = np.abs(0.5 * nx * cosine), np.abs(0.5 * ny * sine)
    long, short = np.maximum(*half), np.minimum(*half)
    away = np.abs(rho[None, :] - middle)  # the chord of a rectangle is a trapezium in the distance from its middle
    full = nx * ny / (2.0 * long)
    return full * np.clip((long + short - away) / np.maximum(2.0 * short, 1e-9), 0.0, 1.0)


def _refined(lit: np.ndarray, theta: float, rho: float, significance: float, config: StreaksConfig) -> tuple[float, float, float]:
    """Line through the cells near it, by total least squares, with a window that narrows."""
    y, x = np.nonzero(lit)
    for reach in (4.0, 3.0, 2.0, 2.0):
        near = np.abs(x * np.cos(theta) + y * np.sin(theta) - rho) <= reach
        if near.sum() < 10:
            break
        u, v = x[near].astype(float), y[near].astype(float)
        _, vectors = np.linalg.eigh(np.cov(u, v))
        normal = vectors[:, 0]
        normal = normal if normal @ (np.cos(theta), np.sin(theta)) > 0 else -normal
        theta, rho = float(np.arctan2(normal[1], normal[0])), float(normal @ (u.mean(), v.mean()))
    return theta, rho, significance


def _measured(image: MaskedImage, theta: float, rho: float, significance: float, config: StreaksConfig) -> Streak | None:
    """The trail on a line (in cells); None if its median profile shows no light, as of a row of stars."""
    ny, nx = image.box.shape
    normal = np.array([np.cos(theta), np.sin(theta)])
    middle = 0.5 * (config.bin - 1)
    rho = config.bin * rho + middle * normal.sum()
    along = np.array([-normal[1], normal[0]])
    ends = _ends(normal, rho, along, nx, ny)
    if ends is None or ends[1] - ends[0] < config.min_length:
        return None
    t = np.arange(ends[0], ends[1])
    offsets = np.arange(-2 * config.reach, 2 * config.reach + 1)
    samples = _samples(image, normal * rho + 0.0, along, normal, t, offsets)
    profile = np.nanmedian(samples, axis=1)
    outside = np.abs(offsets) > config.reach
    base = np.nanmedian(profile[outside])
    scatter = np.nanmedian(np.abs(samples[outside] - base)) * 1.4826
    count = np.isfinite(samples).sum(axis=1)
    error = max(float(1.2533 * scatter / np.sqrt(max(1.0, np.median(count)))), float(1.4826 * np.nanmedian(np.abs(profile[outside] - base))))
    light = np.nan_to_num(profile - base)
    inner = np.abs(offsets) <= config.reach
    peak = int(np.argmax(np.where(inner, light, -np.inf)))
    if not light[peak] > 2.0 * config.profile * error:
        return None
    low, high = peak, peak
    while low > 0 and light[low - 1] > config.profile * error:
        low -= 1
    while high < len(light) - 1 and light[high + 1] > config.profile * error:
        high += 1
    width, centre = 0.5 * (high - low) + 0.5, 0.5 * (offsets[high] + offsets[low])
    lit = _lit_stretches(samples[low:high + 1] - base, scatter)
    if lit is None:
        return None
    first, last = t[lit[0] * len(t) // STRETCHES], t[min(len(t), (lit[1] + 1) * len(t) // STRETCHES) - 1]
    start, stop = (normal * (rho + centre) + along * place for place in (first, last))
    x0, y0 = image.box.x0, image.box.y0
    return Streak(start[0] + x0, start[1] + y0, stop[0] + x0, stop[1] + y0, width + config.margin, float(light[peak]), error,
                  significance)


def _ends(normal: np.ndarray, rho: float, along: np.ndarray, nx: int, ny: int) -> tuple[float, float] | None:
    """Where the line enters and leaves the image, along it."""
    low, high = -np.inf, np.inf
    for axis, size in ((0, nx), (1, ny)):
        start, slope = normal[axis] * rho, along[axis]
        if abs(slope) < 1e-9:
            if not -0.5 <= start <= size - 0.5:
                return None
            continue
        a, b = sorted(((-0.5 - start) / slope, (size - 0.5 - start) / slope))
        low, high = max(low, a), min(high, b)
    return (low, high) if high > low else None


def _samples(image: MaskedImage, origin, along, normal, t: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(offsets, t) values of the nearest usable pixels, NaN elsewhere."""
    ny, nx = image.box.shape
    out = np.full((len(offsets), len(t)), np.nan)
    bad = np.uint32(bits(*UNUSABLE))
    for row, offset in enumerate(offsets):
        x = np.rint(origin[0] + normal[0] * offset + along[0] * t).astype(np.int64)
        y = np.rint(origin[1] + normal[1] * offset + along[1] * t).astype(np.int64)
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        u, v = y[inside], x[inside]
        out[row, inside] = np.where((image.mask[u, v] & bad == 0) & np.isfinite(image.image[u, v]), image.image[u, v], np.nan)
    return out


def _lit_stretches(light: np.ndarray, scatter: float) -> tuple[int, int] | None:
    """The first and the last stretch of the line with light; None if few have, or most between them have none."""
    edges = np.arange(STRETCHES + 1) * light.shape[1] // STRETCHES
    lit = []
    for a, b in zip(edges[:-1], edges[1:]):
        values = light[:, a:b][np.isfinite(light[:, a:b])]
        lit.append(len(values) > 4 and np.median(values) > 3.0 * 1.2533 * scatter / np.sqrt(len(values)))
    at = np.nonzero(lit)[0]
    return (int(at[0]), int(at[-1])) if len(at) >= max(STRETCHES / 4, 0.6 * (np.ptp(at) + 1 if len(at) else 0)) else None


def _mask_line(image: MaskedImage, streak: Streak) -> None:
    """STREAK within the half width of the segment."""
    mask_segment(image, (streak.x0, streak.y0), (streak.x1, streak.y1), streak.half_width, "STREAK")


def mask_segment(image: MaskedImage, start: tuple[float, float], stop: tuple[float, float], half_width: float, plane: str) -> int:
    """Set a plane within `half_width` pixels of a segment, in place; the number of pixels."""
    box = image.box
    along = np.array([stop[0] - start[0], stop[1] - start[1]], float)
    length = max(float(np.hypot(*along)), 1e-9)
    along /= length
    count = 0
    for first in range(0, box.ny, 256):  # in bands, so that no whole plane of distances is made
        y = box.y0 + np.arange(first, min(box.ny, first + 256))[:, None]
        x = box.x0 + np.arange(box.nx)[None, :]
        dx, dy = x - start[0], y - start[1]
        t = dx * along[0] + dy * along[1]
        inside = (np.abs(dy * along[0] - dx * along[1]) <= half_width) & (t >= -half_width) & (t <= length + half_width)
        image.mask[first:first + 256][inside] |= np.uint32(bits(plane))
        count += int(inside.sum())
    return count
