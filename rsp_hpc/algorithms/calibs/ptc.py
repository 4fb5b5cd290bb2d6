"""ptc: photon transfer from pairs of flats: covariances, gain, read noise, pixel-area changes a_ij, full well.

Each pair becomes a difference in which all fixed patterns cancel, the second flat scaled by a smooth surface so that lamps that
drift do no harm; its covariances at all lags are taken in one pass. What is kept of a pair is a few numbers per amplifier. Then
the model of Astier et al. (2019, A&A 629, A36; see `ptc_model`) is fitted below the level where the variance turns off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...kernels.covariance import MAX_LAGS, pair_sums
from ...products.camera import Amplifier, Detector
from ...products.electronics import PhotonTransfer, Verdict
from ...products.mask import bits
from ..detrend import DetrendConfig
from .ptc_model import Fit, covariances, fit_covariances
from .ramps import Flat, check_mode

__all__ = ["PtcConfig", "build_ptc"]


class PtcConfig(Config):
    """How photon transfer curves are measured and fitted."""

    detrend: DetrendConfig = DetrendConfig()
    lags: int = parameter(
        8, "covariances are measured and fitted at lags below this, in rows and columns", unit="pixel", low=1, high=MAX_LAGS
    )
    second_order: bool = parameter(False, "whether b_ij is fitted: pixel areas that do not change in proportion to the charge")
    border: int = parameter(5, "pixels left out along the amplifier's edges", unit="pixel", low=0)
    clip: float = parameter(5.5, "pixels whose difference is farther out are left out", unit="sigma", above=3.0)
    pair_tolerance: float = parameter(0.1, "exposure times of a pair differ by less than this, relative", low=0.0, high=1.0)
    max_mismatch: float = parameter(0.15, "pairs whose levels differ by more, relative, are outliers: the lamp failed", above=0.0)
    max_saturated: float = parameter(0.005, "pairs with a larger share of saturated pixels are not fitted", low=0.0, high=1.0)
    outlier: float = parameter(5.0, "pairs whose variance is so far from the fit are outliers", unit="sigma", above=2.0)
    turn_off: float = parameter(0.03, "levels belong to the fit while the variance is no further below it", above=0.0, high=0.5)
    min_range: float = parameter(3.0, "a_ij is fitted where the flats' levels span at least this factor", above=1.0)
    max_gain_error: float = parameter(0.02, "a product with a larger relative error of a gain is bad", above=0.0)
    max_chi2: float = parameter(3.0, "a product with a larger chi^2 per degree of freedom is suspect", above=1.0)


class _Point(NamedTuple):
    """What is kept of one pair on one amplifier, ADU; covariance and count: (L, L)."""

    mean: float
    covariance: np.ndarray
    count: np.ndarray
    saturated: float
    mismatch: float


class _Curve(NamedTuple):
    """All pairs of one amplifier, and the light that each got (exposure time, s; 0 for biases)."""

    mean: np.ndarray
    covariance: np.ndarray
    count: np.ndarray
    saturated: np.ndarray
    mismatch: np.ndarray
    time: np.ndarray


def build_ptc(pairs: Iterable[tuple[Flat, Flat]], detector: Detector, config: PtcConfig) -> tuple[PhotonTransfer, Verdict]:
    """Photon transfer of a detector from pairs of flats (and of biases, which give the read noise best).

    Parameters
    ----------
    pairs : from `ramps.load_pairs`, read one after the other: flats at rising levels, biases at zero, in any order, with defects
        masked. Corrected for what bends the scale (linearity) or not, as the gain is wanted
    detector : whose gains made electrons of ADU: those of the frames

    Raises
    ------
    BadData
        Too few pairs (says how many are needed), all saturated, or frames of another read-out mode (named).
    """
    points: list[list[_Point]] = [[] for _ in detector.amplifiers]
    names, times = [], []
    for first, second in pairs:
        for flat in (first, second):
            check_mode(flat, detector)
        names.append(f"{first.exposure.visit}, {second.exposure.visit}")
        bias = "bias" in (first.exposure.kind, second.exposure.kind)
        times.append(0.0 if bias else 0.5 * (first.exposure.exposure_time + second.exposure.exposure_time))
        for amplifier, found in zip(detector.amplifiers, points):
            found.append(_measure(first, second, amplifier, config))
    _check_enough(np.array(times), detector)
    results = [
        _fit_amplifier(_Curve(*map(np.array, zip(*found)), np.array(times)), amplifier, detector, config)
        for amplifier, found in zip(detector.amplifiers, points)
    ]
    product = PhotonTransfer(tuple(a.name for a in detector.amplifiers), *map(np.array, zip(*(values for values, _ in results))))
    return product, _judge(product, [state for _, state in results], names, config)


def _check_enough(times: np.ndarray, detector: Detector) -> None:
    n_flats, n_biases = int((times > 0).sum()), int((times == 0).sum())
    if n_flats == 0 or n_flats + n_biases < 2:
        raise BadData(
            f"detector {detector.name}: photon transfer from {n_flats} pairs of flats and {n_biases} of biases; the gain needs "
            "two pairs at different levels, one of which may be of biases, a_ij needs three: take more flats"
        )


# ---- one pair


def _measure(first: Flat, second: Flat, amplifier: Amplifier, config: PtcConfig) -> _Point:
    """Mean level and covariances of a pair on one amplifier.

    With light m1 and m2 and the difference d = first - R second, Poisson noise makes <dd> = (m1 + R^2 m2) / gain: so <dd> / (1 +
    R^2) belongs to the level (m1 + R^2 m2) / (1 + R^2), exactly.
    """
    x0, y0, nx, ny = (
        amplifier.assembled_box.x0 - first.image.box.x0,
        amplifier.assembled_box.y0 - first.image.box.y0,
        amplifier.data[2],
        amplifier.data[3],
    )
    edge = min(config.border, (min(nx, ny) - 1) // 4)
    at = np.s_[y0 + edge : y0 + ny - edge, x0 + edge : x0 + nx - edge]
    images, masks = [flat.image.image[at] for flat in (first, second)], [flat.image.mask[at] for flat in (first, second)]
    n, empty = config.lags, np.full((config.lags, config.lags), np.nan)
    saturated = max(np.count_nonzero(mask & np.uint32(bits("SAT"))) / mask.size for mask in masks)
    skip = bits("SAT", "BAD", "NO_DATA", "UNMASKEDNAN", "CR")
    ratio, limit, mismatch, share = _match(images, masks, skip, config, "bias" in (first.exposure.kind, second.exposure.kind))
    if not np.isfinite(limit):
        return _Point(np.nan, empty, np.zeros((n, n), np.int64), saturated, np.nan)
    sums = pair_sums(*images, masks, (ratio, limit, skip), n)
    if sums.n < 1000:
        return _Point(np.nan, empty, np.zeros((n, n), np.int64), saturated, np.nan)
    product, count = sums.product[:, n - 1 :].copy(), sums.count[:, n - 1 :].copy()
    product[1:, 1:] += sums.product[1:, n - 2 :: -1]  # lags to the left and to the right
    count[1:, 1:] += sums.count[1:, n - 2 :: -1]
    r = sums.ratio / sums.n
    scale = (1.0 + r**2) * amplifier.gain**2
    covariance = (product / np.maximum(count, 1) - (sums.difference / sums.n) ** 2) / scale
    covariance += covariance[0, 0] * _taken_by_surface(ratio, share) / sums.n
    mean = (sums.first + r**2 * sums.second) / sums.n / (1.0 + r**2) / amplifier.gain
    return _Point(mean, np.where(count > 0, covariance, np.nan), count, saturated, mismatch)


def _taken_by_surface(ratio: np.ndarray, share: float) -> float:
    """What the fitted surface and the mean took from the covariance at each lag (negative: added), times variance / pixels.

    A coefficient fitted to all pixels takes one such part. Fitted to a share of them it takes two, by what it has in common with
    them, and adds 1 / share by its own noise. The mean is always that of all. Little, but the same at all lags.
    """
    return 1.0 + np.count_nonzero(ratio[1:]) * (2.0 - 1.0 / share)


def _match(images, masks, skip: int, config: PtcConfig, bias: bool) -> tuple[np.ndarray, float, float, float]:
    """Surface of the ratio first / second, limit of the difference (electron), relative difference of the levels, share of rows
    used.

    From rows that sample the amplifier; a second-degree surface through the ratios of 6 x 6 blocks, about noise-free.
    """
    ny, nx = images[0].shape
    rows = np.unique(np.linspace(0, ny - 1, min(ny, 96)).astype(int))
    one, two = (image[rows].astype(np.float64) for image in images)
    bad = (masks[0][rows] | masks[1][rows]) & np.uint32(skip) != 0
    bad |= ~(np.isfinite(one) & np.isfinite(two))
    if bad.sum() > bad.size - 100:
        return np.zeros(6), np.nan, np.nan, 1.0
    ratio, levels = np.array([1.0, 0, 0, 0, 0, 0]), [np.median(image[~bad]) for image in (one, two)]
    mismatch = 0.0
    noise = np.sqrt(0.5) * 1.4826 * np.median(np.abs((one - two)[~bad] - (levels[0] - levels[1])))
    if not bias and min(levels) > 3.0 * noise:
        mismatch = abs(levels[0] / levels[1] - 1.0)
        ratio = _surface(one, two, bad, rows / max(1, ny - 1))
    v, u = np.meshgrid(2.0 * rows / max(1, ny - 1) - 1.0, np.linspace(-1.0, 1.0, nx), indexing="ij")
    d = (one - sum(c * term for c, term in zip(ratio, (1.0, u, v, u * u, u * v, v * v))) * two)[~bad]
    middle = np.median(d)
    width = 1.4826 * np.median(np.abs(d - middle)) + 1e-9
    for _ in range(4):  # the median deviation of whole ADU can be off by a tenth
        width = np.sqrt(np.mean((d - middle)[np.abs(d - middle) <= 4.5 * width] ** 2)) + 1e-9
    return ratio, float(config.clip * width + abs(middle)), mismatch, len(rows) / ny


def _surface(one: np.ndarray, two: np.ndarray, bad: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Six coefficients of the surface through the ratios of blocks; a constant where blocks are missing."""
    n, (_, nx) = 6, one.shape
    block = (np.minimum((along * n).astype(int), n - 1)[:, None] * n + np.minimum(np.arange(nx) * n // nx, n - 1)).ravel()
    good = ~bad.ravel()
    first, second, count, u, v = (
        np.bincount(block[good], values[good], n * n)
        for values in (
            one.ravel(),
            two.ravel(),
            np.ones(one.size),
            np.tile(np.linspace(-1.0, 1.0, nx), len(one)),
            np.repeat(2.0 * along - 1.0, nx),
        )
    )
    full = count > 0.3 * one.size / n**2
    if full.sum() < 18 or second[full].min() <= 0.0:
        return np.array([first.sum() / second.sum(), 0, 0, 0, 0, 0])
    u, v, ratio = u[full] / count[full], v[full] / count[full], first[full] / second[full]
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
    return np.linalg.lstsq(terms, ratio, rcond=None)[0]


# ---- one amplifier


class _State(NamedTuple):
    """What the verdict needs to know of an amplifier: indices of pairs."""

    mismatched: np.ndarray
    outliers: np.ndarray
    saturated: np.ndarray
    orders: int


def _fit_amplifier(curve: _Curve, amplifier: Amplifier, detector: Detector, config: PtcConfig) -> tuple[tuple, _State]:
    """Values of one row of PhotonTransfer, in its order.

    Raises
    ------
    BadData
        Too few pairs are left.
    """
    variance = curve.covariance[:, 0, 0]
    whole = np.isfinite(curve.covariance).all(axis=(1, 2)) & (curve.saturated <= config.max_saturated)
    matched = ~(curve.mismatch > config.max_mismatch)
    usable = whole & matched
    if not (usable & (curve.time > 0)).any():
        raise BadData(
            f"detector {detector.name}, amplifier {amplifier.name}: no pair of flats can be used "
            f"({np.count_nonzero(~whole)} of {len(whole)} saturated or masked, {np.count_nonzero(~matched)} with different "
            "levels); take fainter flats"
        )
    below = _below_peak(curve, usable)
    for _ in range(6):
        outlier = _outliers(curve, usable & below, amplifier, detector, config)
        fit, orders = _fit(curve, usable & below & ~outlier, amplifier, detector, config)
        share = variance / _predicted(fit, curve)
        sigma = np.sqrt(2.0 / np.maximum(curve.count[:, 0, 0], 1)) * max(1.0, np.sqrt(fit.chi2_dof))
        new = _below_turn_off(curve.mean, share, np.maximum(config.outlier * sigma, config.turn_off), usable & ~outlier)
        if (new == below).all():
            break
        below = new
    used = usable & below & ~outlier
    full_well = _full_well(curve, share, usable & ~outlier)
    model = _model_at(fit, curve)
    noise = fit.noise * fit.gain**2
    read_noise = np.sqrt(max(fit.noise[0, 0] - 1.0 / 12.0, 0.0)) * fit.gain  # the converter rounds
    noise_error = np.hypot(fit.error[3] * fit.gain**2, 2.0 * noise * fit.error[0] / fit.gain)
    known = np.ones_like(fit.a) if orders else np.full_like(fit.a, np.nan)
    b = np.divide(fit.ab, fit.a, out=np.zeros_like(fit.a), where=fit.a != 0)
    b_err = np.divide(fit.error[2], np.abs(fit.a), out=np.zeros_like(fit.a), where=fit.a != 0)
    values = (
        fit.gain,
        fit.error[0],
        read_noise,
        noise_error[0, 0] / (2.0 * max(read_noise, 1e-9)),
        *full_well,
        fit.a * known,
        fit.error[1] * known,
        b,
        b_err,
        noise,
        noise_error,
        fit.chi2_dof,
        curve.mean,
        curve.covariance,
        model,
        used,
    )
    return values, _State(
        np.flatnonzero(~matched), np.flatnonzero(outlier), np.flatnonzero(curve.saturated > config.max_saturated), orders
    )


def _below_peak(curve: _Curve, usable: np.ndarray) -> np.ndarray:
    """Pairs clearly below the largest variance, if the variance falls above it."""
    variance = np.where(usable, curve.covariance[:, 0, 0], -np.inf)
    top = int(np.argmax(variance))
    beyond = usable & (curve.mean > curve.mean[top])
    turns = beyond.any() and variance[beyond].min() < 0.9 * variance[top]
    return (
        curve.mean < 0.97 * curve.mean[top]
        if turns and (usable & (curve.time > 0) & (curve.mean < 0.97 * curve.mean[top])).any()
        else np.ones(len(variance), bool)
    )


def _outliers(curve: _Curve, use: np.ndarray, amplifier: Amplifier, detector: Detector, config: PtcConfig) -> np.ndarray:
    """Pairs without which the variance curve is fitted so much better: one after the other, each time the one that helps most.

    Where leaving out one or another cures it alike, as with two pairs of biases that differ, none is accused: chi^2 will tell.
    """
    alone = curve._replace(covariance=curve.covariance[:, :1, :1], count=curve.count[:, :1, :1])
    kept = use.copy()
    dof, chi2 = _misfit(alone, kept, amplifier, detector, config)
    while dof > 1 and chi2 > config.outlier**2:
        members = np.flatnonzero(kept)
        without = []
        for k in members:
            trial = kept.copy()
            trial[k] = False
            try:
                without.append(_misfit(alone, trial, amplifier, detector, config))
            except BadData:  # the fit needs this pair
                without.append((0, chi2))
        best = int(np.argmin([found for _, found in without]))
        gain = chi2 - without[best][1]
        left = max(1.0, without[best][1] / max(1, without[best][0]))
        cures = sum(found <= config.outlier * max(1, free) * left for free, found in without)
        if gain < config.outlier**2 * left or (left < config.outlier and cures > 1):
            break
        kept[members[best]] = False
        dof, chi2 = without[best]
    return use & ~kept


def _misfit(alone: _Curve, use: np.ndarray, amplifier: Amplifier, detector: Detector, config: PtcConfig) -> tuple[int, float]:
    """Degrees of freedom and chi^2 of the variance curve."""
    fit, orders = _fit(alone, use, amplifier, detector, config)
    dof = int(use.sum()) - 2 - orders
    return dof, fit.chi2_dof * max(1, dof)


def _fit(curve: _Curve, use: np.ndarray, amplifier: Amplifier, detector: Detector, config: PtcConfig) -> tuple[Fit, int]:
    """Fit as many orders as the levels allow."""
    level = np.sort(curve.mean[use & (curve.time > 0)])
    steps = 1 + np.count_nonzero(np.diff(np.log(np.maximum(level, 1e-3))) > 0.1) if len(level) else 0
    dark = bool((use & (curve.time == 0)).any())
    orders = 0
    if len(level) and level[-1] >= config.min_range * max(level[0], 1e-3) and steps + dark >= 3:
        orders = 2 if config.second_order and steps + dark >= 5 else 1
    if steps + dark < 2:
        raise BadData(
            f"detector {detector.name}, amplifier {amplifier.name}: {int(use.sum())} pairs can be used, at {steps + dark} "
            "different levels; the gain needs two (biases are one), a_ij three: take more flats"
        )
    return fit_covariances(curve.mean[use], curve.covariance[use], curve.count[use], orders), orders


def _model_at(fit: Fit, curve: _Curve) -> np.ndarray:
    level = np.where(np.isfinite(curve.mean), curve.mean, 0.0) * fit.gain
    return covariances(level, fit.a, fit.ab) / fit.gain**2 + fit.noise


def _predicted(fit: Fit, curve: _Curve) -> np.ndarray:
    return np.maximum(_model_at(fit, curve)[:, 0, 0], 1e-30)


def _below_turn_off(mean, share, tolerance, usable) -> np.ndarray:
    """Pairs below the first of which the variance, and that of all above it, falls short of the model."""
    order = np.argsort(np.where(usable, mean, np.inf))[: int(usable.sum())]
    short = share[order] < 1.0 - tolerance[order]
    good = np.flatnonzero(~short)
    limit = mean[order[good[-1]]] if len(good) else np.inf
    return mean <= limit


def _full_well(curve: _Curve, share: np.ndarray, usable: np.ndarray) -> tuple[float, float]:
    """Level (ADU) where the variance falls to half of the model, and its error; NaN if it does not.

    Where the first pair below half stands at a level that does not rise any more with the exposure time, all pixels are full: that
    is the level, however far below the last good pair is.
    """
    order = np.argsort(np.where(usable, np.maximum(curve.mean, curve.time * 1e-9), np.inf))[: int(usable.sum())]
    low = [k for k in np.flatnonzero(share[order] < 0.5) if (share[order[k:]] < 0.8).all()]
    if not low or low[0] == 0:
        return np.nan, np.nan
    under, over = order[low[0] - 1], order[low[0]]
    if curve.time[under] > 0:
        beyond = order[low[0]:]
        light = curve.mean[under] * curve.time[beyond] / curve.time[under]
        full = curve.mean[beyond][(curve.mean[beyond] < 0.995 * light) & (share[beyond] < 0.1)]
        if len(full) and curve.mean[over] > 0.97 * full[0]:
            return float(full[0]), float(max(0.002 * full[0], np.ptp(full)))
    part = (share[under] - 0.5) / (share[under] - share[over])
    width = curve.mean[over] - curve.mean[under]
    return float(curve.mean[under] + part * width), float(width / np.sqrt(12.0))


# ---- verdict


def _judge(ptc: PhotonTransfer, states: list[_State], names: list[str], config: PtcConfig) -> Verdict:
    def visits(indices) -> str:
        indices = sorted(set(map(int, np.concatenate(indices))))
        return f"{'; '.join(names[k] for k in indices[:3])}{f' and {len(indices) - 3} more' if len(indices) > 3 else ''}"

    relative = ptc.gain_err / ptc.gain
    verdict = Verdict(
        statistics={
            "gain": float(np.mean(ptc.gain)),
            "gain_relative_error": float(np.max(relative)),
            "read_noise_electron": float(np.mean(ptc.read_noise)),
            "full_well_adu": float(np.mean(ptc.full_well)),
            "a_00_per_electron": float(np.mean(ptc.a[:, 0, 0])),
            "a_00_error": float(np.max(ptc.a_err[:, 0, 0])),
            "chi2_dof": float(np.max(ptc.chi2_dof)),
            "pairs": float(len(names)),
            "pairs_used": float(ptc.used.sum(axis=1).min()),
        }
    )
    for name, key in (("levels differ: the lamp failed", "mismatched"), ("variance off the curve", "outliers")):
        found = [getattr(state, key) for state in states]
        if any(map(len, found)):
            verdict = verdict.but("suspect", f"pairs left out, {name}: visits {visits(found)}")
    if not all(state.orders for state in states):
        verdict = verdict.but(
            "suspect",
            "a_ij was not measured, and the gain holds at the flats' level: their levels span less than a "
            f"factor of {config.min_range:g}; take a ramp",
        )
    worst = int(np.argmax(ptc.chi2_dof))
    if ptc.chi2_dof[worst] > config.max_chi2:
        share = np.where(ptc.used[worst], ptc.covariance[worst, :, 0, 0] / ptc.model[worst, :, 0, 0] - 1.0, 0.0)
        k = int(np.argmax(np.abs(share)))
        verdict = verdict.but(
            "suspect",
            f"chi^2 per degree of freedom is {ptc.chi2_dof[worst]:.1f} on amplifier {ptc.amplifiers[worst]}; the "
            f"variance of visits {names[k]} is off by {share[k]:+.1%}",
        )
    wrong = (ptc.gain <= 0) | ~np.isfinite(relative) | (relative > config.max_gain_error)
    if wrong.any():
        k = int(np.argmax(wrong))
        verdict = verdict.but(
            "bad", f"gain {ptc.gain[k]:.3g} +- {ptc.gain_err[k]:.2g} on amplifier {ptc.amplifiers[k]}: take more flats"
        )
    if (positive := ptc.a[:, 0, 0] > 5.0 * ptc.a_err[:, 0, 0]).any():
        verdict = verdict.but(
            "suspect",
            f"a_00 is positive on amplifier {ptc.amplifiers[int(np.argmax(positive))]}: correct the "
            "linearity first, or look at the lamp",
        )
    return verdict
