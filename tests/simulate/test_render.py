"""The renderer against GalSim, and flux conservation."""

from __future__ import annotations

import numpy as np
import pytest

from rsp_hpc.simulate.render import convolve, galaxy_mixture, psf_mixture, render, render_galsim, shear_matrix

SIZE = 101


def draw(kind, fwhm, psf_shear, radius, shear, place):
    """Our image and GalSim's of one object of flux 1e5."""
    ours, theirs = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    x, y, flux = np.array([50.0 + place[0]]), np.array([50.0 + place[1]]), np.array([1e5])
    matrix = shear_matrix([shear[0]], [shear[1]])
    psf = psf_mixture(fwhm, *psf_shear)
    galaxy = (np.array([radius if kind != "star" else 0.0]), np.array([kind == "dev"]), matrix)
    render(ours, x, y, flux, psf if kind == "star" else convolve(galaxy_mixture(*galaxy), psf))
    render_galsim(theirs, x, y, flux, (np.array([fwhm]), np.array([psf_shear[0]]), np.array([psf_shear[1]])), galaxy)
    return ours, theirs


@pytest.mark.parametrize("kind, radius, shear", [
    ("star", 0.0, (0.0, 0.0)), ("exp", 1.5, (0.0, 0.0)), ("exp", 4.0, (0.3, -0.2)), ("dev", 2.5, (0.0, 0.0)),
    ("dev", 4.0, (-0.1, 0.35))])
@pytest.mark.parametrize("fwhm, psf_shear, place", [
    (3.2, (0.0, 0.0), (0.0, 0.0)), (4.1, (0.05, -0.03), (0.37, -0.44)), (2.8, (-0.04, 0.06), (0.5, 0.25))])
def test_render_agrees_with_galsim(kind, radius, shear, fwhm, psf_shear, place):
    ours, theirs = draw(kind, fwhm, psf_shear, radius, shear, place)
    assert np.abs(ours - theirs).max() < 0.003 * theirs.max()


def test_flux_is_conserved():
    image = np.zeros((301, 301), np.float32)
    matrix = shear_matrix([0.2, 0.0, 0.1], [0.1, 0.0, -0.3])
    objects = convolve(galaxy_mixture([2.0, 1.0, 0.0], [False, True, False], matrix), psf_mixture([3.5] * 3, 0.03, 0.02))
    for k, flux in enumerate((1e4, 2e5, 1e6)):
        image[:] = 0
        render(image, [150.3], [149.6], [flux], objects.rows([k]))
        assert image.sum(dtype=float) == pytest.approx(flux, rel=0.004 if k == 1 else 1e-3)  # wings of n = 4 leave the image


def test_an_object_on_the_border_is_the_same_where_seen():
    whole, part = np.zeros((120, 120), np.float32), np.zeros((60, 60), np.float32)
    star = psf_mixture([3.0], 0.1, 0.0)
    render(whole, [61.2], [40.0], [1e4], star)
    render(part, [61.2], [40.0], [1e4], star)
    np.testing.assert_array_equal(part, whole[:60, :60])
    render(part, [-500.0], [30.0], [1e4], star)  # far outside: nothing happens
    np.testing.assert_array_equal(part, whole[:60, :60])
