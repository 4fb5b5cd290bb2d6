"""The cosmic-ray kernel against its slow twin, and its promises on bad input."""

import numpy as np
import pytest

from reference.cosmic import find_hits as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.cosmic import CosmicOptions, find_hits

OPTIONS = CosmicOptions(sigma=1.1, peak=5.0, edge=4.0, grow_peak=3.0, grow_edge=1.5, contrast=0.6,
                        grow_contrast=0.75, relative=0.01, rounds=20, margin=2, skip_bits=1 | 2, saturated_bit=2, hit_bit=8)


def scene(shape, seed=0):
    """Sky, stars, tracks, bad and saturated pixels, NaN, infinite variance, and hits known before."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    yy, xx = np.mgrid[:ny, :nx]
    sky = (500 + 0.1 * xx).astype(np.float32)
    image = sky.astype(float)
    for _ in range(ny * nx // 500):
        x, y, flux = rng.uniform(0, nx), rng.uniform(0, ny), 10 ** rng.uniform(2, 5)
        image += flux * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 1.3**2)
    variance = np.maximum(image, 1) + 25
    for _ in range(ny * nx // 300):
        x, y, angle, step = rng.uniform(0, nx), rng.uniform(0, ny), rng.uniform(0, 7), np.arange(rng.integers(1, 12))
        column, row = (x + step * np.cos(angle)).astype(int), (y + step * np.sin(angle)).astype(int)
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        image[row[inside], column[inside]] += rng.uniform(50, 3000, inside.sum())
    image = (image + np.sqrt(variance) * rng.standard_normal(shape)).astype(np.float32)
    variance = variance.astype(np.float32)
    mask = (image > 5e4) * 2 + (rng.random(shape) < 0.02) * 1
    mask += (rng.random(shape) < 0.001) * 8 + (rng.random(shape) < 0.1) * 64
    image[rng.random(shape) < 0.005] = np.nan
    image[rng.random(shape) < 0.01] = 0.0
    variance[rng.random(shape) < 0.005] = np.inf
    return image, mask.astype(np.uint32), variance, sky


@pytest.mark.parametrize("shape", [(90, 131), (1, 40), (40, 1), (2, 9), (1, 1), (3, 3), (17, 8)])
@pytest.mark.parametrize("sigma", [0.7, 1.1, 3.0])
def test_agrees_with_the_slow_twin(shape, sigma):
    image, mask, variance, sky = scene(shape, seed=sum(shape))
    options = OPTIONS._replace(sigma=sigma)
    wanted, count = slow(image, mask, variance, sky, options)
    found = mask.copy()
    n = find_hits(image, found, variance, sky, options)
    np.testing.assert_array_equal(found, wanted)
    assert n == count and (shape != (90, 131) or n > 80)


def test_a_part_of_an_image_gives_what_the_whole_gives():
    image, mask, variance, sky = scene((120, 120), seed=5)
    whole, part = mask.copy(), np.ascontiguousarray(mask[:80])
    find_hits(image, whole, variance, sky, OPTIONS)
    find_hits(image[:80], part, variance[:80], sky[:80], OPTIONS)
    np.testing.assert_array_equal(part[:60], whole[:60])


def test_bad_arguments_are_refused():
    image, mask, variance, sky = scene((9, 9))
    for wrong in ({"sigma": 0.0}, {"sigma": np.nan}, {"peak": -1.0}, {"edge": np.nan}, {"rounds": -1}, {"margin": -1},
                  {"contrast": 0.0}, {"grow_contrast": 0.0}, {"hit_bit": 0}):
        with pytest.raises(KernelError, match="outside its limits"):
            find_hits(image, mask, variance, sky, OPTIONS._replace(**wrong))
    with pytest.raises(KernelError, match="float32"):
        find_hits(image.astype(float), mask, variance, sky, OPTIONS)
