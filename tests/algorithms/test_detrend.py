"""detrend on detectors made here, with known truth, and on bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rawdetector import EXPOSURE, NX, NY, a_detector, a_raw
from rsp_hpc.algorithms.brighter_fatter import correct_brighter_fatter
from rsp_hpc.algorithms.detrend import DetrendConfig, assemble, detrend, flatten, prepare_calibration, to_electrons
from rsp_hpc.errors import BadData
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.electronics import BrighterFatter
from rsp_hpc.products.exposure import RawDetector
from rsp_hpc.products.mask import bits


@pytest.fixture
def calibration() -> Calibration:
    rng = np.random.default_rng(8)
    shape = (2 * NY, 2 * NX)
    y, x = np.mgrid[:shape[0], :shape[1]]
    flat = (1.1 - 0.2 * (np.hypot(x - 120, y - 90) / 150)**2 + rng.normal(0, 0.01, shape)).astype(np.float32)
    dark = rng.uniform(0.0, 1.0, shape).astype(np.float32)
    dark[10, 10:60] = 200.0
    return Calibration(np.zeros(shape, np.float32), dark, flat, np.zeros(shape, bool))


def test_levels_and_noise_are_recovered(calibration):
    sky = 400.0
    raw = a_raw(sky * calibration.flat.astype(float) + 31.0 * calibration.dark)
    image = detrend(raw, calibration, DetrendConfig())
    pull = (image.image - sky) / np.sqrt(image.variance)
    assert not image.mask.any()
    assert abs((image.image - sky).mean()) < 0.5  # noise of the mean 0.1, of the levels 0.1
    assert np.std(pull) == pytest.approx(1.0, abs=0.02)
    assert np.std(pull[10, 10:60]) == pytest.approx(1.0, abs=0.35)  # hot row: its dark is in the variance
    assert image.variance[10, 20] > 5000
    for amplifier in raw.detector.amplifiers:  # no seam
        part = image.image[amplifier.assembled_box.slices(image.box)]
        assert part.mean() == pytest.approx(sky, abs=4 * 21 / np.sqrt(part.size) + 1.0)


def test_prepared_calibration_gives_the_same(calibration):
    raw = a_raw(300.0 * calibration.flat.astype(float))
    config = DetrendConfig()
    ready = prepare_calibration(calibration, 31.0, raw, config)
    one, two = detrend(raw, calibration, config), detrend(raw, ready, config)
    np.testing.assert_allclose(two.image, one.image, atol=2e-3)
    np.testing.assert_allclose(two.variance, one.variance, rtol=1e-3)
    np.testing.assert_array_equal(two.mask, one.mask)
    cool = replace(calibration, dark=np.full_like(calibration.dark, 0.01))
    ready = prepare_calibration(cool, 31.0, raw, config)
    assert ready.planes.dark_noise is None and ready.constant_noise == pytest.approx(0.31)
    np.testing.assert_allclose(detrend(raw, ready, config).variance, detrend(raw, cool, config).variance, rtol=1e-4)
    with pytest.raises(BadData, match="prepared for 5"):
        detrend(raw, prepare_calibration(calibration, 5.0, raw, config), config)


@pytest.mark.parametrize("prepared", (False, True))
def test_the_two_halves_give_the_same(calibration, prepared):
    calibration.flat[3, 3], calibration.defects[4, 4], calibration.bias[5, 5] = 0.0, True, np.nan
    calibration = replace(calibration, illumination=np.linspace(0.9, 1.1, calibration.flat.size, dtype=np.float32)
                          .reshape(calibration.flat.shape))
    raw, config = a_raw(300.0 * calibration.response.astype(float)), DetrendConfig()
    used = prepare_calibration(calibration, 31.0, raw, config) if prepared else calibration
    one, two = detrend(raw, used, config), to_electrons(raw, used, config)
    unflat = two.image.copy()
    assert flatten(two, used, config) == np.count_nonzero(one.mask == 0) == one.image.size - 3
    np.testing.assert_allclose(two.image, one.image, rtol=3e-6, atol=1e-4)
    np.testing.assert_allclose(two.variance, one.variance, rtol=3e-6)
    np.testing.assert_array_equal(two.mask, one.mask)
    assert unflat[100, 100] == pytest.approx(one.image[100, 100] * calibration.flat[100, 100] * calibration.illumination[100, 100])


def test_flips_put_every_pixel_in_its_place():
    truth = np.add.outer(100.0 * np.arange(2 * NY), np.arange(2.0 * NX)) + 500
    image = detrend(a_raw(truth), Calibration(), DetrendConfig()).image
    assert np.median(np.abs(image - truth)) < 120  # Poisson noise of 9000 electrons; a misplaced row would be 100 off or more
    assert np.abs((image - truth).mean(axis=1)).max() < 5 * np.sqrt(18700 / (2 * NX))


@pytest.mark.parametrize("method", ("row", "mean", "none"))
def test_overscan_methods(method):
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    image = detrend(raw, Calibration(), DetrendConfig(overscan=method))
    if method == "none":
        assert image.image[:NY, :NX].mean() == pytest.approx(200 + 1000 * 1.5, abs=10)
    else:
        rows = image.image[:NY, :NX].mean(axis=1) - 200
        drift = 1.5 * 3 * np.sin((np.arange(NY) + 2) / 20)
        drift = drift * 0 if method == "row" else drift - 1.5 * 3 * np.sin(np.arange(100) / 20).mean()
        assert np.sqrt(np.mean((rows - drift)**2)) < 2.2


def test_star_that_bleeds_into_the_overscan_does_not_shift_its_rows():
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    spoiled = raw.segments[0].copy()
    spoiled[40:43, 20:] = 65535
    spoiled[43, 100:] = 9000
    image = detrend(replace(raw, segments=(spoiled, *raw.segments[1:])), Calibration(), DetrendConfig())
    assert image.image[38:41, :10].mean() == pytest.approx(200, abs=25)
    assert image.image[41, :80].mean() == pytest.approx(200, abs=12)
    assert (image.mask[38:41, 30:NX] & bits("SAT") != 0).all()
    assert np.isfinite(image.image).all()


def test_parallel_overscan_takes_the_profile_along_the_row():
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    glow = np.zeros(160)
    glow[4:4 + NX] = np.linspace(0, 40, NX)
    segments = tuple((segment + np.rint(glow)).astype(np.uint16) for segment in raw.segments)
    image = detrend(replace(raw, segments=segments), Calibration(), DetrendConfig(parallel_overscan="column")).image[:NY, :NX]
    columns = image.mean(axis=0)
    assert np.ptp(np.polyval(np.polyfit(np.arange(NX), columns, 1), [0, NX])) < 6


def test_prescan_stands_in_and_a_constant_offset_where_there_is_neither():
    detector = a_detector()
    few = tuple(a.model_copy(update={"serial_overscan": None, "prescan": (0, 0, 4, 100)}) for a in detector.amplifiers)
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0), detector=detector.model_copy(update={"amplifiers": few}))
    image = detrend(raw, Calibration(), DetrendConfig())
    assert np.std(image.image.mean(axis=1)) < 2.5
    assert image.image.mean() == pytest.approx(200, abs=2)
    none = tuple(a.model_copy(update={"serial_overscan": None, "offset": 1000.0}) for a in detector.amplifiers)
    raw = replace(raw, detector=detector.model_copy(update={"amplifiers": none}))
    shape = raw.detector.box.shape
    assert detrend(raw, Calibration(), DetrendConfig()).image[:NY, :NX].mean() == pytest.approx(200, abs=6)
    with_bias = detrend(raw, Calibration(bias=np.full(shape, 1500, np.float32)), DetrendConfig())
    assert with_bias.image[:NY, :NX].mean() == pytest.approx(200, abs=6)  # the bias holds the offset
    assert assemble(raw, DetrendConfig()).image[:NY, :NX].mean() == pytest.approx(1700, abs=6)


def test_masks(calibration):
    raw = a_raw(np.full((2 * NY, 2 * NX), 200.0))
    raw.segments[0][12, 14] = 60000
    flat, defects = calibration.flat.copy(), calibration.defects.copy()
    flat[20, 20], flat[21, 21], flat[22, 22], defects[23, 23] = 0.0, np.nan, 0.05, True
    extra = np.zeros(flat.shape, np.uint32)
    extra[30, 30] = bits("CR")
    image = detrend(replace(raw, masked=extra), replace(calibration, flat=flat, defects=defects), DetrendConfig())
    assert image.mask[10, 10] == bits("SAT") and image.mask[30, 30] == bits("CR")
    assert all(image.mask[i, i] == bits("BAD") and np.isinf(image.variance[i, i]) for i in (20, 21, 22, 23))
    assert np.count_nonzero(image.mask) == 6
    values = tuple(segment.astype(np.float32) for segment in raw.segments)
    values[0][50, 50] = np.nan
    image = detrend(replace(raw, segments=values), Calibration(), DetrendConfig())
    assert image.mask[48, 46] == bits("UNMASKEDNAN") and np.isinf(image.variance[48, 46])


@pytest.mark.parametrize("spoil, message", (
    (lambda raw, c: (replace(raw, segments=raw.segments[:3]), c), "3 segments for 4 amplifiers"),
    (lambda raw, c: (replace(raw, segments=(raw.segments[0][:50], *raw.segments[1:])), c), "A0 is 160 x 50 .* says 160 x 100"),
    (lambda raw, c: (raw, replace(c, flat=c.flat[:5])), "flat is 240 x 5"),
    (lambda raw, c: (raw, replace(c, flat=c.flat * 0)), "bad in the calibration .* take other flats"),
    (lambda raw, c: (raw, replace(c, flat=c.flat * np.nan)), "take other flats"),
    (lambda raw, c: (replace(raw, segments=tuple(s * np.float32(np.nan) for s in raw.segments)), c), "below saturation"),
    (lambda raw, c: (replace(raw, segments=tuple(s * 0 + np.uint16(65535) for s in raw.segments)), c), "below saturation"),
    (lambda raw, c: (_fill(raw, 65000), c), "100.0% of the pixels are saturated; leave the frame out"),
    (lambda raw, c: (_fill(raw, np.nan), c), "100.0% of the pixels are not a number; leave the frame out"),
    (lambda raw, c: (replace(raw, exposure=replace(EXPOSURE, dark_time=float("nan"))), c), "dark time is unknown"),
))
def test_bad_input_says_what_to_do(calibration, spoil, message):
    raw, calibration = spoil(a_raw(np.full((2 * NY, 2 * NX), 200.0)), calibration)
    with pytest.raises(BadData, match=message) as caught:
        detrend(raw, calibration, DetrendConfig())
    assert "\n" not in str(caught.value)


def _fill(raw: RawDetector, value: float) -> RawDetector:
    """All light-sensitive pixels at one value, the overscan as it was."""
    segments = tuple(segment.astype(np.float32) for segment in raw.segments)
    for segment in segments:
        segment[2:2 + NY, 4:4 + NX] = value
    return replace(raw, segments=segments)


@pytest.mark.parametrize("prepared", (False, True))
def test_brighter_fatter_acts_on_charges(calibration, prepared):
    """Between the halves of detrending: before the flat, defects known; switched off, nothing changes."""
    lag = np.arange(-5, 6)
    potential = -1e-6 * np.exp(-0.5 * (lag[:, None] ** 2 + lag[None, :] ** 2) / 1.5)
    calibration.defects[60, 60] = True
    kernel = BrighterFatter("scalar", potential)
    light = 500.0 * calibration.flat.astype(float)
    light[58:63, 58:63] += 2e4
    raw, config = a_raw(light), DetrendConfig()
    product = replace(calibration, brighter_fatter=kernel)
    given = prepare_calibration(product, raw.exposure.dark_time, raw, config) if prepared else product
    image = detrend(raw, given, config)
    step = to_electrons(raw, calibration, config)
    correct_brighter_fatter(step, kernel, config.brighter_fatter, calibration.defects)
    flatten(step, calibration, config)
    np.testing.assert_allclose(image.image, step.image, atol=2e-3 * (1 + prepared), rtol=1e-6)
    np.testing.assert_array_equal(image.mask, step.mask)
    off = config.model_copy(update={"brighter_fatter": config.brighter_fatter.model_copy(update={"apply": False})})
    plain = detrend(raw, given, off)
    assert image.mask[60, 60] & bits("BAD") and np.abs(image.image - plain.image).max() > 50.0
    assert abs((image.image - plain.image)[calibration.defects]).max() < 1e-2
    np.testing.assert_allclose(plain.image, detrend(raw, calibration, config).image, atol=4e-3, rtol=1e-6)
    with pytest.raises(BadData, match="not finite"):
        detrend(raw, replace(calibration, brighter_fatter=BrighterFatter("scalar", potential * np.nan)), config)
