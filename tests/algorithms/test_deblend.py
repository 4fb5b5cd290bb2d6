"""Blends: conservation of light, fluxes of close pairs, what is left blended."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.sources import psf_of, pull_width, star_image
from scipy.spatial import cKDTree

from rsp_hpc.algorithms.deblend import DeblendConfig, deblend
from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.algorithms.measure import MeasureConfig, measure
from rsp_hpc.algorithms.merge import MergeConfig, merge_peaks
from rsp_hpc.errors import BadData
from rsp_hpc.products.mask import bits

PAIRS = 8


@pytest.fixture(scope="module")
def pairs():
    """64 pairs of stars, 7 pixels apart, 20000 and 8000 electrons."""
    x, y = (v.ravel() for v in np.meshgrid(60.0 * np.arange(PAIRS) + 40, 60.0 * np.arange(PAIRS) + 40))
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, len(x))
    x, y = np.append(x, x + 7 * np.cos(angle)), np.append(y, y + 7 * np.sin(angle))
    flux = np.repeat([20000.0, 8000.0], PAIRS**2)
    image = star_image((520, 520), x, y, flux, seed=6)
    return image, psf_of(3.5, image.box), x, y, flux


def test_children_sum_to_the_image(pairs):
    image, psf, *_ = pairs
    detections = detect(image, psf, DetectConfig())
    children = deblend(image, detections, psf, DeblendConfig())
    total = np.zeros(image.box.shape)
    for k in np.flatnonzero(children.offsets >= 0):
        x0, y0, x1, y1 = children.boxes[k]
        total[y0:y1, x0:x1] += children.pixels(k)
    blended = np.isin(detections.labels, np.flatnonzero(detections.n_peaks > 1) + 1)
    np.testing.assert_allclose(total[blended], image.image[blended], atol=0.02)
    assert not total[~blended].any()


def test_fluxes_of_close_pairs(pairs):
    image, psf, x, y, flux = pairs
    detections = detect(image, psf, DetectConfig())
    assert len(x) - 2 <= len(detections) <= len(x)
    match = cKDTree(np.stack([x, y], axis=1)).query(np.stack([detections.x, detections.y], axis=1))[1]
    config = MeasureConfig(radii=(6.0,))
    for children, worst in ((deblend(image, detections, psf, DeblendConfig()), 0.5), (None, np.inf)):
        table = measure(image, detections, children, psf, config)
        bias = np.median((table["psfFlux"] / flux[match] - 1.0)[flux[match] < 1e4])
        pull = (table["psfFlux"] - flux[match]) / table["psfFluxErr"]
        if children is None:
            assert bias > 0.03  # so there is something to gain
        else:
            assert abs(bias) < 0.015 and abs(np.median(pull)) < worst and pull_width(pull) < 1.3
            assert table["deblend_deblendedAsPsf"].mean() > 0.9
            assert np.median(np.abs(table["ap06Flux"] / flux[match] - 0.93)) < 0.05


def test_extended_neighbour_keeps_its_light():
    image = star_image((120, 140), [52.0], [60.0], [30000.0])
    y, x = np.mgrid[:120, :140]
    galaxy = 40000.0 * np.exp(-0.5 * ((x - 68)**2 + (y - 60)**2) / 16.0) / (2 * np.pi * 16.0)
    image.image += galaxy.astype(np.float32)
    image.variance += galaxy.astype(np.float32)
    psf = psf_of(3.5, image.box)
    detections = detect(image, psf, DetectConfig())
    assert len(detections) == 2
    children = deblend(image, detections, psf, DeblendConfig())
    which = int(np.argmax(detections.x))
    assert children.pixels(which).sum() == pytest.approx(40000.0, rel=0.06)
    assert children.flags[which] == 0 and children.flags[1 - which] == children.POINT_SOURCE


def test_too_many_peaks_are_left_and_marked(pairs):
    image, psf, *_ = pairs
    image = image.copy()
    detections = detect(image, psf, DetectConfig())
    children = deblend(image, detections, psf, DeblendConfig(max_peaks=1))
    several = detections.n_peaks[detections.footprint] > 1
    assert (children.offsets == -1).all() and several.sum() > 100
    assert ((children.flags == children.NOT_DEBLENDED) == several).all()
    blended = np.isin(detections.labels, np.flatnonzero(detections.n_peaks > 1) + 1)
    np.testing.assert_array_equal((image.mask & bits("NOT_DEBLENDED")) != 0, blended)
    assert measure(image, detections, children, psf, MeasureConfig(radii=(6.0,)))["deblend_skipped"].any()


def test_detections_of_another_box_are_refused(pairs):
    image, psf, *_ = pairs
    detections = detect(image, psf, DetectConfig())
    with pytest.raises(BadData, match="detect on it"):
        deblend(star_image((60, 60), [], [], []), detections, psf, DeblendConfig())


def test_bands_merge_in_order():
    red = np.array([10.0, 50.0]), np.array([10.0, 50.0]), np.array([9.0, 5.0])
    blue = np.array([10.8, 52.5, 90.0]), np.array([10.0, 50.0, 90.0]), np.array([7.0, 6.0, 8.0])
    merged = merge_peaks([red, blue], MergeConfig())
    assert merged.x.tolist() == [10.0, 50.0, 90.0] and merged.first.tolist() == [0, 0, 1]
    assert merged.detected.tolist() == [[True, True], [True, False], [False, True]]
    assert merged.snr[0].tolist() == [9.0, 7.0]
    assert len(merge_peaks([(np.empty(0),) * 3, red], MergeConfig()).x) == 2
