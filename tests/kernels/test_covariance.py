"""csrc/covariance.c against its slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from reference import covariance as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.covariance import pair_sums


def flats(seed, shape):
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(1000.0, 30.0, shape).astype(np.float32) for _ in range(2))
    masks = [(4 * (rng.uniform(size=shape) < 0.02)).astype(np.uint32) for _ in range(2)]
    first[rng.uniform(size=shape) < 0.01] = np.nan
    return first, second, masks


@pytest.mark.parametrize("shape, n_lags", [((60, 300), 8), ((9, 17), 3), ((40, 64), 1), ((12, 130), 11), ((3, 2), 4)])
def test_agrees_with_twin(shape, n_lags):
    first, second, masks = flats(3, shape)
    options = (np.array([0.98, 0.01, -0.02, 0.005, 0.0, 0.01]), 150.0, 4)
    found = pair_sums(first, second, masks, options, n_lags)
    product, count, used, d = reference.pair_sums(first, second, masks, options, n_lags)
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_allclose(found.product, product, atol=2e-6 * np.abs(d).max()**2 * used.sum())
    assert found.n == used.sum()
    assert found.first == pytest.approx(first[used].sum(dtype=float), rel=1e-9)
    assert found.second == pytest.approx(second[used].sum(dtype=float), rel=1e-9)
    assert found.difference == pytest.approx(d.sum(), abs=1e-4 * used.sum())


def test_cutouts_of_larger_planes_need_no_copy():
    first, second, masks = flats(5, (80, 100))
    options = (np.array([1.0, 0, 0, 0, 0, 0]), 1e3, 4)
    part = np.s_[11:60, 7:90]
    cut = pair_sums(first[part], second[part], [mask[part] for mask in masks], options, 5)
    copy = pair_sums(*(np.ascontiguousarray(plane[part]) for plane in (first, second)),
                     [np.ascontiguousarray(mask[part]) for mask in masks], options, 5)
    np.testing.assert_array_equal(cut.product, copy.product)
    np.testing.assert_array_equal(cut.count, copy.count)


def test_wrong_arrays_are_refused():
    first, second, masks = flats(1, (8, 8))
    options = (np.array([1.0, 0, 0, 0, 0, 0]), 1e3, 4)
    with pytest.raises(KernelError, match="first_mask"):
        pair_sums(first, second, (masks[0][:4], masks[1]), options, 2)
    with pytest.raises(KernelError, match="float64"):
        pair_sums(first, second.astype(float), masks, options, 2)
    with pytest.raises(KernelError, match="n_lags"):
        pair_sums(first, second, masks, options, 33)
