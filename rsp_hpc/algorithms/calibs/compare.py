"""compare: how two calibration products of one kind differ: statistics, a difference map, a verdict."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import CombinedFrames
from ...products.electronics import Verdict
from ..statistics import robust_sigma

__all__ = ["CompareConfig", "Comparison", "compare"]


class CompareConfig(Config):
    """When two products are said to differ."""

    sigma: float = parameter(5.0, "suspect: values that differ by more than this, where the errors are known", unit="sigma", above=0.0)
    outliers: float = parameter(1e-3, "suspect: a larger fraction of such pixels", low=0.0, high=1.0)
    offset: float = parameter(0.01, "suspect: medians that differ by more than this, relative (or by the scatter, if larger)", above=0.0)
    bad: float = parameter(10.0, "bad: the same limits, exceeded so many times", above=1.0)
    defects: float = parameter(0.95, "suspect: a smaller fraction of the defects is common to both", low=0.0, high=1.0)


@dataclass(frozen=True)
class Comparison:
    """How two products differ.

    Attributes
    ----------
    statistics : name -> value; for electronics '<field>_<what>'
    difference : (ny, nx) float32, first less second; int8 for defects (1: only in the first, -1: only in the second); None for
        electronics
    fields : field -> first less second, for electronics
    verdict : whether they may stand for each other
    """

    statistics: dict[str, float]
    difference: np.ndarray | None
    fields: dict[str, np.ndarray]
    verdict: Verdict


def compare(a: Any, b: Any, config: CompareConfig = CompareConfig()) -> Comparison:
    """Compare two products of one kind.

    Parameters
    ----------
    a, b : both CombinedFrames, both planes (ny, nx) of floats, both defects (ny, nx) bool, or both of one type of
        `products.electronics`

    Raises
    ------
    BadData
        They are of different kinds, sizes or amplifiers; says which.
    """
    if type(a) is not type(b):
        raise BadData(f"compare: a {type(a).__name__} and a {type(b).__name__} are no two products of one kind; give two of one")
    if isinstance(a, CombinedFrames):
        if (a.kind, a.band) != (b.kind, b.band):
            raise BadData(f"compare: a {a.kind} {a.band} and a {b.kind} {b.band} cannot be compared; give two of one kind and band")
        return _compare_planes(a.image, b.image, a.variance + b.variance, config)
    if isinstance(a, np.ndarray):
        return _compare_defects(a, b, config) if a.dtype == bool and b.dtype == bool else _compare_planes(a, b, None, config)
    if is_dataclass(a):
        return _compare_electronics(a, b, config)
    raise BadData(f"compare: {type(a).__name__} is no calibration product; give two files that `calibs list` names")


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise BadData(f"compare: {a.shape[1]} x {a.shape[0]} and {b.shape[1]} x {b.shape[0]} pixels; give two of one detector and "
                      "binning")


def _compare_planes(a: np.ndarray, b: np.ndarray, variance: np.ndarray | None, config: CompareConfig) -> Comparison:
    _same_shape(a, b)
    difference = (a - b).astype(np.float32)
    known = np.isfinite(difference)
    if not known.any():
        raise BadData("compare: no pixel has a value in both; build one of them anew")
    values = difference[known].astype(np.float64)
    middle, scatter = float(np.median(values)), robust_sigma(values)
    level, structure = float(np.median(b[known])), robust_sigma(b[known])
    statistics = {"median": middle, "scatter": scatter, "rms": float(np.sqrt(np.mean(values**2))),
                  "largest": float(np.abs(values).max()), "level": level, "known_in_one": float(np.mean(np.isfinite(a) != np.isfinite(b)))}
    verdict = Verdict()
    allowed = max(config.offset * abs(level), structure)
    if abs(middle) > allowed:
        verdict = verdict.but("bad" if abs(middle) > config.bad * allowed else "suspect",
                              f"medians differ by {middle:.4g}, {allowed:.4g} is allowed")
    if variance is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            pull = (difference - np.float32(middle)) / np.sqrt(variance)
        pull = pull[np.isfinite(pull)]
        share = float(np.mean(np.abs(pull) > config.sigma)) if pull.size else 0.0
        statistics |= {"pull": robust_sigma(pull), "outliers": share}
        if share > config.outliers:
            verdict = verdict.but("bad" if share > config.bad * config.outliers else "suspect",
                                  f"{share:.2%} of the pixels differ by more than {config.sigma:g} sigma")
    return Comparison(statistics, difference, {}, Verdict(verdict.state, verdict.reasons, statistics))


def _compare_defects(a: np.ndarray, b: np.ndarray, config: CompareConfig) -> Comparison:
    _same_shape(a, b)
    common, one, two = int((a & b).sum()), int(a.sum()), int(b.sum())
    shares = [common / number if number else 1.0 for number in (one, two)]
    statistics = {"first": float(one), "second": float(two), "common": float(common), "share_of_first": shares[0],
                  "share_of_second": shares[1]}
    verdict = Verdict(statistics=statistics)
    if min(shares) < config.defects:
        verdict = verdict.but("suspect", f"{common} defects are common to both, of {one} and {two}")
    return Comparison(statistics, a.astype(np.int8) - b.astype(np.int8), {}, verdict)


def _compare_electronics(a: Any, b: Any, config: CompareConfig) -> Comparison:
    """Field by field; those with a field <name>_err (or `error`, of the first numbers) against these errors."""
    if getattr(a, "amplifiers", None) != getattr(b, "amplifiers", None):
        raise BadData("compare: the amplifiers are not the same; give two products of one detector")
    statistics: dict[str, float] = {}
    found: dict[str, np.ndarray] = {}
    verdict = Verdict()
    for field in fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        numeric = all(isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.size for value in (one, two))
        if not numeric or one.shape != two.shape or field.name.endswith("_err") or field.name in ("error", "used"):
            continue
        found[field.name] = difference = one - two
        statistics |= {f"{field.name}_largest": float(np.nanmax(np.abs(difference))) if np.isfinite(difference).any() else float("nan")}
        errors = [getattr(item, f"{field.name}_err", getattr(item, "error", None) if field.name in ("coefficient", "kernel", "north")
                          else None) for item in (a, b)]
        if any(error is None or np.shape(error) != difference.shape for error in errors):
            continue
        total = np.hypot(*errors)
        pull = np.abs(difference[np.isfinite(total) & (total > 0.0)] / total[np.isfinite(total) & (total > 0.0)])
        if not pull.size:
            continue
        statistics[f"{field.name}_pull"] = float(pull.max())
        if pull.max() > config.sigma:
            verdict = verdict.but("bad" if pull.max() > config.bad * config.sigma else "suspect",
                                  f"{field.name} differs by up to {pull.max():.1f} sigma")
    return Comparison(statistics, None, found, Verdict(verdict.state, verdict.reasons, statistics))
