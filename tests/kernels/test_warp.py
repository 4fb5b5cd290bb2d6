"""The warp kernels against their slow twins."""

import numpy as np
import pytest

from reference.warp import warp as slow
from reference.warp import weights
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.warp import STEP, warp, warp_psf

RULES = {"bad": 1, "interpolated": 2, "no_data": 4, "rejected": 8, "edge": 16, "max_bad": 0.1}


def a_source(seed=5, shape=(61, 73)):
    rng = np.random.default_rng(seed)
    image = rng.normal(10.0, 3.0, shape).astype(np.float32)
    variance = rng.uniform(5.0, 9.0, shape).astype(np.float32)
    mask = (rng.random(shape) < 0.02).astype(np.uint32) * 3 + (rng.random(shape) < 0.1).astype(np.uint32) * 32
    image[20, 30], variance[40, 40], mask[50, 10] = np.nan, np.inf, 1
    return image, variance, mask


def a_grid(angle, x0, y0, gny=5, gnx=6, bend=1e-4):
    v, u = np.mgrid[-1:gny - 1, -1:gnx - 1] * float(STEP)
    c, s = np.cos(angle), np.sin(angle)
    return x0 + c * u - s * v + bend * u * v, y0 + s * u + c * v + bend * u * u, 1.5 + 1e-3 * u


@pytest.mark.parametrize("angle, x0, y0", [(0.0, 0.0, 0.0), (0.02, 5.3, -4.2), (0.7, 20.0, -8.0),
                                           (np.pi / 2, 70.2, 0.4)])
def test_agrees_with_the_slow_twin(angle, x0, y0):
    planes, grid, shape = a_source(), a_grid(angle, x0, y0), (50, 70)
    wanted = slow(planes, grid, RULES, (3, 7), shape)
    found = warp(planes, grid, RULES, (3, 7), shape)
    assert 500 < np.isfinite(wanted[0]).sum() < 3500
    np.testing.assert_array_equal(found[2], wanted[2])
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=3e-4)
    np.testing.assert_allclose(found[1], wanted[1], rtol=2e-5)


def test_psf_is_warped_as_a_star_is():
    """A stamp drawn by hand at a source position and interpolated by hand at the target's pixels."""
    size, phase, affine = 15, np.array([[0.3, 0.85]]), np.array([[[1.02, 0.1], [-0.12, 0.97]]])
    u = np.arange(size) - size // 2
    stamp = np.exp(-0.5 * (u[:, None]**2 / 2.2 + u[None, :]**2 / 1.7 - 0.3 * u[:, None] * u[None, :]))
    stamp = (stamp / stamp.sum()).astype(np.float32)
    canvas = np.zeros((45, 45))
    for row, column in np.ndindex(canvas.shape):  # a star at (22, 22) + phase
        (x0, wx), (y0, wy) = (weights(q - 22 - f + size // 2, 5) for q, f in zip((column, row), phase[0]))
        for j, i in np.ndindex(10, 10):
            if 0 <= y0 + j < size and 0 <= x0 + i < size:
                canvas[row, column] += wy[j] * wx[i] * stamp[y0 + j, x0 + i]
    wanted = np.zeros((size, size))
    for row, column in np.ndindex(size, size):
        x, y = 22 + phase[0] + affine[0] @ np.array([column - size // 2, row - size // 2])
        (x0, wx), (y0, wy) = weights(x), weights(y)
        wanted[row, column] = np.linalg.det(affine[0]) * wy @ canvas[y0:y0 + 6, x0:x0 + 6] @ wx
    found = warp_psf(stamp[None], phase, affine, size)
    np.testing.assert_allclose(found[0], wanted, atol=1e-7)


def test_bad_arguments_are_refused():
    planes, grid = a_source(), a_grid(0.0, 0.0, 0.0)
    with pytest.raises(KernelError, match="sizes do not fit"):
        warp(planes, grid, RULES, (0, 0), (200, 70))
    with pytest.raises(KernelError, match="float32"):
        warp((planes[0].astype(float), *planes[1:]), grid, RULES, (0, 0), (50, 70))
