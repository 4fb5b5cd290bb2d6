"""The fringe kernel against its slow twin."""

import numpy as np
import pytest

from reference.fringe import cell_sums as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.fringe import cell_sums, subtract


@pytest.mark.parametrize("shape, cells", [((60, 77), (3, 4)), ((5, 5), (5, 5)), ((1, 40), (1, 3)), ((40, 1), (2, 1)), ((33, 130), (1, 1))])
@pytest.mark.parametrize("hidden", [False, True])
def test_sums_agree_with_the_slow_twin(shape, cells, hidden):
    rng = np.random.default_rng(shape[1])
    image, pattern = rng.normal(100, 20, shape).astype(np.float32), rng.normal(0, 1, shape).astype(np.float32)
    image[rng.random(shape) < 0.02], pattern[rng.random(shape) < 0.02] = np.nan, np.inf
    mask, exclude = rng.integers(0, 4, shape).astype(np.uint32), rng.random(shape) < 0.1 if hidden else None
    level, limit = rng.normal(100, 3, cells).astype(np.float32), rng.uniform(20, 60, cells).astype(np.float32)
    if cells[0] > 1:
        level[0, 0], limit[-1, -1] = np.nan, np.nan
    found = cell_sums((image, mask, exclude), 2, pattern, (level, limit), 3.5)
    wanted = slow(image, mask, exclude, 2, pattern, level, limit, 3.5)
    np.testing.assert_array_equal(found[..., 0], wanted[..., 0])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=0.02)


def test_subtraction_and_bad_arguments():
    image, pattern = np.full((3, 50), 10.0, np.float32), np.linspace(-1, 1, 150, dtype=np.float32).reshape(3, 50)
    pattern[1, 1] = np.nan
    subtract(image, pattern, 2.0)
    np.testing.assert_allclose(image, 10.0 - 2.0 * np.nan_to_num(pattern), rtol=1e-6)
    with pytest.raises(KernelError, match="outside its limits"):
        subtract(image, pattern, np.nan)
    with pytest.raises(KernelError, match="float32"):
        subtract(image, pattern[:2], 1.0)
