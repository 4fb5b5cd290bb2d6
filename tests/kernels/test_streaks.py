"""The Hough kernel against its slow twin."""

import numpy as np
import pytest

from reference.streaks import hough as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.streaks import hough


@pytest.mark.parametrize("n", [0, 1, 257, 3000])
def test_votes_agree_with_the_slow_twin(n):
    """Points half way between two lines may go to either."""
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 200, (2, n)).astype(np.float32)
    found, wanted = hough(x, y, (90, 600), -300.0), slow(x, y, (90, 600), -300.0)
    assert np.abs(found - wanted).sum() <= 1e-3 * n * 90 + 2 and (found.sum(axis=1) == n).all()
    assert (hough(x, y, (90, 100), -50.0) == found[:, 250:350])[:, 1:].all()


def test_bad_arguments_are_refused():
    with pytest.raises(KernelError, match="outside its limits"):
        hough(np.zeros(3), np.zeros(3), (4, 5), np.nan)
    with pytest.raises(KernelError, match="float32"):
        hough(np.zeros(3), np.zeros(4), (4, 5), 0.0)
