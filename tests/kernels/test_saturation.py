"""The saturation kernels against their slow twins."""

import numpy as np
import pytest

from reference import saturation as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.saturation import TrailOptions, grow, trails


@pytest.mark.parametrize("shape", [(40, 70), (1, 9), (300, 3)])
@pytest.mark.parametrize("radius, same", [(0, False), (1, True), (3, False)])
def test_growth_agrees_with_the_slow_twin(shape, radius, same):
    rng = np.random.default_rng(radius)
    mask = (rng.random(shape) < 0.02).astype(np.uint32) * 2 + (rng.random(shape) < 0.1).astype(np.uint32) * 16
    to = 2 if same else 16
    wanted = slow.grow(mask, 2, radius, to)
    n = grow(mask.copy(), 2, radius, to)
    grown = mask.copy()
    grow(grown, 2, radius, to)
    np.testing.assert_array_equal(grown, wanted)
    assert n == np.count_nonzero(wanted != mask)


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 50, 60), (10, 20, 40, 60), (0, 0, 50, 1)])
def test_trails_agree_with_the_slow_twin(top, box):
    rng = np.random.default_rng(5)
    mask = np.zeros((60, 50), np.uint32)
    for _ in range(12):
        y, x, length = rng.integers(0, 60), rng.integers(0, 50), rng.integers(1, 40)
        mask[y:y + length, x] = 2
    for options in (TrailOptions(*box, 8, 3, 1, 2, 5, top, 2, 2), TrailOptions(*box, 1, 0, 0, 0, 0, top, 2, 8)):
        wanted, found = slow.trails(mask, options), mask.copy()
        n = trails(found, options)
        np.testing.assert_array_equal(found, wanted)
        assert n == np.count_nonzero(wanted != mask)


def test_bad_arguments_are_refused():
    mask = np.zeros((5, 5), np.uint32)
    with pytest.raises(KernelError, match="outside its limits"):
        grow(mask, 1, -1, 1)
    with pytest.raises(KernelError, match="sizes do not fit"):
        trails(mask, TrailOptions(0, 0, 6, 5, 8, 3, 1, 2, 5, False, 2, 2))
