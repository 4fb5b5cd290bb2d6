"""Metrics on constructed catalogues whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.report.config import ReportConfig
from rsp_hpc.report.metrics import (Truth, compare, completeness, completeness_metrics, duplicate_metric,
                                    duplicate_pairs,
                                    flux_metrics, isolated, metric, object_metrics, position_metrics, purity_metrics,
                                    roc_area,
                                    separation_metrics)
from rsp_hpc.report.robust import Estimate, fraction, match_sky, median, weighted_mean, width

CONFIG = ReportConfig()
ARCSEC = 1.0 / 3600.0


def grid(n, step=30.0, ra=150.0, dec=2.0):
    """n positions `step` arcsec apart, so that all are isolated."""
    side = int(np.ceil(np.sqrt(n)))
    k = np.arange(n)
    dec = dec + (k // side) * step * ARCSEC
    return ra + (k % side) * step * ARCSEC / np.cos(np.radians(dec)), dec


def make_truth(snr, is_star=None, ra=None, dec=None, band="r"):
    n = len(snr)
    if ra is None:
        ra, dec = grid(n)
    star = np.ones(n, bool) if is_star is None else np.asarray(is_star)
    noise = np.full(n, 10.0)
    return Truth(ra, dec, star, np.zeros(n), {band: noise * snr}, {band: noise}, {band: 0.35}, np.ones(n, bool))


def make_objects(ra, dec, flux=None, error=None, tract=None, patch=None, **more):
    n = len(ra)
    arrays = {"coord_ra": ra, "coord_dec": dec, "coord_raErr": np.full(n, 0.01 * ARCSEC),
              "coord_decErr": np.full(n, 0.01 * ARCSEC),
              "r_psfFlux": np.ones(n) if flux is None else flux,
              "r_psfFluxErr": np.full(n, 10.0) if error is None else error,
              "tract": np.zeros(n) if tract is None else tract, "patch": np.zeros(n) if patch is None else patch,
              **more}
    kinds = {"tract": "i8", "patch": "i8"}
    columns = [Column(name, kinds.get(name, "f8"), "", "") for name in arrays]
    return Catalogue(columns, arrays)


def value(metrics, key):
    found = [item for item in metrics if item.key == key]
    assert len(found) == 1, f"{key} occurs {len(found)} times"
    return found[0]


def test_matching_is_one_to_one_and_takes_the_closest():
    ra = np.array([10.0, 10.0 + 0.4 * ARCSEC, 50.0, np.nan])
    ra2 = np.array([10.0 + 0.3 * ARCSEC, 10.0 - 0.2 * ARCSEC, 10.0 + 0.5 * ARCSEC])
    i, j, separation = match_sky(ra, np.zeros(4), ra2, np.zeros(3), 1.0)
    assert list(zip(i, j)) == [(0, 1), (1, 0)] or list(zip(i, j)) == [(0, 1), (1, 2)]
    assert_allclose(separation, [0.2, 0.1], atol=1e-6)


def test_matching_works_over_the_zero_meridian_and_at_the_pole():
    i, j, _ = match_sky([359.99999, 100.0], [0.0, 89.99999], [0.00001, 280.0], [0.0, 89.99999], 0.1)
    assert list(zip(i, j)) == [(0, 0), (1, 1)]


def test_matching_of_nothing():
    for a, b in (([], [1.0]), ([1.0], []), ([], [])):
        assert [len(part) for part in match_sky(a, a, b, b, 1.0)] == [0, 0, 0]


def test_estimates_have_the_error_of_their_sampling():
    samples = np.random.default_rng(5).normal(3.0, 2.0, (400, 250))
    for function, expected in ((median, 3.0), (width, 2.0)):
        values = np.array([function(sample).value for sample in samples])
        assert_allclose(values.mean(), expected, atol=0.03)
        assert_allclose(np.mean([function(sample).error for sample in samples]), values.std(), rtol=0.15)
    means = [weighted_mean(sample, np.full(250, 7.0))
             for sample in samples]  # errors wrong by 3.5: the mean's must not be
    assert_allclose(np.mean([mean.error for mean in means]), np.std([mean.value for mean in means]), rtol=0.1)


def test_estimates_of_too_few():
    assert np.isnan(median([np.nan]).value) and median([]).n == 0
    assert np.isnan(width([1.0]).value) and np.isnan(weighted_mean([1.0], [1.0]).value)
    assert np.isnan(fraction(0, 0).value)
    assert fraction(10, 10).error > 0.03


def test_completeness_counts_isolated_objects_by_true_snr():
    snr = np.array([6.0] * 10 + [15.0] * 20 + [3.0] * 5)
    truth = make_truth(snr)
    seen = np.r_[0:8, 10:29]  # 8 of 10, 19 of 20
    metrics = completeness_metrics(compare(make_objects(truth.ra[seen], truth.dec[seen]), truth, CONFIG), CONFIG)
    assert (value(metrics, "completeness_5_7").value, value(metrics, "completeness_5_7").n) == (0.8, 10)
    assert (value(metrics, "completeness_10_20").value, value(metrics, "completeness_10_20").ok) == (0.95, False)
    assert value(metrics, "completeness_7_10").n == 0 and value(metrics, "completeness_7_10").ok is None
    assert value(metrics, "completeness_20_inf").ok is None


def test_completeness_leaves_out_what_is_not_in_use():
    estimates = completeness(np.array([6.0, 6.0, 6.0]), np.array([True, False, False]), np.array([True, True, False]),
                             [(5, 7)])
    assert estimates[0].value == 0.5


def test_isolation():
    ra, dec = grid(4)
    ra = np.r_[ra, ra[0] + 1.0 * ARCSEC]
    dec = np.r_[dec, dec[0]]
    alone = isolated(make_truth(np.array([100.0, 100, 100, 100, 50]), ra=ra, dec=dec), "r", CONFIG)
    assert alone.tolist() == [False, True, True, True, False]


def test_a_faint_neighbour_does_not_take_the_match():
    ra = np.array([150.0, 150.0 + 0.3 * ARCSEC])
    truth = make_truth(np.array([1000.0, 1.5]), ra=ra, dec=np.zeros(2))
    comparison = compare(make_objects(ra[1:], np.zeros(1)), truth, CONFIG)  # exactly on the faint one
    assert comparison.true.tolist() == [0]


def test_spurious():
    truth = make_truth(np.full(30, 20.0))
    ra, dec = np.r_[truth.ra[:19], 151.0], np.r_[truth.dec[:19], 3.0]
    metrics = purity_metrics(compare(make_objects(ra, dec), truth, CONFIG), CONFIG)
    assert value(metrics, "spurious").value == 0.05 and value(metrics, "spurious").ok is False
    assert 0 < value(metrics, "chance_match").value < 0.01


def test_pulls_and_biases_of_known_offsets():
    n = 401
    snr = np.full(n, 60.0)
    truth = make_truth(snr)
    scores = np.random.default_rng(2).permutation(np.linspace(-3, 3, n))  # exact quantiles: width 3 * 2 * 0.3413
    objects = make_objects(truth.ra + (scores * 0.02 + 0.003) * ARCSEC / np.cos(np.radians(truth.dec)),
                           truth.dec + scores * 0.01 * ARCSEC, truth.flux["r"] * 1.01 + 20.0 * scores)
    comparison = compare(objects, truth, CONFIG)
    metrics = flux_metrics(comparison, "r", CONFIG)
    exact = 0.5 * np.subtract(*np.percentile(scores, (84.1345, 15.8655)))
    assert_allclose(value(metrics, "flux_pull_width").value, 2.0 * exact, rtol=1e-9)
    assert_allclose(value(metrics, "flux_pull_mean").value, 0.6, atol=1e-9)
    assert_allclose(value(metrics, "star_flux_bias_50_inf").value, -10.857, atol=1e-3)
    assert value(metrics, "star_flux_bias_50_inf").ok is False and value(metrics, "star_flux_bias_10_20").n == 0
    metrics = position_metrics(comparison, CONFIG)
    assert_allclose(value(metrics, "position_bias_east").value, 3.0, atol=1e-3)
    assert_allclose(value(metrics, "position_bias_north").value, 0.0, atol=1e-3)
    assert_allclose(value(metrics, "position_pull_width_east").value, 2.0 * exact, rtol=1e-5)
    assert_allclose(value(metrics, "position_pull_width_north").value, exact, rtol=1e-5)


def test_flagged_fluxes_and_galaxies_are_left_out_of_pulls():
    star = np.arange(40) < 30
    truth = make_truth(np.full(40, 60.0), star)
    flag = (np.arange(40) < 10).astype(float)
    objects = make_objects(truth.ra, truth.dec, truth.flux["r"], r_psfFlux_flag=flag)
    assert value(flux_metrics(compare(objects, truth, CONFIG), "r", CONFIG), "flux_pull_width").n == 20


def test_duplicates():
    ra, dec = grid(10)
    truth = make_truth(np.full(11, 20.0), ra=np.r_[ra, ra[5] + 0.5 * ARCSEC], dec=np.r_[dec, dec[5]])
    twins = [0, 1, 2]
    objects = make_objects(np.r_[ra, ra[twins] + 0.2 * ARCSEC, truth.ra[10]], np.r_[dec, dec[twins], truth.dec[10]],
                           tract=np.r_[np.zeros(10), 1, 0, 0, 1], patch=np.r_[np.zeros(10), 0, 1, 0, 0])
    # row 10: other tract, 11: other patch, 12: same patch (no border), 13: a true neighbour in another tract
    assert sorted(zip(*duplicate_pairs(objects, 0.7))) == [(0, 10), (1, 11), (5, 13)]
    made = duplicate_metric(objects, compare(objects, truth, CONFIG), CONFIG)
    assert (made.value, made.ok) == (2.0, False)
    assert duplicate_metric(objects, None, CONFIG).ok is None  # without a truth they cannot be told from close pairs
    one = objects.with_columns([Column("detect_isPrimary", "?", "", "")], {"detect_isPrimary": np.arange(14) < 10})
    assert duplicate_metric(one, compare(one, truth, CONFIG), CONFIG).ok is True


def test_roc_area():
    assert roc_area([0.1, 0.2, 0.8, 0.9], [False, False, True, True]).value == 1.0
    assert roc_area([0.5, 0.5, 0.5], [False, True, True]).value == 0.5
    assert roc_area([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value == 0.75
    assert np.isnan(roc_area([0.5, np.nan], [True, False]).value)
    rng = np.random.default_rng(1)
    sets = [roc_area(np.r_[rng.normal(0, 1, 80), rng.normal(1, 1, 80)], np.arange(160) >= 80) for _ in range(200)]
    assert_allclose(np.mean([item.error for item in sets]), np.std([item.value for item in sets]), rtol=0.2)


def test_confusion():
    star = np.arange(40) < 20
    truth = make_truth(np.full(40, 30.0), star)
    score = np.where(star, 0.0, 1.0)
    score[:2], score[20] = 1.0, 0.0
    metrics = separation_metrics(compare(make_objects(truth.ra, truth.dec, r_extendedness=score), truth, CONFIG), "r",
                                 CONFIG)
    assert value(metrics, "stars_as_galaxies").value == 0.1 and value(metrics, "galaxies_as_stars").value == 0.05


def test_targets():
    config = ReportConfig(targets={"x": (None, 5.0), "spurious": (0.1, 0.2)})
    assert metric("x", "", Estimate(6.0, 0, 1), config).ok is False
    assert metric("x", "", Estimate(float("nan"), 0, 0), config).ok is None
    assert metric("y", "", Estimate(6.0, 0, 1), config).ok is None
    assert metric("spurious", "", Estimate(0.15, 0, 1), config).target == "0.1 to 0.2"
    row = metric("x", "", Estimate(float("nan"), float("nan"), 0), config).as_row()
    assert row["value"] is None and row["ok"] is None and row["target"] == "<= 5"


@pytest.mark.parametrize("n_objects, n_true", [(0, 0), (0, 5), (5, 0)])
def test_empty_catalogues_give_metrics_without_values(n_objects, n_true):
    truth = make_truth(np.full(n_true, 20.0))
    objects = make_objects(*grid(n_objects, ra=10.0))
    metrics = object_metrics(objects, compare(objects, truth, CONFIG), CONFIG)
    assert all(item.ok is not True or item.key in ("duplicates",) for item in metrics)
    assert [item for item in metrics if item.key == "spurious"][0].n == n_objects


def test_missing_band_and_columns():
    truth = make_truth(np.full(5, 20.0), band="u")
    objects = make_objects(truth.ra, truth.dec)
    keys = {(item.key, item.band) for item in object_metrics(objects, compare(objects, truth, CONFIG), CONFIG)}
    assert ("completeness_10_20", "") in keys and not any(band for _, band in keys)
