"""Matching detected stars to a reference catalogue when the pointing, rotation and scale are known only roughly.

Offsets between bright stars and bright reference stars are counted in bins, for each rotation and scale on a grid whose
step moves no star by more than a bin: the right one stands out. The best few are refined on more stars, and the winner
is believed only if chance would hardly give as many matches. Any contamination only dilutes the peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.box import Box
from ..products.catalogue import Catalogue
from ..products.geometry import angular_separation, project
from ..products.reference import ReferenceCatalogue
from ..products.wcs import Wcs

__all__ = ["Match", "MatchConfig", "match", "tree_of"]

_GRID = 1500  # about how many pairs of rotation and scale are tried
_MIN_BIN = 3.0  # arcsec
_CANDIDATES = 10
_PAIRS_FOR_ORDER = (6, 14, 40)  # least number of pairs for polynomials of order 1, 2, 3
_LOOK_ELSEWHERE = 10.0  # the tolerance is chosen by looking at the data


class MatchConfig(Config):
    """How far the header may be wrong, and how sure a match must be."""

    max_offset: float = parameter(90.0, "largest pointing error", unit="arcsec", above=0.0)
    max_rotation: float = parameter(5.0, "largest error of the rotation", unit="deg", low=0.0, high=20.0)
    max_scale: float = parameter(0.05, "largest error of the scale, as a fraction", low=0.0, high=0.2)
    tolerance: float = parameter(2.0, "stars further apart after the match are not the same", unit="arcsec", above=0.0)
    bright_stars: int = parameter(60, "sources tried first; three times as many are tried next", low=5)
    min_matches: int = parameter(3, "fewer pairs are no pattern", low=3)
    max_false_probability: float = parameter(1e-6, "what chance gives more often is refused", above=0.0, high=0.1)
    max_few_probability: float = parameter(1e-3, "the same for one or two stars alone", low=0.0, high=0.1)


@dataclass(frozen=True)
class Match:
    """Which source is which reference star.

    Attributes
    ----------
    sources, reference : (n,) int64, row numbers of the two catalogues, one to one
    center : (ra, dec) degrees, tangent point of the plane of the match
    matrix, shift : (2, 2) and (2,) arcsec: reference = matrix @ guess + shift in the plane (xi, eta) about `center`
    rms : float, arcsec per axis
    n_random : float, matches that chance would give here
    false_probability : float, an upper estimate of the probability that chance gave the match
    """

    sources: np.ndarray
    reference: np.ndarray
    center: tuple[float, float]
    matrix: np.ndarray
    shift: np.ndarray
    rms: float
    n_random: float
    false_probability: float

    def __len__(self) -> int:
        return len(self.sources)


class _Limits(NamedTuple):
    offset: float  # arcsec
    rotation: float  # radians
    scale: float


class _Solution(NamedTuple):
    matrix: np.ndarray  # (2, 2)
    shift: np.ndarray  # (2,) arcsec
    count: int
    tolerance: float  # arcsec
    rms: float  # arcsec per axis
    n_random: float
    probability: float


def match(sources: Catalogue, reference: ReferenceCatalogue, guess: Wcs, box: Box, config: MatchConfig,
          band: str = "") -> Match:
    """Match sources (columns x, y, psfFlux, psfFluxErr) to reference stars (at the epoch of the exposure).

    A header that is right to 5" and 0.2 degrees is tried first: then few stars are enough to be sure. If all fails, one
    or two stars within the tolerance of their place by the header are taken, where chance hardly puts them there.

    Raises
    ------
    BadData
        The reference catalogue is empty or elsewhere, there are too few sources, or no match is certain.
    """
    if len(reference) == 0:
        raise BadData("the reference catalogue is empty; give one that covers the survey")
    middle = guess.pixel_to_sky(box.x0 + 0.5 * (box.nx - 1), box.y0 + 0.5 * (box.ny - 1))
    center = (float(middle[0]), float(middle[1]))
    rows, points = _bright_sources(sources, guess, center)
    if not len(rows):
        raise BadData(f"none of {len(sources)} sources has a signal to noise >= 5; there is nothing to match")
    full = _Limits(config.max_offset, np.radians(config.max_rotation), config.max_scale)
    trusted = _Limits(min(5.0, full.offset), min(np.radians(0.2), full.rotation), min(0.003, full.scale))
    size = _half_diagonal(guess, box, center)
    near = _near_reference(reference, center, size, full, band)
    stars = 3600.0 * np.stack(project(reference.ra[near], reference.dec[near], *center), -1)
    tried = []
    for number, limits in ((5, trusted), (1, full), (3, full)):
        few = number * config.bright_stars
        bright = points[:few], _share(stars, size, limits, few)
        solution = _search(*bright, (points[:4 * few], stars), (size, limits, config))
        if solution is not None:
            tried.append(solution)
            if _certain(solution, config):
                return _matched(solution, rows, near, points, stars, center)
    single = _few(points[:config.bright_stars], stars, config)
    if single is not None:
        return _matched(single, rows, near, points, stars, center)
    best = min(tried, key=lambda solution: solution.probability, default=None)
    raise BadData(f"no match of {len(rows)} sources with {len(near)} reference stars within {config.max_offset:g} "
                  f"arcsec, {config.max_rotation:g} deg and {100 * config.max_scale:g} % of the header"
                  + (f" (best: {best.count} pairs, {best.n_random:.1f} by chance)" if best else "")
                  + "; check the pointing in the header, or that the reference catalogue covers it")


def tree_of(points: np.ndarray):
    """A k-d tree of (n, 2) points; scipy is imported here, since ranks that match nothing need not wait for it."""
    from scipy.spatial import cKDTree

    return cKDTree(points)


def _chance_of(count: int, expected: float) -> float:
    """Probability of so many or more where a Poisson distribution has this mean."""
    from scipy.special import pdtrc

    return float(pdtrc(count - 1, max(expected, 1e-12)))


def _certain(solution: _Solution, config: MatchConfig) -> bool:
    return solution.count >= config.min_matches and solution.probability <= config.max_false_probability


def _bright_sources(sources: Catalogue, guess: Wcs, center) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the usable sources, brightest first, and their (n, 2) plane coordinates, arcsec, by the guess."""
    flux, error = np.asarray(sources["psfFlux"], float), np.asarray(sources["psfFluxErr"], float)
    xi, eta = project(*guess.pixel_to_sky(sources["x"], sources["y"]), *center)
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero((flux >= 5.0 * error) & (flux > 0) & np.isfinite(xi) & np.isfinite(eta))
    rows = good[np.argsort(-flux[good], kind="stable")]
    return rows, 3600.0 * np.stack([xi[rows], eta[rows]], -1)


def _half_diagonal(guess: Wcs, box: Box, center) -> float:
    """Arcsec from the detector's centre to its corners, by the guess."""
    return 3600.0 * float(np.max(angular_separation(*guess.pixel_to_sky(*box.corners().T), *center)))


def _near_reference(reference: ReferenceCatalogue, center, size: float, limits: _Limits, band: str) -> np.ndarray:
    """Rows of the reference stars that may be on the detector, brightest first."""
    apart = 3600.0 * angular_separation(reference.ra, reference.dec, *center)
    near = np.flatnonzero(apart <= size * (1.0 + limits.scale) + limits.offset)
    if not len(near):
        raise BadData(f"the reference catalogue is too far away: its nearest star is {apart.min() / 3600.0:.2f} deg "
                      f"from the detector at {center[0]:.4f} {center[1]:+.4f}; check the pointing or give another")
    flux = reference.brightness(band)[near]
    return near[np.argsort(-np.where(np.isfinite(flux), flux, -np.inf), kind="stable")]


def _share(stars: np.ndarray, size: float, limits: _Limits, few: int) -> np.ndarray:
    """The brightest reference stars: twice as many per area as there are sources, over the area that may be seen."""
    reach = size * (1.0 + limits.scale) + limits.offset
    inside = stars[(stars**2).sum(-1) <= reach**2]
    return inside[:max(20, int(2.0 * few * 1.6 * (reach / size) ** 2))]


def _search(points: np.ndarray, stars: np.ndarray, more, context) -> _Solution | None:
    """The most significant solution within the limits; None if there is no peak.

    The brightest vote; four times as many sources, and reference stars to match, verify. Where two different solutions
    are both certain and alike in number, the best is given the probability 1.
    """
    size, limits, config = context
    if len(stars) < config.min_matches or len(points) < config.min_matches:
        return None
    sample = more[0], _share(more[1], size, limits, len(more[0]))
    tree = tree_of(sample[1])
    solutions = [_refine(*sample, tree, candidate, context) for candidate in _candidates(points, stars, size, limits)]
    solutions = sorted((s for s in solutions if s is not None), key=lambda s: (s.probability, -s.count))
    if not solutions:
        return None
    best = solutions[0]
    for other in solutions[1:]:
        apart = np.hypot(*(other.shift - best.shift)) + size * np.abs(other.matrix - best.matrix).max()
        if apart > 4 * best.tolerance and _certain(other, config) and other.count > 0.7 * best.count:
            return best._replace(probability=1.0)
    return best


def _few(points: np.ndarray, stars: np.ndarray, config: MatchConfig) -> _Solution | None:
    """One or two stars found where the header has them, if chance would hardly put them there."""
    tree = tree_of(stars)
    i, j = _pairs(points, stars, tree, config.tolerance)
    random = _random_matches(points, stars, tree, config.tolerance)
    probability = _chance_of(len(i), random) if len(i) else 1.0
    if not 0 < len(i) < 3 or probability > config.max_few_probability:
        return None
    shift = (stars[j] - points[i]).mean(axis=0)
    rms = float(np.sqrt(np.mean((points[i] + shift - stars[j]) ** 2)))
    return _Solution(np.eye(2), shift, len(i), config.tolerance, rms, random, probability)


def _candidates(points: np.ndarray, stars: np.ndarray, size: float,
                limits: _Limits) -> list[tuple[complex, complex, float]]:
    """Peaks (rotation and scale as one complex factor, offset, bin in arcsec), highest first, of the offset counts."""
    width = max(_MIN_BIN, size * np.sqrt(4.0 * limits.rotation * limits.scale / _GRID))
    turns, scales = (_steps(limit, width / size) for limit in (limits.rotation, limits.scale))
    source, star = points[:, 0] + 1j * points[:, 1], stars[:, 0] + 1j * stars[:, 1]
    i, j = np.nonzero(np.abs(star[None, :] - source[:, None])
                      <= limits.offset + size * np.hypot(limits.rotation, limits.scale) * 1.1)
    if not len(i):
        return []
    source, star = source[i], star[j]
    half = int(np.ceil(limits.offset / width)) + 1
    side = 2 * half + 2
    peaks = []
    for factor in np.exp(1j * turns)[:, None].repeat(len(scales), 1).ravel() * np.tile(1.0 + scales, len(turns)):
        shift = star - factor * source
        column, row = (np.floor(part / width).astype(np.intp) + half for part in (shift.real, shift.imag))
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        count = np.bincount((row * side + column)[inside], minlength=side * side).reshape(side, side)
        four = count[:-1, :-1] + count[1:, :-1] + count[:-1, 1:] + count[1:, 1:]  # a peak may sit on a border of bins
        top = int(np.argmax(four))
        offset = width * complex(top % (side - 1) + 1 - half, top // (side - 1) + 1 - half)
        peaks.append((int(four.flat[top]), factor, offset))
    peaks.sort(key=lambda peak: -peak[0])
    chosen: list[tuple[complex, complex, float]] = []
    for _, factor, offset in peaks:  # neighbours on the grid show the same peak
        if all(abs(offset - o) > 2.5 * width or abs(factor - f) * size > 2.5 * width for f, o, _ in chosen):
            chosen.append((factor, offset, width))
        if len(chosen) == _CANDIDATES:
            break
    return chosen


def _steps(limit: float, step: float) -> np.ndarray:
    number = int(np.ceil(limit / step))
    return np.linspace(-limit, limit, 2 * number + 1)


def _refine(points, stars, tree, candidate, context) -> _Solution | None:
    """Fit the transformation to the pairs within a shrinking tolerance and count them."""
    size, limits, config = context
    factor, offset, width = candidate
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    shift, tolerance = np.array([offset.real, offset.imag]), 1.5 * width
    rms = np.inf
    for step in range(8):
        i, j = _pairs(points @ matrix.T + shift, stars, tree, tolerance)
        if len(i) < config.min_matches:
            return None
        matrix, shift = _transformation(points[i], stars[j], affine=step > 3 and len(i) >= 8)
        rms = _rayleigh(points[i] @ matrix.T + shift - stars[j], 2)
        tolerance = 0.7 * tolerance if step < 3 else float(np.clip(3.5 * rms, 0.3, config.tolerance))
    moved = points @ matrix.T + shift
    i, _ = _pairs(moved, stars, tree, tolerance)
    skew = abs(matrix[0, 0] - matrix[1, 1]) + abs(matrix[0, 1] + matrix[1, 0])
    turn, stretch = np.arctan2(matrix[1, 0] - matrix[0, 1], np.trace(matrix)), np.sqrt(abs(np.linalg.det(matrix)))
    slack = 2.0 * width / size
    if (np.hypot(*shift) > limits.offset + 2 * width or abs(turn) > limits.rotation + slack
            or abs(stretch - 1.0) > limits.scale + slack or skew > 0.02 + slack):
        return None
    random = _random_matches(moved, stars, tree, tolerance)
    trials = _LOOK_ELSEWHERE * max(1.0, limits.offset / tolerance) ** 2 * np.prod(
        [max(1.0, 2.0 * limit * size / tolerance) for limit in (limits.rotation, limits.scale)])
    probability = min(1.0, float(trials * _chance_of(len(i), random)))
    return _Solution(matrix, shift, len(i), tolerance, rms, random, probability)


def _pairs(moved: np.ndarray, stars: np.ndarray, tree, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Mutually nearest pairs (source, star) within a tolerance."""
    distance, star = tree.query(moved, distance_upper_bound=tolerance)
    source = np.flatnonzero(np.isfinite(distance))
    source = source[np.lexsort((source, distance[source], star[source]))]
    first = np.concatenate([[True], np.diff(star[source]) > 0]) if len(source) else np.zeros(0, bool)
    source = np.sort(source[first])
    return source, star[source]


def _transformation(points: np.ndarray, stars: np.ndarray, affine: bool) -> tuple[np.ndarray, np.ndarray]:
    """Least squares (matrix, shift): a rotation with one scale, or any affine map."""
    middle, target = points.mean(axis=0), stars.mean(axis=0)
    p, q = points - middle, stars - target
    if affine:
        matrix = np.linalg.lstsq(p, q, rcond=None)[0].T
    else:
        norm = max(float(np.sum(p**2)), 1e-300)
        a, b = np.sum(p * q) / norm, np.sum(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / norm
        matrix = np.array([[a, -b], [b, a]])
    return matrix, target - matrix @ middle


def _random_matches(moved: np.ndarray, stars: np.ndarray, tree, tolerance: float) -> float:
    """Matches expected by chance: the mean over shifted positions (so clusters count), at least the mean density."""
    radius = np.array([6.0, 9.0, 13.0]) * max(tolerance, 1.0)
    angle = 2 * np.pi * (np.arange(8) + 0.37) / 8
    shifts = (radius[:, None] * np.exp(1j * angle)).ravel()
    shifted = np.mean([len(_pairs(moved + (s.real, s.imag), stars, tree, tolerance)[0]) for s in shifts])
    area = np.pi * np.max(np.sum(stars**2, axis=-1)) if len(stars) > 1 else np.inf
    return float(max(shifted, len(moved) * len(stars) * np.pi * tolerance**2 / area))


def _matched(solution: _Solution, rows, near, points, stars, center) -> Match:
    """The pairs among all sources and all reference stars, by the solution that the bright ones gave.

    Distortion that the guess does not know is followed outwards: polynomials of an order that the pairs so far can bear
    bring further pairs within the tolerance, until the pairs stay the same.
    """
    tree, unit = tree_of(stars), np.abs(points).max() + 1e-9
    widest = max(solution.tolerance, 1.0)
    moved, rms = points @ solution.matrix.T + solution.shift, solution.rms
    i, j = _pairs(moved, stars, tree, widest)
    for _ in range(12):
        order = sum(len(i) >= least for least in _PAIRS_FOR_ORDER)
        if order == 0:
            break
        moved = _polynomial(points / unit, order) @ np.linalg.lstsq(_polynomial(points[i] / unit, order), stars[j],
                                                                    rcond=None)[0]
        rms = _rayleigh(moved[i] - stars[j], (order + 1) * (order + 2) // 2)
        before, (i, j) = i, _pairs(moved, stars, tree, float(np.clip(5.0 * rms, 0.5, widest)))
        if np.array_equal(before, i):
            break
    return Match(rows[i], near[j], center, solution.matrix, solution.shift, rms, solution.n_random,
                 solution.probability)


def _polynomial(points: np.ndarray, order: int) -> np.ndarray:
    """(n, k) all products of powers of the two coordinates up to an order."""
    return np.stack([points[:, 0] ** (total - k) * points[:, 1] ** k for total in range(order + 1)
                     for k in range(total + 1)], -1)


def _rayleigh(left: np.ndarray, terms: int) -> float:
    """Scatter per axis from the median distance (of a Rayleigh distribution), for a fit of so many terms per axis."""
    return float(np.sqrt(np.median(np.sum(left**2, axis=-1)) / 1.386 * len(left) / max(1, len(left) - terms)))
