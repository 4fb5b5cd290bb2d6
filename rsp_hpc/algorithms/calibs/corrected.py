"""corrected: frames as the builders of later kinds see them: the electronics that are already known are undone.

A corrected frame is again a raw detector, in ADU above the overscan, in the orientation of the assembled detector and without
overscan, with the gains of the photon transfer; its read-out's crosstalk, non-linearity and deferred charge are gone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...config import Config
from ...products.calibration import Calibration
from ...products.camera import Amplifier, Detector
from ...products.exposure import RawDetector
from ...products.mask import bits
from ..detrend import DetrendConfig, assemble
from ..electronics import with_photon_transfer
from .stack import Frame

__all__ = ["ELECTRONICS", "bare", "corrected_frames", "with_gains", "without_overscan"]

ELECTRONICS = ("ptc", "linearity", "crosstalk", "charge_transfer")
"""Kinds that are undone before the planes of bias, dark and flat are applied."""


def with_gains(detector: Detector, calibration: Calibration, config: DetrendConfig) -> Detector:
    """The detector with gain and read noise of the photon transfer, where there is one."""
    return detector.model_copy(update={"amplifiers": with_photon_transfer(detector, calibration.ptc, config)})


def corrected_frames(frames: list[Frame], calibration: Calibration, config: DetrendConfig, keep_overscan: bool) -> list[Frame]:
    """Frames that are corrected as they are read; as they are where nothing is known of the electronics.

    Parameters
    ----------
    calibration : of which `ELECTRONICS` are used
    keep_overscan : only the gains are replaced: for what is measured from the overscan, or is itself the crosstalk
    """
    if all(getattr(calibration, kind) is None for kind in ELECTRONICS):
        return frames

    def load(frame: Frame) -> RawDetector:
        raw = frame.load()
        if keep_overscan:
            return replace(raw, detector=with_gains(raw.detector, calibration, config))
        return _corrected(raw, calibration, config)

    return [frame._replace(load=lambda frame=frame: load(frame)) for frame in frames]


def _corrected(raw: RawDetector, calibration: Calibration, config: DetrendConfig) -> RawDetector:
    image = assemble(raw, config, calibration)
    detector = with_gains(raw.detector, calibration, config)
    saturated = image.mask & np.uint32(bits("SAT")) != 0
    segments = []
    for amplifier in detector.amplifiers:
        place = amplifier.assembled_box.slices(image.box)
        segment = image.image[place] / np.float32(amplifier.gain)
        segment[saturated[place]] = amplifier.saturation
        segments.append(segment)
    return replace(raw, detector=bare(detector), segments=tuple(segments), crosstalk=None)


def bare(detector: Detector) -> Detector:
    """The description of a corrected frame: amplifiers as they are in the assembled detector, without overscan."""
    return detector.model_copy(update={"amplifiers": tuple(_bare(amplifier) for amplifier in detector.amplifiers)})


def _bare(amplifier: Amplifier) -> Amplifier:
    whole = (0, 0, *amplifier.data[2:])
    return amplifier.model_copy(update={"section": whole, "data": whole, "serial_overscan": None, "parallel_overscan": None,
                                        "prescan": None, "flip_x": False, "flip_y": False})


def without_overscan(config: Config) -> Config:
    """A configuration, and all sections in it, for frames that have no overscan any more."""
    changes = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            changes[name] = without_overscan(value)
        elif name in ("overscan", "parallel_overscan"):
            changes[name] = "none"
    return config.model_copy(update=changes)
