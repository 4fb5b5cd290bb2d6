"""csrc/filter.c and csrc/detect.c against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import detect as reference

from rsp_hpc.kernels import detect as kernel


def noise_terms(rows, columns):
    pairs = [(a, b) for a in range(len(rows)) for b in range(a, len(rows))]
    return (np.array([rows[a] * rows[b] for a, b in pairs], np.float32),
            np.array([columns[a] * columns[b] * (1 if a == b else 2) for a, b in pairs], np.float32))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 3), st.integers(3, 60), st.integers(3, 60))
def test_filter_agrees_with_twin(seed, half, n_terms, ny, nx):
    rng = np.random.default_rng(seed)
    image, variance = rng.standard_normal((ny, nx)).astype(np.float32), rng.uniform(1, 3, (ny, nx)).astype(np.float32)
    mask = rng.choice([0, 1, 2, 3, 4], size=(ny, nx), p=[0.8, 0.05, 0.05, 0.05, 0.05]).astype(np.uint32)
    image[rng.uniform(size=(ny, nx)) > 0.95] = np.nan
    variance[rng.uniform(size=(ny, nx)) > 0.95] = np.inf
    rows, columns = rng.uniform(0.1, 1, (2, n_terms, 2 * half + 1)).astype(np.float32)
    level, snr = kernel.filter_image((image, mask, variance), (1, 2, 4), (rows, columns), noise_terms(rows, columns),
                            np.ones((1, 1), np.float32))
    usable = ((mask & 4) == 0) & (((mask & 1) == 0) | ((mask & 2) != 0)) & np.isfinite(image) & np.isfinite(variance)
    expected_level, expected = reference.filter_image(image, usable, variance, np.einsum("ti,tj->ij", columns, rows))
    np.testing.assert_allclose(level, expected_level, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(snr, expected, atol=2e-4, rtol=1e-4)


def test_wide_image_is_the_same_in_any_tile():
    rng = np.random.default_rng(4)
    image = rng.standard_normal((20, 2600)).astype(np.float32)
    planes = image, np.zeros(image.shape, np.uint32), np.ones_like(image)
    rows = columns = np.hanning(9)[None, 1:-1].astype(np.float32)
    whole = kernel.filter_image(planes, (0, 0, 0), (rows, columns), noise_terms(rows, columns), np.ones((1, 1), np.float32))
    cut = tuple(np.ascontiguousarray(plane[:, 700:1500]) for plane in planes)
    part = kernel.filter_image(cut, (0, 0, 0), (rows, columns), noise_terms(rows, columns), np.ones((1, 1), np.float32))
    for mine, theirs in zip(part, whole):
        np.testing.assert_array_equal(mine[:, 10:-10], theirs[:, 710:1490])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10000), st.floats(0.0, 1.5), st.floats(0.0, 0.5))
def test_footprints_and_peaks_agree_with_twin(seed, min_drop, contrast):
    rng = np.random.default_rng(seed)
    snr = rng.standard_normal((30, 41))
    for _ in range(2):
        snr = (snr + np.roll(snr, 1, 0) + np.roll(snr, 1, 1) + np.roll(snr, (1, 1), (0, 1))) / 2.0
    snr = np.ascontiguousarray(snr, np.float32)
    mask = np.zeros(snr.shape, np.uint32)
    labels, boxes, areas = kernel.find_footprints(snr, mask, (0.3, 1.2), 3, 8)
    expected = reference.footprints(snr, 0.3, 1.2, 3)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(mask != 0, expected > 0)
    np.testing.assert_array_equal(areas, np.bincount(expected.ravel())[1:])
    owners, xy, peak_snr, starts = kernel.find_peaks(snr, snr, labels, boxes, (1.2, min_drop, contrast))
    twin = reference.peaks(snr, labels, 1.2, min_drop, contrast)
    found = {tuple(np.argwhere(snr == value)[0]) for value in peak_snr}
    assert found == {tuple(int(v) for v in p) for p in twin}
    assert starts[-1] == len(xy) and ((owners > 0) == (labels > 0)).all()
    for k, (x, y) in enumerate(xy):
        assert owners[int(round(y)), int(round(x))] == k + 1 or abs(x % 1 - 0.5) < 0.01 or abs(y % 1 - 0.5) < 0.01


def test_results_that_need_more_room_than_guessed():
    snr = np.zeros((120, 120), np.float32)
    snr[::2, ::2] = 10.0  # 3,600 footprints of one pixel
    labels, boxes, _ = kernel.find_footprints(snr, np.zeros(snr.shape, np.uint32), (1.0, 5.0), 1, 1)
    assert len(boxes) == 3600 and labels.max() == 3600
    snr[:] = 2.0
    snr[::2, ::2] = 10.0  # one footprint of 3,600 peaks
    labels, boxes, _ = kernel.find_footprints(snr, np.zeros(snr.shape, np.uint32), (1.0, 5.0), 1, 1)
    assert len(kernel.find_peaks(snr, snr, labels, boxes, (5.0, 1.0, 0.0))[1]) == 3600


def test_flat_topped_source_is_one_peak():
    snr = np.zeros((30, 30), np.float32)
    snr[8:20, 8:20] = 50.0  # equal values, as in a saturated star
    labels, boxes, _ = kernel.find_footprints(snr, np.zeros(snr.shape, np.uint32), (1.0, 5.0), 1, 1)
    xy = kernel.find_peaks(snr, snr, labels, boxes, (5.0, 1.0, 0.0))[1]
    np.testing.assert_allclose(xy, [[13.5, 13.5]])
