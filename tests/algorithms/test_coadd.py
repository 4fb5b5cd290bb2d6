"""Coadd: artifacts go, stars stay, noise and PSF are what they are said to be, blocks do not matter."""

import numpy as np
import pytest

from rsp_hpc.algorithms.coadd import CoaddConfig, coadd, coadd_blocks, row_blocks
from rsp_hpc.algorithms.measure import MeasureConfig, measure_forced
from rsp_hpc.algorithms.warp import WarpConfig, warp
from rsp_hpc.errors import BadData, NothingToDo
from rsp_hpc.products.box import Box
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import weighted_moments
from skyfield import TARGET, visit_of, wcs_of

BOX, SIDE = Box(-200, -200, 400, 400), 520
WARP, COADD = WarpConfig(cell=100), CoaddConfig()


def a_survey(n, sky, noise=True, seed=4, spread=(3.0, 4.5)):
    """n visits of changing seeing, depth, rotation and place."""
    rng = np.random.default_rng(seed)
    visits = []
    for k in range(n):
        wcs = wcs_of(rng.uniform(-2, 2), (260 + rng.uniform(-9, 9), 260 + rng.uniform(-9, 9)), 1.0, 1e-9)
        depth = 10.0 + 2 * (k % 4)
        visits.append(visit_of(k, wcs, sky, rng.uniform(*spread), (SIDE, SIDE), depth if noise else 0.0, depth**2))
    return visits


def some_stars(n=30, seed=3, low=3.5, high=6.0):
    """Positions on integer target pixels, so that stamps can be compared; none closer than 25 pixels to another."""
    rng = np.random.default_rng(seed)
    x, y = (25 * (grid.ravel() - 6.5) + rng.integers(-2, 3, grid.size) for grid in np.mgrid[0:14, 0:14])
    chosen = rng.permutation(len(x))[:n]
    x, y = x[chosen].astype(int), y[chosen].astype(int)
    return x, y, 10 ** rng.uniform(low, high, n)


def warps_of(visits, box=BOX):
    return [warped for visit in visits if (warped := warp(visit, TARGET, box, WARP))]


@pytest.mark.parametrize("n", [3, 5, 10])
def test_artifacts_in_one_visit_are_removed(n):
    visits = a_survey(n, ([], [], []))
    clean = coadd("r", warps_of(visits), BOX, COADD)
    rng = np.random.default_rng(n)
    hits = rng.integers(70, SIDE - 70, (2, 150))
    visits[1].image.image[hits[0], hits[1]] += 40 * 12.0
    x, y = TARGET.sky_to_pixel(*visits[1].wcs.pixel_to_sky(hits[1], hits[0]))
    hit = coadd("r", warps_of(visits), BOX, COADD)
    error = np.abs(hit.image.image - clean.image.image) / np.sqrt(clean.image.variance)
    column, row = np.rint(x - BOX.x0).astype(int), np.rint(y - BOX.y0).astype(int)
    seen = (column >= 0) & (row >= 0) & (column < BOX.nx) & (row < BOX.ny)
    assert seen.sum() > 100
    assert (error[row[seen], column[seen]] < 3).mean() >= 0.99
    assert ((hit.image.mask[row[seen], column[seen]] & bits("CLIPPED")) != 0).mean() >= 0.99
    clipped = hit.inputs["nClipped"]
    assert clipped[1] > 3 * seen.sum() and np.delete(clipped, 1).max() < 0.02 * clipped[1]
    assert ((hit.image.mask & bits("INEXACT_PSF")) != 0)[row[seen], column[seen]].mean() >= 0.99


def test_stars_are_not_clipped_though_the_seeing_changes():
    x, y, flux = some_stars(60, high=6.5)
    sky = (*TARGET.pixel_to_sky(x, y), flux)
    noisy = coadd("r", warps_of(a_survey(8, sky)), BOX, COADD)
    pure = warps_of(a_survey(8, sky, noise=False))
    weights = np.array([warped.weight for warped in pure])
    truth = sum(w * warped.image.cutout(BOX).image.astype(float) for w, warped in zip(weights, pure)) / weights.sum()
    pull = (noisy.image.image - truth) / np.sqrt(noisy.image.variance)
    bright = truth > 30 * np.sqrt(noisy.image.variance)
    assert bright.sum() > 1500
    assert abs(pull[bright].mean()) < 0.1 and abs(pull.mean()) < 0.02
    assert pull[bright].std() < 1.1 and pull.std() == pytest.approx(1.0, abs=0.02)
    assert coadd("r", pure, BOX, COADD).inputs["nClipped"].sum() == 0


def test_psf_of_the_coadd_is_that_of_its_stars():
    x, y, flux = some_stars(low=6.0, high=6.01)
    deep = coadd("r", warps_of(a_survey(5, (*TARGET.pixel_to_sky(x, y), flux), noise=False)), BOX, COADD)
    forced = measure_forced(deep.image, None, None, x.astype(float), y.astype(float), deep.psf, MeasureConfig())
    ratio = forced["psfFlux"] / flux
    assert abs(ratio.mean() - 1) < 1e-3 and ratio.std() < 1e-3
    sizes = []
    for cx, cy in zip(x, y):
        seen, model = deep.image.cutout(Box(cx - 15, cy - 15, 31, 31)).image, deep.psf.stamps(cx, cy)[0]
        sizes.append([np.sqrt(np.add(*weighted_moments(stamp)[:2])) for stamp in (seen, model)])
    sizes = np.array(sizes)
    assert abs((sizes[:, 1] / sizes[:, 0]).mean() - 1) < 2e-3
    np.testing.assert_allclose(deep.psf.cells.sum(axis=(2, 3)), 1.0, atol=1e-6)


def test_noise_of_a_white_field():
    deep = coadd("r", warps_of(a_survey(6, ([], [], []))), BOX, COADD)
    assert (deep.image.image**2 / deep.image.variance).mean() == pytest.approx(1.0, abs=0.02)
    stamp = deep.psf.stamps(0, 0)[0].astype(float)
    sums = np.fft.irfft2(np.fft.rfft2(deep.image.image) * np.conj(np.fft.rfft2(stamp, BOX.shape)), BOX.shape)
    sums = sums[:-40, :-40]
    plane = np.median(deep.image.variance) * (stamp**2).sum()
    correlation = np.median(deep.noise_correlation)
    assert 1.1 < correlation < 1.6
    assert sums.var() / plane == pytest.approx(correlation, rel=0.06)  # about 5000 independent sums: 2 % of scatter


def test_bits_do_not_depend_on_blocks_or_order():
    x, y, flux = some_stars()
    visits = a_survey(4, (*TARGET.pixel_to_sky(x, y), flux))
    for visit in visits:
        visit.image.image[np.random.default_rng(visit.exposure.visit).integers(0, SIDE, (2, 300)).tolist()] += 500
    whole = coadd("r", warps_of(visits)[::-1], BOX, COADD)
    assert whole.inputs["nClipped"].sum() > 300
    for rows in (100, 300):
        config = CoaddConfig(block_rows=rows)
        blocks = coadd_blocks("r", lambda box: warps_of(visits, box), BOX, WARP.cell, config)
        for name in ("image", "mask", "variance"):
            np.testing.assert_array_equal(getattr(blocks.image, name), getattr(whole.image, name))
        np.testing.assert_array_equal(blocks.n_inputs, whole.n_inputs)
        np.testing.assert_array_equal(blocks.psf.cells, whole.psf.cells)
        np.testing.assert_array_equal(blocks.noise_correlation, whole.noise_correlation)
        for name in whole.inputs.columns:
            np.testing.assert_array_equal(blocks.inputs[name], whole.inputs[name])


def test_edges_gaps_and_saturation():
    first = visit_of(1, wcs_of(0.0, (100.2, 260.2)), ([], [], []), shape=(SIDE, SIDE), noise=5.0)  # covers x > -100
    second = visit_of(2, wcs_of(0.0, (260.4, 260.4)), ([], [], []), shape=(SIDE, SIDE), noise=5.0)
    second.image.mask[300:320, 300:320] |= bits("SAT")
    box = Box(-400, -200, 600, 400)
    deep = coadd("r", warps_of([first, second], box), box, COADD)
    inside = deep.n_inputs
    assert inside[200, 20] == 0 and inside[200, 250] == 1 and inside[200, 400] == 2
    assert deep.image.mask[200, 20] == bits("NO_DATA") and np.isnan(deep.image.image[200, 20])
    saturated = (deep.image.mask & bits("SAT")) != 0
    assert saturated.sum() == pytest.approx(20 * 20, abs=45) and (inside[saturated] == 1).all()
    assert (deep.image.mask[saturated] & bits("REJECTED")).all()
    edge = (deep.image.mask & bits("SENSOR_EDGE")) != 0
    assert 2 * 400 <= edge[:, 250:400].sum() <= 4 * 400 and edge[10:-10].any(axis=1).all()
    assert np.isnan(deep.noise_correlation[0, 0]) and np.isnan(deep.psf.cells[0, 0]).all()


def test_bad_input():
    with pytest.raises(NothingToDo, match="no warp"):
        coadd("r", [], BOX, COADD)
    warps = warps_of(a_survey(1, ([], [], [])))
    with pytest.raises(BadData, match="warp all inputs of a coadd onto its box"):
        coadd("r", warps, BOX.grow(1), COADD)


def test_row_blocks_tile_the_box_in_whole_cells():
    blocks = list(row_blocks(Box(5, -20, 40, 130), 50, 60))
    assert [(block.y0, block.ny) for block in blocks] == [(-20, 50), (30, 50), (80, 30)]
    assert list(row_blocks(BOX, 50, 0)) == [BOX]
