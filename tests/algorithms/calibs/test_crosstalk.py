"""Crosstalk from bright spots: the ghosts that the product predicts are those that were put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.crosstalk import CrosstalkConfig, build_crosstalk
from rsp_hpc.algorithms.calibs.frames import CalibsConfig, Frame, build_bias
from rsp_hpc.algorithms.detrend import DetrendConfig, assemble
from rsp_hpc.config import build, load_yaml
from rsp_hpc.errors import BadData
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.exposure import Exposure, RawDetector
from rsp_hpc.simulate.calibration import truth_calibration
from rsp_hpc.simulate.survey import SurveySimulation, plan, simulate_detector, sky_of

CAMERA = Path(__file__).resolve().parents[3] / "configs" / "cameras" / "labcam.yaml"


@pytest.fixture(scope="module")
def camera():
    return load_camera(load_yaml(CAMERA))


@pytest.fixture(scope="module")
def lab(camera):
    """Spots on each amplifier in turn, biases, and the truth; fixed patterns and offsets are there too."""
    values = build(SurveySimulation, {"seed": 4, "bands": ["r"], "sky": {"radius": 1.0}, "detector": {
        "crosstalk": 1e-6, "cosmic_rays": 0.0, "electronics": {"offset": 4.0, "crosstalk_neighbour": 2.3e-4,
                                                               "crosstalk_quadratic": 2e-6, "cti": 2e-6}},
        "observing": {"bias_frames": 6, "spot_frames": 32, "spot_level": 85000.0}})
    detector = camera.detectors[0]

    def frames(kind):
        for exposure in plan(values, camera):
            if exposure.kind == kind:
                segments = simulate_detector(values, camera, sky_of(values), exposure, detector).segments
                raw = RawDetector(Exposure(exposure.visit, kind, "", exposure.mjd, 10.0, 10.0), detector, segments)
                yield Frame(raw.exposure, lambda raw=raw: raw)

    bias, _ = build_bias(frames("bias"), Calibration(), CalibsConfig())
    return detector, list(frames("spots")), Calibration(bias=bias.image), truth_calibration(values, camera, detector, "r").crosstalk


@pytest.fixture(scope="module")
def found(lab):
    detector, spots, calibration, _ = lab
    return build_crosstalk(iter(spots), detector, CrosstalkConfig(), calibration)


@pytest.mark.parametrize("charge", [10000.0, 30000.0, 55000.0, 80000.0])
def test_the_ghosts_are_the_truths(lab, found, charge):
    truth, (product, verdict) = lab[3], found
    assert verdict.state == "good", verdict.reasons
    expected, ours = ((one.coefficient + one.quadratic * charge) * charge for one in (truth, product))
    away = ~np.eye(16, dtype=bool)
    residual = (ours - expected)[away]
    assert np.sqrt(np.mean(residual**2)) < 0.1 * np.sqrt(np.mean(expected[expected > 1e-4 * charge] ** 2))
    assert np.abs(residual).max() < 6.0  # read noise
    strong = expected > 1.5e-4 * charge
    worst = np.abs((ours - expected)[strong]).max() / np.median(expected[strong])
    assert worst < 0.1 if charge >= 30000.0 else worst < 0.15  # fainter than any source that it was measured with


def test_errors_are_those_of_the_ghosts(lab, found):
    truth, (product, _) = lab[3], found
    away = ~np.eye(16, dtype=bool)
    charge = 60000.0  # about the mean of the sources
    pull = ((product.coefficient - truth.coefficient) + (product.quadratic - truth.quadratic) * charge)[away]
    plain = (product.quadratic == 0.0)[away]
    assert 0.5 < np.std((pull / product.error[away])[plain]) < 2.0
    assert (product.used[away] > 500).all() and (np.diag(product.coefficient) == 0.0).all()


def test_own_stars_in_the_target_do_no_harm(lab, found):
    detector, spots, calibration, _ = lab
    rng = np.random.default_rng(1)
    dirty = []
    for frame in spots:
        raw = frame.load()
        segments = []
        for segment in raw.segments:
            segment = segment.copy()
            y, x = rng.integers(2, 250, 40), rng.integers(6, 66, 40)
            segment[y, x] += rng.integers(50, 3000, 40).astype(np.uint16)
            segments.append(segment)
        dirty.append(Frame(raw.exposure, lambda raw=replace(raw, segments=tuple(segments)): raw))
    product, _ = build_crosstalk(dirty, detector, CrosstalkConfig(), calibration)
    change = (product.coefficient + 5e4 * product.quadratic) - (found[0].coefficient + 5e4 * found[0].quadratic)
    assert np.abs(change[~np.eye(16, dtype=bool)]).max() < 5.0 * np.median(product.error[product.error > 0])


def test_amplifiers_without_sources_are_named(lab):
    detector, spots, calibration, _ = lab
    product, verdict = build_crosstalk(spots[:4], detector, CrosstalkConfig(), calibration)
    assert verdict.state == "suspect" and "C14, C15" in verdict.reasons[0] and "200 pixels are needed" in verdict.reasons[0]
    assert (product.coefficient[:, 5] == 0.0).all() and np.isinf(product.error[0, 5]) and product.used[0, 5] == 0
    assert np.isfinite(product.error[1, 0])


def test_bad_input(lab):
    detector, spots, calibration, _ = lab
    with pytest.raises(BadData, match="crosstalk needs 200 pixels above 30000 electrons in an amplifier, the most in 0 frames is 0"):
        build_crosstalk([], detector, CrosstalkConfig())
    with pytest.raises(BadData, match="crosstalk needs 200 pixels above 200000 electrons"):
        build_crosstalk(spots[:2], detector, CrosstalkConfig(threshold=200000.0))
    single = detector.model_copy(update={"amplifiers": detector.amplifiers[:1]})
    with pytest.raises(BadData, match="at least two amplifiers"):
        build_crosstalk(spots, single, CrosstalkConfig())
    raw = spots[0].load()
    other = raw.detector.model_copy(update={"amplifiers": tuple(
        amplifier.model_copy(update={"gain": 3.0}) for amplifier in raw.detector.amplifiers)})
    with pytest.raises(BadData, match="the gain of amplifier C10 is 3"):
        build_crosstalk([spots[0], Frame(raw.exposure, lambda: replace(raw, detector=other))], detector, CrosstalkConfig())


def test_detrending_with_the_product_removes_the_ghosts(lab, found):
    """Mean of the neighbours' pixels under the bright spots, before and after."""
    detector, spots, calibration, _ = lab
    before, after = [], []
    for source in (2, 4, 11):
        raw = spots[source].load()
        images = [assemble(raw, DetrendConfig(), Calibration(crosstalk=product)).image - calibration.bias for product in (None, found[0])]
        boxes = [detector.amplifiers[number].assembled_box.slices(detector.box) for number in (source, source + 1)]
        bright = images[1][boxes[0]] > 40000.0
        for image, levels in zip(images, (before, after)):
            target = image[boxes[1]]
            levels.append(target[bright].mean() - np.median(target[~bright]))
    assert np.mean(before) > 8.0 and np.abs(after).mean() < 0.1 * np.mean(before)
