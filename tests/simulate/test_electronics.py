"""Each effect of the electronics is as strong as the truth says, and absent by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from rsp_hpc.config import build, load_yaml
from rsp_hpc.errors import ConfigError
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.header import exposure_of
from rsp_hpc.simulate.calibration import truth_calibration
from rsp_hpc.simulate.detector import DetectorConfig, fill_wells, read_out, sensor_of
from rsp_hpc.simulate.electronics import ElectronicsConfig, amplifier_offsets, bend, natural_spline, trail
from rsp_hpc.simulate.observing import ObservingConfig, RampConfig
from rsp_hpc.simulate.seeds import generator
from rsp_hpc.simulate.survey import SurveySimulation, plan, simulate_detector, sky_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUIET = {"pixel_response": 0.0, "hot_pixels": 0.0, "dead_pixels": 0.0, "dead_columns": 0, "vignetting": 0.0,
         "bias_structure": 0.0, "bias_drift": 0.0, "crosstalk": 0.0, "cosmic_rays": 0.0, "dark_current": 0.0}


@pytest.fixture(scope="module")
def camera():
    return load_camera(load_yaml(CONFIGS / "cameras" / "labcam.yaml"))


@pytest.fixture(scope="module")
def detector(camera):
    return camera.detectors[0]


def sections(camera, charge, reads=1, **electronics):
    """Truth, and the electrons of each section above its overscan level as read, mean of some read-outs."""
    config = DetectorConfig(**QUIET, electronics=ElectronicsConfig(**electronics))
    detector = camera.detectors[0]
    sensor = sensor_of(config, camera, detector, 5)
    truth = truth_calibration(SurveySimulation(seed=5, detector=config), camera, detector, "r")
    total = [0.0] * len(detector.amplifiers)
    for k in range(reads):
        for number, segment in enumerate(read_out(config, detector, sensor, charge.copy(), generator(6, k))):
            level = sensor.bias[number][0, 0]
            total[number] = total[number] + (segment - level) * truth.ptc.gain[number] / reads
    return truth, total


def test_nothing_is_on_by_default():
    config = ElectronicsConfig()
    off = [config.gain_spread, config.offset, config.crosstalk_neighbour, config.crosstalk_quadratic, config.nonlinearity,
           config.cti, config.cti_offset, config.cti_trap]
    assert not any(off) and not config.crosstalk_matrix and not config.crosstalk_table


def test_crosstalk_of_bright_spots_is_the_truths(camera, detector):
    values = build(SurveySimulation, {"seed": 5, "bands": ["r"], "detector": {
        **QUIET, "electronics": {"crosstalk_neighbour": 3e-4, "crosstalk_quadratic": 4e-6}},
        "observing": {"spot_frames": 2, "spot_level": 80000.0}})
    frames = [exposure for exposure in plan(values, camera) if exposure.kind == "spots"]
    truth = truth_calibration(values, camera, detector, "").crosstalk
    sensor = sensor_of(values.detector, camera, detector, values.seed)
    for source, exposure in enumerate(frames):
        segments = simulate_detector(values, camera, sky_of(values), exposure, detector).segments
        signal = [(segment - sensor.bias[k][0, 0]) * amplifier.gain
                  for k, (segment, amplifier) in enumerate(zip(segments, detector.amplifiers))]
        bright = signal[source] > 5000.0
        assert bright.sum() > 1000
        for target in (source + 1, source + 2, source + 8):
            design = np.stack([signal[source][bright], signal[source][bright] ** 2], axis=1)
            fit, *_ = np.linalg.lstsq(design, signal[target][bright], rcond=None)
            error = 6.0 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
            expected = truth.coefficient[target, source], truth.quadratic[target, source]
            assert np.abs((fit - expected) / error).max() < 4.5
        assert abs(truth.coefficient[source + 1, source]) > 1e-4


def test_crosstalk_tables_are_read(tmp_path, camera, detector):
    matrix = np.random.default_rng(1).normal(0.0, 1e-4, (16, 16))
    np.fill_diagonal(matrix, 0.0)
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), crosstalk_matrix=matrix.tolist())
    np.testing.assert_allclose(truth.crosstalk.coefficient, matrix)
    table = tmp_path / "table.yaml"
    table.write_text(f"coefficient: {matrix.tolist()}\nquadratic: {(1e-6 * matrix).tolist()}\n")
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), crosstalk_table=str(table))
    np.testing.assert_allclose(truth.crosstalk.quadratic, 1e-6 * matrix)
    for bad, words in (("coefficient: [[0.0]]", "is not 16 x 16"), ("a: 1", "has no table"), (None, "cannot be read")):
        path = tmp_path / "bad.yaml"
        path.unlink(missing_ok=True)
        if bad is not None:
            path.write_text(bad)
        with pytest.raises(ConfigError, match=words):
            sections(camera, np.zeros((512, 512), np.float32), crosstalk_table=str(path))


def test_the_matrices_of_lsstcam_are_read(camera, rsp_data, monkeypatch):
    monkeypatch.setenv("TABLES", str(rsp_data / "lsstcam-tables"))
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), crosstalk_table="$TABLES/r22_s11/crosstalk.ecsv")
    assert truth.crosstalk.coefficient[0, 1] == pytest.approx(2.3459e-4, rel=1e-4)
    assert (np.diag(truth.crosstalk.coefficient) == 0.0).all()


@pytest.mark.parametrize("kind", ["spline", "polynomial"])
def test_the_correction_undoes_the_nonlinearity(camera, kind):
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), nonlinearity=0.02, nonlinearity_kind=kind)
    linearity = truth.linearity
    charge = np.array([[0.0, 1.0, 50.0, 1e3, 2e4, 6e4, 1e5]])
    for number in (0, 7):
        read = bend(charge, linearity, number)
        spline = CubicSpline(linearity.level[number], linearity.correction[number], bc_type="natural")
        np.testing.assert_allclose(read + spline(read), charge, atol=0.01)
        assert abs(spline(0.0, 1)) < 1e-5  # the gain is that of faint light
    assert np.mean([(1e5 - bend(charge, linearity, k)[0, -1]) / 1e5 for k in range(16)]) == pytest.approx(0.02, rel=0.3)
    grid = np.linspace(-10.0, 1.3e5, 999)
    spline = CubicSpline(linearity.level[3], linearity.correction[3], bc_type="natural")
    ours = natural_spline(linearity.level[3], linearity.correction[3], grid)
    np.testing.assert_allclose(ours, spline(np.clip(grid, 0.0, linearity.level[3, -1])), atol=1e-6)


def slow_trail(row, prescan, transfer, number):
    """The documented model, one electron packet at a time, one transfer at a time."""
    register = [0.0] * prescan + list(row)
    read, held, memory, loss = [], 0.0, 0.0, transfer.inefficiency[number]
    size, level, keep = (values[number] for values in (transfer.trap_size, transfer.trap_level, transfer.trap_decay))
    for _ in range(len(register)):
        left = [loss * q for q in register]
        moved = [q - rest for q, rest in zip(register, left)]
        register = [b + a for a, b in zip(left, moved[1:] + [0.0])]  # all step down; what is left waits for the next
        packet = moved[0] + held * (1.0 - np.exp(-1.0 / keep))
        held *= np.exp(-1.0 / keep)
        taken = max(size * min(packet / level, 1.0) - held, 0.0)
        packet, held = packet - taken, held + taken
        memory = max(memory * np.exp(-1.0 / transfer.offset_decay[number]), transfer.offset_scale[number] * packet)
        read.append(packet + memory)
    return read


def test_charge_trails_as_documented(camera, detector):
    rng = np.random.default_rng(3)
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), cti=1e-4, cti_offset=5e-4, cti_trap=30.0)
    for number, amplifier in ((0, detector.amplifiers[0]), (12, detector.amplifiers[12])):
        section = np.zeros((4, 100), np.float32)
        section[:, 4:68] = rng.uniform(0.0, 5e4, (4, 64)) * (rng.random((4, 64)) < 0.5)
        read = trail(section, amplifier, truth.charge_transfer, number)
        for row in range(4):
            np.testing.assert_allclose(read[row], slow_trail(section[row, 4:], 4, truth.charge_transfer, number), atol=0.02)


def test_charge_is_conserved_by_loss_and_trap(camera, detector):
    truth, _ = sections(camera, np.zeros((512, 512), np.float32), cti=2e-5, cti_trap=30.0)
    section = np.zeros((3, 100), np.float32)
    section[:, 4:68] = np.array([100.0, 5e3, 8e4])[:, None]
    read = trail(section, detector.amplifiers[0], truth.charge_transfer, 0)
    np.testing.assert_allclose(read.sum(axis=1), section.sum(axis=1), rtol=1e-6)
    assert (read[:, 68] > 1e-5 * 60 * section[:, 67]).all()


def test_trails_stand_in_the_overscan_of_the_file(camera, detector):
    charge = np.full((512, 512), 50000.0, np.float32)
    truth, total = sections(camera, charge, reads=4, cti=2e-5, cti_offset=1e-3, cti_trap=20.0)
    for number in (0, 9):
        section = np.zeros((272, 100), np.float32)
        section[:256, 4:68] = 50000.0
        expected = trail(section, detector.amplifiers[number], truth.charge_transfer, number)
        found = total[number][:256, 68:78].mean(axis=0)
        assert np.abs(found - expected[:256, 68:78].mean(axis=0)).max() < 4.5 * 6.1 / 32.0  # 4 x 256 pixels
        assert found[0] > 80.0


def test_true_gains_and_offsets(camera, detector):
    config = build(SurveySimulation, {"seed": 9, "bands": ["r"], "detector": {
        **QUIET, "electronics": {"gain_spread": 0.05, "offset": 10.0}}, "sky": {"star_density": 0.0, "galaxy_density": 0.0},
        "observing": {"flat_frames": 1, "bias_frames": 1, "visits_per_band": 1, "sky_gradient": 0.0}})
    truth = truth_calibration(config, camera, detector, "r")
    assert 0.02 < np.std(truth.ptc.gain / 1.7) < 0.09
    for exposure, error in ((item, 0.3 if item.kind == "bias" else 7.0) for item in plan(config, camera) if item.kind != "dark"):
        level = exposure.sky if exposure.kind == "science" else exposure.light
        segments = simulate_detector(config, camera, sky_of(config), exposure, detector).segments
        offsets = amplifier_offsets(config.detector.electronics, detector, config.seed, exposure.visit)
        offsets = offsets if exposure.kind == "science" else 0.0 * offsets
        assert exposure.kind != "science" or offsets.std() > 4.0
        for number, segment in enumerate(segments):
            signal = (segment[:256, 4:68].mean() - segment[:256, 68:].mean()) * truth.ptc.gain[number]
            assert signal == pytest.approx(level + offsets[number], abs=4.0 * error)


def test_ramps_are_pairs_of_rising_time(camera, detector):
    ramps = RampConfig(levels=5, first=100.0, last=1e5)
    config = SurveySimulation(bands=("r",), detector=DetectorConfig(**QUIET), observing=ObservingConfig(ramps=ramps))
    frames = [exposure for exposure in plan(config, camera) if exposure.visit > 10000]
    assert [frame.exposure_time for frame in frames[::2]] == [frame.exposure_time for frame in frames[1::2]]
    assert frames[0].exposure_time == pytest.approx(100.0 / 3500.0) and frames[-1].exposure_time == pytest.approx(1e5 / 3500.0)
    assert [ramps.level(pair) for pair in range(5)] == pytest.approx(np.geomspace(100.0, 1e5, 5).tolist())
    linear = RampConfig(levels=3, first=100.0, last=300.0, spacing="linear")
    assert [linear.level(pair) for pair in range(3)] == pytest.approx([100.0, 200.0, 300.0])
    both = RampConfig(levels=5, first=100.0, last=1100.0, spacing="both")
    assert [both.level(pair) for pair in range(5)] == pytest.approx([100.0, 110000.0**0.5, 1100.0, 600.0, 1100.0])
    pair = [simulate_detector(config, camera, sky_of(config), frame, detector) for frame in frames[4:6]]
    assert (pair[0].segments[0] != pair[1].segments[0]).any()
    read = exposure_of(camera, [pair[0].cards], "labcam_010005_D0.fits")
    assert read.kind == "flat" and read.exposure_time == frames[4].exposure_time
    level = (pair[0].segments[2][:256, 4:68].mean() - pair[0].segments[2][:256, 68:].mean()) * 1.7
    assert level == pytest.approx(ramps.level(2), rel=1e-3)


def test_darks_take_turns_in_time(camera):
    config = SurveySimulation(bands=("r",), observing=ObservingConfig(dark_frames=5, dark_times=(30.0, 90.0)))
    assert [item.exposure_time for item in plan(config, camera) if item.kind == "dark"] == [30.0, 90.0, 30.0, 90.0, 30.0]


def test_wells_are_filled_column_by_column():
    """Against the same, one pixel after the other."""
    rng = np.random.default_rng(4)
    charge = (rng.random((40, 30)) ** 8 * 6e5).astype(np.float32)
    expected = charge.copy()
    for column in range(30):
        line = expected[:, column].astype(float)
        excess, line = 0.5 * np.maximum(line - 1e5, 0.0), np.minimum(line, 1e5)
        for order in (range(40), range(39, -1, -1)):
            carried = 0.0
            for row in order:
                carried += excess[row]
                room = min(carried, 1e5 - line[row])
                line[row] += room
                carried -= room
        expected[:, column] = line
    fill_wells(charge, 1e5)
    np.testing.assert_array_equal(charge, expected)
