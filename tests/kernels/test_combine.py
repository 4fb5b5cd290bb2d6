"""kernels.combine against its numpy twin and against known truth."""

from __future__ import annotations

import numpy as np
import pytest
from reference import combine as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.combine import ClipOptions, clipped_mean

OPTIONS = ClipOptions(absent_bits=1, reject_bits=2, or_bits=12, majority_bits=6, clipped_bit=16, rejected_bit=32,
                      no_data_bit=64, relative=0.001)


def stack(n, seed, shape=(9, 31)):
    """Noisy inputs with outliers, masked, missing and NaN pixels."""
    rng = np.random.default_rng(seed)
    variances = rng.uniform(20, 60, (n, *shape)).astype(np.float32)
    images = (rng.normal(100, 1, shape) + rng.normal(0, 1, (n, *shape)) * np.sqrt(variances)).astype(np.float32)
    images[rng.random(images.shape) < 0.02] += 500
    images[rng.random(images.shape) < 0.02] = np.nan
    masks = rng.choice(np.array([0, 1, 2, 4, 8, 6], np.uint32), images.shape, p=[0.8, 0.04, 0.04, 0.04, 0.04, 0.04])
    images[:, 3, 4], variances[:, 3, 5], masks[:, 3, 6] = np.nan, np.inf, 1
    if n > 1:
        masks[0, :, 10:] = 1  # one input covers only a part
    return images, variances, masks


@pytest.mark.parametrize("n", (1, 2, 3, 5, 8, 20, 33))
@pytest.mark.parametrize("mode", ("variance", "weight", "noise", "estimate"))
def test_clipped_mean_agrees_with_numpy(n, mode):
    images, variances, masks = stack(n, seed=n)
    weights = np.linspace(0.5, 2, n)
    given = {"variance": {"variances": variances}, "weight": {"variances": variances, "weights": weights},
             "noise": {"weights": weights, "noise": np.column_stack([np.full(n, 20.0), np.full(n, 0.2)])}, "estimate": {}}[mode]
    ours = clipped_mean(images, OPTIONS, masks=masks, **given)
    mean, variance, count, mask, clipped = reference.clipped_mean(images, OPTIONS, masks=masks, **given)
    np.testing.assert_array_equal(ours.count, count)
    np.testing.assert_array_equal(ours.mask, mask)
    np.testing.assert_array_equal(ours.clipped, clipped)
    np.testing.assert_allclose(ours.mean, mean, rtol=2e-6)
    np.testing.assert_allclose(ours.variance, variance, rtol=2e-4)


def test_result_does_not_depend_on_where_a_pixel_stands():
    images, variances, masks = stack(20, seed=5, shape=(4, 100))
    whole = clipped_mean(images, OPTIONS, variances=variances, masks=masks)
    part = clipped_mean(np.ascontiguousarray(images[:, 1:, 37:]), OPTIONS,
                        variances=np.ascontiguousarray(variances[:, 1:, 37:]), masks=np.ascontiguousarray(masks[:, 1:, 37:]))
    for a, b in zip(whole[:4], part[:4]):
        np.testing.assert_array_equal(a[1:, 37:], b)


def test_variance_is_that_of_the_scatter():
    rng = np.random.default_rng(1)
    images = rng.normal(1000, 7, (20, 200, 200)).astype(np.float32)
    ours = clipped_mean(images, ClipOptions(kappa_low=4, kappa_high=4))
    assert np.std((ours.mean - 1000) / np.sqrt(ours.variance)) == pytest.approx(np.sqrt(19 / 17), abs=0.03)  # Student's t
    given = clipped_mean(images, variances=np.full_like(images, 49))
    assert np.std((given.mean - 1000) / np.sqrt(given.variance)) == pytest.approx(1.0, abs=0.01)


def test_three_inputs_lose_a_cosmic_ray():
    rng = np.random.default_rng(2)
    images = rng.normal(50, 5, (3, 64, 64)).astype(np.float32)
    images[1, 20, 20:40] += 3000
    ours = clipped_mean(images, noise=np.full((3, 2), (25.0, 0.0)))
    assert (ours.count[20, 20:40] == 2).all()
    assert np.abs(ours.mean[20, 20:40] - 50).max() < 20


def test_wrong_shapes_are_refused():
    with pytest.raises(KernelError, match="float32"):
        clipped_mean([np.zeros((3, 3))])
    with pytest.raises(KernelError, match="shape"):
        clipped_mean([np.zeros((3, 3), np.float32), np.zeros((3, 4), np.float32)])
    with pytest.raises(KernelError, match="kappa_low"):
        clipped_mean([np.zeros((3, 3), np.float32)], ClipOptions(kappa_low=0.0))
