"""A detector: from expected electrons to the raw ADU of each amplifier, with all that detrending has to undo.

Order, as in a real CCD: light (through vignetting and pixel response), dark current, Poisson noise, cosmic rays, full well
with bleeding, then per amplifier its electronics (charge transfer, non-linearity, crosstalk), bias with structure and drift,
read noise, gain, 16-bit converter.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ..config import Config, parameter
from ..products.box import Box
from ..products.camera import Amplifier, Camera, Detector
from ..products.focalplane import pixel_to_focal_plane
from .brighter_fatter import BrighterFatterConfig, border_shifts, collect
from .cosmics import CosmicRayConfig, thick_cosmic_rays
from .electronics import Electronics, ElectronicsConfig, add_crosstalk, bend, electronics_of, trail
from .seeds import generator

__all__ = ["DetectorConfig", "Sensor", "cosmic_rays", "expose", "fill_wells", "read_out", "sensor_of",
           "vignetting"]


class DetectorConfig(Config):
    """Imperfections of the simulated detectors."""

    dark_current: float = parameter(0.05, "mean dark current", unit="electron/s", low=0.0)
    hot_pixels: float = parameter(3e-4, "fraction of pixels with a dark current of 20 to 600 electron/s", low=0.0, high=0.1)
    dead_pixels: float = parameter(1e-4, "fraction of pixels without response", low=0.0, high=0.1)
    dead_columns: int = parameter(2, "columns dead over part of their length, per detector", low=0)
    pixel_response: float = parameter(0.01, "rms of the response from pixel to pixel", low=0.0, high=0.2)
    vignetting: float = parameter(0.15, "loss of light at the corner of the focal plane", low=0.0, high=0.9)
    bias_level: float = parameter(1000.0, "mean bias", unit="ADU", low=0.0)
    bias_structure: float = parameter(2.0, "rms of the fixed column pattern of the bias", unit="ADU", low=0.0)
    bias_drift: float = parameter(2.0, "amplitude of the bias drift along the rows, new in each read-out", unit="ADU", low=0.0)
    full_well: float = parameter(100000.0, "charge a pixel holds; the rest bleeds along the column", unit="electron", above=0.0)
    crosstalk: float = parameter(1e-5, "rms of the coupling between two amplifiers of a detector", low=0.0, high=0.01)
    cosmic_rays: float = parameter(0.3, "cosmic rays per detector and second", unit="1/s", low=0.0)
    cosmic_ray_model: Literal["tracks", "thick"] = parameter(
        "tracks", "thin straight tracks, or what a thick sensor sees: wide muons, worms, spots")
    thick_cosmic_rays: CosmicRayConfig = parameter(CosmicRayConfig(), "cosmic rays of a thick sensor")
    brighter_fatter: BrighterFatterConfig = parameter(BrighterFatterConfig(), "borders of pixels that move with the charge")
    electronics: ElectronicsConfig = parameter(ElectronicsConfig(), "the amplifiers")


class Sensor(NamedTuple):
    """What stays the same in all exposures of a detector.

    response : (ny, nx) float32, vignetting and pixel response, mean about one over the camera, 0 in dead pixels
    dark : (ny, nx) float32, electron/s
    bias : per amplifier (ny, nx) float32 of its section, ADU
    electronics : of the amplifiers
    """

    response: np.ndarray
    dark: np.ndarray
    bias: tuple[np.ndarray, ...]
    electronics: Electronics


def vignetting(config: DetectorConfig, camera: Camera, detector: Detector, x, y) -> np.ndarray:
    """Transmission at pixels (broadcast): 1 - v (r / corner)^2, mean one over the pixels of all detectors."""
    corner, total = _corner_radius(camera), []
    for other in camera.detectors:
        grid = [(np.arange(16) + 0.5) / 16 * size - 0.5 for size in other.size]
        fx, fy = pixel_to_focal_plane(camera, other, grid[0][None, :], grid[1][:, None])
        total.append(1.0 - config.vignetting * (fx**2 + fy**2) / corner**2)
    fx, fy = pixel_to_focal_plane(camera, detector, x, y)
    return (1.0 - config.vignetting * (fx**2 + fy**2) / corner**2) / np.mean(total)


def _corner_radius(camera: Camera) -> float:
    """Largest distance of a detector's corner from the axis, mm."""
    radius = 0.0
    for detector in camera.detectors:
        x, y = detector.box.corners().T
        radius = max(radius, float(np.hypot(*pixel_to_focal_plane(camera, detector, x, y)).max()))
    return radius


def sensor_of(config: DetectorConfig, camera: Camera, detector: Detector, seed: int, band: str = "") -> Sensor:
    """The fixed patterns of a detector; in another band the pixel response differs by a tenth of its rms."""
    ny, nx = detector.box.shape
    rng = generator(seed, "sensor", detector.id)
    response = vignetting(config, camera, detector, np.arange(nx)[None, :], np.arange(ny)[:, None]).astype(np.float32)
    response *= 1.0 + np.float32(config.pixel_response) * rng.standard_normal((ny, nx), np.float32)
    dark = np.full((ny, nx), config.dark_current, np.float32)
    hot = rng.random((ny, nx), np.float32) < config.hot_pixels
    dark[hot] += (10.0 ** rng.uniform(1.3, 2.78, int(hot.sum()))).astype(np.float32)
    response[rng.random((ny, nx), np.float32) < config.dead_pixels] = 0.0
    for column in rng.integers(0, nx, config.dead_columns):
        first = rng.integers(0, ny // 2)
        response[first:first + ny // 4, column] = 0.0
    bias = tuple(_bias_structure(amplifier, config, rng) for amplifier in detector.amplifiers)
    n = len(detector.amplifiers)
    crosstalk = config.crosstalk * rng.standard_normal((n, n)) * (1.0 - np.eye(n))
    if band:
        colour = generator(seed, "colour", detector.id, band)
        response *= 1.0 + np.float32(0.1 * config.pixel_response) * colour.standard_normal((ny, nx), np.float32)
    return Sensor(response, dark, bias, electronics_of(config.electronics, detector, seed, config.full_well, crosstalk))


def _bias_structure(amplifier: Amplifier, config: DetectorConfig, rng: np.random.Generator) -> np.ndarray:
    """Level, column pattern and a glow towards the read-out corner; overscan and prescan have only the level."""
    height, width = amplifier.section[3], amplifier.section[2]
    level = config.bias_level * (1.0 + 0.05 * rng.standard_normal())
    bias = np.full((height, width), level, np.float32)
    x0, y0, nx, ny = amplifier.data
    columns = config.bias_structure * rng.standard_normal(nx)
    glow = 3.0 * config.bias_structure * np.exp(-np.arange(ny)[:, None] / 40.0 - np.arange(nx)[None, :] / 60.0)
    bias[y0:y0 + ny, x0:x0 + nx] += columns + glow
    return bias


def cosmic_rays(config: DetectorConfig, shape: tuple[int, int], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float32 electrons; the simple model: straight tracks of 600 to 20,000 electrons, most of them short."""
    ny, nx = shape
    if config.cosmic_ray_model == "thick":
        return thick_cosmic_rays(config.thick_cosmic_rays, shape, rng.poisson(config.cosmic_rays * seconds), rng)
    image = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(config.cosmic_rays * seconds)):
        x, y, angle = rng.uniform(0, nx), rng.uniform(0, ny), rng.uniform(0, 2.0 * np.pi)
        length, charge = min(rng.exponential(8.0), 100.0), 10.0 ** rng.uniform(np.log10(600.0), np.log10(20000.0))
        steps = max(2, int(10 * length))
        along = np.linspace(0.0, length, steps)
        share = rng.gamma(2.0, size=steps)  # uneven, as ionisation is
        column = np.floor(x + along * np.cos(angle)).astype(int)
        row = np.floor(y + along * np.sin(angle)).astype(int)
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        np.add.at(image, (row[inside], column[inside]), (charge * share / share.sum())[inside].astype(np.float32))
    return image


def expose(config: DetectorConfig, sensor: Sensor, light: np.ndarray, dark_seconds: float,
           rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float32 collected electrons: Poisson noise of the light through the response, and of the dark current.

    `light` is the expected number of electrons per pixel of an ideal detector of response one. Where charges move the
    borders of pixels, light is collected in steps.
    """
    shifts = border_shifts(config.brighter_fatter)
    if shifts is None or not light.any():
        return rng.poisson(np.maximum(light * sensor.response + sensor.dark * dark_seconds, 0.0)).astype(np.float32)
    return collect((light * sensor.response, sensor.dark * np.float32(dark_seconds)), shifts, config.brighter_fatter.steps,
                   config.full_well, rng)


def fill_wells(charge: np.ndarray, full_well: float) -> None:
    """Clip at the full well, in place; the excess goes half up, half down the column until it finds room."""
    columns = np.nonzero((charge > full_well).any(axis=0))[0]
    if not len(columns):
        return
    lines = charge[:, columns].astype(float)
    excess = 0.5 * np.maximum(lines - full_well, 0.0)
    lines = np.minimum(lines, full_well)
    for order in (range(len(lines)), range(len(lines) - 1, -1, -1)):
        carried = np.zeros(len(columns))
        for row in order:
            carried += excess[row]
            room = np.minimum(carried, full_well - lines[row])
            lines[row] += room
            carried -= room
    charge[:, columns] = lines


def read_out(config: DetectorConfig, detector: Detector, sensor: Sensor, charge: np.ndarray, rng: np.random.Generator,
             offsets: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Raw segments, one (ny, nx) uint16 per amplifier, in ADU, in the orientation of the file.

    `offsets` is what stands in the data pixels of each amplifier besides light and overscan level, (n,) electron.
    """
    fill_wells(charge, config.full_well)
    signals = [_signal(amplifier, number, sensor.electronics, charge) for number, amplifier in enumerate(detector.amplifiers)]
    segments = []
    for number, amplifier in enumerate(detector.amplifiers):
        height, width = amplifier.section[3], amplifier.section[2]
        section = amplifier.read_noise * rng.standard_normal((height, width), np.float32)
        section += signals[number]
        add_crosstalk(section, signals, sensor.electronics.crosstalk, number)
        if offsets is not None:
            x0, y0, nx, ny = amplifier.data
            section[y0:y0 + ny, x0:x0 + nx] += np.float32(offsets[number])
        phase, rows = rng.uniform(0.0, 2.0 * np.pi), np.arange(height, dtype=np.float32)
        drift = config.bias_drift * np.sin(phase + 2.0 * np.pi * rows / height)
        adu = section / np.float32(sensor.electronics.gain[number]) + sensor.bias[number] + drift[:, None].astype(np.float32)
        segments.append(np.clip(np.rint(adu), 0, 65535).astype(np.uint16))
    return tuple(segments)


def _signal(amplifier: Amplifier, number: int, electronics: Electronics, charge: np.ndarray) -> np.ndarray:
    """(ny, nx) float32 electron: the section of an amplifier as its output reports it, before neighbours and noise come in."""
    part = charge[amplifier.assembled_box.slices(Box.of_shape(charge.shape))]
    part = part[:, ::-1] if amplifier.flip_x else part
    x0, y0, nx, ny = amplifier.data
    signal = np.zeros((amplifier.section[3], amplifier.section[2]), np.float32)
    signal[y0:y0 + ny, x0:x0 + nx] = part[::-1] if amplifier.flip_y else part
    if electronics.charge_transfer is not None:
        signal = trail(signal, amplifier, electronics.charge_transfer, number)
    return signal if electronics.linearity is None else bend(signal, electronics.linearity, number)
