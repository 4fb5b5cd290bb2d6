"""Amplifiers matched at their borders: known factors are found, sources and lone amplifiers do no harm."""

import numpy as np
import pytest

from rsp_hpc.algorithms.gains import GainsConfig, borders, match_gains
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.image import MaskedImage

NX, NY, SKY = 500, 400, 2000.0
DETECTOR = Detector(name="A", id=0, size=(3 * NX, 2 * NY), amplifiers=tuple(
    Amplifier(name=f"{i}{j}", section=(0, 0, NX, NY), data=(0, 0, NX, NY), origin=(i * NX, j * NY)) for j in range(2) for i in range(3)))


def sky_with(factors, seed=1):
    """A sky with a slope, and each amplifier wrong by its factor."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:2 * NY, :3 * NX]
    level = SKY * (1.0 + 2e-5 * x - 1e-5 * y)
    image = MaskedImage(rng.normal(level, np.sqrt(level)).astype(np.float32), np.zeros(level.shape, np.uint32),
                        level.astype(np.float32), Box.of_shape(level.shape))
    for amplifier, factor in zip(DETECTOR.amplifiers, factors):
        at = amplifier.assembled_box.slices(image.box)
        image.image[at] *= factor
        image.variance[at] *= factor**2
    return image


def test_borders_are_found_once():
    found = borders(DETECTOR, 32)
    assert sorted((border.first, border.second) for border in found) == [(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (4, 5)]
    for border in found:
        assert min(border.near.nx, border.near.ny) == min(border.far.nx, border.far.ny) == 32


def test_known_factors_are_found():
    wrong = np.array([1.01, 0.99, 1.02, 1.0, 0.985, 1.005])
    image = sky_with(wrong)
    sources = np.zeros(image.box.shape, bool)
    image.image[100:110, 495:520], sources[100:110, 495:520] = 3e4, True  # a star on a border
    factors = match_gains(image, DETECTOR, sources, GainsConfig(depth=32))
    assert np.mean(factors) == pytest.approx(1.0)
    relative = factors * wrong / np.mean(factors * wrong)
    np.testing.assert_allclose(relative, 1.0, atol=1.5e-3)  # 45 electrons / sqrt(32 x 400) / 2000 = 2e-4 per border, and the slope
    flat = sky_with(np.ones(6))
    good = ~sources
    assert np.median(np.abs((image.variance / flat.variance)[good] / (image.image / flat.image)[good] ** 2 - 1.0)) < 0.01


def test_off_by_default_and_no_sky_is_said():
    image = sky_with(np.ones(6))
    before = image.image.copy()
    assert (match_gains(image, DETECTOR, np.zeros(image.box.shape, bool), GainsConfig()) == 1.0).all()
    assert np.array_equal(image.image, before)
    with pytest.raises(BadData, match="border of amplifiers 00 and 10"):
        match_gains(image, DETECTOR, np.ones(image.box.shape, bool), GainsConfig(depth=32))
