"""What is known of an exposure and of one of its raw detectors before any pixel is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .camera import Detector
from .electronics import Crosstalk
from .wcs import Wcs

__all__ = ["Exposure", "RawDetector", "KINDS"]

KINDS = ("science", "bias", "dark", "flat", "spots")
"""What a frame is for; spots: bright spots on some amplifiers, for the crosstalk that they leave in the others."""


@dataclass(frozen=True)
class Exposure:
    """One opening of the shutter.

    Attributes
    ----------
    visit : int, as the instrument numbers it
    kind : one of KINDS
    band : str, '' for bias and dark (and spots)
    mjd : float, TAI, middle of the exposure
    exposure_time, dark_time : float, seconds
    ra, dec : float, boresight, ICRS degrees (NaN if unknown)
    rotation : float, degrees: position angle of the focal plane's +y axis, east of north
    airmass : float (NaN if unknown)
    readout_mode, binning : str, as the header words them; '' if the camera says nothing of them
    """

    visit: int
    kind: str
    band: str
    mjd: float
    exposure_time: float
    dark_time: float
    ra: float = float("nan")
    dec: float = float("nan")
    rotation: float = 0.0
    airmass: float = float("nan")
    readout_mode: str = ""
    binning: str = ""


@dataclass(frozen=True)
class RawDetector:
    """The raw amplifier segments of one detector in one exposure.

    Attributes
    ----------
    exposure : Exposure
    detector : Detector, with gains etc. as the header had them where the camera says so
    segments : one (ny, nx) array per amplifier of the detector, in ADU, in the orientation and with the
        overscan and prescan of the file; uint16, int32 or float32
    wcs : Wcs of the assembled detector, rough: from the header or from the camera's geometry; None if unknown
    name : str, the files it came from, for messages
    """

    exposure: Exposure
    detector: Detector
    segments: tuple[np.ndarray, ...]
    wcs: Wcs | None = None
    name: str = ""
    masked: np.ndarray | None = field(default=None, repr=False)
    """(ny, nx) uint32 planes that came with an already detrended frame, or None."""
    pixel_size: float = float("nan")
    """micron; NaN if unknown."""
    crosstalk: Crosstalk | None = field(default=None, repr=False)
    """The coefficients that the header has, where the camera says where; a calibration product goes before."""
    others: Mapping[str, RawDetector] = field(default_factory=dict, repr=False)
    """Raw frames of the same exposure by detector, where other detectors speak into this one."""
