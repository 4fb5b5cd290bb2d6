"""Objects on borders appear exactly once, whatever the noise of their positions."""

import numpy as np
import pytest

from rsp_hpc.algorithms.borders import BordersConfig, settle_borders

CONFIG = BordersConfig()


def test_noise_at_a_border_neither_doubles_nor_loses():
    rng = np.random.default_rng(5)
    n = 2000
    ra, dec = 10.0 + rng.uniform(-1, 1, n) / 3600.0, rng.uniform(0.0, 5.0, n)  # all within 1" of the border ra = 10
    ra_two, dec_two = (np.stack([value, value + rng.normal(0, 0.05, n) / 3600.0]) for value in (ra, dec))
    region = np.repeat([[3], [8]], n, axis=1)
    owned = np.stack([ra_two[0] < 10.0, ra_two[1] >= 10.0])
    assert (owned.sum(axis=0) != 1).any()  # without settling some are double or lost
    primary = settle_borders(region.ravel(), owned.ravel(), ra_two.ravel(), dec_two.ravel(), CONFIG).reshape(2, n)
    assert (primary.sum(axis=0) == 1).all()


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(6)
    n = 300
    region, owned = rng.integers(0, 4, n), rng.random(n) < 0.5
    ra, dec = rng.uniform(0, 20 / 3600, n), rng.uniform(0, 20 / 3600, n)
    shuffled = rng.permutation(n)
    primary = settle_borders(region, owned, ra, dec, CONFIG)
    assert (settle_borders(region[shuffled], owned[shuffled], ra[shuffled], dec[shuffled], CONFIG) == primary[shuffled]).all()


@pytest.mark.parametrize("separation, kept", [(0.1, 1), (2.0, 2)])
def test_only_near_rows_are_one_object(separation, kept):
    assert settle_borders([1, 2], [True, True], [0.0, separation / 3600], [0.0, 0.0], CONFIG).sum() == kept


def test_rows_of_one_region_are_left_alone():
    assert settle_borders([1, 1], [True, True], [0.0, 0.0], [0.0, 0.0], CONFIG).all()
    assert len(settle_borders([], [], [], [], CONFIG)) == 0


def test_a_third_region_owns_what_two_others_see():
    """At a corner: patches 1 and 2 see an object of patch 3 in their borders; only patch 3's row is primary."""
    assert settle_borders([1, 2, 3], [False, False, True], [0.0] * 3, [0.0, 1e-8, 2e-8], CONFIG).tolist() == [False, False, True]
    assert settle_borders([1, 2, 3, 4], [False, True, True, False], [0.0] * 4, [0.0] * 4, CONFIG).sum() == 1


def test_close_objects_stay_two():
    """Two real objects 0.4" apart, measured by two regions each, are two objects."""
    dec = np.array([0.0, 0.4, 0.02, 0.41]) / 3600
    primary = settle_borders([1, 1, 2, 2], [True, True, False, False], [0.0] * 4, dec, CONFIG)
    assert primary.tolist() == [True, True, False, False]
