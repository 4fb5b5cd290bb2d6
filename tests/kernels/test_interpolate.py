"""The interpolation kernel against its slow twin."""

import numpy as np
import pytest

from reference.interpolate import interpolate as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.interpolate import FillOptions, interpolate

OPTIONS = FillOptions(radius=2, max_radius=6, sigma=1.2, inflation=2.0, fill_bits=1, avoid_bits=3, done_bit=8)


def test_agrees_with_the_slow_twin():
    rng = np.random.default_rng(3)
    image = rng.normal(100, 5, (60, 70)).astype(np.float32)
    variance = rng.uniform(20, 30, image.shape).astype(np.float32)
    mask = ((rng.random(image.shape) < 0.1) * 1 + (rng.random(image.shape) < 0.1) * 2).astype(np.uint32)
    mask[20:40, 20:40] = 1  # a hole whose middle cannot be filled
    image[5, 5] = np.nan
    wanted = slow(image, mask, variance, OPTIONS)
    n = interpolate(image, mask, variance, OPTIONS)
    assert n == wanted[3] and n > 300
    np.testing.assert_allclose(image, wanted[0], rtol=1e-6)
    np.testing.assert_array_equal(mask, wanted[1])
    np.testing.assert_allclose(variance, wanted[2], rtol=1e-6)


def test_bad_arguments_are_refused():
    planes = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint32), np.zeros((4, 4), np.float32)
    with pytest.raises(KernelError, match="outside its limits"):
        interpolate(*planes, OPTIONS._replace(sigma=0.0))
    with pytest.raises(KernelError, match="uint32"):
        interpolate(planes[0], planes[0], planes[2], OPTIONS)
