"""Moving borders: the covariances of flats and the widths of stars follow from the truth, and no charge is lost."""

from __future__ import annotations

import numpy as np
import pytest

from rsp_hpc.simulate.brighter_fatter import BrighterFatterConfig, area_change, border_shifts, collect, move

CONFIG = BrighterFatterConfig(strength=3e-6)
SHIFTS = border_shifts(CONFIG)
L = CONFIG.size


def test_the_area_is_the_sum_of_four_borders():
    area = area_change(SHIFTS)
    assert area[L - 1, L - 1] == pytest.approx(-3e-6) and abs(area.sum()) < 1e-18
    np.testing.assert_allclose(area, area[::-1, ::-1], atol=1e-18)
    for dy, dx in ((0, 0), (1, 0), (0, 1), (-2, 3)):  # one charge on an even field of light: every pixel's change is its a
        charge = np.zeros((41, 41))
        charge[20 + dy, 20 + dx] = 1.0
        north, east = (np.sum([table[L - 1 + j, L - 1 + i] * np.roll(charge, (-j, -i), (0, 1)) for j in range(1 - L, L)
                               for i in range(1 - L, L)], axis=0) for table in (SHIFTS.north, SHIFTS.east))
        grown = move(np.ones((41, 41)), north, east) - 1.0
        assert grown[20, 20] == pytest.approx(area[L - 1 + dy, L - 1 + dx], abs=1e-15)
    assert border_shifts(BrighterFatterConfig()) is None


def test_vertical_neighbours_gain_more_than_horizontal_ones():
    area = area_change(SHIFTS)[L - 1:, L - 1:]
    assert area[1, 0] > 1.3 * area[0, 1] > 0.0 and area[1, 1] > 0.0


def test_charge_is_conserved():
    rng = np.random.default_rng(1)
    light = (1e3 + 8e4 * rng.random((70, 90)) ** 6).astype(np.float32)
    charge = collect((light, np.zeros_like(light)), SHIFTS, 8, 1e9, None)
    assert charge.sum(dtype=float) == pytest.approx(light.sum(dtype=float), rel=1e-6)
    assert np.abs(charge - light).max() > 100.0
    dark = np.full_like(light, 50.0)
    both = collect((light, dark), SHIFTS, 8, 1e9, None)
    assert both.sum(dtype=float) == pytest.approx((light + dark).sum(dtype=float), rel=1e-6)


def expected_covariance(mean, shape):
    """Astier et al. 2019: the Fourier transform of C is mean (exp(2 a mean) - 1) / (2 a mean), a transformed."""
    area = np.zeros(shape)
    area[:2 * L - 1, :2 * L - 1] = area_change(SHIFTS)
    x = 2.0 * mean * np.fft.fft2(np.roll(area, (1 - L, 1 - L), (0, 1))).real
    return mean * np.fft.ifft2(np.where(np.abs(x) < 1e-12, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))).real


def test_covariances_of_flats_follow_from_the_areas():
    mean, shape, pairs = 5e4, (400, 400), 10
    light, dark = np.full(shape, mean, np.float32), np.zeros(shape, np.float32)
    rng, found = np.random.default_rng(7), []
    for _ in range(pairs):
        first, second = (collect((light, dark), SHIFTS, 8, 1e9, rng) for _ in range(2))
        difference = (first - second)[L:-L, L:-L].astype(float)
        ny, nx = difference.shape
        found.append([[np.mean(difference[:ny - j, :nx - i] * difference[j:, i:]) / 2.0 for i in range(3)] for j in range(3)])
    found, expected = np.mean(found, axis=0), expected_covariance(mean, (64, 64))[:3, :3]
    error = mean / np.sqrt(pairs * difference.size) * (1.0 + np.eye(1, 9).reshape(3, 3) * (np.sqrt(2.0) - 1.0))
    assert np.abs((found - expected) / error).max() < 4.0
    assert expected[0, 0] / mean == pytest.approx(0.868, abs=0.005)
    a = area_change(SHIFTS)[L - 1:, L - 1:]
    assert (found[0, 0] / mean - 1.0) / mean == pytest.approx(a[0, 0], rel=0.15)  # the higher orders apart
    for j, i, limit in ((0, 1, 0.15), (1, 0, 0.1), (1, 1, 0.2)):
        assert (found[j, i] / mean - (expected[j, i] / mean - a[j, i] * mean)) / mean == pytest.approx(a[j, i], rel=limit)


def test_more_steps_change_little():
    y, x = np.mgrid[-15:16, -15:16]
    star = (5e4 * np.exp(-0.5 * (x**2 + y**2) / 2.2**2)).astype(np.float32)
    widths = []
    for steps in (8, 64):
        charge = collect((star, np.zeros_like(star)), SHIFTS, steps, 1e9, None)
        widths.append((charge * (x**2 + y**2)).sum() / charge.sum())
    plain = (star * (x**2 + y**2)).sum() / star.sum()
    assert widths[0] / plain > 1.007
    assert (widths[0] - plain) == pytest.approx(widths[1] - plain, rel=0.02)


def test_stars_grow_in_proportion_to_their_flux():
    """To first order the mean shift is half of the final one: half of (shift x light) has crossed each border."""
    y, x = np.mgrid[-15:16, -15:16]
    shape = np.exp(-0.5 * (x**2 + y**2) / 2.2**2)
    for peak in (1e3, 1e4):
        star = (peak * shape).astype(np.float32)
        charge = collect((star, np.zeros_like(star)), SHIFTS, 64, 1e9, None)
        fields = [np.sum([table[L - 1 + j, L - 1 + i] * np.roll(star.astype(float), (-j, -i), (0, 1)) for j in range(1 - L, L)
                          for i in range(1 - L, L)], axis=0) for table in (SHIFTS.north, SHIFTS.east)]
        first = move(star.astype(float), *(0.5 * field for field in fields)) - star
        assert np.abs(charge - star - first).max() < 0.03 * np.abs(first).max()
