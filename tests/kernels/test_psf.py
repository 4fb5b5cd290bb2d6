"""csrc/psf.c against its slow twin, and the product's own interpolation against both."""

import numpy as np
import pytest

from reference import psf as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels import psf as fast
from rsp_hpc.products.box import Box
from rsp_hpc.products.psf import PolynomialPsf, polynomial_terms

SIDE, N = 9, 14


@pytest.fixture()
def stars():
    rng = np.random.default_rng(3)
    u = np.arange(SIDE) - SIDE // 2
    core = np.exp(-0.5 * (u[:, None]**2 + u**2) / 1.5**2)
    grid = np.stack([core / core.sum(), 0.03 * core * (u / 4.0), 0.02 * core * (u[:, None] / 4.0)])
    terms = polynomial_terms(*rng.uniform(0, 100, (2, N)), Box(0, 0, 100, 100), 1)
    table = {"terms": terms, "flux": rng.uniform(500, 3000, N), "sky": rng.normal(0, 1, N),
             "shift": rng.uniform(-0.9, 0.9, (N, 2))}
    model = slow.draw(grid, terms, table["shift"]) * table["flux"][:, None, None] + table["sky"][:, None, None]
    weight = rng.uniform(0.02, 0.05, model.shape) * (rng.random(model.shape) > 0.05)
    return {**table, "weight": weight, "data": model + rng.normal(0, 5.0, model.shape)}, grid


def test_drawing(stars):
    table, grid = stars
    np.testing.assert_allclose(fast.draw(grid, table["terms"], table["shift"]),
                               slow.draw(grid, table["terms"], table["shift"]), atol=1e-14)


def test_the_grid_is_that_of_the_normal_equations(stars):
    """algorithms.md C-T5: conjugate gradients against the dense matrix, in at most 12 steps."""
    table, grid = stars
    prior = np.zeros_like(grid), np.full(grid.shape, 2e4) * np.array([1.0, 2.0, 3.0])[:, None, None]
    found, covariance, steps = fast.solve(table, prior, np.zeros_like(grid), tolerance=1e-7)
    wanted, wanted_covariance = slow.solve(table, *prior)
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(covariance, wanted_covariance, rtol=1e-9, atol=1e-18)
    assert fast.solve(table, prior, np.zeros_like(grid), tolerance=1e-4)[2] <= 12 and steps < 25


def test_errors_are_those_of_many_trials(stars):
    """The covariances neglect the correlations between pixels: without a prior's help they are up to a quarter too small."""
    table, grid = stars
    rng = np.random.default_rng(8)
    table["weight"][:] = 1.0 / 25.0
    prior = grid, np.full(grid.shape, 1.0)
    model = slow.draw(grid, table["terms"], table["shift"]) * table["flux"][:, None, None] + table["sky"][:, None, None]
    trials = []
    for _ in range(200):
        table["data"] = model + rng.normal(0, 5.0, model.shape)
        found, covariance, _ = fast.solve(table, prior, grid)
        trials.append(found)
    scatter, expected = np.std(trials, axis=0)[:, 2:-2, 2:-2], np.sqrt(covariance[range(3), range(3)])[:, 2:-2, 2:-2]
    ratio = np.sqrt((scatter**2).mean(axis=(1, 2)) / (expected**2).mean(axis=(1, 2)))
    assert (ratio > 0.95).all() and (ratio < 1.3).all()


def test_stars_are_fitted(stars):
    table, grid = stars
    sky_prior = np.stack([np.zeros(N), np.linspace(0.0, 10.0, N)], axis=1)
    found, chi2 = fast.refit(table, grid, sky_prior, 6)
    wanted, wanted_chi2 = slow.refit(table, grid, sky_prior)
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(chi2, wanted_chi2, rtol=1e-6)
    only, chi2 = fast.refit(table, grid, sky_prior, 0)
    np.testing.assert_array_equal(only[:, 0], table["flux"])
    assert (chi2 >= wanted_chi2).all()


def test_modes_are_measured(stars):
    table, grid = stars
    sky_prior = np.stack([np.zeros(N), np.linspace(0.0, 10.0, N)], axis=1)
    planes = np.random.default_rng(1).normal(0, 0.01, (2, SIDE, SIDE))
    table["weight"][5] = 0.0
    amplitude, covariance = fast.modes(table, grid, sky_prior, planes)
    wanted, wanted_covariance = slow.modes(table, grid, sky_prior, planes)
    rest = np.arange(N) != 5
    np.testing.assert_allclose(amplitude[rest], wanted[rest], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(covariance[rest], wanted_covariance[rest], rtol=1e-3, atol=1e-12)
    assert np.isinf(np.diag(covariance[5])).all() and (amplitude[5] == 0.0).all()


def test_a_psf_draws_itself_as_the_kernel_does(stars):
    table, grid = stars
    psf = PolynomialPsf(grid, 1, Box(0, 0, 100, 100))
    x, y = np.array([10.3, 50.0, 77.5]), np.array([20.8, 50.49, 0.1])
    shift = np.stack([x - np.rint(x), y - np.rint(y)], axis=1)
    np.testing.assert_allclose(psf.drawn(x, y), fast.draw(grid, polynomial_terms(x, y, psf.box, 1), shift), atol=1e-7)
    np.testing.assert_allclose(psf.drawn(x, y, 5), psf.drawn(x, y)[:, 2:-2, 2:-2])


def test_wrong_shapes_are_refused(stars):
    table, grid = stars
    with pytest.raises(KernelError, match="shape"):
        fast.draw(grid, table["terms"][:, :2].copy(), table["shift"])
    with pytest.raises(KernelError, match="shifts_fit"):
        fast.draw(grid, table["terms"], table["shift"] + 3.0)
