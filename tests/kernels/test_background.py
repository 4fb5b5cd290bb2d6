"""csrc/background.c against its slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from reference import background as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels import background as kernel


def crowded(seed, shape):
    rng = np.random.default_rng(seed)
    image = 200.0 + 7.0 * rng.standard_normal(shape) + 300.0 * (rng.uniform(size=shape) > 0.9) * rng.uniform(size=shape)
    image[rng.uniform(size=shape) > 0.99] = np.nan
    return image.astype(np.float32)


@pytest.mark.parametrize("cuts", [(3.0, 1.0), (2.0, 2.0)])
def test_cells_agree_with_twin(cuts):
    image = crowded(1, (96, 130))
    exclude = np.zeros(image.shape, bool)
    exclude[10:20, 10:60] = True
    level, noise, fraction = kernel.cell_statistics(image, np.zeros(image.shape, np.uint32), 0, (2, 2), cuts, exclude)
    for j in range(2):
        for i in range(2):
            part = np.s_[j * 48:(j + 1) * 48, i * 65:(i + 1) * 65]
            values = np.where(exclude, np.nan, image)[part]
            mean, sigma = reference.cell_statistics(values.ravel(), *cuts)
            assert level[j, i] == pytest.approx(mean, abs=0.03 * sigma)
            assert noise[j, i] == pytest.approx(sigma, rel=0.03)
            assert fraction[j, i] == pytest.approx(np.isfinite(values).mean(), abs=1e-6)


@pytest.mark.parametrize("cells", [(1, 1), (1, 4), (2, 3), (5, 2)])
def test_spline_agrees_with_scipy(cells):
    level = np.random.default_rng(2).normal(100, 10, cells).astype(np.float32)
    sky = np.empty((61, 83), np.float32)
    kernel.apply_spline(level, sky, keep=False, sign=1.0)
    np.testing.assert_allclose(sky, reference.spline_sky(level, sky.shape), atol=2e-4)
    kernel.apply_spline(level, sky, keep=True, sign=-1.0)
    assert np.abs(sky).max() < 1e-4


def test_digitised_pixels_are_not_biased():
    rng = np.random.default_rng(3)
    for offset in (0.0, 0.3, 0.5):
        image = np.rint(rng.normal(100.0 + offset, 3.0, (128, 256))).astype(np.float32)
        level, noise, _ = kernel.cell_statistics(image, np.zeros(image.shape, np.uint32), 0, (1, 1), (3.0, 1.0))
        assert level[0, 0] == pytest.approx(100.0 + offset, abs=0.1)
        assert noise[0, 0] == pytest.approx(3.0, abs=0.12)


def test_wrong_arrays_are_refused():
    with pytest.raises(KernelError):
        kernel.cell_statistics(np.zeros((8, 8)), np.zeros((8, 8), np.uint32), 0, (1, 1), (3.0, 1.0))
    with pytest.raises(KernelError, match="sizes"):
        kernel.cell_statistics(np.zeros((8, 8), np.float32), np.zeros((8, 8), np.uint32), 0, (9, 1), (3.0, 1.0))
