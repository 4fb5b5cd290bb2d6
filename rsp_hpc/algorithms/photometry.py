"""Zero points: the scale from electrons to nJy that reference stars give; without any, what makes visits agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.catalogue import Catalogue
from ..products.geometry import unit_vectors
from ..products.photocal import AB_ZERO_POINT, PhotoCal, nanojansky_of
from .match import tree_of
from .statistics import intrinsic_scatter, robust_sigma, weighted_median

__all__ = ["PhotometryConfig", "RelativeConfig", "VerdictConfig", "fit_zero_point", "log_ratios", "nominal_zero_point",
           "relative_scales"]

_MAG = 2.5 / np.log(10.0)


class VerdictConfig(Config):
    """When a visit is called photometric."""

    expected_spread: float = parameter(0.005, "what flat fields and gains leave between detectors", unit="mag", above=0.0)
    max_spread: float = parameter(0.03, "larger differences between the detectors of a visit are clouds", unit="mag", above=0.0)
    max_surface: float = parameter(0.03, "a larger rms of the zero point over the focal plane is clouds", unit="mag", above=0.0)
    max_extinction: float = parameter(0.5, "more light lost than this, against nominal_zero_point, is a bad night", unit="mag",
                                      above=0.0)


class PhotometryConfig(Config):
    """How the zero point is found."""

    min_snr: float = parameter(20.0, "least signal to noise of a star, from its reference flux", low=3.0)
    min_stars: int = parameter(3, "fewer stars give no zero point", low=1)
    clip: float = parameter(4.0, "stars further off, in sigma, are left out", above=1.0)
    error_floor: float = parameter(0.003, "least error of a star: flat fields, PSF", unit="mag", low=0.0)
    color_term: float = parameter(0.0, "slope of (our magnitude - reference) with the reference colour", unit="mag/mag")
    color: dict[str, tuple[str, str]] = parameter({}, "reference bands whose difference is the colour, by our band: {r: [g, i]}")
    color_terms: dict[str, float] = parameter({}, "the same by band, where color_term does not hold", unit="mag/mag")
    color_zero: float = parameter(0.0, "colour at which the colour term vanishes", unit="mag")
    fit_color_term: bool = parameter(False, "fit one colour term per visit, where 30 stars show a range of colours")
    verdict: VerdictConfig = VerdictConfig()
    nominal_zero_point: dict[str, float] = parameter(
        {}, "without a reference catalogue: AB magnitude of one electron per second by band; bands not named have 31.4, which "
            "makes one electron per second one nJy", unit="mag")


class RelativeConfig(Config):
    """How visits are brought to one scale where no reference catalogue does it."""

    min_snr: float = parameter(50.0, "least signal to noise of a star, in both visits", low=5.0)
    min_stars: int = parameter(10, "visits with fewer common stars are not compared", low=3)
    radius: float = parameter(1.5, "largest distance of the same star in two visits", unit="arcsec", above=0.0)


def fit_zero_point(flux: np.ndarray, flux_err: np.ndarray, reference: tuple[np.ndarray, np.ndarray],
                   config: PhotometryConfig, color: np.ndarray | None = None) -> PhotoCal:
    """The zero point of matched stars: a clipped, weighted mean of reference over measured flux, in log flux.

    Weights and the cut in signal to noise come from the flux that the reference predicts: taken from the measured
    flux they would prefer stars whose noise made them brighter. The small bias of the logarithm of a noisy number is
    taken out to second order. Scatter beyond the errors is estimated and enters the weights and the error.

    Parameters
    ----------
    flux, flux_err : (n,) electron, aperture corrected; NaN for stars to leave out
    reference : (flux, error), each (n,) nJy, of the same stars
    color : (n,) mag, reference colours that the colour term multiplies, relative to where it vanishes

    Raises
    ------
    BadData
        Too few stars.
    """
    rows, ratio, sigma = log_ratios(flux, flux_err, reference, config, color)
    if len(ratio) < config.min_stars:
        raise BadData(f"only {len(ratio)} reference stars with signal to noise >= {config.min_snr:g}, "
                      f"{config.min_stars} are needed for a zero point")
    if color is not None:
        ratio = ratio - config.color_term * np.asarray(color, float)[rows] / _MAG
    return _fit(ratio, sigma, config)


def log_ratios(flux, flux_err, reference, config: PhotometryConfig, color=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which stars tell the zero point; ln(reference / measured) of these, and its error.

    Weights and the cut in signal to noise come from the flux that the reference predicts, through the stars' common scale. The
    small bias of the logarithm of a noisy number is taken out to second order.

    Returns
    -------
    rows (m,) of the stars, ratio (m,), error (m,)
    """
    expected, expected_err = (np.asarray(array, float) for array in reference)
    flux, flux_err = np.asarray(flux, float), np.asarray(flux_err, float)
    with np.errstate(invalid="ignore"):
        use = (flux > 0) & (flux_err > 0) & (expected > 0) & (expected_err >= 0) & np.isfinite(flux_err + expected_err)
    tilt = np.zeros(len(flux))
    if color is not None:
        use &= np.isfinite(color)
        tilt = config.color_term * np.where(use, color, 0.0) / _MAG
    rows = np.flatnonzero(use)
    flux, flux_err, expected, expected_err, tilt = flux[rows], flux_err[rows], expected[rows], expected_err[rows], tilt[rows]
    ratio = np.log(expected / flux)  # natural logarithms until the end
    bright = flux >= config.min_snr * flux_err
    scale = float(np.median((ratio - tilt)[bright])) if bright.any() else 0.0
    noise, error = flux_err * np.exp(scale + tilt) / expected, expected_err / expected
    good = (noise <= 1.0 / config.min_snr) & bright.any()
    ratio = ratio + 0.5 * error**2 - 0.5 * noise**2
    return rows[good], ratio[good], np.sqrt(noise**2 + error**2 + (config.error_floor / _MAG) ** 2)[good]


def nominal_zero_point(band: str, exposure_time: float, config: PhotometryConfig) -> PhotoCal:
    """The scale where no star tells: by the exposure time alone, so that exposures of different length can be added up.

    Its error is unknown (NaN): transparency, and unless configured the instrument's response, are in it.
    """
    scale = float(nanojansky_of(config.nominal_zero_point.get(band, AB_ZERO_POINT)))
    return PhotoCal(scale / exposure_time if exposure_time > 0 else scale, float("nan"))


def relative_scales(visits: Sequence[Catalogue], config: RelativeConfig) -> np.ndarray:
    """(n,) float64 factors on the fluxes of visits of one band, so that their common stars agree.

    The median log ratio of each pair of visits, all pairs together by least squares; n^2 pairs, so for surveys of some
    hundred visits. In each group of visits that overlap, the clearest has the factor one.

    Parameters
    ----------
    visits : the sources, with columns ra, dec (deg), psfFlux, psfFluxErr and psfFlux_flag, pixelFlags_saturated
    """
    stars = [_bright_stars(sources, config) for sources in visits]
    group = np.arange(len(stars))
    rows, values = [], []
    for i in range(len(stars)):
        for j in range(i):
            ratio = _log_ratio(stars[i], stars[j], config)
            if len(ratio) < config.min_stars:
                continue
            weight = np.sqrt(len(ratio)) / np.hypot(robust_sigma(ratio), 0.003)
            row = np.zeros(len(stars))
            row[[i, j]] = weight, -weight
            rows.append(row)
            values.append(-weight * np.median(ratio))
            group[group == group[i]] = group[j]
    if not rows:
        return np.ones(len(stars))
    factors = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    for number in np.unique(group):
        factors[group == number] -= factors[group == number].min()
    return np.exp(factors)


def _bright_stars(sources: Catalogue, config: RelativeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Directions (n, 3) and log fluxes (n,)."""
    flux, error = sources["psfFlux"], sources["psfFluxErr"]
    with np.errstate(invalid="ignore"):
        good = ~sources["psfFlux_flag"] & ~sources["pixelFlags_saturated"] & (flux >= config.min_snr * error) & (flux > 0)
    good &= np.isfinite(sources["ra"]) & np.isfinite(sources["dec"])
    return unit_vectors(sources["ra"][good], sources["dec"][good]), np.log(flux[good])


def _log_ratio(first, second, config: RelativeConfig) -> np.ndarray:
    """Log flux ratios, first over second, of the pairs that are each other's nearest within the radius."""
    if not len(first[1]) or not len(second[1]):
        return np.zeros(0)
    reach = np.radians(config.radius / 3600.0)
    trees = [tree_of(positions) for positions, _ in (first, second)]
    distance, there = trees[1].query(first[0], distance_upper_bound=reach)
    _, back = trees[0].query(second[0], distance_upper_bound=reach)
    mine = np.flatnonzero(np.isfinite(distance))
    mine = mine[back[there[mine]] == mine]
    return first[1][mine] - second[1][there[mine]]


def _fit(ratio: np.ndarray, sigma: np.ndarray, config: PhotometryConfig) -> PhotoCal:
    """Clipped weighted mean with scatter beyond the errors, from the weighted median on."""
    typical = float(np.median(sigma))
    mean = weighted_median(ratio, 1.0 / (sigma**2 + typical**2))  # no one star, saturated perhaps, may be the majority
    scatter = np.sqrt(max(0.0, robust_sigma(ratio - mean) ** 2 - typical**2))
    keep = np.zeros(len(ratio), bool)
    for _ in range(20):
        before, keep = keep, np.abs(ratio - mean) <= config.clip * np.hypot(sigma, scatter)
        if np.array_equal(before, keep) or keep.sum() < config.min_stars:
            break
        scatter = intrinsic_scatter(ratio[keep] - mean, sigma[keep], keep.sum() - 1.0)
        weight = 1.0 / (sigma[keep] ** 2 + scatter**2)
        mean = float(np.sum(weight * ratio[keep]) / np.sum(weight))
    if keep.sum() < config.min_stars:
        raise BadData(f"the zero points of the {len(ratio)} reference stars do not agree: only {int(keep.sum())} are "
                      f"within {config.clip:g} sigma, {config.min_stars} are needed")
    error = 1.0 / np.sqrt(np.sum(1.0 / (sigma[keep] ** 2 + scatter**2)))
    return PhotoCal(float(np.exp(mean)), float(np.exp(mean) * error), int(keep.sum()),
                    _MAG * robust_sigma(ratio[keep] - mean))
