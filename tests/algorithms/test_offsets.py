"""Amplifier offsets: injected ones are found within their errors, below the read noise, on sloping skies with sources."""

import numpy as np
import pytest

from rsp_hpc.algorithms.background import fit_background, subtract_background
from rsp_hpc.algorithms.offsets import OffsetsConfig, measure_offsets, subtract_offsets
from rsp_hpc.algorithms.visit import VisitConfig, _levelled
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.image import MaskedImage

NX, NY, SKY, GAIN = 256, 512, 1000.0, 1.6
DETECTOR = Detector(name="A", id=0, size=(4 * NX, 2 * NY), amplifiers=tuple(
    Amplifier(name=f"{i}{j}", section=(0, 0, NX, NY), data=(0, 0, NX, NY), origin=(i * NX, j * NY), gain=GAIN, read_noise=5.0)
    for j in range(2) for i in range(4)))
CONFIG = OffsetsConfig()
WRONG = np.array([2.0, -1.0, 0.5, 3.0, -2.5, 0.0, -1.5, -0.5])


def a_sky(wrong=WRONG, seed=1, sky=SKY, noise=True) -> tuple[MaskedImage, np.ndarray]:
    """A sky with a slope and a bend, stars, and amplifiers that are wrong; and where the stars are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:2 * NY, :4 * NX]
    level = sky * (1.0 + 2e-5 * x - 1e-5 * y + 1e-8 * (x - 500.0) ** 2)
    image = (rng.normal(level, np.sqrt(level)) if noise else level).astype(np.float32)
    sources = np.zeros(level.shape, bool)
    for _ in range(80):
        cx, cy = rng.integers(20, 4 * NX - 20), rng.integers(20, 2 * NY - 20)
        image[cy - 7:cy + 8, cx - 7:cx + 8] += np.float32(rng.uniform(20, 3000))
        sources[cy - 7:cy + 8, cx - 7:cx + 8] = True
    for amplifier, value in zip(DETECTOR.amplifiers, wrong):
        image[amplifier.assembled_box.slices(DETECTOR.box)] += np.float32(value)
    return MaskedImage(image, np.zeros(level.shape, np.uint32), level.astype(np.float32)), sources


def test_offsets_are_found_within_their_errors():
    pulls, residuals = [], []
    for seed in range(6):
        image, sources = a_sky(seed=seed)
        found = subtract_offsets(image, DETECTOR, CONFIG, sources)
        pulls += ((found.value - WRONG) / found.error).tolist()
        residuals.append(found.value - WRONG)
        assert 0.1 < found.error.mean() < 0.5 and abs(found.value.sum()) < 1e-9
    assert 0.5 < np.std(pulls) < 1.6 and np.max(np.abs(pulls)) < 4.5, pulls
    assert np.max(np.abs(residuals)) < 5.0  # the read noise
    assert np.std(residuals) < 0.1 * np.std(WRONG) + 0.2


def test_continuity_where_noise_does_not_hide_it():
    """Less than 0.1 ADU at every border of a sky that slopes and bends."""
    image, sources = a_sky(noise=False)
    subtract_offsets(image, DETECTOR, CONFIG, sources)
    left = measure_offsets(image, DETECTOR, CONFIG, sources).value
    truth = image.image - a_sky(np.zeros(8), noise=False)[0].image
    steps = np.ptp([truth[amplifier.assembled_box.slices(DETECTOR.box)].mean() for amplifier in DETECTOR.amplifiers])
    assert np.abs(left).max() < 0.01 * GAIN and steps < 0.1 * GAIN


def test_a_galaxy_on_a_border_is_not_taken_for_a_step():
    image, sources = a_sky(seed=4)
    image.image[500:700, 256:300] += 300.0  # sharp on the border between two amplifiers, and not known as a source
    found = subtract_offsets(image, DETECTOR, CONFIG, sources)
    assert np.abs(found.value - WRONG).max() < 1.5


def test_amplifiers_that_nothing_ties_stay():
    image, sources = a_sky()
    alone = Detector(name="A", id=0, size=(4 * NX, 2 * NY), amplifiers=(
        Amplifier(name="all", section=(0, 0, 4 * NX, 2 * NY), data=(0, 0, 4 * NX, 2 * NY)),))
    assert measure_offsets(image, alone, CONFIG).value.tolist() == [0.0]
    before = image.image.copy()
    found = subtract_offsets(image, DETECTOR, CONFIG, np.ones(sources.shape, bool))
    assert not found.value.any() and np.isnan(found.error).all() and (image.image == before).all()
    jump = np.where(np.arange(8) == 3, 500.0, 0.0)  # beyond what is believed: left out, the others are set right
    found = subtract_offsets(*_second(a_sky(WRONG + jump)))
    assert found.value[3] == 0.0 and np.isnan(found.error[3])
    others = np.arange(8) != 3
    assert np.std((found.value - WRONG)[others]) < 0.5


def test_fringes_and_offsets_in_a_visit():
    """As the visit's flow has them: both found, with the sky's slope, and the new background left as it should be."""
    image, sources = a_sky(seed=8)
    y, x = np.mgrid[:2 * NY, :4 * NX]
    pattern = (np.sqrt(2.0) * np.sin(x / 13.0 + np.cos(y / 60.0))).astype(np.float32)
    image.image += np.float32(25.0) * pattern
    config = VisitConfig(offsets=OffsetsConfig(apply=True))
    background = fit_background(image, config.background)
    subtract_background(image, background)
    background, numbers = _levelled(image, background, (DETECTOR, pattern, sources), config)
    assert abs(numbers["fringe_electron"] - 25.0) < 5.0 * numbers["fringe_err_electron"] < 1.0
    assert abs(numbers["amplifier_offset_rms_electron"] - np.sqrt(np.mean(WRONG**2))) < 0.3
    assert abs(image.image[~sources].std() - np.sqrt(SKY)) < 0.5
    assert np.abs(background.level / SKY - 1.0).max() < 0.05
    untouched = image.copy()
    assert _levelled(image, background, (DETECTOR, None, sources), VisitConfig()) == (background, {})
    np.testing.assert_array_equal(image.image, untouched.image)


def _second(made):
    return made[0], DETECTOR, CONFIG, made[1]


def test_a_part_of_a_detector_is_refused():
    with pytest.raises(BadData, match="whole detector A of 1024 x 1024"):
        subtract_offsets(a_sky()[0].cutout(Box(0, 0, 500, 500)), DETECTOR, CONFIG)
