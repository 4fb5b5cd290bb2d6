"""The simulated survey: determinism, noise statistics, geometry, and what the truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.config import build, load_yaml
from rsp_hpc.errors import ConfigError
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.focalplane import rough_wcs
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.header import exposure_of
from rsp_hpc.products.photocal import nanojansky_of
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from rsp_hpc.simulate.detector import DetectorConfig, cosmic_rays, fill_wells, read_out, sensor_of
from rsp_hpc.simulate.observing import ObservingConfig, detector_wcs, exposure_table, psf_parameters
from rsp_hpc.simulate.render import KOLMOGOROV
from rsp_hpc.simulate.seeds import generator
from rsp_hpc.simulate.sky import SkyConfig
from rsp_hpc.simulate.survey import (SurveySimulation, cosmic_rays_of, objects_on, plan, reference_of, simulate_detector, sky_of)

CAMERA = Path(__file__).resolve().parents[2] / "configs" / "cameras" / "simcam.yaml"
CONFIG = SurveySimulation(observing=ObservingConfig(visits_per_band=2))
QUIET = DetectorConfig(pixel_response=0.0, hot_pixels=0.0, dead_pixels=0.0, dead_columns=0, vignetting=0.0, bias_structure=0.0,
                       bias_drift=0.0, crosstalk=0.0, cosmic_rays=0.0)


@pytest.fixture(scope="module")
def camera():
    return load_camera(load_yaml(CAMERA))


@pytest.fixture(scope="module")
def sky():
    return sky_of(CONFIG)


@pytest.fixture(scope="module")
def science(camera):
    return [exposure for exposure in plan(CONFIG, camera) if exposure.kind == "science"]


def assembled(segments, detector):
    """(ny, nx) float64 electrons after the row-wise overscan."""
    image = np.zeros(detector.box.shape)
    for amplifier, segment in zip(detector.amplifiers, segments):
        x0, y0, nx, ny = amplifier.data
        ox, oy, onx, ony = amplifier.serial_overscan
        part = segment[y0:y0 + ny, x0:x0 + nx] - np.median(segment[oy:oy + ony, ox:ox + onx], axis=1, keepdims=True)
        part = part[:, ::-1] if amplifier.flip_x else part
        part = part[::-1] if amplifier.flip_y else part
        image[amplifier.assembled_box.slices(detector.box)] = amplifier.gain * part
    return image


def test_plan_has_the_frames_asked_for(camera, science):
    exposures = plan(CONFIG, camera)
    kinds = [exposure.kind for exposure in exposures]
    assert [kinds.count(kind) for kind in ("bias", "dark", "flat", "science")] == [5, 5, 15, 6]
    assert len({exposure.visit for exposure in exposures}) == len(exposures)
    assert sorted(exposure.band for exposure in science) == ["g", "g", "i", "i", "r", "r"]
    with pytest.raises(ConfigError, match="simulate.bands: q"):
        plan(SurveySimulation(bands=("q",)), camera)


def test_exposure_table_has_the_science_exposures(camera, science):
    table = exposure_table(plan(CONFIG, camera))
    assert list(table["visit"]) == [exposure.visit for exposure in science]
    assert np.isfinite(table["zero_point"]).all() and (table["fwhm"] > 0.4).all()


def test_the_demo_lies_on_a_border_of_tracts_and_meets_the_plan(camera):
    values = load_yaml(CAMERA.parents[1] / "demo.yaml")
    config = build(SurveySimulation, values["simulate"], "simulate")
    exposures = [exposure for exposure in plan(config, camera) if exposure.kind == "science"]
    assert len(exposures) >= 12 and len({exposure.band for exposure in exposures}) == 3
    skymap = RingsSkyMap(build(SkyMapConfig, values.get("skymap"), "skymap"))
    for exposure in exposures:  # the border runs through every exposure, not only through the field
        tracts = set()
        for detector in camera.detectors:
            x, y = detector.box.corners().T
            tracts |= set(skymap.find_tract(*detector_wcs(config.observing, camera, exposure, detector).pixel_to_sky(x, y)).tolist())
        assert len(tracts) >= 2


def test_the_bits_depend_on_seed_visit_and_detector_only(camera, sky, science):
    first = simulate_detector(CONFIG, camera, sky, science[3], camera.detectors[2])
    simulate_detector(CONFIG, camera, sky, science[0], camera.detectors[1])  # other work in between
    again = simulate_detector(CONFIG, camera, sky_of(CONFIG), plan(CONFIG, camera)[-3], camera.detectors[2])
    for a, b in zip(first.segments, again.segments):
        np.testing.assert_array_equal(a, b)
    assert all((first.truth[name] == again.truth[name]).all() for name in first.truth.columns)
    other = CONFIG.model_copy(update={"seed": 7})
    assert (sky_of(other)["ra"][:100] != sky["ra"][:100]).all()
    draws = {generator(1, *what).integers(2**63) for what in (("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("a", 12), ("a", 1))}
    assert len(draws) == 5


def test_noise_of_flats_gives_gain_and_read_noise(camera):
    detector = camera.detectors[0]
    sensor = sensor_of(QUIET, camera, detector, 5)
    flats = [read_out(QUIET, detector, sensor, generator(5, k).poisson(20000.0, detector.box.shape).astype(np.float32),
                      generator(6, k)) for k in range(2)]
    for number, amplifier in enumerate(detector.amplifiers):
        a, b = (flat[number].astype(float) for flat in flats)
        x0, y0, nx, ny = amplifier.data
        ox, oy, onx, ony = amplifier.serial_overscan
        overscan = (a - b)[oy:oy + ony, ox:ox + onx].var() / 2.0
        signal = (a[y0:y0 + ny, x0:x0 + nx].mean() - a[oy:oy + ony, ox:ox + onx].mean())
        variance = (a - b)[y0:y0 + ny, x0:x0 + nx].var() / 2.0
        assert signal / (variance - overscan) == pytest.approx(amplifier.gain, rel=0.015)  # 0.3 % from 512^2 pixels
        assert amplifier.gain * np.sqrt(overscan - 1.0 / 12.0) == pytest.approx(amplifier.read_noise, rel=0.03)


def test_file_orientation_is_undone_by_the_camera_model(camera):
    """Each pixel comes back where its light fell: flips, origins and prescans of simulator and camera agree."""
    for detector in camera.detectors[:1]:
        light = np.add.outer(20.0 * np.arange(1024), np.arange(1024)).astype(np.float32)
        segments = read_out(QUIET, detector, sensor_of(QUIET, camera, detector, 5), light.copy(), generator(6))
        residual = assembled(segments, detector) - light
        assert np.abs(np.median(residual)) < 1.0 and residual.std() < 7.0


def test_calibration_frames_hold_the_patterns(camera, sky):
    exposures = plan(CONFIG, camera)
    detector = camera.detectors[1]
    sensor = sensor_of(CONFIG.detector, camera, detector, CONFIG.seed, "r")
    flat = next(e for e in exposures if e.kind == "flat" and e.band == "r")
    image = assembled(simulate_detector(CONFIG, camera, sky, flat, detector).segments, detector)
    good = sensor.response > 0
    assert np.median(image[good] / sensor.response[good]) == pytest.approx(CONFIG.observing.flat_level, rel=1e-3)
    assert np.abs(image[~good]).max() < 0.02 * CONFIG.observing.flat_level
    dark = next(e for e in exposures if e.kind == "dark")
    image = assembled(simulate_detector(CONFIG, camera, sky, dark, detector).segments, detector)
    hot = (sensor.dark > 50) & (sensor.dark < 400)
    assert hot.sum() > 50
    assert np.median(image[hot] / sensor.dark[hot]) == pytest.approx(CONFIG.observing.dark_time, rel=0.02)
    responses = [sensor_of(CONFIG.detector, camera, d, CONFIG.seed).response for d in camera.detectors]
    assert np.mean(responses) == pytest.approx(1.0, abs=2e-3)


def test_stars_stand_where_the_truth_says_with_its_flux(camera, sky, science):
    exposure, detector = science[1], camera.detector("D11")
    simulated = simulate_detector(CONFIG, camera, sky, exposure, detector)
    sensor = sensor_of(CONFIG.detector, camera, detector, CONFIG.seed, exposure.band)
    image = assembled(simulated.segments, detector) / np.where(sensor.response > 0, sensor.response, np.nan)
    truth = simulated.truth.rows((simulated.truth["snr"] > 200) & simulated.truth["is_star"] & (simulated.truth["flux"] < 8e5))
    inside = detector.box.grow(-25).contains(truth["x"], truth["y"])
    y, x = np.mgrid[-14:15, -14:15]
    fwhm = psf_parameters(CONFIG.observing, camera, exposure, detector, (truth["x"], truth["y"]))[0]
    offsets, ratios = [], []
    for row in np.nonzero(inside)[0]:
        column, line = int(np.rint(truth["x"][row])), int(np.rint(truth["y"][row]))
        stamp = image[line - 14:line + 15, column - 14:column + 15]
        ring = np.hypot(x, y) > 12
        stamp = stamp - np.nanmedian(stamp[ring])
        core = np.where(np.isnan(stamp), 0.0, stamp) * (np.hypot(x, y) < 5)
        offsets.append((core * x).sum() / core.sum() + column - truth["x"][row])
        kept = 1.0 - (KOLMOGOROV[0] * np.exp(-0.5 * 11.0**2 / (KOLMOGOROV[1] * fwhm[row] ** 2))).sum()  # of the flux, within 11 px
        ratios.append(np.nansum(stamp[np.hypot(x, y) < 11]) / (kept * truth["flux"][row]))
    assert len(ratios) > 8
    assert abs(np.median(offsets)) < 0.05 and np.median(ratios) == pytest.approx(1.0, abs=0.01)
    near = sky["id"][:, None] == simulated.truth["id"][None, :5]
    rows = near.argmax(axis=0)
    flux = sky[f"flux_{exposure.band}"][rows] / nanojansky_of(exposure.zero_point)
    np.testing.assert_allclose(simulated.truth["flux"][:5], flux)


def test_wcs_is_near_the_commanded_one_and_a_sip(camera, science):
    exposure, detector = science[0], camera.detectors[3]
    true = detector_wcs(CONFIG.observing, camera, exposure, detector)
    rough = rough_wcs(camera, detector, exposure.ra, exposure.dec, exposure.rotation)
    corner = true.pixel_to_sky(1023.0, 1023.0), rough.pixel_to_sky(1023.0, 1023.0)
    assert 0.01 < 3600.0 * float(angular_separation(*corner[0], *corner[1])) < 10.0
    assert true.a is not None and true.a.shape == (4, 4)
    x, y = true.sky_to_pixel(*true.pixel_to_sky(12.0, 900.0))
    assert (x, y) == pytest.approx((12.0, 900.0), abs=1e-6)


def test_header_cards_are_what_the_camera_translates(camera, sky, science):
    detector = camera.detectors[0]
    for exposure in (science[2], plan(CONFIG, camera)[0]):
        cards = simulate_detector(CONFIG, camera, sky, exposure, detector).cards
        read = exposure_of(camera, [cards], f"simcam_{exposure.visit}_D00.fits")
        assert (read.visit, read.kind, read.band) == (exposure.visit, exposure.kind, exposure.band)
        assert read.mjd == pytest.approx(exposure.mjd + 0.5 * exposure.exposure_time / 86400.0, abs=1e-9)
        if exposure.kind == "science":
            assert (read.ra, read.dec, read.rotation) == (exposure.ra, exposure.dec, exposure.rotation)


def test_cosmic_rays_and_bleeding():
    rays = cosmic_rays(DetectorConfig(cosmic_rays=2.0), (200, 300), 50.0, generator(3))
    assert 100 < (rays > 0).sum() < 5000 and 600.0 < rays.sum() / 100.0 < 2e4
    charge = np.zeros((50, 4), np.float32)
    charge[20, 1] = 5e5
    charge[0, 3] = 3e5
    fill_wells(charge, 1e5)
    assert charge.max() == 1e5 and charge[:, 1].sum() == 5e5 and (charge[18:23, 1] == 1e5).all()
    assert charge[:, [0, 2]].max() == 0 and charge[:, 3].sum() <= 3e5  # what runs over the edge is lost


def test_cosmic_ray_truth_is_the_one_in_the_image(camera, sky, science):
    quiet = CONFIG.model_copy(update={"detector": CONFIG.detector.model_copy(update={"cosmic_rays": 0.0})})
    detector = camera.detectors[0]
    difference = (assembled(simulate_detector(CONFIG, camera, sky, science[0], detector).segments, detector)
                  - assembled(simulate_detector(quiet, camera, sky, science[0], detector).segments, detector))
    rays = cosmic_rays_of(CONFIG, science[0], detector)
    assert (rays > 0).sum() > 20
    assert np.abs(difference - rays)[np.hypot(*np.gradient(rays)) < 1e9].max() < 5.0  # rounding of the converter, crosstalk


def test_reference_has_the_errors_it_states(sky):
    reference = reference_of(CONFIG, sky)
    rows = np.searchsorted(sky["id"], reference["id"])
    pull = 3600.0 * (reference["dec"] - sky["dec"][rows]) / reference["dec_err"]
    east = 3600.0 * (reference["ra"] - sky["ra"][rows]) * np.cos(np.radians(sky["dec"][rows])) / reference["ra_err"]
    flux = (reference["flux_g"] - sky["flux_g"][rows]) / reference["flux_g_err"]
    for values in (pull, east, flux):
        assert values.std() == pytest.approx(1.0, abs=0.15) and abs(values.mean()) < 0.15
    assert sky["is_star"][rows].all()


def test_galsim_renders_the_same_detector(camera, science):
    config = CONFIG.model_copy(update={"sky": SkyConfig(star_density=1.0, galaxy_density=1.0)})
    detector, sky = camera.detectors[0], sky_of(config)
    ours = simulate_detector(config, camera, sky, science[0], detector)
    theirs = simulate_detector(config.model_copy(update={"renderer": "galsim"}), camera, sky, science[0], detector)
    a, b = (assembled(item.segments, detector) for item in (ours, theirs))
    same = np.abs(a - b) < 6.0 * np.sqrt(2.0 * np.maximum(a, 500.0))  # Poisson noise draws differ where the light differs
    assert same.mean() > 0.9999
    assert len(objects_on(config, camera, sky, science[0], detector).rows) > 15
