"""The focal plane's solution on simulated visits: truth, errors, few stars, wrong matches."""

import numpy as np
import pytest
from skyplane import BOX, Camera, offsets, stars_on

from rsp_hpc.algorithms.focalplane import DetectorStars, FocalPlaneConfig, fit_focal_plane
from rsp_hpc.errors import BadData

GRID = [grid.ravel() for grid in np.meshgrid(np.linspace(0, 1999, 6), np.linspace(0, 1999, 6))]


def visit(seed=0, n=25, side=4, **more):
    rng = np.random.default_rng(seed)
    camera = Camera(side, seed)
    return camera, [stars_on(camera, i, n, rng, **more) for i in range(side**2)]


def test_the_truth_comes_back():
    camera, stars = visit(noise=(1e-5, 2e-5))
    fit = fit_focal_plane(stars, FocalPlaneConfig())
    worst = max(np.hypot(*offsets(camera, fit, i, *GRID)).max() for i in range(16))
    assert worst < 1.0 and fit.scatter < 0.3 and fit.n_stars > 0.97 * 400
    stored = fit.wcs(5)
    assert np.allclose(stored.pixel_to_sky(*GRID), fit.sky(5, *GRID), atol=0.2 / 3.6e6, rtol=0)


def test_errors_of_the_solution_and_of_the_scatter_are_true():
    pulls = []
    for seed in range(12):
        camera, stars = visit(seed, scatter=8.0)
        fit = fit_focal_plane(stars, FocalPlaneConfig())
        assert 6.5 < fit.scatter < 9.5
        for i in range(16):
            pulls += [side / (1e3 * error) for side, error in zip(offsets(camera, fit, i, *GRID), fit.error(i, *GRID))]
    assert 0.78 < np.sqrt(np.mean(np.concatenate(pulls) ** 2)) < 1.1  # priors of vanishing terms shrink slowly: a little too large


def test_detectors_together_are_better_than_alone_and_one_without_stars_is_placed():
    camera, stars = visit(3, n=12, scatter=8.0)
    alone = fit_focal_plane(stars, FocalPlaneConfig())
    empty = stars[5]
    stars[5] = DetectorStars(empty.guess, BOX, *[np.zeros(0)] * 8)
    fit = fit_focal_plane(stars, FocalPlaneConfig())
    east, north = offsets(camera, fit, 5, *GRID)
    error = np.hypot(*fit.error(5, *GRID)) * 1e3
    assert np.hypot(east, north).max() < 4.0 * error.max() and 50.0 < error.max() < 600.0  # its mounting is not known
    assert np.hypot(*offsets(camera, alone, 5, *GRID)).max() < 40.0


def test_wrong_stars_are_left_out_and_a_wrong_match_is_found():
    camera, stars = visit(4, scatter=5.0)
    rng = np.random.default_rng(9)
    bad = [rng.random(25) < 0.1 for _ in stars]
    moved = [DetectorStars(d.guess, BOX, d.x + np.where(b, 1.5, 0.0), d.y, d.x_err, d.y_err, d.ra, d.dec, d.ra_err, d.dec_err)
             for d, b in zip(stars, bad)]
    fit = fit_focal_plane(moved, FocalPlaneConfig())
    assert not any(kept[b].any() for kept, b in zip(fit.kept, bad)) and fit.strangers() == []
    d = stars[7]
    stars[7] = DetectorStars(d.guess, BOX, d.x + 150.0, d.y, d.x_err, d.y_err, d.ra, d.dec, d.ra_err, d.dec_err)
    assert fit_focal_plane(stars, FocalPlaneConfig()).strangers() == [7]


def test_the_order_of_equal_work_is_all_that_matters():
    _, stars = visit(5)
    first, second = (fit_focal_plane(list(stars), FocalPlaneConfig()) for _ in range(2))
    np.testing.assert_array_equal(first.shared, second.shared)
    np.testing.assert_array_equal(first.own, second.own)


def test_too_few_stars_are_refused():
    _, stars = visit(6, n=1)
    with pytest.raises(BadData, match="16 matched stars on 16 detectors, 20 are needed"):
        fit_focal_plane(stars, FocalPlaneConfig())
