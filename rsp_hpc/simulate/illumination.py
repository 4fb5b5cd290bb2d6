"""Light that is not of stars and galaxies: lamps unlike the sky, the sky's structure and fringes, satellites, leaks.

Each pattern is fixed for a camera, band and seed (fringes: for a detector), each strength is that of one exposure.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ..config import Config, parameter
from ..products.camera import Camera, Detector
from ..products.focalplane import pixel_to_focal_plane
from .observing import SimulatedExposure
from .seeds import generator

__all__ = ["LightConfig", "flat_light", "fringe_amplitude", "fringe_pattern", "leak_rate", "satellite_light", "sky_structure"]


class LightConfig(Config):
    """Lamps, sky and stray light; all off by default."""

    fringe: dict[str, Annotated[float, Field(ge=0.0, le=0.3)]] = parameter({}, "band -> rms of the fringes relative to the sky")
    fringe_spread: float = parameter(0.2, "rms of ln(amplitude) from visit to visit", low=0.0, high=1.0)
    fringe_period: float = parameter(70.0, "distance of the fringes in z", unit="pixel", above=4.0)
    flat_gradient: float = parameter(0.0, "change of the lamp's light over the focal plane, relative to that of stars", low=0.0,
                                     high=0.5)
    flat_stray: float = parameter(0.0, "stray light in flats: height of a broad spot, relative", low=0.0, high=0.5)
    sky_structure: float = parameter(0.0, "scattered light of an empty sky: height of broad spots, relative", low=0.0, high=0.5)
    satellites: float = parameter(0.0, "mean number of satellites per science exposure", low=0.0)
    satellite_brightness: float = parameter(100.0, "median of a trail's peak", unit="electron", above=0.0)
    light_leak: float = parameter(0.0, "leak into the last `leaking_darks` darks, at its brightest", unit="electron/s", low=0.0)
    leaking_darks: int = parameter(0, "dark frames with a light leak", low=0)


WAVELENGTHS = {"u": 365.0, "g": 480.0, "r": 620.0, "i": 755.0, "z": 870.0, "y": 975.0}
"""nm; fringes stand farther apart in redder light."""


def _places(camera: Camera, detector: Detector, extent: float, samples: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Focal-plane positions of a detector's pixels, or of samples x samples places on it, in units of the camera's extent."""
    nx, ny = detector.size
    x, y = (np.arange(size) if samples is None else (np.arange(samples) + 0.5) / samples * size - 0.5 for size in (nx, ny))
    fx, fy = pixel_to_focal_plane(camera, detector, x[None, :], y[:, None])
    return fx / extent, fy / extent


def _extent(camera: Camera) -> float:
    """Half the longer side of the focal plane, mm."""
    corners = [pixel_to_focal_plane(camera, detector, *detector.box.corners().T) for detector in camera.detectors]
    return float(max(np.abs(axis).max() for corner in corners for axis in corner))


def _over_camera(camera: Camera, detector: Detector, shape) -> np.ndarray:
    """(ny, nx) float64: shape(u, v) on a detector over its mean over the camera."""
    extent = _extent(camera)
    mean = np.mean([shape(*_places(camera, other, extent, 16)).mean() for other in camera.detectors])
    return shape(*_places(camera, detector, extent)) / mean


def flat_light(config: LightConfig, camera: Camera, detector: Detector, seed: int, band: str) -> np.ndarray:
    """(ny, nx) float32: light of the flats' lamp over that of a uniform sky without scattering, mean one over the camera."""
    rng = generator(seed, "lamp", band)
    angle, (u0, v0) = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.6, 0.6, 2)

    def shape(u, v):
        return (1.0 + 0.5 * config.flat_gradient * (u * np.cos(angle) + v * np.sin(angle))
                + config.flat_stray * np.exp(-0.5 * ((u - u0) ** 2 + (v - v0) ** 2) / 0.4**2))

    if not (config.flat_gradient or config.flat_stray):
        return np.ones(detector.box.shape, np.float32)
    return _over_camera(camera, detector, shape).astype(np.float32)


def sky_structure(config: LightConfig, camera: Camera, detector: Detector, seed: int, band: str) -> np.ndarray:
    """(ny, nx) float32: how the empty sky looks to a perfectly calibrated camera, mean one over it: three broad spots."""
    rng = generator(seed, "sky structure", band)
    spots = np.column_stack([rng.uniform(-0.9, 0.9, (3, 2)), rng.uniform(0.25, 0.6, 3), rng.uniform(-1.0, 1.0, 3)])

    def shape(u, v):
        return 1.0 + config.sky_structure * sum(height * np.exp(-0.5 * ((u - u0) ** 2 + (v - v0) ** 2) / width**2)
                                                for u0, v0, width, height in spots)

    if not config.sky_structure:
        return np.ones(detector.box.shape, np.float32)
    return _over_camera(camera, detector, shape).astype(np.float32)


def fringe_pattern(config: LightConfig, detector: Detector, seed: int, band: str) -> np.ndarray | None:
    """(ny, nx) float32, mean zero, rms one: interference of three sky lines in a film of uneven thickness; None: no fringes.

    The thickness, counted in fringes, is a wedge with waves of a third to a whole of the detector's side; it is the
    detector's, so that all bands show the same lines at other distances.
    """
    if not config.fringe.get(band):
        return None
    ny, nx = detector.box.shape
    rng = generator(seed, "film", detector.id)
    x, y = np.arange(nx)[None, :], np.arange(ny)[:, None]
    angle = rng.uniform(0.0, 2.0 * np.pi)
    thickness = 0.6 * (x * np.cos(angle) + y * np.sin(angle)) / config.fringe_period
    for _ in range(5):
        angle, start = rng.uniform(0.0, 2.0 * np.pi, 2)
        length = max(nx, ny) * rng.uniform(0.35, 1.0)
        height = 0.5 * length / (2.0 * np.pi * config.fringe_period)
        thickness = thickness + height * np.sin(start + 2.0 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length)
    pattern = sum(weight * np.cos(2.0 * np.pi * thickness * WAVELENGTHS["z"] / WAVELENGTHS.get(band, 870.0) / line)
                  for weight, line in ((1.0, 1.0), (0.6, 1.013), (0.4, 0.985)))
    pattern -= pattern.mean()
    return (pattern / pattern.std()).astype(np.float32)


def fringe_amplitude(config: LightConfig, exposure: SimulatedExposure, seed: int) -> float:
    """rms of the fringes of a science exposure relative to its sky."""
    scatter = generator(seed, "fringe", exposure.visit).standard_normal()
    return config.fringe.get(exposure.band, 0.0) * float(np.exp(config.fringe_spread * scatter))


def satellite_light(config: LightConfig, camera: Camera, exposure: SimulatedExposure, detector: Detector,
                    seed: int) -> np.ndarray:
    """(ny, nx) float32 electron: straight trails through the focal plane, with the width of the PSF; the true mask is > 0."""
    light = np.zeros(detector.box.shape, np.float32)
    rng = generator(seed, "satellites", exposure.visit)
    number = rng.poisson(config.satellites)
    if not number:
        return light
    extent = _extent(camera)
    u, v = _places(camera, detector, extent)
    sigma = exposure.fwhm / camera.pixel_scale / 2.3548
    lines = zip(rng.uniform(0.0, np.pi, number), rng.uniform(-1.0, 1.0, number), rng.standard_normal(number))
    for angle, offset, scatter in lines:
        distance = (u * np.cos(angle) + v * np.sin(angle) - offset) * extent * 1000.0 / camera.pixel_size / sigma
        near = np.abs(distance) < 4.5
        light[near] += (config.satellite_brightness * np.exp(0.7 * scatter - 0.5 * distance[near] ** 2)).astype(np.float32)
    return light


def leak_rate(config: LightConfig, camera: Camera, detector: Detector) -> np.ndarray:
    """(ny, nx) float32 electron/s: light that leaks in at one side of the focal plane and fades across it."""
    u, v = _places(camera, detector, _extent(camera))
    return (config.light_leak * np.exp(-1.5 * (u + 1.0) - 0.5 * v**2)).astype(np.float32)
