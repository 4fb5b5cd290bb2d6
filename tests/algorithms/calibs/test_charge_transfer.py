"""Charge transfer from flats: the trails that the product predicts are those that were put in, at every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.charge_transfer import ChargeTransferConfig, build_charge_transfer, trail_model
from rsp_hpc.algorithms.calibs.frames import Frame
from rsp_hpc.algorithms.detrend import DetrendConfig, assemble
from rsp_hpc.config import load_yaml
from rsp_hpc.errors import BadData
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.electronics import ChargeTransfer
from rsp_hpc.products.exposure import Exposure, RawDetector
from rsp_hpc.simulate.electronics import trail

CAMERA = Path(__file__).resolve().parents[3] / "configs" / "cameras" / "labcam.yaml"
LEVELS = (200.0, 700.0, 2000.0, 6000.0, 2e4, 6e4, 9e4)


@pytest.fixture(scope="module")
def detector():
    """One amplifier of each row."""
    whole = load_camera(load_yaml(CAMERA)).detectors[0]
    pick = (whole.amplifiers[0], whole.amplifiers[8])
    places = [amplifier.model_copy(update={"gain": 1.7}) for amplifier in pick]
    return whole.model_copy(update={"amplifiers": tuple(places)})


def truth_of(loss=(5e-6, 2e-5), scale=(2e-4, 0.0), trap=(6.0, 0.0)) -> ChargeTransfer:
    two = np.ones(2)
    return ChargeTransfer(("C10", "C00"), np.array(loss), 0.0 * two, np.array(scale), 3.0 * two, np.array(trap), 2000.0 * two, 1.5 * two)


def ramp(detector, truth, levels=LEVELS, repeats=3, saturate=None):
    """Flats of these levels through the true register; 6 electrons of read noise."""
    rng = np.random.default_rng(2)
    for visit, level in enumerate(np.repeat(levels, repeats)):
        segments = []
        for number, amplifier in enumerate(detector.amplifiers):
            section = np.zeros((272, 100), np.float32)
            section[:256, 4:68] = rng.poisson(level, (256, 64))
            read = trail(section, amplifier, truth, number) + rng.normal(0.0, 6.0, section.shape)
            segments.append(np.clip(np.rint(read / amplifier.gain + 1000.0 + 20.0 * np.sin(np.arange(272) / 40.0)[:, None]), 0,
                                    saturate or 65535).astype(np.uint16))
        raw = RawDetector(Exposure(visit, "flat", "r", 6e4, 10.0, 10.0), detector, tuple(segments))
        yield Frame(raw.exposure, lambda raw=raw: raw)


@pytest.fixture(scope="module")
def found(detector):
    return build_charge_transfer(ramp(detector, truth_of()), detector, ChargeTransferConfig())


def parameters(product: ChargeTransfer, number: int) -> np.ndarray:
    return np.array([values[number] for values in (product.inefficiency, product.offset_scale, product.offset_decay, product.trap_size,
                                                   product.trap_level, product.trap_decay)])


@pytest.mark.parametrize("number", [0, 1])
def test_the_trails_are_the_truths(found, number):
    product, verdict = found
    truth = truth_of()
    assert verdict.state == "good", verdict.reasons
    signal = np.array([500.0, 3000.0, 3e4, 8e4])
    ours, expected = (trail_model(np.where(parameters(one, number) > 0, parameters(one, number), 1e-9), signal, 68, 12)
                      for one in (product, truth))
    total = np.abs(expected).sum(axis=1)  # the charge that came late
    assert (np.abs(ours - expected).sum(axis=1) < np.maximum(0.1 * total, 1.0)).all()
    assert np.abs(ours - expected).max() < 1.0  # read noise: 6
    pull = (product.inefficiency[number] - truth.inefficiency[number]) / product.inefficiency_err[number]
    assert abs(pull) < 4.0 and product.inefficiency_err[number] < 0.2 * truth.inefficiency[number]
    assert product.trail.shape == product.model.shape == (2, 21, 13)


def test_what_is_not_there_is_not_found(found):
    product, _ = found
    assert product.offset_scale[1] == 0.0 and product.trap_size[1] == 0.0


def test_the_model_is_the_documented_one(detector):
    truth = truth_of()
    section = np.zeros((2, 100), np.float32)
    section[0, 4:68], section[1, 4:68] = 1500.0, 50000.0
    for number in (0, 1):
        expected = trail(section, detector.amplifiers[number], truth, number)[:, 68:80]
        values = np.where(parameters(truth, number) > 0, parameters(truth, number), 1e-12)
        np.testing.assert_allclose(trail_model(values, np.array([1500.0, 50000.0]), 68, 12), expected, atol=0.02, rtol=1e-3)


def test_bad_input(detector):
    with pytest.raises(BadData, match="flats of 2 levels .* charge transfer needs 4"):
        build_charge_transfer(ramp(detector, truth_of(), LEVELS[:2], 2), detector, ChargeTransferConfig())
    with pytest.raises(BadData, match="flats of 3 levels"):  # a saturated ramp: what is saturated is left out
        full = detector.model_copy(update={"amplifiers": tuple(a.model_copy(update={"saturation": 4000.0}) for a in detector.amplifiers)})
        build_charge_transfer(ramp(full, truth_of(), saturate=4000), full, ChargeTransferConfig())
    bare = detector.model_copy(update={"amplifiers": tuple(
        a.model_copy(update={"serial_overscan": (68, 0, 5, 256)}) for a in detector.amplifiers)})
    with pytest.raises(BadData, match="amplifier C10 has 5 overscan columns, charge transfer needs 8"):
        build_charge_transfer([], bare, ChargeTransferConfig())


def test_much_loss_is_suspect(detector):
    _, verdict = build_charge_transfer(ramp(detector, truth_of(loss=(3e-4, 1e-6)), repeats=1), detector, ChargeTransferConfig())
    assert verdict.state == "suspect" and "amplifier C10 loses" in verdict.reasons[0]


def test_detrending_with_the_product_brings_the_charge_back(detector, found):
    """A bright column: what follows it, before and after the correction."""
    truth, rng = truth_of(), np.random.default_rng(4)
    whole = detector.model_copy(update={"size": (64, 512)})
    left = []
    for level in (500.0, 5000.0, 50000.0):
        segments, want = [], []
        for number, amplifier in enumerate(detector.amplifiers):
            section = np.zeros((272, 100), np.float32)
            section[:256, 40] = level
            read = trail(section, amplifier, truth, number) + rng.normal(0.0, 0.5, section.shape)
            segments.append((read / amplifier.gain + 1000.0).astype(np.float32))
            want.append(section[:256, 4:68])
        raw = RawDetector(Exposure(1, "flat", "r", 6e4, 10.0, 10.0), whole, tuple(segments))
        for product in (None, found[0]):
            image = assemble(raw, DetrendConfig(), Calibration(charge_transfer=product)).image
            rows = [image[:256], image[256:][::-1, ::-1]]
            left.append([np.abs((part - full)[:, 37:46].mean(axis=0)).sum() for part, full in zip(rows, want)])
    before, after = np.array(left[::2]), np.array(left[1::2])
    assert (after < np.maximum(0.1 * before, 0.6)).all() and before.max() > 30.0
