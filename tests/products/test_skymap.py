"""The sky map against published values, the package skymap-convert (all LSST tracts and patches), and brute force."""

import gzip
from importlib.resources import files

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rsp_hpc.config import build
from rsp_hpc.errors import ConfigError
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from rsp_hpc.products.wcs import Wcs

LSST = RingsSkyMap()
SMALL = RingsSkyMap(SkyMapConfig(num_rings=400, pixel_scale=0.5, patch_inner=600, patch_border=100, cell_size=100,
                                 ra_start=77.0))


def random_sky(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


@pytest.fixture(scope="module")
def oracle():
    folder = files("skymap_convert") / "converted_skymaps" / "lsst_skymap"
    with gzip.open(str(folder / "patches.npy.gz")) as patches:
        return np.load(str(folder / "tracts.npy")), np.load(patches)


@pytest.mark.parametrize("tract, ra, dec", [
    (9813, 150.2479338843, 2.2314049587), (9712, 0.0, 2.2314049587), (2704, 10.404624277, -45.371900826),
    (4849, 53.831775701, -29.008264463), (5063, 53.087557604, -27.520661157), (10321, 185.950413223, 5.206611570),
    (1, 0.0, -88.512396694), (0, 0.0, -90.0), (18937, 0.0, 90.0)])
def test_published_centres(tract, ra, dec):
    assert_allclose(LSST.tract(tract).center, (ra, dec), atol=1e-9)


def test_old_numbering():
    old = RingsSkyMap(SkyMapConfig(version=0))
    assert len(old) == len(LSST) == 18938
    assert_allclose(old.tract(9712).center, (0.0, 0.7438016529), atol=1e-9)
    assert_allclose(old.tract(9813).center, (150.2479338843, 2.2314049587), atol=1e-9)
    tracts = np.arange(2, len(old))  # in this numbering tract 1 is also the last of its ring, and never found
    assert_array_equal(old.find_tract(*old.centers(np.setdiff1d(tracts, [11]))), np.setdiff1d(tracts, [11]))


@pytest.mark.parametrize("name, ra, dec, tract", [
    ("47 Tuc", 6.02, -72.08, 453), ("SV_38_7", 37.86, 6.98, 10463), ("Fornax", 40.0, -34.45, 4016),
    ("ECDFS", 53.13, -28.10, 5063), ("EDFS", 59.10, -48.73, 2394), ("SV_95_-25", 95.0, -25.0, 5526),
    ("Seagull", 106.23, -10.51, 7611), ("COSMOS", 150.1, 2.1, 9813)])
def test_fields_of_data_preview_1(name, ra, dec, tract):
    assert LSST.find_tract(ra, dec) == tract


def test_outer_patch_of_data_preview_2():
    tract = LSST.tract(2704)
    patch = tract.patch(95)
    assert (patch.x, patch.y, patch.outer.shape) == (5, 9, (3300, 3300))
    expected = [(10.158344, -44.713304), (10.416311, -44.713568), (10.416274, -44.530266), (10.159130, -44.530004)]
    ours = tract.corners(patch.outer)
    for corner in expected:
        assert angular_separation(*corner, *ours).min() < 1e-6


def test_a_small_number_of_rings():
    assert len(RingsSkyMap(SkyMapConfig(num_rings=3))) == 26


def test_all_tracts_of_lsst(oracle):
    tracts, _ = oracle
    ring = np.arange(1, len(LSST) - 1)
    ra, dec = LSST.centers(ring)
    inner = tracts[ring]
    assert_allclose(dec, 0.5 * (inner[:, 0, 1] + inner[:, 2, 1]), atol=1e-9)
    middle = np.mod(inner[:, 0, 0] + 0.5 * np.mod(inner[:, 1, 0] - inner[:, 0, 0], 360.0), 360.0)
    assert np.abs((ra - middle + 180.0) % 360.0 - 180.0).max() < 1e-9
    assert_array_equal(LSST.find_tract(ra, dec), ring)
    for corner, (right, up) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):  # the inner region ends at its corners
        inside = inner[:, corner] + 1e-7 * np.array([right, up])
        assert_array_equal(LSST.find_tract(*inside.T), ring)


def test_all_patches_of_a_sample_of_lsst_tracts(oracle):
    _, patches = oracle
    sample = [0, 1, 10, 11, 2704, 5063, 9468, 9712, 9813, 18936, 18937,
              *np.random.default_rng(1).integers(0, len(LSST), 60)]
    for number in sample:
        tract = LSST.tract(int(number))
        assert len(tract) == 100
        corners = np.array([np.transpose(tract.corners(tract.patch(index).inner)) for index in range(100)])
        theirs = patches[number]  # the same four corners, from another one on and the other way round
        apart = angular_separation(*np.moveaxis(corners[:, :, None], -1, 0), *np.moveaxis(theirs[:, None], -1, 0))
        assert apart.min(axis=1).max() < 1e-9 and apart.min(axis=2).max() < 1e-9


@pytest.mark.parametrize("skymap", [LSST, SMALL])
def test_each_position_is_primary_exactly_once(skymap):
    ra, dec = random_sky(100)
    rows = skymap.overlaps(np.stack([ra - 1e-4, ra + 1e-4, ra], -1), np.stack([dec - 1e-4, dec - 1e-4, dec + 1e-4], -1))
    primary = np.array([skymap.is_primary(ra[i], dec[i], t, p) for i, t, p in rows])
    assert_array_equal(np.bincount(rows[:, 0], primary, len(ra)), np.ones(len(ra)))


def test_positions_at_the_edges_of_the_sky():
    assert_array_equal(LSST.find_tract([0.0, 360.0, -1e-12, 10.0, 10.0, np.nan], [0.0, 0.0, 0.0, 90.0, -90.0, 0.0]),
                       [LSST.find_tract(0.0, 0.0)] * 3 + [18937, 0, -1])


@pytest.mark.parametrize("skymap, size", [(LSST, 0.24), (SMALL, 0.3)])
def test_overlaps_agree_with_brute_force(skymap, size):
    """A grid of points in each polygon finds no patch that is missed, and all but grazed patches have a point."""
    rng = np.random.default_rng(5)
    ra, dec = random_sky(8, 6)
    dec[:3] = 89.9, -89.7, 89.0
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 80), np.linspace(0, 1, 80)), -1).reshape(-1, 2)
    for i in range(len(ra)):
        turn = rng.uniform(0, 2 * np.pi)
        wcs = Wcs((ra[i], dec[i]), (0.5, 0.5), tuple(map(tuple, size * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]))))
        found = {tuple(row[1:]) for row in skymap.overlaps(*wcs.pixel_to_sky([0, 1, 1, 0], [0, 0, 1, 1]))}
        points = wcs.pixel_to_sky(*grid.T)
        near = np.flatnonzero(angular_separation(*skymap.centers(np.arange(len(skymap))), ra[i], dec[i]) < 2.5)
        brute = set()
        for number in near:
            tract = skymap.tract(int(number))
            x, y = tract.wcs.sky_to_pixel(*points)
            brute |= {(int(number), index) for index in range(len(tract))
                      if tract.patch(index).outer.contains(x, y).any()}
        assert brute <= found
        assert len(found - brute) <= 0.06 * len(found) + 1


def test_one_polygon():
    tract = LSST.tract(9813)
    corners = tract.corners(tract.patch(44).inner.grow(-200))
    assert LSST.tracts_overlapping(*corners) == [9813]
    assert LSST.patches_overlapping(9813, *corners) == [44]
    assert LSST.patches_overlapping(9813, *corners, margin=60.0) == [33, 34, 35, 43, 44, 45, 53, 54, 55]
    assert LSST.patches_overlapping(9813, corners[0][::-1], corners[1][::-1]) == [44]
    assert LSST.patches_overlapping(1, *corners) == []


def test_thousands_of_detectors_take_less_than_a_second():
    from time import process_time
    ra, dec = random_sky(5000, 3)
    x, y = np.array([-1, 1, 1, -1]) * 0.11, np.array([-1, -1, 1, 1]) * 0.11
    corners_dec = np.clip(dec[:, None] + y, -89.99, 89.99)
    start = process_time()
    rows = LSST.overlaps(ra[:, None] + x / np.cos(np.radians(dec[:, None])).clip(0.01), corners_dec)
    assert process_time() - start < 1.0
    assert len(np.unique(rows[:, 0])) == len(ra)


@pytest.mark.parametrize("number", [0, 1, 300, 9813, 18937])
def test_primary_patches_hold_the_inner_region(number):
    tract = LSST.tract(number)
    x, y = np.random.default_rng(2).uniform(0, 30000, (2, 20000))
    inside = tract.contains(*tract.wcs.pixel_to_sky(x, y))
    assert inside.mean() > 0.4
    primary = tract.primary_patches()
    assert set(tract.find_patch(x[inside], y[inside])) <= set(primary)


def test_patches_are_found_by_pixel():
    tract = SMALL.tract(5)
    n = SMALL.patches_per_side
    assert_array_equal(tract.find_patch([-0.5, 599.49, 599.5, -0.51, n * 600 - 0.6, np.nan], [0, 0, 600, 0, 0, 0]),
                       [0, 0, n + 1, -1, n - 1, -1])
    for index in (0, n - 1, n * n - 1):
        patch = tract.patch(index)
        assert tract.find_patch(*np.add(patch.inner.corners()[0], 0.1)) == index
        assert patch.outer == patch.inner.grow(100)
    with pytest.raises(IndexError, match="has patches 0 to"):
        tract.patch(n * n)
    with pytest.raises(IndexError, match="tract numbers are 0 to"):
        SMALL.tract(len(SMALL))


def test_clipped_patches():
    skymap = RingsSkyMap(SkyMapConfig(pixel_scale=0.168, patch_inner=4000, patch_border=100, cell_size=4000,
                                      clip_patches=True))
    tract = skymap.tract(100)
    assert tract.patch(0).outer.shape == (4100, 4100)
    assert tract.patch(12).outer.shape == (4200, 4200)
    outside = tract.corners(tract.patch(0).inner.shift(-4050, 0))
    assert skymap.patches_overlapping(100, *outside) == []
    assert LSST.patches_overlapping(100, *LSST.tract(100).corners(LSST.tract(100).patch(0).inner.shift(-3050, 0))) != []


def test_configuration_is_checked():
    with pytest.raises(ConfigError, match="does not divide patch_inner"):
        build(SkyMapConfig, {"patch_inner": 1000, "cell_size": 150}, "skymap")
