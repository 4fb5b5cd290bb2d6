"""Warp: positions, flux, variance, PSF and mask of a detector on sky pixels."""

from dataclasses import replace

import numpy as np
import pytest

from rsp_hpc.algorithms.warp import Mapping, WarpConfig, warp, warp_psf
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import weighted_moments
from skyfield import TARGET, draw, visit_of, wcs_of

BOX = Box(-150, -150, 300, 300)


def a_star_grid(seed=1):
    rng = np.random.default_rng(seed)
    x, y = (grid.ravel() + rng.uniform(-0.5, 0.5, grid.size) for grid in np.meshgrid(*[np.arange(-100, 101, 50.0)] * 2))
    return x, y, np.full(x.size, 1e5)


@pytest.mark.parametrize("angle, scale, distortion", [(0.0, 1.0, 0.0), (0.4, 1.0, 1e-9), (17.0, 1.1, 1e-8),
                                                      (90.0, 0.95, 1e-8)])
def test_stars_keep_their_flux_and_place(angle, scale, distortion):
    x, y, flux = a_star_grid()
    wcs = wcs_of(angle, (180.3, 179.8), scale, distortion)
    warped = warp(visit_of(1, wcs, (*TARGET.pixel_to_sky(x, y), flux), shape=(360, 360)), TARGET, BOX, WarpConfig())
    image, box = warped.image.image, warped.image.box
    grid = np.arange(-20, 21)
    fluxes, misses = [], []
    for cx, cy in zip(x, y):
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        stamp = image[iy - 20 - box.y0:iy + 21 - box.y0, ix - 20 - box.x0:ix + 21 - box.x0].astype(float)
        fluxes.append(stamp.sum())
        dx, dy = grid + ix - cx, grid[:, None] + iy - cy
        seen = stamp * np.exp(-0.5 * (dx**2 + dy**2) / 1.5**2)
        misses.append(2.0 * np.hypot((seen * dx).sum(), (seen * dy).sum()) / seen.sum())
    assert np.mean(fluxes) == pytest.approx(1e5, rel=1e-4 if scale >= 1 else 5e-4)
    # where the pixel scales differ by a few per cent, Lanczos-3 beats with the pixels: 0.5 % in a sum, none in the mean
    assert np.std(fluxes) < (6e-3 if scale == 0.95 else 1e-4) * 1e5
    assert max(misses) < 0.012  # the kernel's own phase error, 0.005 per axis; the warped PSF has it too


def test_mapping_is_exact_between_nodes():
    source = wcs_of(12.0, (900.0, 400.0), 1.0, 1e-9)  # 0.8 pixel of distortion at the corner
    box = Box(3, 5, 90, 70)
    x, y = np.meshgrid(np.arange(box.x0, box.x1), np.arange(box.y0, box.y1))
    found = Mapping(source, TARGET, box)(x, y)
    np.testing.assert_allclose(found, source.sky_to_pixel(*TARGET.pixel_to_sky(x, y)), rtol=0, atol=2e-9)


def test_psf_of_the_warp_is_that_of_its_stars():
    for angle, scale in ((0.0, 1.0), (25.0, 1.08)):
        wcs = wcs_of(angle, (180.37, 179.61), scale, 1e-9)
        x, y = np.array([-60.0, 20.0, 80.0]), np.array([50.0, -90.0, 10.0])
        visit = visit_of(1, wcs, (*TARGET.pixel_to_sky(x, y), np.full(3, 1e6)), shape=(360, 360), fwhm=3.2)
        warped = warp(visit, TARGET, BOX, WarpConfig(psf_size=31))
        stamps = warp_psf(visit, TARGET, x, y, 31)
        for stamp, cx, cy in zip(stamps, x.astype(int), y.astype(int)):
            seen = warped.image.cutout(Box(cx - 15, cy - 15, 31, 31)).image / 1e6
            assert np.abs(seen - stamp).max() < 3e-3 * stamp.max()  # what Lanczos-5 makes of the stamp
            cell = warped.psf.stamps(cx, cy)[0]
            flux = (cell * seen).sum() / (cell.astype(float) ** 2).sum()
            assert flux == pytest.approx(1.0, abs=2e-3)  # one visit in one phase; the mean over visits is closer
            size, wanted = (np.add(*weighted_moments(s)[:2]) for s in (cell, seen))
            assert size == pytest.approx(wanted, rel=4e-3)  # T = 2 sigma^2: 0.2 % in size


def test_variance_plane_and_noise_factor():
    visit = visit_of(1, wcs_of(0.7, (180.3, 179.8)), ([], [], []), shape=(360, 360), noise=5.0)
    warped = warp(visit, TARGET, BOX, WarpConfig())
    inner = warped.image.cutout(BOX.grow(-5))
    assert inner.image.var() == pytest.approx(np.median(inner.variance), rel=0.02)
    smooth = np.median(inner.variance) / np.median(warped.noise_factor)
    blocks = inner.image[:280, :280].reshape(28, 10, 28, 10).sum(axis=(1, 3))
    # sums of 10 x 10 pixels: the scatter of 784 of them is 5 %, the kernel's edges make 3 %
    assert blocks.var() / 100 == pytest.approx(smooth, rel=0.15)
    assert warped.weight == pytest.approx(1.0 / (25.0 * 4.0), rel=1e-3)


def test_value_does_not_depend_on_the_box():
    x, y, flux = a_star_grid()
    sky = (*TARGET.pixel_to_sky(x, y), flux)
    visit = visit_of(1, wcs_of(3.0, (180.3, 179.8), 1.0, 1e-9), sky, shape=(360, 360), noise=3.0)
    whole = warp(visit, TARGET, BOX, WarpConfig(cell=50))
    part = Box(-150, -50, 300, 100)
    piece = warp(visit, TARGET, part, WarpConfig(cell=50))
    for name in ("image", "mask", "variance"):
        np.testing.assert_array_equal(getattr(piece.image.cutout(part), name), getattr(whole.image.cutout(part), name))
    np.testing.assert_array_equal(piece.psf.cells, whole.psf.cells[2:4])
    np.testing.assert_array_equal(piece.noise_factor, whole.noise_factor[2:4])
    assert piece.weight == whole.weight


def test_bad_pixels_and_edges():
    visit = visit_of(1, wcs_of(0.0, (150.4, 150.4)), ([], [], []), shape=(250, 250), noise=5.0)
    visit.image.mask[100, 100] |= bits("CR")  # not interpolated
    visit.image.image[100, 100] = 1e7
    visit.image.mask[60, :] |= bits("BAD", "INTRP")
    visit.image.mask[160:164, 160:164] |= bits("DETECTED")
    warped = warp(visit, TARGET, BOX, WarpConfig(max_bad=0.1))
    image = warped.image
    valid = np.isfinite(image.image)
    assert np.nanmax(image.image) < 100
    np.testing.assert_array_equal(valid, (image.mask & bits("NO_DATA")) == 0)
    np.testing.assert_array_equal(valid, np.isfinite(image.variance))
    rejected = (image.mask & bits("REJECTED")) != 0
    assert 36 + 2 * 240 <= rejected.sum() <= 36 + 2 * 250  # the kernel's reach of the hit; two rows of the bad one
    assert ((image.mask & bits("INTRP")) != 0)[valid].sum() > 900
    assert ((image.mask & bits("DETECTED")) != 0).sum() == 25
    assert ((image.mask & bits("SENSOR_EDGE")) != 0).sum() > 1000
    assert warped.coverage.shape == (2, 2) and 0 < warped.coverage.min() < 1


def test_no_overlap_and_bad_input():
    visit = visit_of(1, wcs_of(0.0, (150.0, 150.0)), ([], [], []), shape=(250, 250), noise=5.0)
    assert warp(visit, TARGET, Box(5000, 5000, 300, 300), WarpConfig()) is None
    other_side = replace(TARGET, crval=(330.0, -2.0))
    assert warp(visit, other_side, BOX, WarpConfig()) is None
    blind = visit_of(1, wcs_of(0.0, (150.0, 150.0)), ([], [], []), shape=(250, 250), noise=5.0)
    blind.image.mask[:] = bits("SAT")
    assert warp(blind, TARGET, BOX, WarpConfig()) is None
    with pytest.raises(BadData, match="visit 1 S00: photometric scale is nan"):
        warp(replace(visit, photocal=replace(visit.photocal, scale=np.nan)), TARGET, BOX, WarpConfig())


def test_draw_is_what_it_says():
    """The tests' own renderer: flux and centroid of a star."""
    image = draw((61, 61), [30.3], [29.6], [7.0], 3.0)
    y, x = np.mgrid[:61, :61]
    assert [image.sum(), (image * x).sum() / 7, (image * y).sum() / 7] == pytest.approx([7.0, 30.3, 29.6], abs=1e-6)
