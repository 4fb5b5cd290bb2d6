"""Zero points of simulated stars with known truth."""

import numpy as np
import pytest

from rsp_hpc.algorithms.photometry import (PhotometryConfig, RelativeConfig, fit_zero_point, nominal_zero_point,
                                           relative_scales)
from rsp_hpc.algorithms.statistics import intrinsic_scatter, robust_sigma, weighted_median
from rsp_hpc.errors import BadData
from rsp_hpc.products.catalogue import Catalogue, Column

SCALE = 3.7  # nJy per electron


def stars(rng, n, noise=50.0, reference_error=0.02, extra=0.0):
    """(flux, error, (reference, error)) of n stars, brightness distribution as on the sky."""
    true = 500.0 * (1.0 - rng.random(n)) ** (-1 / 0.9)
    error = np.hypot(noise, np.sqrt(true))
    flux = true * 10 ** (0.4 * extra * rng.normal(size=n)) + error * rng.normal(size=n)
    reference = SCALE * true * (1 + reference_error * rng.normal(size=n))
    return flux, error, (reference, reference_error * reference)


def test_noiseless_stars_give_the_scale_back():
    rng = np.random.default_rng(1)
    true = rng.uniform(1e3, 1e5, 50)
    fit = fit_zero_point(true, 1e-3 * np.sqrt(true), (SCALE * true, np.zeros(50)), PhotometryConfig())
    assert fit.scale == pytest.approx(SCALE, rel=1e-6) and fit.n_stars == 50 and fit.scatter < 1e-4


@pytest.mark.parametrize("n, reference_error, extra", [(200, 0.02, 0.0), (30, 0.005, 0.0), (200, 0.01, 0.03),
                                                       (12, 0.02, 0.0)])
def test_errors_are_true(n, reference_error, extra):
    """The pull of the zero point over many fields is a normal distribution's, with and without unknown scatter."""
    pulls, scatter = [], []
    for seed in range(400):
        flux, error, reference = stars(np.random.default_rng(seed), n, 50.0, reference_error, extra)
        fit = fit_zero_point(flux, error, reference, PhotometryConfig(error_floor=0.0, min_snr=10.0))
        pulls.append((fit.scale - SCALE) / fit.scale_err)
        scatter.append(fit.scatter)
    tolerance = 0.12 if n > 20 else 0.2  # few stars: a t-like distribution
    assert abs(np.std(pulls) - 1.0) < tolerance
    assert abs(np.mean(pulls)) < 0.15
    if extra:
        assert np.median(scatter) > 0.9 * extra


def test_outliers_do_not_matter():
    rng = np.random.default_rng(2)
    flux, error, reference = stars(rng, 300)
    wrong = rng.random(300) < 0.3
    flux = np.where(wrong, flux * rng.uniform(0.2, 8.0, 300), flux)
    fit = fit_zero_point(flux, error, reference, PhotometryConfig())
    assert abs(fit.scale / SCALE - 1) < 0.01
    assert fit.zero_point == pytest.approx(31.4 - 2.5 * np.log10(SCALE), abs=0.01)


def test_a_color_term_is_taken_out():
    rng = np.random.default_rng(3)
    true, color = rng.uniform(1e4, 1e5, 100), rng.uniform(-1, 1, 100)
    ours = true * 10 ** (-0.4 * 0.08 * color)  # our magnitude - reference = 0.08 color
    fit = fit_zero_point(ours, np.sqrt(ours), (SCALE * true, 1e-3 * true), PhotometryConfig(color_term=0.08), color)
    assert fit.scale == pytest.approx(SCALE, rel=2e-3) and fit.scatter < 0.012
    plain = fit_zero_point(ours, np.sqrt(ours), (SCALE * true, 1e-3 * true), PhotometryConfig())
    assert plain.scatter > 0.03


def test_missing_values_are_left_out():
    flux, error, (reference, reference_err) = stars(np.random.default_rng(4), 100, 1.0)
    flux[:5], error[5:10], reference[10:15], reference_err[15:20] = np.nan, 0.0, np.nan, np.nan
    assert fit_zero_point(flux, error, (reference, reference_err), PhotometryConfig(min_snr=5.0)).n_stars <= 80


@pytest.mark.parametrize("n, factor", [(0, 1.0), (2, 1.0), (50, 1e-9)])
def test_too_few_stars_are_refused(n, factor):
    flux, error, reference = stars(np.random.default_rng(5), n)
    with pytest.raises(BadData, match="are needed for a zero point"):
        fit_zero_point(flux * factor, error, reference, PhotometryConfig())


def test_weighted_median():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.ones(3)) == 2.0
    assert weighted_median(np.array([1.0, 2.0]), np.ones(2)) == 1.5
    assert weighted_median(np.array([1.0, 2.0, 10.0]), np.array([1.0, 1.0, 5.0])) == 10.0


def test_scatter_estimates():
    rng = np.random.default_rng(6)
    values, sigma = rng.normal(0, 2.0, 4000), rng.uniform(0.1, 1.0, 4000)
    assert robust_sigma(values) == pytest.approx(2.0, rel=0.05)
    noisy = values + sigma * rng.normal(size=4000)
    assert intrinsic_scatter(noisy, sigma, 4000) == pytest.approx(2.0, rel=0.05)
    assert intrinsic_scatter(sigma * 0.5, sigma, 4000) == 0.0
    assert np.isnan(robust_sigma(np.array([])))


def test_without_stars_exposures_of_any_length_agree():
    config = PhotometryConfig(nominal_zero_point={"r": 25.0})
    short, long = (nominal_zero_point("g", seconds, config) for seconds in (60.0, 120.0))
    assert short.scale == pytest.approx(2.0 * long.scale) == pytest.approx(1.0 / 60.0) and np.isnan(short.scale_err)
    assert nominal_zero_point("r", 10.0, config).zero_point == pytest.approx(27.5)
    assert nominal_zero_point("g", 0.0, config).scale == pytest.approx(1.0)


def sources(ra, dec, flux, error):
    arrays = {"ra": ra, "dec": dec, "psfFlux": flux, "psfFluxErr": error, "psfFlux_flag": np.zeros(len(ra), bool),
              "pixelFlags_saturated": flux > 2e5}
    return Catalogue([Column(name, array.dtype.str[1:], "", "") for name, array in arrays.items()], arrays)


def test_visits_of_unknown_transparency_come_to_one_scale():
    """Four visits of one field and two of another, with losses up to half of the light, 1 % scatter, a third of the stars new."""
    rng = np.random.default_rng(4)
    losses, visits = np.array([1.0, 0.5, 0.8, 0.95, 0.7, 1.0]), []
    for number, loss in enumerate(losses):
        field = np.random.default_rng(number // 4)
        ra, dec = 10.0 + 5.0 * (number // 4) + field.uniform(0, 0.2, 300), field.uniform(-0.1, 0.1, 300)
        true = 5e2 * (1.0 - field.random(300)) ** -1.0
        seen = rng.random(300) < 0.7
        error = np.hypot(20.0, np.sqrt(true * loss))
        flux = true * loss * (1 + 0.01 * rng.normal(size=300)) + error * rng.normal(size=300)
        shift = 0.1 / 3600 * rng.normal(size=(2, 300))
        visits.append(sources((ra + shift[0])[seen], (dec + shift[1])[seen], flux[seen], error[seen]))
    factors = relative_scales(visits, RelativeConfig(min_snr=20.0))
    np.testing.assert_allclose(factors[:4] * losses[:4], factors[0], rtol=0.01)
    np.testing.assert_allclose(factors[4:] * losses[4:], factors[5], rtol=0.01)
    assert factors[0] == 1.0 and factors[5] == 1.0 and (factors >= 1.0).all()
    assert (relative_scales(visits[:1] + visits[5:], RelativeConfig()) == 1.0).all()  # nothing in common
