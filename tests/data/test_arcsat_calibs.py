"""ARCSAT's own biases, darks and flats: verdicts, and the hot pixels of disjoint halves of the darks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.defects import DefectsConfig, build_defects
from rsp_hpc.algorithms.calibs.frames import CalibsConfig, Frame, build_bias, build_dark, build_flat
from rsp_hpc.config import load_yaml
from rsp_hpc.io.raw import read_raw_detector, scan
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.camera import load_camera

pytestmark = pytest.mark.data

CAMERA = Path(__file__).resolve().parents[2] / "configs" / "cameras" / "arcsat.yaml"


@pytest.fixture(scope="module")
def frames(rsp_data):
    """(kind, band) -> frames."""
    camera, found = load_camera(load_yaml(CAMERA)), {}
    for file in scan([rsp_data / "arcsat-m13"], camera):
        frame = Frame(file.exposure, lambda file=file: read_raw_detector([file], camera, "CCD"))
        found.setdefault((file.exposure.kind, file.exposure.band), []).append(frame)
    return found


@pytest.fixture(scope="module")
def bias(frames):
    return build_bias(frames["bias", ""], Calibration(), CalibsConfig())


def test_verdicts_are_good(frames, bias, figure):
    assert bias[1].state == "good", bias[1].reasons
    figure("arcsat_bias_noise", bias[0].noise / 1.3, "ADU", low=5.2, high=6.2)
    known = Calibration(bias=bias[0].image)
    dark, verdict = build_dark(frames["dark", ""], known, CalibsConfig())
    assert verdict.state == "good", verdict.reasons
    figure("arcsat_dark_median", float(np.median(dark.image)) / 1.3, "ADU/s", low=0.25, high=0.45)
    for band in "griz":
        flat, verdict = build_flat(frames["flat", band], Calibration(bias=known.bias, dark=dark.image), CalibsConfig())
        assert verdict.state == "good", verdict.reasons
        figure(f"arcsat_flat_{band}_gradient_change", verdict.statistics["gradient_change"], high=0.01)


@pytest.mark.parametrize("alone", range(3))
def test_hot_pixels_of_disjoint_halves(frames, bias, figure, alone):
    """One of the three darks against the other two."""
    darks, config = frames["dark", ""], CalibsConfig(min_frames=1)
    halves = [darks[alone]], [dark for number, dark in enumerate(darks) if number != alone]
    known = Calibration(bias=bias[0].image)
    one, two = (build_defects(bias[0], build_dark(half, known, config)[0], [], DefectsConfig())[0] for half in halves)
    common = int((one & two).sum())
    figure("arcsat_hot_pixels", float(one.sum()), high=3000)
    figure("arcsat_hot_pixels_of_one_dark_in_the_others", common / one.sum(), low=0.95)
    figure("arcsat_hot_pixels_of_two_darks_in_the_third", common / two.sum(), low=0.95)
