"""Zero points of one visit: all its detectors together, with a colour term, and whether the night was photometric.

Detectors scatter about the visit's zero point by what flat fields and gains leave; that width comes from the data, and a detector
with few stars follows the others as far as it tells (random effects: DerSimonian & Laird 1986, Controlled Clinical Trials 7, 177;
here by expectation maximisation). Clouds show as a larger width, or as a surface over the focal plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..errors import BadData
from ..products.photocal import PhotoCal, magnitude_of
from .photometry import PhotometryConfig, VerdictConfig, log_ratios
from .statistics import intrinsic_scatter, robust_sigma

__all__ = ["DetectorFluxes", "VisitZeroPoints", "fit_visit_zero_points"]

_MAG = 2.5 / np.log(10.0)
_SURFACE = 5  # terms, beyond the mean, of the surface that clouds may have


@dataclass(frozen=True)
class DetectorFluxes:
    """Matched stars of one detector.

    Attributes
    ----------
    flux, flux_err : (n,) electron, aperture corrected
    reference, reference_err : (n,) nJy
    color : (n,) mag, reference colour less that where the colour term vanishes; NaN where unknown
    xi, eta : (n,) position on the visit's focal plane in any unit
    """

    flux: np.ndarray
    flux_err: np.ndarray
    reference: np.ndarray
    reference_err: np.ndarray
    color: np.ndarray
    xi: np.ndarray
    eta: np.ndarray


@dataclass(frozen=True)
class VisitZeroPoints:
    """The zero points of a visit.

    Attributes
    ----------
    photocals : one PhotoCal per detector; its error holds the visit's share
    visit_err : mag, the share of the error that all detectors have in common
    spread : mag, rms of the detectors about the visit's zero point, beyond their errors
    surface : mag, rms over the stars of a significant quadratic surface over the focal plane; 0 if there is none
    color_term, color_term_err : mag per mag, our magnitude less the reference with colour; the error is 0 if it was given
    extinction : mag, light lost against the nominal zero point; NaN where none is configured for the band
    photometric : bool; reasons : what speaks against it
    """

    photocals: list[PhotoCal]
    visit_err: float
    spread: float
    surface: float
    color_term: float
    color_term_err: float
    extinction: float
    photometric: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Stars:
    """Stars of all detectors: log ratio reference to measured, its error, colour, detector, place."""

    ratio: np.ndarray
    sigma: np.ndarray
    color: np.ndarray
    detector: np.ndarray
    place: np.ndarray

    def rows(self, keep) -> _Stars:
        return _Stars(*(getattr(self, name)[keep] for name in ("ratio", "sigma", "color", "detector", "place")))


def fit_visit_zero_points(detectors: Sequence[DetectorFluxes], config: PhotometryConfig, band: str,
                          exposure_time: float) -> VisitZeroPoints:
    """Zero points of all detectors of a visit, and the verdict on the night.

    Parameters
    ----------
    detectors : matched stars; a detector without any gets the visit's zero point, with the spread as its error
    config : with the colour term and the limits of the verdict
    band, exposure_time : of the visit; seconds

    Raises
    ------
    BadData
        There are too few stars on all detectors together.
    """
    stars = _collect(detectors, config)
    fit_color = config.fit_color_term and len(stars.ratio) >= 30 and robust_sigma(stars.color) > 0.1
    slope = config.color_term / _MAG
    given = (config.verdict.expected_spread / _MAG) ** 2
    tau2, scatter, keep = given, 0.0, np.ones(len(stars.ratio), bool)
    for turn in range(40):
        used = stars.rows(keep)
        fit = _means(used, len(detectors), (tau2, scatter, fit_color, slope))
        left = stars.ratio - fit.zero[stars.detector] - fit.slope * stars.color
        scatter = (float(np.sqrt(max(0.0, robust_sigma(left) ** 2 - np.median(stars.sigma) ** 2))) if turn < 2 else
                   intrinsic_scatter(left[keep], used.sigma, keep.sum() - fit.free))
        tau2 = float((np.sum((fit.zero - fit.mean) ** 2 + fit.variance) * (len(detectors) > 1) + 2.0 * given)
                     / (len(detectors) * (len(detectors) > 1) + 2.0))
        before, keep = keep, np.abs(left) <= config.clip * np.hypot(stars.sigma, scatter)
        if keep.sum() < config.min_stars:
            raise BadData(f"the zero points of the {len(left)} reference stars of the visit do not agree: only "
                          f"{int(keep.sum())} are within {config.clip:g} sigma, {config.min_stars} are needed")
        if turn > 8 and np.array_equal(before, keep):
            break
    error = np.sqrt(fit.variance + fit.share**2 * fit.mean_variance)
    number = np.bincount(stars.detector[keep], minlength=len(detectors))
    photocals = [PhotoCal(float(np.exp(zero)), float(np.exp(zero) * err), int(n),
                          _MAG * robust_sigma(left[keep & (stars.detector == i)]))
                 for i, (zero, err, n) in enumerate(zip(fit.zero, error, number))]
    spread = _MAG * float(np.sqrt(tau2)) if len(detectors) > 1 else 0.0
    surface = _MAG * _surface(stars.rows(keep), left[keep] + (fit.zero - fit.mean)[stars.detector[keep]], scatter)
    extinction = _extinction(fit.mean, band, exposure_time, config)
    reasons = _reasons(spread, surface, extinction, config.verdict)
    return VisitZeroPoints(photocals, _MAG * float(np.sqrt(fit.mean_variance)), spread, surface, _MAG * fit.slope,
                           _MAG * fit.slope_err, extinction, not reasons, reasons)


def _collect(detectors: Sequence[DetectorFluxes], config: PhotometryConfig) -> _Stars:
    """The usable stars, cut by the signal that the reference predicts."""
    rows = []
    for i, d in enumerate(detectors):
        color = np.where(np.isfinite(d.color), d.color, 0.0) if config.color_term == 0.0 and not config.fit_color_term else d.color
        use, ratio, sigma = log_ratios(d.flux, d.flux_err, (d.reference, d.reference_err), config, color)
        rows.append((ratio, sigma, color[use], np.full(len(ratio), i), np.stack([d.xi[use], d.eta[use]], -1)))
    stars = _Stars(*(np.concatenate(column) for column in zip(*rows)))
    if len(stars.ratio) < config.min_stars:
        raise BadData(f"only {len(stars.ratio)} reference stars with signal to noise >= {config.min_snr:g} on all detectors, "
                      f"{config.min_stars} are needed for a zero point")
    return stars


@dataclass(frozen=True)
class _Means:
    """The random-effects fit, natural logarithms: each detector's zero point and its variance with the visit's known."""

    mean: float
    mean_variance: float
    slope: float
    slope_err: float
    zero: np.ndarray
    variance: np.ndarray
    share: np.ndarray
    free: float


def _means(stars: _Stars, n: int, state) -> _Means:
    tau2, scatter, fit_color, slope = state
    weight = 1.0 / (stars.sigma**2 + scatter**2)
    total = np.bincount(stars.detector, weight, n)
    seen = total > 0
    safe = np.where(seen, total, 1.0)
    ratio, color = (np.bincount(stars.detector, weight * value, n) / safe for value in (stars.ratio, stars.color))
    between = np.where(seen, 1.0 / (1.0 / safe + tau2), 0.0)
    slope_err = 0.0
    if fit_color:
        dc, dr = stars.color - color[stars.detector], stars.ratio - ratio[stars.detector]
        matrix = np.array([[between.sum(), np.sum(between * color)],
                           [np.sum(between * color), np.sum(between * color**2) + np.sum(weight * dc**2)]])
        inverse = np.linalg.inv(matrix)
        mean, slope = inverse @ [np.sum(between * ratio), np.sum(between * color * ratio) + np.sum(weight * dc * dr)]
        mean_variance, slope_err = inverse[0, 0], float(np.sqrt(inverse[1, 1]))
    else:
        mean_variance = 1.0 / between.sum()
        mean = mean_variance * np.sum(between * (ratio - slope * color))
    own = np.where(seen, tau2 * between, 0.0)  # how far a detector is believed
    zero = mean + own * (ratio - slope * color - mean)
    return _Means(float(mean), float(mean_variance), float(slope), slope_err, zero, tau2 * (1.0 - own), 1.0 - own,
                  1.0 + fit_color + float(own.sum()))


def _surface(stars: _Stars, left: np.ndarray, scatter: float) -> float:
    """Rms of a quadratic surface in the zero point over the focal plane, if chance makes it once in a thousand; else 0."""
    from scipy.special import fdtrc

    place = stars.place - stars.place.mean(axis=0)
    x, y = (place / max(float(np.abs(place).max()), 1e-12)).T
    design = np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], -1)
    weight = 1.0 / np.hypot(stars.sigma, scatter)
    free = len(x) - design.shape[1]
    if free < 10:
        return 0.0
    flat = np.average(left, weights=weight**2)
    model = design @ np.linalg.lstsq(design * weight[:, None], left * weight, rcond=1e-9)[0]
    chi2, before = np.sum(((left - model) * weight) ** 2), np.sum(((left - flat) * weight) ** 2)
    if fdtrc(_SURFACE, free, (before - chi2) / _SURFACE / max(chi2 / free, 1e-300)) > 1e-3:
        return 0.0
    return float(np.std(model))


def _extinction(mean: float, band: str, exposure_time: float, config: PhotometryConfig) -> float:
    nominal = config.nominal_zero_point.get(band, float("nan"))
    return nominal + 2.5 * float(np.log10(max(exposure_time, 1e-9))) - float(magnitude_of(np.exp(mean)))


def _reasons(spread: float, surface: float, extinction: float, limits: VerdictConfig) -> tuple[str, ...]:
    checks = (("zero points of the detectors differ by", spread, limits.max_spread),
              ("clouds across the focal plane of", surface, limits.max_surface),
              ("light lost:", extinction, limits.max_extinction))
    return tuple(f"{words} {value:.3f} mag (limit {limit:g})" for words, value, limit in checks if value > limit)
