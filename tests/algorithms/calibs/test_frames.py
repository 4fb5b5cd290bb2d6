"""Combined calibration frames: their own noise is known and reaches the variance of what they are applied to."""

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.frames import CalibsConfig, Frame, build_calibration
from rsp_hpc.algorithms.detrend import DetrendConfig, detrend, prepare_calibration
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.exposure import Exposure, RawDetector

SIDE, GAIN, READ_NOISE, DARK = 300, 1.3, 7.4, 0.5
DETECTOR = Detector(name="A", id=0, size=(SIDE, SIDE), amplifiers=(
    Amplifier(name="A", section=(0, 0, SIDE, SIDE), data=(0, 0, SIDE, SIDE), gain=GAIN, read_noise=READ_NOISE),))


def frame(rng, kind, visit, seconds, light):
    """A raw frame of a level of light (electrons), with a bias of 1000 ADU."""
    electrons = rng.poisson(np.full((SIDE, SIDE), light + DARK * seconds)) + rng.normal(0, READ_NOISE, (SIDE, SIDE))
    counts = np.rint(1000.0 + electrons / GAIN).astype(np.uint16)
    return RawDetector(Exposure(visit, kind, "r" * (kind == "science"), 6e4, seconds, seconds), DETECTOR, (counts,))


@pytest.mark.parametrize("seconds", [60.0, 160.0])
def test_noise_of_few_frames_is_in_the_variance(seconds):
    rng = np.random.default_rng(3)
    raws = [frame(rng, kind, visit, time, 0.0) for visit, (kind, time) in enumerate([("bias", 0.0)] * 3 + [("dark", 80.0)] * 3)]
    frames = [Frame(raw.exposure, lambda raw=raw: raw) for raw in raws]
    calibration = build_calibration(frames, (SIDE, SIDE), CalibsConfig(), np.empty)[""]
    assert calibration.bias_variance == pytest.approx(READ_NOISE**2 / 3, rel=0.05)
    assert calibration.dark_variance == pytest.approx((READ_NOISE**2 + 80.0 * DARK) / 3 / 80.0**2, rel=0.05)
    raw = frame(rng, "science", 9, seconds, 100.0)
    ready = prepare_calibration(calibration, seconds, raw, DetrendConfig())
    for used in (calibration, ready):
        image = detrend(raw, used, DetrendConfig())
        assert np.var(image.image) == pytest.approx(np.mean(image.variance), rel=0.015)
