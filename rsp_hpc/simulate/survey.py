"""A small survey with known truth: what to simulate, and one detector of one exposure of it.

Every (exposure, detector) has random numbers of its own, so that the bits do not depend on who simulates it, or in which
order.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import ConfigError
from ..products.camera import Camera, Detector
from ..products.catalogue import Catalogue, Column
from ..products.focalplane import pixel_to_focal_plane
from ..products.photocal import nanojansky_of
from ..products.wcs import Wcs
from . import observing, sky as skies
from .calibframes import spots
from .detector import DetectorConfig, cosmic_rays, expose, read_out, sensor_of, vignetting
from .electronics import amplifier_offsets
from .illumination import (LightConfig, flat_light, fringe_amplitude, fringe_pattern, leak_rate, satellite_light,
                           sky_structure)
from .observing import ObservingConfig, SimulatedExposure, detector_wcs, psf_parameters
from .render import Mixture, convolve, galaxy_mixture, psf_mixture, render, render_galsim, shear_matrix
from .seeds import generator
from .sky import SkyConfig
from .truth import point_source_snr

__all__ = ["Simulated", "SurveySimulation", "cosmic_rays_of", "exposure_truth", "objects_on", "plan", "reference_of",
           "simulate_detector", "sky_of"]


class SurveySimulation(Config):
    """A simulated survey."""

    seed: int = parameter(20260101, "everything is drawn from it", low=0)
    bands: tuple[str, ...] = parameter(("g", "r", "i"), "bands, bluest first")
    renderer: Literal["gaussians", "galsim"] = parameter("gaussians", "our sums of Gaussians, or GalSim's exact profiles (slow)")
    sky: SkyConfig = parameter(SkyConfig(), "the sky")
    observing: ObservingConfig = parameter(ObservingConfig(), "the exposures")
    light: LightConfig = parameter(LightConfig(), "lamps, fringes, stray light, satellites")
    detector: DetectorConfig = parameter(DetectorConfig(), "the detectors")


class Simulated(NamedTuple):
    """One raw detector: segments as `io.write_raw` wants them, header cards, and the true objects on it."""

    segments: tuple[np.ndarray, ...]
    cards: dict[str, Any]
    truth: Catalogue


def plan(config: SurveySimulation, camera: Camera) -> list[SimulatedExposure]:
    """All exposures of the survey, calibration frames first.

    Raises
    ------
    ConfigError
        A band is unknown to the camera or to the simulator.
    """
    for band in config.bands:
        if band not in camera.bands or band not in observing.BANDS:
            raise ConfigError(f"simulate.bands: {band} is not a band of camera {camera.name} that the simulator knows; known are "
                              f"{', '.join(name for name in camera.bands if name in observing.BANDS)}")
    if config.observing.ramps.band and config.observing.ramps.band not in camera.bands:
        raise ConfigError(f"simulate.observing.ramps.band: {config.observing.ramps.band} is not a band of camera {camera.name}")
    return observing.plan(config.observing, camera, config.bands, (config.sky.ra, config.sky.dec), config.seed)


def sky_of(config: SurveySimulation) -> Catalogue:
    """All true objects of the survey (see `sky.sky_of`)."""
    return skies.sky_of(config.sky, config.bands, config.seed)


def reference_of(config: SurveySimulation, sky: Catalogue) -> Catalogue:
    """The reference catalogue of the survey (see `sky.reference_of`)."""
    return skies.reference_of(config.sky, sky, config.bands, config.seed)


class Objects(NamedTuple):
    """The objects that reach a detector: rows of the sky, true pixels, electrons, and profiles with and without PSF."""

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    psf: Mixture
    profile: Mixture
    shapes: tuple


def objects_on(config: SurveySimulation, camera: Camera, sky: Catalogue, exposure: SimulatedExposure,
               detector: Detector) -> Objects:
    """The true objects whose light falls on a detector: those within 100 pixels of it."""
    wcs = detector_wcs(config.observing, camera, exposure, detector)
    x, y = wcs.sky_to_pixel(sky["ra"], sky["dec"])
    rows = np.nonzero(detector.box.grow(100).contains(x, y))[0]
    x, y, near = x[rows], y[rows], sky.rows(rows)
    flux = near[f"flux_{exposure.band}"] / nanojansky_of(exposure.zero_point)
    parameters = psf_parameters(config.observing, camera, exposure, detector, (x, y))
    psf = psf_mixture(*parameters)
    galaxy = (near["radius"], near["is_dev"], _to_pixels(wcs, x, y) @ shear_on_sky(near["g1"], near["g2"]))
    return Objects(rows, x, y, flux, psf, convolve(galaxy_mixture(*galaxy), psf), (parameters, galaxy))


def shear_on_sky(g1, g2) -> np.ndarray:
    """(n, 2, 2) from a circle to (east, north): g1 along north, g2 along north-east."""
    return shear_matrix(-np.asarray(g1, float), g2)


def _to_pixels(wcs: Wcs, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 2, 2): pixels per arcsec to (east, north), from the WCS's own finite differences."""
    xi, eta = (np.stack([wcs.pixel_to_plane(x + dx, y + dy) for dx, dy in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))])
               .swapaxes(0, 1))
    forward = 3600.0 * np.array([[xi[0] - xi[1], xi[2] - xi[3]], [eta[0] - eta[1], eta[2] - eta[3]]])
    return np.linalg.inv(np.moveaxis(forward, 2, 0))


def _sky_image(config: SurveySimulation, camera: Camera, exposure: SimulatedExposure, detector: Detector) -> np.ndarray:
    """(ny, nx) float32: the sky in electrons: a plane over the focal plane, with scattered light, fringes and satellites."""
    ny, nx = detector.box.shape
    x, y = pixel_to_focal_plane(camera, detector, np.arange(nx)[None, :], np.arange(ny)[:, None])
    sky = (exposure.sky * (1.0 + exposure.sky_slope[0] * x + exposure.sky_slope[1] * y)).astype(np.float32)
    if config.light.sky_structure:
        sky *= sky_structure(config.light, camera, detector, config.seed, exposure.band)
    pattern = fringe_pattern(config.light, detector, config.seed, exposure.band)
    if pattern is not None:
        sky *= np.maximum(1.0 + np.float32(fringe_amplitude(config.light, exposure, config.seed)) * pattern, 0.0)
    return sky + satellite_light(config.light, camera, exposure, detector, config.seed) if config.light.satellites else sky


def light_of(config: SurveySimulation, camera: Camera, exposure: SimulatedExposure, detector: Detector,
             objects: Objects | None) -> np.ndarray:
    """(ny, nx) float32: expected electrons of an ideal detector."""
    if exposure.kind == "flat":
        return np.float32(exposure.light) * flat_light(config.light, camera, detector, config.seed, exposure.band)
    if exposure.kind == "spots":
        return spots(exposure, detector)
    if exposure.kind == "dark" and exposure.number >= config.observing.dark_frames - config.light.leaking_darks:
        return np.float32(exposure.exposure_time) * leak_rate(config.light, camera, detector)
    if objects is None:
        return np.zeros(detector.box.shape, np.float32)
    light = _sky_image(config, camera, exposure, detector)
    if config.renderer == "galsim":
        render_galsim(light, objects.x, objects.y, objects.flux, *objects.shapes)
    else:
        render(light, objects.x, objects.y, objects.flux, objects.profile)
    return light


def simulate_detector(config: SurveySimulation, camera: Camera, sky: Catalogue, exposure: SimulatedExposure,
                      detector: Detector) -> Simulated:
    """One detector of one exposure, science or calibration."""
    detector = detector.in_band(exposure.band)
    sensor = sensor_of(config.detector, camera, detector, config.seed, exposure.band)
    objects = objects_on(config, camera, sky, exposure, detector) if exposure.kind == "science" else None
    light = light_of(config, camera, exposure, detector, objects)
    charge = expose(config.detector, sensor, light, exposure.exposure_time,
                    generator(config.seed, "photons", exposure.visit, detector.id))
    charge += cosmic_rays_of(config, exposure, detector)
    offsets = (amplifier_offsets(config.detector.electronics, detector, config.seed, exposure.visit)
               if exposure.kind == "science" else None)
    segments = read_out(config.detector, detector, sensor, charge, generator(config.seed, "read", exposure.visit, detector.id),
                        offsets)
    return Simulated(segments, header_cards(camera, exposure, detector),
                     exposure_truth(config, camera, sky, exposure, detector, objects))


def cosmic_rays_of(config: SurveySimulation, exposure: SimulatedExposure, detector: Detector) -> np.ndarray:
    """(ny, nx) float32: the electrons of the cosmic rays of this very detector and exposure; the true mask is `> 0`."""
    seconds = 0.0 if exposure.kind in ("bias", "flat", "spots") else exposure.exposure_time
    return cosmic_rays(config.detector, detector.box.shape, seconds, generator(config.seed, "cosmics", exposure.visit, detector.id))


def header_cards(camera: Camera, exposure: SimulatedExposure, detector: Detector) -> dict[str, Any]:
    """The cards that configs/cameras/simcam.yaml translates."""
    cards: dict[str, Any] = {
        "INSTRUME": camera.name, "VISIT": exposure.visit, "DETECTOR": detector.name, "IMGTYPE": exposure.kind.upper(),
        "FILTER": exposure.band, "MJD-BEG": exposure.mjd, "TIMESYS": "TAI", "EXPTIME": exposure.exposure_time,
        "DARKTIME": exposure.exposure_time}
    if exposure.kind == "science":
        cards.update({"RA": exposure.ra, "DEC": exposure.dec, "ROTPA": exposure.rotation, "AIRMASS": exposure.airmass})
    return cards


def exposure_truth(config: SurveySimulation, camera: Camera, sky: Catalogue, exposure: SimulatedExposure,
                   detector: Detector, objects: Objects | None = None) -> Catalogue:
    """The true objects with their centre on a detector: id, is_star, x, y, flux (electron), snr of the optimal filter."""
    if exposure.kind != "science":
        return Catalogue(TRUTH_COLUMNS)
    objects = objects or objects_on(config, camera, sky, exposure, detector)
    on = detector.box.contains(objects.x, objects.y)
    rows = objects.rows[on]
    response = vignetting(config.detector, camera, detector, objects.x[on], objects.y[on])
    noise = float(np.mean([amplifier.read_noise**2 for amplifier in detector.amplifiers]))
    noise = exposure.sky / response + (noise + config.detector.dark_current * exposure.exposure_time) / response**2
    arrays = {"id": sky["id"][rows], "visit": np.full(len(rows), exposure.visit), "detector": np.full(len(rows), detector.id),
              "is_star": sky["is_star"][rows], "x": objects.x[on], "y": objects.y[on], "flux": objects.flux[on],
              "snr": point_source_snr(objects.flux[on], objects.profile.rows(on), noise)}
    return Catalogue(TRUTH_COLUMNS, arrays)


TRUTH_COLUMNS = (
    Column("id", "i8", "", "number of the true object"), Column("visit", "i8", "", "visit"),
    Column("detector", "i4", "", "detector number"), Column("is_star", "?", "", "point source"),
    Column("x", "f8", "pixel", "true position, zero-based"), Column("y", "f8", "pixel", "true position, zero-based"),
    Column("flux", "f8", "electron", "true flux after flat-fielding"),
    Column("snr", "f8", "", "signal over noise of the filter with the true profile, sky, dark, read and own noise"))
