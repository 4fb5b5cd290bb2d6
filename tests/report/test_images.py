"""PSF residuals and blank sky on made-up images of known profile and noise; metrics of the visits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from report.synthetic import gaussian, make_visit_detector
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.coadd import Coadd
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import CellPsf
from rsp_hpc.report.config import ReportConfig
from rsp_hpc.report.images import adaptive_moments, blank_sky, psf_sample, shifted
from rsp_hpc.report.visits import VisitRow, depth_metrics, epoch_metrics, psf_metrics, visit_metrics

CONFIG = ReportConfig()


def test_adaptive_moments_of_a_gaussian_are_its_own():
    assert_allclose(adaptive_moments(gaussian(41, 2.0, 0.3, -0.4), 0.3, -0.4), (4.0, 4.0, 0.0), atol=1e-5)
    xx, yy, xy = adaptive_moments(gaussian(61, 2.5, shear=0.1))
    assert_allclose((xx, yy, xy), ((2.5 * 1.1) ** 2, (2.5 * 0.9) ** 2, 0.0), atol=1e-4)


def test_adaptive_moments_of_what_is_no_source_are_nan():
    assert np.isnan(adaptive_moments(np.zeros((21, 21)))).all()
    assert np.isnan(adaptive_moments(-gaussian(21, 2.0))).all()


def test_shift_is_exact_for_a_sampled_profile():
    assert_allclose(shifted(gaussian(31, 1.7), 0.37, -0.21), gaussian(31, 1.7, 0.37, -0.21), atol=1e-6)


@pytest.mark.parametrize("fwhm, model, expected", [(3.4, 3.4, 0.0), (3.4, 3.2, (3.4 / 3.2) ** 2 - 1),
                                                   (4.0, 4.2, (4.0 / 4.2) ** 2 - 1)])
def test_size_residual_is_that_of_the_profiles(fwhm, model, expected):
    sample = psf_sample(make_visit_detector(np.random.default_rng(1), fwhm=fwhm, model_fwhm=model))
    assert len(sample.x) == 40
    assert abs(np.median(sample.size_residual) - expected) < 0.002
    assert_allclose(np.median(sample.size_model), 2 * (model / 2.3548) ** 2 * 0.25,
                    rtol=0.003)  # arcsec^2, 0.5 arcsec/pixel


def test_residual_stack_is_noise_for_the_true_model_and_not_for_another():
    good = psf_sample(make_visit_detector(np.random.default_rng(2)))
    bad = psf_sample(make_visit_detector(np.random.default_rng(2), model_fwhm=3.0))
    assert np.mean((good.stack / good.stack_error) ** 2) < 1.3
    assert np.mean((bad.stack / bad.stack_error) ** 2) > 10.0


def test_stars_on_bad_pixels_are_left_out():
    visit = make_visit_detector(np.random.default_rng(3))
    x, y = int(visit.sources["x"][0]), int(visit.sources["y"][0])
    visit.image.mask[y, x] |= np.uint32(bits("SAT"))
    assert len(psf_sample(visit).x) == 39
    visit.image.mask[:] |= np.uint32(bits("CR"))
    assert psf_sample(visit) is None


def make_coadd(rng, sigma=5.0, correlation=1.0, claimed=None, shape=(300, 300)):
    box = Box(1000, 2000, shape[1], shape[0])
    image = MaskedImage(rng.normal(0.0, sigma, shape).astype(np.float32), np.zeros(shape, np.uint32),
                        np.full(shape, (claimed or sigma) ** 2, np.float32), box, "nJy")
    cells = np.broadcast_to(gaussian(17, 1.5), (2, 2, 17, 17)).astype(np.float32)
    return Coadd("r", image, np.ones(shape, np.uint16), CellPsf(cells, 150, box),
                 np.full((2, 2), correlation, np.float32),
                 Catalogue([Column("visit", "i8", "", "")]))


def test_blank_sky_of_white_noise():
    sky = blank_sky(make_coadd(np.random.default_rng(4)), 1500)
    expected = 5.0 / np.sqrt((gaussian(17, 1.5) ** 2).sum())
    assert_allclose(sky.expected, expected, rtol=1e-5)
    assert abs(sky.ratio.value - 1.0) < 3.5 * sky.ratio.error
    assert_allclose(sky.depth, 31.4 - 2.5 * np.log10(5 * expected), atol=0.1)


def test_blank_sky_finds_wrong_variances_and_uses_the_noise_correlation():
    assert_allclose(blank_sky(make_coadd(np.random.default_rng(5), claimed=2.5), 1000).ratio.value, 2.0, rtol=0.08)
    assert_allclose(blank_sky(make_coadd(np.random.default_rng(5), correlation=4.0), 1000).ratio.value, 0.5, rtol=0.08)


def test_blank_sky_keeps_off_detections_and_of_an_image_full_of_them_there_is_none():
    coadd = make_coadd(np.random.default_rng(6))
    coadd.image.image[:, 150:] += 1e4
    coadd.image.mask[:, 150:] |= np.uint32(bits("DETECTED"))
    assert abs(blank_sky(coadd, 300).bias.value) < 20.0
    coadd.image.mask[:] |= np.uint32(bits("DETECTED"))
    assert blank_sky(coadd, 300) is None
    assert blank_sky(make_coadd(np.random.default_rng(6), shape=(10, 10)), 50) is None


def value(metrics, key):
    return next(item for item in metrics if item.key == key)


def test_depth():
    metrics = depth_metrics({"r": np.full(50, 20.0), "g": np.empty(0)},
                            [blank_sky(make_coadd(np.random.default_rng(7)), 500)], CONFIG)
    assert_allclose(value(metrics, "depth").value, 26.4)
    assert value(metrics, "noise_ratio").band == "r" and {item.band for item in metrics} == {"r"}


def test_visits_against_truth():
    rows = [VisitRow(1, str(k), "r", values={"zero_point": 27.005, "true_zero_point": 27.0, "zero_point_err": 0.0025})
            for k in range(9)]
    metrics = visit_metrics(rows, CONFIG)
    assert_allclose(value(metrics, "zero_point_bias").value, 5.0, atol=1e-6)
    assert "seeing" not in {item.key for item in metrics}
    assert visit_metrics([dataclasses.replace(rows[0], values={})], CONFIG) == [] == psf_metrics(rows, CONFIG)


def test_epochs():
    rng = np.random.default_rng(8)
    flux, error = np.full(4000, 1000.0), np.full(4000, 10.0)
    first, second = (flux * factor + error * rng.normal(size=4000) for factor in (1.0, 0.99))
    metrics = epoch_metrics((first, error), (second, error), (flux, error / np.sqrt(2.0) * 1.02), CONFIG)
    assert_allclose(value(metrics, "epoch_pull_width").value, 1.0, atol=0.05)
    assert_allclose(value(metrics, "epoch_offset").value, 10.9, atol=1.0)
    assert_allclose(value(metrics, "epoch_depth").value, 1.02, atol=1e-9)
