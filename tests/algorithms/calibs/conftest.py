"""One ramp of a sensor with moving borders, for photon transfer and brighter-fatter."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from flatramps import Sensor, borders, detector, flat

from rsp_hpc.algorithms.calibs.ptc import PtcConfig, build_ptc

SIDE = 512


def _pairs(sensor, levels, biases=3, seed=3):
    """Pairs of flats before a steady lamp of 3500 electron/s, and pairs of biases."""
    rng, made = np.random.default_rng(seed), RAMP
    for k in range(biases):
        yield tuple(
            flat(made.detector, np.zeros(sensor.shape), 10 + 2 * k + j, 0.0, made.gains, made.read_noise, rng, "bias")
            for j in (0, 1)
        )
    for k, level in enumerate(levels):
        yield tuple(
            flat(
                made.detector,
                np.minimum(sensor.expose(level, 3, rng), made.full_well),
                100 + 2 * k + j,
                level / 3500.0,
                made.gains,
                made.read_noise,
                rng,
            )
            for j in (0, 1)
        )


RAMP = SimpleNamespace(
    gains=(1.5, 1.2),
    read_noise=6.0,
    full_well=100000.0,
    detector=detector(2, SIDE // 2, SIDE),
    shifts=borders(7),
    pairs=_pairs,
    levels=np.concatenate([np.geomspace(200.0, 60000.0, 8), np.linspace(7e4, 9.6e4, 22), [97500.0, 102000.0, 110000.0]]),
)


@pytest.fixture(scope="session")
def ramp():
    return RAMP


@pytest.fixture(scope="session")
def sensor():
    return Sensor((SIDE, SIDE), *RAMP.shifts)


@pytest.fixture(scope="session")
def measured(sensor):
    """(PhotonTransfer, Verdict)."""
    return build_ptc(_pairs(sensor, RAMP.levels), RAMP.detector, PtcConfig())
