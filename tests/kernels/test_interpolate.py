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
    np.testing.assert_allclose(image, wanted[0], rtol=1e-5)
    np.testing.assert_array_equal(mask, wanted[1])
    np.testing.assert_allclose(variance, wanted[2], rtol=1e-6)


def test_bad_arguments_are_refused():
    planes = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint32), np.zeros((4, 4), np.float32)
    with pytest.raises(KernelError, match="outside its limits"):
        interpolate(*planes, OPTIONS._replace(sigma=0.0))
    with pytest.raises(KernelError, match="uint32"):
        interpolate(planes[0], planes[0], planes[2], OPTIONS)


@pytest.mark.parametrize("hole", [((20, 20),), ((20, 20), (21, 20)), tuple((y, 20) for y in range(41))])
def test_the_core_of_a_star_is_filled(hole):
    """A single pixel, a pair and a bad column through the middle of a star of FWHM 4 pixels: right to 7 % of its peak."""
    y, x = np.indices((41, 41))
    star = (1000 * np.exp(-0.5 * ((x - 20.3) ** 2 + (y - 19.8) ** 2) / 1.7**2)).astype(np.float32)
    image, mask, variance = star.copy(), np.zeros(star.shape, np.uint32), np.ones(star.shape, np.float32)
    for place in hole:
        image[place], mask[place] = np.nan, 1
    interpolate(image, mask, variance, OPTIONS._replace(radius=1, sigma=0.8))
    assert np.abs(image - star).max() < 70
