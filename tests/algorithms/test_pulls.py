"""The errors are true: the small version of `make pulls`."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.pulls import SHAPES, numbers, together, visit


@pytest.fixture(scope="module")
def pulls():
    """Five visits of 324 isolated stars of S/N 5 to 500."""
    return together([visit(seed) for seed in range(5)])


@pytest.mark.parametrize("name", ["forced flux", "flux", "x", "y", *SHAPES, "excess", "detected flux"])
def test_errors_are_true(pulls, name):
    width, width_error, mean, mean_error = numbers(pulls[name])
    assert abs(width - 1.0) < 0.03 + 3.0 * width_error
    assert abs(mean) < 0.03 + 3.0 * mean_error


def test_flux_at_a_fitted_position_is_not_too_high(pulls):
    faint = pulls["snr"] < 10.0
    _, _, mean, error = numbers(pulls["flux"][faint])
    assert abs(mean) < 0.03 + 3.0 * error


@pytest.mark.parametrize("name", ["psfFlux", "ap03Flux", "ap06Flux"])
def test_empty_positions_have_the_noise_that_is_said(pulls, name):
    width, width_error, mean, mean_error = numbers(pulls[f"sky {name}"])
    assert abs(width - 1.0) < 0.02 + 3.0 * width_error
    assert abs(mean) < 0.05 + 3.0 * mean_error


def test_nearly_all_have_a_position_and_a_shape(pulls):
    bright = pulls["snr"] > 10.0
    assert pulls["no position"][bright].sum() == 0
    assert np.mean(pulls["no shape"][bright]) < 0.01
