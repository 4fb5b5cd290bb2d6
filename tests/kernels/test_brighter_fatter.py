"""The brighter-fatter kernel against its slow twin, and its promises: charge stays, bits do not depend on the cut."""

import numpy as np
import pytest

from reference import brighter_fatter as slow
from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.brighter_fatter import Separable, TransportOptions, correct

BAD = 4
ONCE = TransportOptions(exclude_bits=BAD, level=0.0, passes=1, tolerance=0.0, measured_share=2.0 / 3.0)


def scene(shape, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(1000.0, 30.0, shape)
    for _ in range(1 + shape[0] * shape[1] // 2000):
        y, x = (rng.integers(0, side) for side in shape)
        yy, xx = np.mgrid[:shape[0], :shape[1]]
        image += 10 ** rng.uniform(3, 5) * np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / 1.7**2)
    return image.astype(np.float32), np.full(shape, 1e3, np.float32), np.zeros(shape, np.uint32)


def separable(terms, shape, centre, symmetry, seed=1) -> tuple[Separable, np.ndarray]:
    """A random kernel, and its table."""
    rng = np.random.default_rng(seed)
    column, row = rng.normal(0, 3e-4, (terms, shape[0])), rng.normal(0, 3e-4, (terms, shape[1]))
    column = column if not symmetry else 0.5 * (column + symmetry * column[:, ::-1])
    column, row = column.astype(np.float32), row.astype(np.float32)
    return Separable(column, row, centre, symmetry), np.einsum("kj,ki->ji", column.astype(float), row)


@pytest.mark.parametrize("shape", [(45, 70), (1, 9), (9, 1), (1, 1), (3, 200), (33, 129), (40, 530)])
@pytest.mark.parametrize("terms, symmetry", [(1, 0), (3, 1), (5, -1), (7, 0), (11, 1)])
def test_potential_agrees_with_the_slow_twin(shape, terms, symmetry):
    image, variance, mask = scene(shape, terms)
    kernel, table = separable(terms, (9, 7), (4, 3), symmetry)
    wanted = slow.correct(image, table, None, ((4, 3),), 1, 0.0)
    measured = image.copy()
    correct((image, mask, variance), None, kernel, None, ONCE)
    np.testing.assert_allclose(image - measured, wanted - measured, atol=1e-5 * np.abs(wanted - measured).max() + 2e-7 * measured.max())
    np.testing.assert_allclose(variance - 1e3, np.maximum(wanted - measured, -1e3), atol=0.01 + 1e-6 * measured.max())


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_shifts_of_borders_agree_with_the_slow_twin(passes):
    image, variance, mask = scene((70, 300), 3)
    east, east_table = separable(4, (11, 12), (5, 5), 1)
    north, north_table = separable(6, (12, 11), (5, 5), -1, seed=2)
    wanted = slow.correct(image, east_table, north_table, ((5, 5), (5, 5)), passes, 2.0 / 3.0)
    measured = image.copy()
    excluded, done, _ = correct((image, mask, variance), None, east, north, ONCE._replace(passes=passes))
    assert (excluded, done) == (0, passes) and np.abs(wanted - measured).max() > 10.0
    np.testing.assert_allclose(image, wanted, atol=0.02)
    assert abs(image.sum(dtype=float) / measured.sum(dtype=float) - 1.0) < 1e-7


def test_the_image_may_be_cut_anywhere():
    """One pass reaches as far as the kernel: the same bits further inside, wherever the cut lies."""
    image, variance, mask = scene((90, 700), 5)
    kernel, _ = separable(6, (17, 17), (8, 8), 1)
    whole = image.copy()
    correct((whole, mask, variance.copy()), None, kernel, None, ONCE)
    for y, x in ((0, 0), (13, 101), (31, 515)):
        part = image[y:, x:].copy()
        correct((part, np.zeros(part.shape, np.uint32), np.full(part.shape, 1e3, np.float32)), None, kernel, None, ONCE)
        a, b = (10 if y else 0), (10 if x else 0)
        np.testing.assert_array_equal(part[a:, b:], whole[y + a:, x + b:])


def test_later_passes_go_only_where_they_are_needed():
    """A bright star in a corner: the rest is not touched again, and the star is as if all had been."""
    image, variance, mask = scene((200, 600), 6)
    image[:] = 1000.0
    yy, xx = np.mgrid[:200, :600]
    image += (9e4 * np.exp(-0.5 * ((yy - 150) ** 2 + (xx - 90) ** 2) / 4.0)).astype(np.float32)
    image[20, 500] += 30.0
    lag = np.arange(-8, 9)
    column = np.exp(-0.5 * (lag / 2.0) ** 2)[None].astype(np.float32)
    kernel = Separable(column * np.float32(-1e-6), column, (8, 8), 1)
    everywhere, somewhere = image.copy(), image.copy()
    correct((everywhere, mask, variance.copy()), None, kernel, None, ONCE._replace(passes=10))
    _, passes, change = correct((somewhere, mask, variance.copy()), None, kernel, None, ONCE._replace(passes=10, tolerance=1.0))
    assert 2 <= passes < 10 and change <= 1.0
    once = image.copy()
    correct((once, mask, variance.copy()), None, kernel, None, ONCE)
    np.testing.assert_array_equal(once[:60, 400:], somewhere[:60, 400:])
    assert np.abs(somewhere - everywhere).max() < 1.0 < np.abs(once - everywhere).max()


def test_pixels_without_a_charge_are_left_as_they_are():
    image, variance, mask = scene((60, 80), 7)
    kernel, table = separable(3, (9, 9), (4, 4), 1)
    defects = np.zeros(image.shape, bool)
    clean = image.copy()
    image[10, 10], image[30, 41], image[50, 60] = np.nan, np.inf, 6e4
    mask[50, 60], defects[20, 70] = BAD, True
    image[20, 70] = -5e3
    before = image.copy()
    excluded, _, _ = correct((image, mask, variance), defects, kernel, None, ONCE)
    assert excluded == 4
    for at in ((10, 10), (30, 41), (50, 60), (20, 70)):
        assert image[at] == before[at] or np.isnan(before[at]) and np.isnan(image[at])
        assert variance[at] == 1e3
    filled = clean.copy()
    for y, x in ((10, 10), (30, 41), (50, 60), (20, 70)):
        around = before[y - 1:y + 2, x - 1:x + 2].astype(float)
        around[1, 1] = np.nan
        filled[y, x] = np.nanmean(around)
    wanted = slow.correct(filled, table, None, ((4, 4),), 1, 0.0)
    good = np.isfinite(before) & (mask == 0) & ~defects
    np.testing.assert_allclose(image[good], wanted[good], atol=0.02)
    lost, none = np.full((20, 30), np.nan, np.float32), np.zeros((20, 30), np.uint32)
    assert correct((lost, none, np.ones((20, 30), np.float32)), None, kernel, None, ONCE)[0] == 600 and np.isnan(lost).all()


def test_bad_arguments_are_refused():
    image, variance, mask = scene((20, 30))
    kernel, _ = separable(1, (9, 9), (4, 4), 0)
    for wrong in ({"passes": 0}, {"level": np.nan}, {"measured_share": 1.5}, {"tolerance": -1.0}):
        with pytest.raises(KernelError, match="outside its limits"):
            correct((image, mask, variance), None, kernel, None, ONCE._replace(**wrong))
    large, _ = separable(1, (9, 65), (4, 32), 0)
    with pytest.raises(KernelError, match="sizes do not fit"):
        correct((image, mask, variance), None, large, None, ONCE)
