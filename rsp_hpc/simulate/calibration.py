"""The true calibration of a simulated detector, as the very products that detrending takes: what the frames should lead to."""

from __future__ import annotations

import numpy as np

from ..products.box import Box
from ..products.calibration import Calibration
from ..products.camera import Camera, Detector
from ..products.electronics import PhotonTransfer
from .brighter_fatter import area_change, border_shifts
from .detector import Sensor, sensor_of
from .electronics import bend
from .illumination import flat_light, fringe_pattern, sky_structure
from .survey import SurveySimulation

__all__ = ["truth_calibration"]


def truth_calibration(config: SurveySimulation, camera: Camera, detector: Detector, band: str) -> Calibration:
    """All true calibration products of a detector in a band; None where an effect is off.

    Returns
    -------
    Calibration. `bias` has the fixed pattern alone (the drift along the rows is new in each read-out); `flat` is what the flats'
    light shows, relative to the camera's mean; `defects` are the hot and the dead pixels; `ptc` has no curves; `sky` is that
    after flat and illumination correction.
    """
    detector = detector.in_band(band)
    sensor = sensor_of(config.detector, camera, detector, config.seed, band)
    electronics = sensor.electronics
    defects = (sensor.dark > config.detector.dark_current + 10.0) | (sensor.response == 0.0)
    lamp = flat_light(config.light, camera, detector, config.seed, band)
    return Calibration(bias=_bias(detector, sensor), dark=sensor.dark, flat=sensor.response * lamp, defects=defects,
                       inputs=("truth",), fringe=fringe_pattern(config.light, detector, config.seed, band),
                       illumination=_illumination(config, camera, lamp, band) if (lamp != 1.0).any() else None,
                       sky=_sky(config, camera, detector, band),
                       ptc=_photon_transfer(config, detector, sensor), linearity=electronics.linearity,
                       crosstalk=electronics.crosstalk, charge_transfer=electronics.charge_transfer,
                       brighter_fatter=border_shifts(config.detector.brighter_fatter))


def _illumination(config: SurveySimulation, camera: Camera, lamp: np.ndarray, band: str) -> np.ndarray:
    """(ny, nx) float32: what a star's flux is after the flat, mean one over the camera."""
    lamps = (flat_light(config.light, camera, other, config.seed, band) for other in camera.detectors)
    return (1.0 / lamp / np.mean([(1.0 / other).mean() for other in lamps])).astype(np.float32)


def _sky(config: SurveySimulation, camera: Camera, detector: Detector, band: str) -> np.ndarray | None:
    """(ny, nx) float32, None if the sky has no structure of its own."""
    return sky_structure(config.light, camera, detector, config.seed, band) if config.light.sky_structure else None


def _bias(detector: Detector, sensor: Sensor) -> np.ndarray:
    """(ny, nx) float32 electron: the bias above its overscan."""
    whole = Box.of_shape(detector.box.shape)
    image = np.zeros(detector.box.shape, np.float32)
    for number, amplifier in enumerate(detector.amplifiers):
        x0, y0, nx, ny = amplifier.data
        bias = sensor.bias[number]
        part = (bias[y0:y0 + ny, x0:x0 + nx] - _overscan_level(amplifier, bias)) * np.float32(sensor.electronics.gain[number])
        part = part[:, ::-1] if amplifier.flip_x else part
        image[amplifier.assembled_box.slices(whole)] = part[::-1] if amplifier.flip_y else part
    return image


def _overscan_level(amplifier, bias: np.ndarray) -> np.float32:
    """ADU: what the overscan, else the prescan, shows; the constant offset where there is neither."""
    region = amplifier.serial_overscan or amplifier.prescan
    return np.float32(amplifier.offset) if region is None else bias[region[1], region[0]]


def _photon_transfer(config: SurveySimulation, detector: Detector, sensor: Sensor) -> PhotonTransfer:
    """Without curves. The noise of the read-out at lag zero includes the rounding of the converter."""
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    n, gain, linearity = len(names), sensor.electronics.gain, sensor.electronics.linearity
    read_noise = np.array([amplifier.read_noise for amplifier in detector.amplifiers])
    well = np.full((1, 1), config.detector.full_well)
    full_well = np.array([float(well[0, 0] if linearity is None else bend(well, linearity, k)[0, 0]) for k in range(n)]) / gain
    shifts = border_shifts(config.detector.brighter_fatter)
    reach = 0 if shifts is None else len(shifts.north) // 2
    area = np.zeros((1, 1)) if shifts is None else area_change(shifts)[reach:, reach:]
    a, none = np.tile(area, (n, 1, 1)), np.zeros((n, 0))
    noise = np.zeros_like(a)
    noise[:, 0, 0] = read_noise**2 + gain**2 / 12.0
    zero, zeros = np.zeros(n), np.zeros_like(a)
    curves = np.zeros((n, 0, *area.shape))
    return PhotonTransfer(names, gain, zero, read_noise, zero, full_well, zero, a, zeros, zeros, zeros, noise, zeros, np.ones(n),
                          none, curves, curves, np.zeros((n, 0), bool))
