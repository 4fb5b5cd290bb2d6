"""The WCS against astropy.wcs (wcslib) and against itself."""

import pickle

import numpy as np
import pytest

from rsp_hpc.products.geometry import angular_separation, deproject, project, sky_of_vectors, unit_vectors
from rsp_hpc.products.wcs import Wcs

SIP_A = np.zeros((4, 4))
SIP_B = np.zeros((4, 4))
SIP_A[2, 0], SIP_A[1, 1], SIP_A[0, 2], SIP_A[3, 0], SIP_A[1, 2] = 2e-6, -1e-6, 5e-7, 3e-10, -2e-10
SIP_B[2, 0], SIP_B[1, 1], SIP_B[0, 2], SIP_B[0, 3], SIP_B[2, 1] = -1e-6, 3e-6, 1e-6, -4e-10, 1e-10
CD = ((-5e-5, 2e-6), (1.5e-6, 5.1e-5))


def oracle(wcs):
    """The same WCS by astropy."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    return WCS(Header(wcs.to_header()))


@pytest.mark.parametrize("crval", [(150.1, 2.2), (0.0, -45.0), (359.9999, 0.0), (10.0, 89.9), (77.0, -90.0),
                                   (0.0, 90.0)])
@pytest.mark.parametrize("sip", [False, True])
def test_agrees_with_wcslib(crval, sip):
    wcs = Wcs(crval, (2047.5, 1999.0), CD, *((SIP_A, SIP_B) if sip else ()))
    x, y = np.random.default_rng(1).uniform(-100, 4200, (2, 500))
    ra, dec = wcs.pixel_to_sky(x, y)
    expected = oracle(wcs).all_pix2world(x, y, 0)
    assert angular_separation(ra, dec, *expected).max() < 1e-12
    back = wcs.sky_to_pixel(*expected)
    assert np.hypot(back[0] - x, back[1] - y).max() < 3e-9  # 360 degrees in doubles are good to 1e-9 pixel of 0.18"
    assert ra.min() >= 0.0 and ra.max() < 360.0


def test_distorted_inverse_converges_to_1e_9_pixels():
    wcs = Wcs((10.0, 20.0), (2047.5, 1999.0), CD, 20 * SIP_A, 20 * SIP_B)  # up to 330 pixels of distortion
    x, y = np.random.default_rng(2).uniform(0, 4096, (2, 1000))
    back = wcs.plane_to_pixel(*wcs.pixel_to_plane(x, y))
    assert np.hypot(back[0] - x, back[1] - y).max() < 1e-9


def test_positions_without_a_pixel_are_nan():
    wcs = Wcs((10.0, 20.0), (2047.5, 1999.0), CD, SIP_A, SIP_B)
    x, y = wcs.sky_to_pixel([190.0, 100.1, 10.0], [-20.0, 0.0, 20.0])
    assert np.isnan(x[:2]).all() and np.isnan(y[:2]).all()
    assert x[2] == pytest.approx(2047.5, abs=1e-9)


def test_shapes_are_kept():
    wcs = Wcs((10.0, 20.0), (5.0, 5.0), CD)
    assert wcs.pixel_to_sky(np.zeros((3, 1)), np.zeros(4))[0].shape == (3, 4)
    assert np.ndim(wcs.sky_to_pixel(10.0, 20.0)[0]) == 0


@pytest.mark.parametrize("dec0", [-90.0, -30.0, 0.0, 89.5, 90.0])
def test_projection_there_and_back(dec0):
    xi, eta = np.random.default_rng(3).uniform(-20, 20, (2, 300))
    ra, dec = deproject(xi, eta, 359.0, dec0)
    again = project(ra, dec, 359.0, dec0)
    assert np.abs(np.subtract(again, (xi, eta))).max() < 1e-11


def test_vectors_and_separation():
    ra, dec = np.random.default_rng(4).uniform((0, -90), (360, 90), (200, 2)).T
    back = sky_of_vectors(unit_vectors(ra, dec))
    assert angular_separation(ra, dec, *back).max() < 1e-12
    assert angular_separation(10.0, 0.0, 10.0, 1e-9) == pytest.approx(1e-9, rel=1e-6)
    assert angular_separation(0.0, 90.0, 180.0, -90.0) == pytest.approx(180.0)


def test_local_jacobian_and_scale():
    wcs = Wcs((10.0, 89.7), (100.0, 100.0), CD)
    np.testing.assert_allclose(wcs.local_jacobian(100.0, 100.0), 3600.0 * np.array(CD), rtol=1e-6)
    assert wcs.pixel_scale == pytest.approx(3600 * np.sqrt(5e-5 * 5.1e-5 + 2e-6 * 1.5e-6))


def test_pickle_and_header_round_trip():
    wcs = Wcs((10.0, 20.0), (2047.5, 1999.0), CD, SIP_A, SIP_B)
    for other in (pickle.loads(pickle.dumps(wcs)), Wcs.from_header(wcs.to_header())):
        np.testing.assert_array_equal(other.pixel_to_sky(17.0, 3000.0), wcs.pixel_to_sky(17.0, 3000.0))


BASE = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 11.0, "CRPIX2": 21.0}
SWAPPED = {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 20.0, "CRVAL2": 10.0, "CRPIX1": 11.0, "CRPIX2": 21.0}
HEADERS = [
    {**BASE, "CD1_1": -1e-4, "CD1_2": 1e-5, "CD2_1": 2e-5, "CD2_2": 1.1e-4},
    {**BASE, "CD1_1": -1e-4, "CD2_2": 1.1e-4},
    {**BASE, "CD1_2": -1e-4, "CD2_1": 1.1e-4, "RADESYS": "FK5", "EQUINOX": 2000.0, "CUNIT1": "deg", "CUNIT2": "deg"},
    {**BASE, "CDELT1": -1e-4, "CDELT2": 2e-4},
    {**BASE, "CDELT1": -1e-4, "CDELT2": 2e-4, "CROTA2": 33.0},
    {**BASE, "CDELT1": -1e-4, "CDELT2": 2e-4, "PC1_1": 0.9, "PC1_2": 0.1, "PC2_1": -0.2, "PC2_2": 0.8},
    {**BASE, "CDELT1": -1e-4, "CDELT2": 2e-4, "PC1_2": 0.1},
    {**SWAPPED, "CD1_1": 1e-4, "CD1_2": 1e-5, "CD2_1": 2e-5, "CD2_2": 1.1e-4},
    {**SWAPPED, "CDELT1": 1e-4, "CDELT2": -2e-4},
    {**SWAPPED, "CDELT1": 1e-4, "CDELT2": -2e-4, "CROTA1": 33.0},
    {**SWAPPED, "CDELT1": 1e-4, "CDELT2": -2e-4, "PC1_1": 0.9, "PC1_2": 0.1, "PC2_1": -0.2, "PC2_2": 0.8},
]


@pytest.mark.parametrize("cards", HEADERS)
def test_from_header_agrees_with_astropy(cards):
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    x, y = np.random.default_rng(5).uniform(0, 1000, (2, 50))
    theirs = WCS(Header(cards)).all_pix2world(x, y, 0)
    if cards["CTYPE1"].startswith("DEC"):
        theirs = theirs[::-1]
    assert angular_separation(*Wcs.from_header(cards).pixel_to_sky(x, y), *theirs).max() < 1e-11


@pytest.mark.parametrize("change, message", [
    ({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}, "only TAN and TAN-SIP"),
    ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "not RA and DEC"),
    ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "only ICRS and FK5 J2000"),
    ({"CUNIT1": "arcsec"}, "only deg"),
    ({"LONPOLE": 90.0}, "only its default 180"),
    ({"CD1_1": 0.0}, "singular"),
])
def test_a_header_that_is_not_understood_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Wcs.from_header({**HEADERS[1], **change})


def test_a_missing_card_is_named():
    with pytest.raises(KeyError, match="CRVAL2"):
        Wcs.from_header({key: value for key, value in HEADERS[1].items() if key != "CRVAL2"})
