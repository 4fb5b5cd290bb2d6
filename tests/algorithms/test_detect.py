"""Completeness, purity and positions of detections; masks, depth steps, several bands."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.sources import flux_of, grid, psf_of, star_image
from scipy.spatial import cKDTree

from rsp_hpc.algorithms.detect import DetectConfig, detect, detect_multiband, matched_filter, significance
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import CellPsf

CONFIG = DetectConfig()


def found(x, y, detections, radius=2.0):
    return cKDTree(np.stack([detections.x, detections.y], axis=1)).query(np.stack([x, y], axis=1))[0] < radius


def test_completeness_and_false_detections():
    x, y = grid(20, 30.0)
    psf = psf_of(3.5, Box(0, 0, 620, 620))
    snr = np.repeat([6.0, 12.0, 25.0, 100.0], 100)
    image = star_image((620, 620), x, y, flux_of(snr, psf), origin=(0, 0))
    detections = detect(image, psf, CONFIG)
    ok = found(x, y, detections)
    assert ok[snr == 6.0].mean() >= 0.85
    assert ok[snr > 6.0].all()
    false = ~(cKDTree(np.stack([x, y], axis=1)).query(np.stack([detections.x, detections.y], axis=1))[0] < 2.5)
    assert false.sum() <= 3
    assert ((image.mask & bits("DETECTED")) != 0).tolist() == (detections.labels > 0).tolist()
    assert (image.mask[0] & bits("EDGE")).all() and not (image.mask[300, 300] & bits("EDGE"))


def test_blank_sky_has_unit_significance():
    psf = psf_of(3.0, Box(0, 0, 300, 300))
    snr = significance(star_image((300, 300), [], [], []), psf, CONFIG)
    assert snr[20:-20, 20:-20].std() == pytest.approx(1.0, abs=0.06)
    correlated = significance(star_image((300, 300), [], [], []), psf, CONFIG, np.array([[1.0, 4.0]]))
    np.testing.assert_allclose(correlated[:, 150:], 0.5 * snr[:, 150:], rtol=1e-5)
    np.testing.assert_array_equal(correlated[:, :150], snr[:, :150])


def test_filter_comes_close_to_the_optimal_one():
    stamp = psf_of(4.0, Box(0, 0, 9, 9)).coefficients[0]
    (rows, columns), _ = matched_filter(stamp, CONFIG)
    half = rows.shape[1] // 2
    core = stamp[12 - half:13 + half, 12 - half:13 + half]
    kernel = np.einsum("ti,tj->ij", columns, rows)
    assert (kernel * core).sum() / np.sqrt((kernel**2).sum() * (stamp**2).sum()) > 0.985


def test_noise_makes_no_peaks_on_bright_extended_light():
    image = star_image((200, 200), [], [], [])
    y, x = np.mgrid[:200, :200]
    galaxy = 300.0 * np.exp(-0.5 * ((x - 100)**2 + (y - 90)**2) / 18.0**2)
    rng = np.random.default_rng(9)
    image.image += (galaxy + np.sqrt(galaxy) * rng.standard_normal(galaxy.shape)).astype(np.float32)
    image.variance += galaxy.astype(np.float32)
    assert len(detect(image, psf_of(3.5, image.box), CONFIG)) == 1


def test_saturated_star_is_one_detection():
    image = star_image((120, 120), [60.3], [61.2], [3e6])
    well = image.image > 20000.0
    image.image[well], image.mask[well] = 20000.0, bits("SAT")
    detections = detect(image, psf_of(3.5, image.box), CONFIG)
    assert found(np.array([60.3]), np.array([61.2]), detections, 2.5).all()
    assert len(detections) == 1


def test_cosmic_rays_count_only_once_interpolated():
    image = star_image((100, 100), [], [], [])
    image.image[40:43, 50], image.mask[40:43, 50] = 1e4, bits("CR")
    psf = psf_of(3.5, image.box)
    assert len(detect(image, psf, CONFIG)) == 0
    image.mask[40:43, 50] |= bits("INTRP")
    assert len(detect(image, psf, CONFIG)) == 1
    image.mask[40:43, 50] |= bits("NO_DATA")
    assert len(detect(image, psf, CONFIG)) == 0


def test_positions_are_those_of_the_box():
    image = star_image((90, 110), [1040.4], [530.7], [5000.0], origin=(1000, 500))
    detections = detect(image, psf_of(3.5, image.box), CONFIG)
    assert len(detections) == 1
    assert detections.x[0] == pytest.approx(1040.4, abs=0.3) and detections.y[0] == pytest.approx(530.7, abs=0.3)
    x0, y0, x1, y1 = detections.boxes[0]
    assert x0 < 40 < x1 and y0 < 31 < y1 and detections.labels[31, 40] == 1 and detections.owners[31, 40] == 1


def test_bands_together_find_what_each_misses():
    x, y = grid(12, 30.0, seed=5)
    psf = psf_of(3.5, Box(0, 0, 380, 380))
    images = {band: star_image((380, 380), x, y, flux_of(np.full(144, 4.2), psf), seed=k) for k, band in enumerate("gri")}
    alone = detect(images["r"].copy(), psf, CONFIG)
    together = detect_multiband(images, dict.fromkeys("gri", psf), CONFIG)
    assert found(x, y, alone).mean() < 0.5
    assert found(x, y, together).mean() > 0.9
    false = cKDTree(np.stack([x, y], axis=1)).query(np.stack([together.x, together.y], axis=1))[0] > 3.0
    assert false.sum() <= 2
    assert together.bands.shape == (len(together), 3)
    assert ((images["i"].mask ^ images["g"].mask) & bits("DETECTED") == 0).all()


def test_band_without_data_is_left_out():
    psf = psf_of(3.5, Box(0, 0, 100, 100))
    images = {band: star_image((100, 100), [50.0], [50.0], [9000.0], seed=k) for k, band in enumerate("gr")}
    images["g"].mask[:] = bits("NO_DATA")
    detections = detect_multiband(images, {"g": psf, "r": psf}, CONFIG)
    assert len(detections) == 1 and detections.bands.tolist() == [[False, True]]
    images["r"].variance[:] = np.inf
    with pytest.raises(BadData, match="no usable pixel in any"):
        detect_multiband(images, {"g": psf, "r": psf}, CONFIG)


def test_unusable_images_say_so():
    image = star_image((60, 60), [], [], [])
    image.image[:] = np.nan
    with pytest.raises(BadData, match="no usable pixel"):
        detect(image, psf_of(3.5, image.box), CONFIG)
    nothing = CellPsf(np.full((2, 2, 21, 21), np.nan, np.float32), 30, image.box)
    with pytest.raises(BadData, match="PSF"):
        detect(star_image((60, 60), [], [], []), nothing, CONFIG)
