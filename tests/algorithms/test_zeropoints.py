"""Zero points of a visit: pulls, colour terms, few stars, clouds."""

import numpy as np
import pytest

from rsp_hpc.algorithms.photometry import PhotometryConfig
from rsp_hpc.algorithms.zeropoints import DetectorFluxes, fit_visit_zero_points
from rsp_hpc.errors import BadData

SCALE = 3.7


def visit(rng, numbers, spread=0.01, slope=0.0, clouds=0.0):
    """(detectors, true zero point of each in mag about SCALE): stars on a row of detectors."""
    detectors, truth = [], spread * rng.normal(size=len(numbers))
    for i, n in enumerate(numbers):
        true, color = 2e3 * (1.0 - rng.random(n)) ** (-1 / 0.9), rng.normal(0.5, 0.4, n)
        error = np.hypot(30.0, np.sqrt(true))
        xi, eta = i + rng.random(n), rng.random(n)
        change = truth[i] + slope * color + clouds * (xi / len(numbers)) ** 2
        flux = true * 10 ** (-0.4 * change) + error * rng.normal(size=n)
        reference = SCALE * true * (1 + 0.01 * rng.normal(size=n))
        detectors.append(DetectorFluxes(flux, error, reference, 0.01 * reference, color, xi, eta))
    return detectors, truth


def fitted(detectors, **changes):
    return fit_visit_zero_points(detectors, PhotometryConfig(error_floor=0.0, **changes), "r", 30.0)


def test_errors_are_true_with_many_and_with_few_stars():
    pulls = {5: [], 60: []}
    for seed in range(80):
        detectors, truth = visit(np.random.default_rng(seed), [5, 60] * 6)
        fit = fitted(detectors)
        for n, photocal, move in zip([5, 60] * 6, fit.photocals, truth):
            pulls[n].append((photocal.zero_point - (31.4 - 2.5 * np.log10(SCALE)) + move) / photocal.zero_point_err)
        assert fit.photometric and 0.003 < fit.spread < 0.02
    for values in pulls.values():
        assert 0.85 < np.std(values) < 1.15 and abs(np.mean(values)) < 0.15


def test_a_detector_without_stars_follows_the_others():
    detectors, _ = visit(np.random.default_rng(1), [60, 60, 60, 0, 60, 60])
    fit = fitted(detectors)
    assert fit.photocals[3].n_stars == 0
    assert fit.photocals[3].scale == pytest.approx(np.mean([p.scale for i, p in enumerate(fit.photocals) if i != 3]), rel=0.01)
    assert fit.photocals[3].zero_point_err > 1.5 * fit.photocals[0].zero_point_err


def test_a_colour_term_is_fitted_or_taken_as_given():
    detectors, _ = visit(np.random.default_rng(2), [80] * 5, slope=0.08)
    fit = fitted(detectors, fit_color_term=True)
    assert fit.color_term == pytest.approx(0.08, abs=4 * fit.color_term_err) and 0 < fit.color_term_err < 0.003
    given = fitted(detectors, color_term=0.08)
    assert given.color_term == pytest.approx(0.08) and given.color_term_err == 0.0
    np.testing.assert_allclose([p.scale for p in fit.photocals], [p.scale for p in given.photocals], rtol=5e-3)


def test_clouds_make_a_bad_night():
    clear, _ = visit(np.random.default_rng(3), [60] * 8)
    cloudy, _ = visit(np.random.default_rng(3), [60] * 8, clouds=0.3)
    assert fitted(clear).surface < 0.015 and fitted(clear).reasons == ()
    fit = fitted(cloudy)
    assert not fit.photometric and fit.surface > 0.05 and fit.spread > 0.05 and len(fit.reasons) == 2
    for photocal, i in zip(fit.photocals, range(8)):  # each detector has its own all the same
        assert photocal.zero_point == pytest.approx(31.4 - 2.5 * np.log10(SCALE) - 0.3 * ((i + 0.5) / 8) ** 2, abs=0.04)


def test_light_lost_is_counted_where_the_zero_point_is_known():
    detectors, _ = visit(np.random.default_rng(4), [60] * 3, spread=0.0)
    clear = 31.4 - 2.5 * np.log10(SCALE) - 2.5 * np.log10(30.0)
    fit = fitted(detectors, nominal_zero_point={"r": clear + 0.7})
    assert fit.extinction == pytest.approx(0.7, abs=0.01) and fit.reasons[0].startswith("light lost: 0.")
    assert np.isnan(fitted(detectors).extinction)


def test_too_few_stars_are_refused():
    detectors, _ = visit(np.random.default_rng(5), [1, 1])
    with pytest.raises(BadData, match="only 2 reference stars"):
        fitted(detectors)
