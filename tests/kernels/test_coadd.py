"""The coadd kernel against its slow twin."""

import numpy as np
import pytest

from reference.coadd import clipped_mean as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.coadd import Input, clipped_mean

RULES = {"kappa": 4.0, "tolerance": 1.0, "max_saturated": 0.2, "min_inputs": 3, "carry": 1, "rejected": 2, "edge": 4,
         "saturated": 8, "clipped": 16, "no_data": 32}


def some_inputs(n, seed=2):
    """Noise, a star whose width changes, artifacts, pixels without value, overlaps of all kinds."""
    rng = np.random.default_rng(seed)
    inputs = []
    for k in range(n):
        ny, nx, x0, y0 = (int(rng.integers(*limits)) for limits in ((20, 50), (20, 60), (-5, 15), (-5, 12)))
        y, x = np.mgrid[y0:y0 + ny, x0:x0 + nx]
        width = 1.5 + 0.5 * rng.random()
        image = rng.normal(0, 2.0, (ny, nx))
        image += 3000 / width**2 * np.exp(-0.5 * ((x - 21.2)**2 + (y - 17.6)**2) / width**2)
        image[rng.random((ny, nx)) < 0.02] += 50.0
        variance = np.full((ny, nx), 4.0)
        lost = rng.random((ny, nx)) < 0.05
        image[lost], variance[lost] = np.nan, np.inf
        mask = np.where(lost, rng.choice([2, 4, 2 | 8], (ny, nx)), rng.random((ny, nx)) < 0.05).astype(np.uint32)
        inputs.append(Input(image.astype(np.float32), variance.astype(np.float32), mask, x0, y0, 0.2 + rng.random()))
    return inputs


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_agrees_with_the_slow_twin(n):
    inputs, shape = some_inputs(n), (30, 41)
    wanted, found = slow(inputs, shape, RULES), clipped_mean(inputs, shape, RULES)
    assert n < 3 or wanted[4].sum() > 3
    for a, b, tolerance in zip(found[:2], wanted[:2], (2e-4, 1e-5)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance)
    for a, b in zip(found[2:], wanted[2:]):
        np.testing.assert_array_equal(a, b)


def test_parts_equal_the_whole():
    """Rows combined in two parts, and columns beyond one strip of the kernel."""
    rng = np.random.default_rng(0)
    planes = [(rng.standard_normal((12, 2100)) + 40 * (rng.random((12, 2100)) < 0.01)).astype(np.float32)
              for _ in range(4)]
    one, none = np.ones((12, 2100), np.float32), np.zeros((12, 2100), np.uint32)
    whole = clipped_mean([Input(plane, one, none, 0, 0, 1.0) for plane in planes], (12, 2100), RULES)
    upper = clipped_mean([Input(plane, one, none, 0, -5, 1.0) for plane in planes], (7, 2100), RULES)
    assert whole[4].sum() > 100
    for a, b in zip(whole[:4], upper[:4]):
        np.testing.assert_array_equal(a[5:], b)


def test_bad_arguments_are_refused():
    one = np.ones((4, 4), np.float32)
    with pytest.raises(KernelError, match="outside its limits"):
        clipped_mean([Input(one, one, one.astype(np.uint32), 0, 0, np.nan)], (4, 4), RULES)
    with pytest.raises(KernelError, match="sizes do not fit"):
        clipped_mean([], (4, 4), RULES)
