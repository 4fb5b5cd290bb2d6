"""HEALPix numbers against astropy-healpix where it is installed, and against what the paper says; the Earth against astropy."""

import numpy as np
import pytest

from rsp_hpc.products.earth import barycentric_earth
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.healpix import center_of_pixel, cone, pixel_of


def places(n, seed=0):
    rng = np.random.default_rng(seed)
    return (np.concatenate([rng.uniform(0, 360, n), [0, 90, 180, 359.99999999999, 10.0, 200.0]]),
            np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, n))), [90, -90, 41.8, 0.0, 89.9999999, -89.9999999]]))


@pytest.mark.parametrize("order", (0, 1, 3, 5, 8, 14, 20))
def test_numbers_equal_the_standard_ones(order):
    healpy = pytest.importorskip("astropy_healpix.healpy")
    ra, dec = places(20000)
    np.testing.assert_array_equal(pixel_of(ra, dec, order), healpy.ang2pix(1 << order, ra, dec, nest=True, lonlat=True))


def test_known_numbers():
    """Worked out by hand: the base pixels' centres, and at order 1 the four children of the first."""
    ra, dec = center_of_pixel(np.arange(12), 0)
    np.testing.assert_allclose(ra, [45, 135, 225, 315, 0, 90, 180, 270, 45, 135, 225, 315], atol=1e-12)
    np.testing.assert_allclose(dec, np.degrees(np.arcsin(np.repeat([2 / 3, 0, -2 / 3], 4))), atol=1e-12)
    ra, dec = center_of_pixel(np.arange(4), 1)
    np.testing.assert_allclose(ra, [45.0, 67.5, 22.5, 45.0])
    np.testing.assert_allclose(np.sin(np.radians(dec)), [1 / 3, 2 / 3, 2 / 3, 11 / 12])


@pytest.mark.parametrize("order", (0, 2, 5, 10))
def test_a_centre_is_in_its_pixel_and_children_in_their_parent(order):
    pixels = np.unique(np.random.default_rng(order).integers(0, 12 * 4**order, 2000))
    ra, dec = center_of_pixel(pixels, order)
    np.testing.assert_array_equal(pixel_of(ra, dec, order), pixels)
    np.testing.assert_array_equal(pixel_of(ra, dec, order + 4) >> 8, pixels)


def test_a_cone_misses_nothing_and_is_not_much_too_large():
    ra, dec = places(20000, 1)
    pixel = pixel_of(ra, dec, 5)
    rng = np.random.default_rng(2)
    for radius in (0.01, 0.3, 1.0, 10.0, 100.0, 180.0):
        for _ in range(10):
            here = rng.uniform(0, 360), rng.uniform(-90, 90)
            assert np.isin(pixel[angular_separation(ra, dec, *here) <= radius], found := cone(*here, radius, 5)).all()
            assert len(found) <= 12 * 4**5 * (0.5 - 0.5 * np.cos(np.radians(min(180.0, radius + 4.2)))) + 1


def test_the_earth_is_where_astropy_has_it():
    from astropy.coordinates import get_body_barycentric
    from astropy.time import Time

    for mjd in np.linspace(44000.0, 66000.0, 40):
        truth = get_body_barycentric("earth", Time(mjd, format="mjd", scale="tdb"), ephemeris="builtin").xyz.to_value("au")
        assert np.abs(barycentric_earth(mjd) - truth).max() < 5e-4
