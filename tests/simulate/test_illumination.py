"""Lamps, sky structure, fringes, satellites, leaks and cosmic rays are as strong and where the truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.config import build, load_yaml
from rsp_hpc.errors import ConfigError
from rsp_hpc.products.camera import load_camera
from rsp_hpc.simulate.calibration import truth_calibration
from rsp_hpc.simulate.cosmics import CosmicRayConfig, thick_cosmic_rays
from rsp_hpc.simulate.detector import DetectorConfig
from rsp_hpc.simulate.illumination import (LightConfig, flat_light, fringe_amplitude, fringe_pattern, leak_rate, satellite_light,
                                           sky_structure)
from rsp_hpc.simulate.survey import SurveySimulation, cosmic_rays_of, light_of, objects_on, plan, simulate_detector, sky_of
from rsp_hpc.stages.survey import load_survey

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EMPTY_SKY = {"star_density": 0.0, "galaxy_density": 0.0}


@pytest.fixture(scope="module")
def lab():
    return load_camera(load_yaml(CONFIGS / "cameras" / "labcam.yaml"))


@pytest.fixture(scope="module")
def simcam():
    return load_camera(load_yaml(CONFIGS / "cameras" / "simcam.yaml"))


def first(config, camera, kind, band=""):
    return next(item for item in plan(config, camera) if item.kind == kind and item.band == band)


def test_lamp_and_sky_have_mean_one_over_the_camera_and_are_continuous(simcam):
    light = LightConfig(flat_gradient=0.1, flat_stray=0.05, sky_structure=0.1)
    for pattern in (flat_light, sky_structure):
        planes = [pattern(light, simcam, detector, 3, "r") for detector in simcam.detectors]
        assert np.mean(planes) == pytest.approx(1.0, abs=1e-4)
        assert np.ptp(planes) > 0.04
        assert np.abs(planes[0][:, -1] - planes[1][:, 0]).max() < 0.01  # across the gap of 30 pixels
        assert (pattern(light, simcam, simcam.detectors[0], 3, "g") != planes[0]).any()
        assert (pattern(LightConfig(), simcam, simcam.detectors[0], 3, "r") == 1.0).all()


def test_flat_times_illumination_is_the_response_to_stars(simcam):
    plain = SurveySimulation(seed=4)
    lamp = plain.model_copy(update={"light": LightConfig(flat_gradient=0.1, flat_stray=0.05)})
    ratios = []
    for detector in simcam.detectors:
        truth, response = (truth_calibration(config, simcam, detector, "r") for config in (lamp, plain))
        good = response.flat > 0.0
        ratios.append((truth.flat * truth.illumination)[good] / response.flat[good])
        assert response.illumination is None and np.ptp(truth.illumination) > 0.02
    ratios = np.concatenate(ratios)
    assert np.ptp(ratios) < 1e-5 and ratios.mean() == pytest.approx(1.0, abs=0.01)


def test_fringes_have_the_amplitude_of_the_visit(lab):
    config = build(SurveySimulation, {"seed": 8, "bands": ["r", "z"], "sky": EMPTY_SKY, "light": {"fringe": {"z": 0.05}},
                                      "observing": {"sky_gradient": 0.0}})
    detector = lab.detectors[0]
    truth = truth_calibration(config, lab, detector, "z")
    assert abs(truth.fringe.mean()) < 1e-4 and truth.fringe.std() == pytest.approx(1.0, abs=1e-4)
    assert truth_calibration(config, lab, detector, "r").fringe is None
    amplitudes = []
    for exposure in (item for item in plan(config, lab) if item.band == "z" and item.kind == "science"):
        objects = objects_on(config, lab, sky_of(config), exposure, detector)
        light = light_of(config, lab, exposure, detector, objects) / exposure.sky - 1.0
        amplitudes.append((light * truth.fringe).mean())
        assert amplitudes[-1] == pytest.approx(fringe_amplitude(config.light, exposure, config.seed), rel=1e-4)
    assert np.ptp(amplitudes) > 0.003 and np.mean(amplitudes) == pytest.approx(0.05, rel=0.4)
    power = np.abs(np.fft.rfft2(truth.fringe)) ** 2
    ky, kx = np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :]
    scale = (power * np.hypot(kx, ky)).sum() / power.sum()
    assert 35.0 < 1.0 / scale < 140.0
    both = LightConfig(fringe={"z": 0.05, "y": 0.05})
    assert (fringe_pattern(both, detector, 8, "z") != fringe_pattern(both, detector, 8, "y")).any()


def test_satellites_cross_detectors_in_straight_lines(simcam):
    config = build(SurveySimulation, {"seed": 2, "light": {"satellites": 3.0}})
    exposure = first(config, simcam, "science", "g")
    planes = [satellite_light(config.light, simcam, exposure, detector, 2) for detector in simcam.detectors]
    crossed = [plane for plane in planes if plane.any()]
    assert crossed and max(plane.max() for plane in crossed) > 20.0
    sigma = exposure.fwhm / simcam.pixel_scale / 2.3548
    one = LightConfig(satellites=1.0)  # somewhere there is a visit with a single trail
    for visit in range(1001, 1040):
        plane = satellite_light(one, simcam, exposure.__class__(visit, "science", "g", 0.0, 30.0, fwhm=exposure.fwhm),
                                simcam.detectors[0], 2)
        y, x = np.nonzero(plane > 0.9 * plane.max()) if plane.any() else (np.empty(0), np.empty(0))
        if len(x) > 500:
            spread = np.linalg.eigvalsh(np.cov(x, y))
            if spread[0] < sigma**2:
                return
    pytest.fail("no straight trail in 39 visits")


def test_the_last_darks_leak(lab):
    config = build(SurveySimulation, {"seed": 5, "bands": ["r"], "detector": {"hot_pixels": 0.0, "cosmic_rays": 0.0},
                                      "light": {"light_leak": 2.0, "leaking_darks": 1}, "observing": {"dark_frames": 3}})
    darks = [item for item in plan(config, lab) if item.kind == "dark"]
    detector = lab.detectors[0]
    levels = []
    for dark in darks:
        segments = simulate_detector(config, lab, sky_of(config), dark, detector).segments
        levels.append((segments[0][:256, 4:68].mean() - segments[0][:256, 68:].mean()) * 1.7 / dark.exposure_time)
    assert levels[0] == pytest.approx(0.05, abs=0.05) and levels[1] == pytest.approx(levels[0], abs=0.05)
    assert levels[2] - levels[0] == pytest.approx(leak_rate(config.light, lab, detector)[:256, :64].mean(), rel=0.05)


def test_cosmic_rays_of_a_thick_sensor():
    config = CosmicRayConfig(worms=0.0, muons=1.0)
    image = thick_cosmic_rays(config, (400, 400), 150, np.random.default_rng(3))
    assert 8e3 < image.sum() / 150 < 1.5e4  # 76 electrons per micron, 100 micron and more, less what leaves the detector
    vertical = CosmicRayConfig(worms=0.0, muons=1.0, diffusion=0.0)
    thin = thick_cosmic_rays(vertical, (400, 400), 150, np.random.default_rng(3))
    assert (image > 0).sum() > 1.3 * (thin > 0).sum()
    assert (thick_cosmic_rays(config, (400, 400), 150, np.random.default_rng(3)) == image).all()
    spots = thick_cosmic_rays(CosmicRayConfig(muons=0.0, worms=0.0), (400, 400), 50, np.random.default_rng(3))
    assert 0 < (spots > 0).sum() < 50 * 25
    one = CosmicRayConfig(muons=0.0, worms=0.0, diffusion=20.0, thickness=100.0)
    wide = thick_cosmic_rays(one, (400, 400), 50, np.random.default_rng(3))
    assert (wide > 0).sum() > 2.0 * (spots > 0).sum()


def test_the_model_of_cosmic_rays_is_chosen(lab):
    base = {"seed": 5, "bands": ["r"], "detector": {"cosmic_rays": 1.0, "cosmic_ray_model": "thick"}}
    config = build(SurveySimulation, base)
    rays = cosmic_rays_of(config, first(config, lab, "dark"), lab.detectors[0])
    assert (rays > 0).sum() > 1000 and (rays == np.rint(rays)).all()
    with pytest.raises(ConfigError, match="cosmic_ray_model"):
        build(SurveySimulation, {"detector": {"cosmic_ray_model": "fat"}})


def test_every_effect_is_on_in_the_configuration_for_it():
    config = load_survey(CONFIGS / "electronics.yaml").simulate
    off = build(SurveySimulation, {})
    for name in ("gain_spread", "offset", "crosstalk_neighbour", "crosstalk_quadratic", "nonlinearity", "cti", "cti_offset",
                 "cti_trap"):
        assert getattr(config.detector.electronics, name) > getattr(off.detector.electronics, name) == 0.0
    for name in ("flat_gradient", "flat_stray", "sky_structure", "satellites"):
        assert getattr(config.light, name) > getattr(off.light, name) == 0.0
    assert config.light.fringe and config.detector.brighter_fatter.strength > off.detector.brighter_fatter.strength == 0.0
    assert config.observing.ramps.levels and config.observing.spot_frames and DetectorConfig().cosmic_ray_model == "tracks"


def test_the_bits_depend_on_seed_visit_and_detector_only(lab):
    config = load_survey(CONFIGS / "electronics.yaml").simulate
    sky, exposures = sky_of(config), plan(config, lab)
    chosen = [next(item for item in reversed(exposures) if item.kind == kind) for kind in ("science", "flat", "dark", "spots")]
    results = [[simulate_detector(config, lab, sky, item, lab.detectors[0]).segments for item in order]
               for order in (chosen, chosen[::-1])]
    for one, other in zip(results[0], results[1][::-1]):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
