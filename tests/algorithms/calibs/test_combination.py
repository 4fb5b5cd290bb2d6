"""Bias, dark and flat: closed loop, drifting lamps, verdicts, and every bad input; results do not depend on memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.defects import DefectsConfig, build_defects
from rsp_hpc.algorithms.calibs.frames import CalibsConfig, Frame, build_bias, build_calibration, build_dark, build_flat
from rsp_hpc.algorithms.detrend import detrend
from rsp_hpc.errors import BadData
from rsp_hpc.io.scratch import scratch_plane
from rsp_hpc.products.calibration import Calibration, CombinedFrames
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.exposure import Exposure, RawDetector

NX, NY, HALF, GAIN, NOISE = 256, 192, 128, 1.6, 5.0
NOTHING = Calibration()


def detector_of(gain=GAIN, noise=NOISE) -> Detector:
    """Two amplifiers, the second mirrored in both directions, with overscan."""
    common = {"section": (0, 0, HALF + 24, NY), "data": (4, 0, HALF, NY), "serial_overscan": (HALF + 4, 0, 20, NY), "gain": gain,
              "read_noise": noise, "saturation": 60000.0}
    return Detector(name="D", id=0, size=(NX, NY), amplifiers=(
        Amplifier(name="A", **common), Amplifier(name="B", origin=(HALF, 0), flip_x=True, flip_y=True, **common)))


def without_gradient(plane: np.ndarray, good: np.ndarray) -> np.ndarray:
    """A plane over its quadratic surface: the mean gradient of the lamp is part of a flat."""
    v, u = np.mgrid[-1:1:1j * plane.shape[0], -1:1:1j * plane.shape[1]]
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    surface = design @ np.linalg.lstsq(design[good], plane[good], rcond=None)[0]
    return plane / surface


class Lab:
    """A detector with fixed patterns, and raw frames of it."""

    def __init__(self, seed=1, detector=None):
        self.rng, self.detector = np.random.default_rng(seed), detector or detector_of()
        y, x = np.mgrid[:NY, :NX]
        self.bias = 6.0 * np.sin(x / 9.0) + 40.0 * np.exp(-x / 20.0)
        self.dark = 0.2 + 0.3 * (self.rng.random((NY, NX)) < 0.1)
        self.hot = self.rng.random((NY, NX)) < 0.002
        self.dark[self.hot] += 30.0
        self.response = 1.0 + 0.015 * self.rng.standard_normal((NY, NX)) - 0.1 * ((x / NX - 0.5) ** 2 + (y / NY - 0.5) ** 2)
        self.response[self.rng.random((NY, NX)) < 0.001] = 0.1
        self.visit = 0

    def frame(self, kind, light=0.0, seconds=0.0, extra=0.0, **exposure) -> Frame:
        """A raw frame; light and extra: electrons, scalar or (ny, nx)."""
        self.visit += 1
        charge = self.rng.poisson(np.maximum(light * self.response + extra + self.dark * seconds, 0.0)) + self.bias
        segments = []
        for number, amplifier in enumerate(self.detector.amplifiers):
            part = charge[:, number * HALF:(number + 1) * HALF]
            part = part[::-1, ::-1] if amplifier.flip_x else part
            raw = self.rng.normal(0.0, amplifier.read_noise, (NY, HALF + 24))
            raw[:, 4:4 + HALF] += part
            segments.append(np.clip(np.rint(raw / amplifier.gain + 1000.0 + 30.0 * number), 0, 65535).astype(np.uint16))
        raw = RawDetector(Exposure(self.visit, kind, "r" if kind == "flat" else "", 6e4, seconds, seconds), self.detector,
                          tuple(segments))
        return Frame(raw.exposure, lambda: raw)

    def biases(self, n=5) -> list[Frame]:
        return [self.frame("bias") for _ in range(n)]

    def darks(self, n=5, seconds=200.0, **more) -> list[Frame]:
        return [self.frame("dark", seconds=seconds * (1.0 + 0.5 * (k % 2)), **more) for k in range(n)]

    def flats(self, n=6, level=20000.0, gradient=0.03) -> list[Frame]:
        """The lamp drifts in level and in gradient."""
        u, v = np.linspace(-1.0, 1.0, NX)[None, :], np.linspace(-1.0, 1.0, NY)[:, None]
        return [self.frame("flat", level * (1.0 + 0.1 * np.sin(k)) * (1.0 + gradient * (np.cos(2 * k) * u + np.sin(k) * v)))
                for k in range(n)]

    def calibration(self) -> Calibration:
        """Bias and dark of many frames."""
        bias, _ = build_bias(self.biases(12), NOTHING, CalibsConfig())
        dark, _ = build_dark(self.darks(12), Calibration(bias=bias.image), CalibsConfig())
        return Calibration(bias=bias.image, dark=dark.image)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def known(lab) -> Calibration:
    return lab.calibration()


def test_bias_and_dark_close_the_loop(lab, known):
    assert np.abs(known.bias - lab.bias).std() < 0.1 * lab.bias.std() + NOISE / np.sqrt(12)
    assert (known.bias - lab.bias).std() == pytest.approx(NOISE / np.sqrt(12), rel=0.1)
    cool = ~lab.hot
    expected = np.sqrt((NOISE**2 + 0.23 * 250.0) / 12) / 250.0
    assert (known.dark - lab.dark)[cool].std() == pytest.approx(np.hypot(expected, NOISE / np.sqrt(12) / 250.0), rel=0.1)
    assert np.abs((known.dark - lab.dark)[lab.hot]).mean() < 0.1 * 30.0
    raw = lab.frame("dark", seconds=300.0).load()
    rest = detrend(raw, known, CalibsConfig().detrend).image
    assert np.abs(rest[cool].mean()) < 0.3 and rest[cool].std() < 1.5 * np.hypot(NOISE, np.sqrt(0.23 * 300.0))


@pytest.mark.parametrize("level", [3000.0, 40000.0])
def test_a_flat_closes_the_loop_though_the_lamp_drifts(lab, known, level):
    flat, verdict = build_flat(lab.flats(8, level), known, CalibsConfig())
    assert verdict.state == "good", verdict.reasons
    alive = lab.response > 0.5
    ratio = without_gradient(flat.image / lab.response, alive)[alive]
    assert ratio.std() < 1.1 * np.sqrt(1.0 / (8 * level) + (NOISE / level) ** 2 / 8.0)
    effect = np.std((lab.response / np.median(lab.response))[alive])
    assert np.sqrt(max(ratio.var() - np.median(flat.variance), 0.0)) < 0.1 * effect
    assert verdict.statistics["clipped_fraction"] < 3e-4  # of 4 sigma; the gradients of 3 % are 4 sigma themselves
    assert 0.02 < verdict.statistics["gradient_change"] < 0.1
    assert np.median(flat.variance) == pytest.approx(ratio.var(), rel=0.2)


def test_without_gradients_much_more_would_be_clipped(lab, known):
    frames = lab.flats(8, 40000.0)
    clipped = [build_flat(frames, known, CalibsConfig(gradient_order=order))[1].statistics["clipped_fraction"] for order in (0, 1)]
    assert clipped[0] > 20.0 * clipped[1]


def test_the_mean_gradient_is_kept_or_removed(lab, known):
    frames = lab.flats(4)
    kept, removed = (build_flat(frames, known, CalibsConfig(gradient=choice))[0].image for choice in ("keep", "remove"))
    corner, middle = (slice(0, 30), slice(0, 30)), (slice(80, 110), slice(110, 140))
    step = [np.median(flat[corner]) / np.median(flat[middle]) for flat in (kept, removed)]
    assert step[0] < 0.97 and step[1] == pytest.approx(1.0, abs=0.003)
    alive = lab.response > 0.5
    scatter = [np.std(without_gradient(flat / lab.response, alive)[alive]) for flat in (kept, removed)]
    assert scatter[0] == pytest.approx(scatter[1], rel=0.05)


def test_a_bright_star_in_a_flat_is_clipped_and_suspect(lab, known):
    y, x = np.mgrid[:NY, :NX]
    distance = np.hypot(x - 180.0, y - 60.0)
    star = 30000.0 / (1.0 + (distance / 3.0) ** 2) ** 2.0
    frames = lab.flats(5)
    clean, _ = build_flat(frames, known, CalibsConfig())
    with_star = lab.frame("flat", 20000.0 + star)
    flat, verdict = build_flat([*frames, with_star], known, CalibsConfig())
    assert verdict.state == "suspect"
    assert any(with_star.name in reason and "a star or a trail" in reason for reason in verdict.reasons)
    near = (distance < 40.0) & (lab.response > 0.5)
    noise = np.sqrt(np.median(flat.variance))
    ratio = without_gradient(flat.image / clean.image, ~near & (lab.response > 0.5)) - 1.0
    for low, high in ((0, 5), (5, 12), (12, 40)):  # core, wings, sky
        ring = near & (distance >= low) & (distance < high)
        assert abs(ratio[ring].mean()) < 4.0 * noise / np.sqrt(ring.sum()) + 0.1 * (star[ring] / 20000.0).mean() / 6.0


def test_memory_does_not_change_the_result(lab, known):
    frames = lab.flats(5)
    one, _ = build_flat(iter(frames), known, CalibsConfig())
    two, _ = build_flat(iter(frames), known, CalibsConfig().model_copy(update={"memory": 0}), scratch_plane)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.variance, two.variance)


def test_floating_point_frames_with_nan(lab, known):
    frames = lab.flats(4)
    raws = [frame.load() for frame in frames]
    as_floats = []
    for number, raw in enumerate(raws):
        segments = [segment.astype(np.float32) for segment in raw.segments]
        segments[0][50, 40] = np.nan  # in all frames
        if number == 0:
            segments[1][20:30, 20:30] = np.nan  # in one
        changed = RawDetector(raw.exposure, raw.detector, tuple(segments))
        as_floats.append(Frame(raw.exposure, lambda changed=changed: changed))
    one, two = build_flat(frames, known, CalibsConfig())[0], build_flat(as_floats, known, CalibsConfig())[0]
    assert np.isnan(two.image[50, 36]) and np.isinf(two.variance[50, 36]) and np.isnan(two.image).sum() == 1
    same = np.isfinite(two.image)
    same[NY - 30:NY - 20, NX - 26:NX - 16] = False  # mirrored
    np.testing.assert_allclose(one.image[same], two.image[same], rtol=2e-4)
    nothing = RawDetector(raws[0].exposure, raws[0].detector, tuple(np.full(s.shape, np.nan, np.float32) for s in segments))
    with pytest.raises(BadData):
        build_flat([*frames, Frame(raws[0].exposure, lambda: nothing)], known, CalibsConfig())


def test_too_few_frames_are_refused(lab):
    for build, frames in ((build_bias, lab.biases(2)), (build_dark, lab.darks(2)), (build_flat, lab.flats(2))):
        with pytest.raises(BadData, match="2 .* frames can be used, 3 are needed"):
            build(frames, NOTHING, CalibsConfig())
        product, verdict = build(frames, NOTHING, CalibsConfig(min_frames=1))
        assert verdict.state != "good" and any("nothing can be clipped; 3 are needed" in reason for reason in verdict.reasons)
    with pytest.raises(BadData, match="0 bias frames"):
        build_bias([], NOTHING, CalibsConfig())


def test_mixed_modes_are_refused_and_named(lab):
    frames = lab.flats(3)
    other = Lab(2, detector_of(gain=3.2)).frame("flat", 20000.0)
    with pytest.raises(BadData, match=r"flat r 1: the gain of amplifier A is 3.2 electron/ADU, in flat r \d+ 1.6"):
        build_flat([*frames, other], NOTHING, CalibsConfig())
    fast = Lab(2, detector_of(noise=12.0)).frame("bias")
    with pytest.raises(BadData, match="read noise of amplifier A is 12 electrons"):
        build_bias([*lab.biases(3), fast], NOTHING, CalibsConfig())
    raw = frames[0].load()
    binned = RawDetector(raw.exposure, raw.detector, tuple(segment[::2, ::2].copy() for segment in raw.segments))
    with pytest.raises(BadData, match="another binning or read-out mode"):
        build_flat([*frames, Frame(raw.exposure, lambda: binned)], NOTHING, CalibsConfig())
    for change, words in (({"readout_mode": "fast"}, "its read-out mode is fast, that of flat r .* not given"),
                          ({"binning": "2 2"}, "its binning is 2 2")):
        with pytest.raises(BadData, match=words):
            build_flat([*frames, Frame(replace(raw.exposure, **change), lambda: raw)], NOTHING, CalibsConfig())
    assert build_calibration([*frames, other], (NY, NX), CalibsConfig(), leave_out=lambda name, error: None)[""].flat is None


def test_a_light_leak_makes_a_dark_bad(lab, known):
    leak = 8.0 * np.linspace(0.0, 1.0, NX)[None, :] * np.ones((NY, 1))
    _, good = build_dark(lab.darks(4), known, CalibsConfig())
    assert good.state == "good", good.reasons
    for frames in ([*lab.darks(3), lab.frame("dark", seconds=200.0, extra=200.0 * leak)],  # one
                   [lab.frame("dark", seconds=200.0, extra=200.0 * leak) for _ in range(4)],  # all
                   [lab.frame("dark", seconds=200.0, extra=200.0 * 15.0) for _ in range(4)]):  # all, even
        _, verdict = build_dark(frames, known, CalibsConfig())
        assert verdict.state == "bad" and any("light came in" in reason for reason in verdict.reasons)
    with pytest.raises(BadData, match="dark time is 0 s"):
        build_dark([lab.frame("dark") for _ in range(3)], known, CalibsConfig())


def test_noisy_and_drifting_biases_are_suspect():
    noisy = Lab(3, detector_of(noise=9.0))
    frames = [Frame(frame.exposure, lambda raw=frame.load(): RawDetector(raw.exposure, detector_of(), raw.segments))
              for frame in noisy.biases(4)]  # the camera states 5 electrons
    _, verdict = build_bias(frames, NOTHING, CalibsConfig())
    assert verdict.state == "suspect" and any("electrons, the camera states 5.0" in reason for reason in verdict.reasons)
    drifting = Lab(4)
    frames = [drifting.frame("bias", extra=10.0 * k) for k in range(4)]
    _, verdict = build_bias(frames, NOTHING, CalibsConfig())
    assert any("levels drift by 3" in reason for reason in verdict.reasons)


def test_saturated_and_dim_flats_are_left_out(lab, known):
    told = []
    flat, _ = build_flat([*lab.flats(4), lab.frame("flat", 200000.0), lab.frame("flat", 50.0)], known, CalibsConfig(),
                         leave_out=lambda name, error: told.append(str(error)))
    assert len(flat.inputs) == 4 and "saturated" in told[0] and "500 are needed" in told[1]
    with pytest.raises(BadData, match="0 flat frames can be used"):
        build_flat([lab.frame("flat", 200000.0) for _ in range(4)], known, CalibsConfig(), leave_out=lambda name, error: None)


def test_defects_of_every_kind(lab, known):
    flat, _ = build_flat(lab.flats(4), known, CalibsConfig())
    dark, _ = build_dark(lab.darks(6), known, CalibsConfig())
    y, x = np.mgrid[:NY, :NX]
    distance = np.hypot(x - 60.0, y - 120.0)
    image = flat.image.copy()
    image[distance < 1.5] *= 1.8  # a vampire
    image[(distance > 2.5) & (distance < 7.0)] *= 0.93
    image[30, 200] = np.nan
    flat = CombinedFrames("flat", image, flat.variance)
    bad, verdict = build_defects(None, dark, [flat], DefectsConfig())
    assert bad[lab.hot].all() and bad[lab.response < 0.5].all() and bad[30, 200]
    assert bad[distance <= 8.0].all() and verdict.statistics["vampire_pixels"] == (distance <= 8.5).sum()
    rest = bad & ~lab.hot & (lab.response > 0.5) & (distance > 8.5)
    assert rest.sum() == 1
    assert verdict.state == "good" and verdict.statistics["hot_pixels"] == lab.hot.sum()
    _, many = build_defects(None, None, [CombinedFrames("flat", np.where(x % 20 == 0, 0.0, 1.0).astype(np.float32), flat.variance)],
                            DefectsConfig())
    assert many.state == "suspect" and "5" in many.reasons[0]
    with pytest.raises(BadData, match="no bias, dark or flat"):
        build_defects(None, None, [], DefectsConfig())
    with pytest.raises(BadData, match="of one binning"):
        build_defects(CombinedFrames("bias", np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)), None, [flat], DefectsConfig())


def test_hot_pixels_of_two_halves_are_the_same(lab, known):
    frames = lab.darks(6)
    found = [build_defects(None, build_dark(half, known, CalibsConfig())[0], [], DefectsConfig())[0]
             for half in (frames[::2], frames[1::2])]
    assert (found[0] & found[1]).sum() >= 0.95 * max(plane.sum() for plane in found)


def test_verdicts_reach_the_calibration(lab):
    frames = [*lab.biases(3), *lab.darks(3), *lab.flats(3)]
    found = build_calibration(frames, (NY, NX), CalibsConfig())["r"]
    assert set(found.verdicts) == {"bias", "dark", "flat", "defects"}
    assert {name.split()[0] for name in found.inputs} == {"bias", "dark", "flat"} and len(found.inputs) == 9
