"""A small detector of four amplifiers and raw frames of it, with known truth."""

from __future__ import annotations

import numpy as np

from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.exposure import Exposure, RawDetector

GAINS, NOISE = (1.5, 1.7, 2.0, 1.2), 5.0
NX, NY = 120, 90
EXPOSURE = Exposure(1, "science", "r", 60000.0, 30.0, 31.0)


def a_detector() -> Detector:
    """Four amplifiers of 120 x 90 with all combinations of flips, serial and parallel overscan."""
    amplifiers = tuple(
        Amplifier(name=f"A{i}", section=(0, 0, 160, 100), data=(4, 2, NX, NY), serial_overscan=(130, 0, 30, 100),
                  parallel_overscan=(4, 93, NX, 7), origin=(NX * (i % 2), NY * (i // 2)), flip_x=bool(i % 2),
                  flip_y=bool(i // 2), gain=GAINS[i], read_noise=NOISE, saturation=60000.0)
        for i in range(4))
    return Detector(name="D", id=0, size=(2 * NX, 2 * NY), amplifiers=amplifiers)


def a_raw(electrons: np.ndarray, seed: int = 0, detector: Detector | None = None) -> RawDetector:
    """Raw segments of an image of expected electrons (before read-out), with a level that drifts from row to row."""
    rng, detector = np.random.default_rng(seed), detector or a_detector()
    segments = []
    for number, amplifier in enumerate(detector.amplifiers):
        segment = 1000.0 + 50 * number + 3 * np.sin(np.arange(100) / 20)[:, None] + np.zeros((100, 160))
        segment += rng.normal(0, NOISE / amplifier.gain, segment.shape)
        part = electrons[amplifier.assembled_box.slices(detector.box)]
        part = part[::-1 if amplifier.flip_y else 1, ::-1 if amplifier.flip_x else 1]
        segment[2:2 + NY, 4:4 + NX] += rng.poisson(part) / amplifier.gain
        segments.append(np.clip(np.rint(segment), 0, 65535).astype(np.uint16))
    return RawDetector(EXPOSURE, detector, tuple(segments), name="f.fits")
