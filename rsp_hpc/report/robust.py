"""Numbers with errors: robust centre and width, fractions, and matching on the sphere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "evenly", "fraction", "match_sky", "median", "neighbours", "offsets", "unit_vectors",
           "weighted_mean", "width"]

NOTHING = float("nan")


class Estimate(NamedTuple):
    """A value, its one-sigma error, and how many data it rests on; NaN where there are too few."""

    value: float
    error: float
    n: int


def _finite(values) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]


def median(values) -> Estimate:
    """Median; its error is that of Gaussian data of the same central width, sqrt(pi/2) sigma / sqrt(n)."""
    values = _finite(values)
    if not len(values):
        return Estimate(NOTHING, NOTHING, 0)
    error = 1.2533 * width(values).value / np.sqrt(len(values))
    return Estimate(float(np.median(values)), float(error), len(values))


def width(values) -> Estimate:
    """Half the range from the 15.87th to the 84.13th percentile: one sigma for Gaussian data.

    Its error is the asymptotic one of two quantiles of a Gaussian sample, 0.962 sigma / sqrt(n). Fewer than two: NaN.
    """
    values = _finite(values)
    if len(values) < 2:
        return Estimate(NOTHING, NOTHING, len(values))
    low, high = np.percentile(values, (15.8655, 84.1345))
    sigma = 0.5 * float(high - low)
    return Estimate(sigma, 0.962 * sigma / float(np.sqrt(len(values))), len(values))


def weighted_mean(values, errors, clip: float = 4.0) -> Estimate:
    """Inverse-variance weighted mean, clipped about the median at `clip` times the scaled error.

    The scale of the errors is taken from the data, so that the error of the mean holds even if theirs are wrong.
    """
    values, errors = np.asarray(values, float), np.asarray(errors, float)
    good = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    values, errors = values[good], errors[good]
    if len(values) < 2:
        return Estimate(NOTHING, NOTHING, len(values))
    pulls = (values - np.median(values)) / errors
    scale = width(pulls).value
    keep = np.abs(pulls) <= clip * scale if scale > 0 else np.ones(len(values), bool)
    weight = errors[keep] ** -2
    mean = float(np.sum(weight * values[keep]) / weight.sum())
    error = np.sqrt(np.sum(weight**2 * (values[keep] - mean) ** 2)) / weight.sum()
    return Estimate(mean, float(error), int(keep.sum()))


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 ... n - 1, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(int)).tolist() if n > 0 else []


def fraction(hits: int, n: int) -> Estimate:
    """hits / n with half the width of Wilson's (1927) one-sigma interval: not zero where all or none hit."""
    if n <= 0:
        return Estimate(NOTHING, NOTHING, 0)
    p = hits / n
    return Estimate(p, float(np.sqrt(p * (1 - p) / n + 0.25 / n**2) / (1 + 1 / n)), int(n))


def unit_vectors(ra, dec) -> np.ndarray:
    """(n, 3) float64 directions of positions in degrees."""
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def offsets(ra, dec, ra0, dec0) -> tuple[np.ndarray, np.ndarray]:
    """(east, north) in arcsec of positions from others close by, all in degrees."""
    dec, dec0 = np.asarray(dec, float), np.asarray(dec0, float)
    east = (np.asarray(ra, float) - np.asarray(ra0, float) + 180.0) % 360.0 - 180.0
    return 3600.0 * east * np.cos(np.radians(0.5 * (dec + dec0))), 3600.0 * (dec - dec0)


def _chord(radius: float) -> float:
    return 2.0 * np.sin(0.5 * np.radians(radius / 3600.0))


def neighbours(ra, dec, ra2, dec2, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs within `radius` arcsec: indices i into the first list, j into the second, separations in arcsec.

    Rows whose position is not finite have no pairs.
    """
    from scipy.spatial import cKDTree

    first, second = np.nonzero(_located(ra, dec))[0], np.nonzero(_located(ra2, dec2))[0]
    empty = np.empty(0, np.int64)
    if not len(first) or not len(second):
        return empty, empty, np.empty(0)
    a = unit_vectors(np.asarray(ra)[first], np.asarray(dec)[first])
    b = unit_vectors(np.asarray(ra2)[second], np.asarray(dec2)[second])
    pairs = cKDTree(a).sparse_distance_matrix(cKDTree(b), _chord(radius) * (1 + 1e-9), output_type="ndarray")
    i, j = (pairs[name][np.lexsort((pairs["j"], pairs["i"]))].astype(np.int64) for name in ("i", "j"))
    chord = np.sqrt(((a[i] - b[j]) ** 2).sum(axis=1))
    return first[i], second[j], 3600.0 * np.degrees(2.0 * np.arcsin(np.minimum(0.5 * chord, 1.0)))


def _located(ra, dec) -> np.ndarray:
    return np.isfinite(np.asarray(ra, float)) & np.isfinite(np.asarray(dec, float))


def match_sky(ra, dec, ra2, dec2, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-to-one pairs within `radius` arcsec, the closest first, each row used at most once.

    Returns
    -------
    i, j : (n,) int64, indices into the first and the second list, in ascending order of i
    separation : (n,) float64, arcsec
    """
    i, j, separation = neighbours(ra, dec, ra2, dec2, radius)
    order = np.lexsort((j, i, separation))
    i, j, separation = i[order], j[order], separation[order]
    taken_i, taken_j, taken_s = [], [], []
    while len(i):  # each round takes all pairs that are the closest one of both their rows
        closest_i, closest_j = np.zeros(len(i), bool), np.zeros(len(i), bool)
        closest_i[np.unique(i, return_index=True)[1]] = True
        closest_j[np.unique(j, return_index=True)[1]] = True
        take = closest_i & closest_j
        taken_i.append(i[take])
        taken_j.append(j[take])
        taken_s.append(separation[take])
        left = ~(np.isin(i, i[take]) | np.isin(j, j[take]))
        i, j, separation = i[left], j[left], separation[left]
    if not taken_i:
        return i, j, separation
    i, j, separation = np.concatenate(taken_i), np.concatenate(taken_j), np.concatenate(taken_s)
    order = np.argsort(i, kind="stable")
    return i[order], j[order], separation[order]
