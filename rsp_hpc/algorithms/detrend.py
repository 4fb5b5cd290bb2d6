"""detrend: raw amplifier segments to one image in electrons with variance and mask.

In physical order, backwards from the converter to the light: dither, overscan level, saturation, gain, crosstalk, linearity,
deferred charge, assembly, bias, dark, (brighter-fatter,) flat and illumination, variance and mask: one pass of the C core. A camera
that arrives detrended goes the same way with an empty calibration: its soft bias and gain are applied and its own mask planes are
kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..config import parameter
from ..errors import BadData
from ..kernels.detrend import AmplifierGeometry, DetrendBits, Planes, detrend_amplifier, flatten_planes, prepare
from ..kernels.electronics import Electronics, Reading, detrend_detector
from ..products.calibration import Calibration
from ..products.exposure import RawDetector
from ..products.image import MaskedImage
from ..products.mask import bits
from .brighter_fatter import BrighterFatterConfig, correct_brighter_fatter
from .crosstalk import mixing_of
from .electronics import ElectronicsConfig, electronics_of, saturation_levels, with_photon_transfer
from .overscan import OverscanConfig, check_overscan, overscan_levels

__all__ = ["DetrendConfig", "PreparedCalibration", "assemble", "detrend", "flatten", "overscan_levels", "prepare_calibration",
           "to_electrons"]


class DetrendConfig(OverscanConfig, ElectronicsConfig):
    """How a raw detector becomes an image in electrons."""

    min_flat: float = parameter(0.1, "pixels with a flat not above it are BAD", low=0.0, high=0.9)
    min_good: float = parameter(0.01, "a detector with a smaller fraction of good pixels is refused", low=0.0, high=1.0)
    brighter_fatter: BrighterFatterConfig = BrighterFatterConfig()


@dataclass(frozen=True)
class PreparedCalibration:
    """Calibration combined for one dark time, to be used for many exposures of a detector.

    Attributes
    ----------
    planes : Planes, as the kernel takes them
    dark_time : float, s
    constant_noise : float, electron^2: of the bias and dark frames, and the dark's mean where it is not in a plane
    has_bias : bool
    products : Calibration, for what acts on no plane: photon transfer, crosstalk, ..., brighter-fatter
    """

    planes: Planes
    dark_time: float
    constant_noise: float
    has_bias: bool
    products: Calibration = field(default_factory=Calibration)


def detrend(raw: RawDetector, calibration: Calibration | PreparedCalibration, config: DetrendConfig) -> MaskedImage:
    """One detector in electrons: (raw - overscan) * gain, without crosstalk, non-linearity and deferred charge, less bias and
    dark * time, divided by the flat, with variance and mask.

    The variance is that of the electrons (signal and dark, Poisson) and of the read-out, divided by flat^2; it is inf where
    the value means nothing. (That of what was subtracted as crosstalk is 1e-6 of it, the slope of the linearity changes only the
    read noise, by a hundredth.) Planes set: SAT and SUSPECT (raw level, or full well of the photon transfer), CROSSTALK (ghost of
    a saturated pixel), BAD (defects, flat not above `min_flat` or not finite, no bias or dark), UNMASKEDNAN (raw value not finite).
    Planes that came with the frame are kept. The flat is that of the light of a star: the flat's own times the illumination
    correction.

    Where there is a brighter-fatter kernel, the charges are moved back before the flat, between the two halves of this,
    `to_electrons` and `flatten`; SUSPECT is then set around saturated pixels.

    Crosstalk may come from other detectors too (`crosstalk.foreign_detectors` names them), whose frames are then in `raw.others`.

    Raises
    ------
    BadData
        Segments or calibration of another size or camera, no overscan, or hardly a good pixel; says which and what to do.
    """
    products = calibration.products if isinstance(calibration, PreparedCalibration) else calibration
    if products.brighter_fatter is not None and config.brighter_fatter.apply:
        image = to_electrons(raw, calibration, config)
        correct_brighter_fatter(image, products.brighter_fatter, config.brighter_fatter, products.defects)
        good = flatten(image, calibration, config)
    else:
        image, good = _sweep(raw, calibration, config, True)
    if good < max(1, config.min_good * image.box.area):  # pixels that are only SUSPECT, for example, are good
        good = _count_good(image)
    if raw.masked is not None:
        image.mask |= raw.masked
        good = _count_good(image)
    if good < max(1, config.min_good * image.box.area):
        raise BadData(_why_bad(raw, image, config))
    return image


def to_electrons(raw: RawDetector, calibration: Calibration | PreparedCalibration, config: DetrendConfig) -> MaskedImage:
    """The first half of `detrend`: charges after bias and dark, not yet divided by the flat, with variance and mask.

    Who moves charges between pixels adds the change of each to its variance too, which stays that of the light collected.
    """
    return _sweep(raw, calibration, config, False)[0]


def flatten(image: MaskedImage, calibration: Calibration | PreparedCalibration, config: DetrendConfig) -> int:
    """The second half of `detrend`, in place: divided by the flat, variance by its square; BAD where it cannot be used.

    Returns
    -------
    number of pixels without any plane set
    """
    planes = calibration.planes if isinstance(calibration, PreparedCalibration) else _planes(calibration)
    return flatten_planes(planes, _options(0.0, config), (image.image, image.variance, image.mask))


def _sweep(raw: RawDetector, calibration: Calibration | PreparedCalibration, config: DetrendConfig,
           flat: bool) -> tuple[MaskedImage, int]:
    """Raw to electrons, bias and dark subtracted, divided by the flat or not; and the number of pixels without any plane set."""
    _check(raw, calibration)
    image = MaskedImage.empty(raw.detector.box)
    prepared = isinstance(calibration, PreparedCalibration)
    planes = calibration.planes if prepared else _planes(calibration)
    dark_time = calibration.dark_time if prepared else raw.exposure.dark_time
    if prepared and not np.isclose(dark_time, raw.exposure.dark_time):
        raise BadData(f"{_name(raw)}: its dark time is {raw.exposure.dark_time} s, the calibration was prepared for {dark_time} s; "
                      "prepare it for this dark time")
    if planes.dark is None and not prepared:
        dark_time = 0.0
    if not np.isfinite(dark_time):
        raise BadData(f"{_name(raw)}: its dark time is unknown and there is a dark; give header.dark_time in the camera")
    has_bias = calibration.has_bias if prepared else calibration.bias is not None
    extra = calibration.constant_noise if prepared else calibration.noise_variance(dark_time)
    planes = planes if flat else planes._replace(flat=None, defects=None)
    products = calibration.products if prepared else calibration
    return image, _detrend_into(image, (raw, products), planes, _Terms(dark_time, extra, not has_bias), config)


def assemble(raw: RawDetector, config: DetrendConfig, calibration: Calibration | None = None) -> MaskedImage:
    """Overscan correction, gain and assembly only, for calibration frames: a constant offset stays in, as part of the bias.

    calibration : its photon transfer, crosstalk, linearity and charge transfer are used, no planes
    """
    _check(raw, Calibration())
    image = MaskedImage.empty(raw.detector.box)
    _detrend_into(image, (raw, calibration or Calibration()), Planes(), _Terms(0.0, 0.0, False), config)
    return image


def prepare_calibration(calibration: Calibration, dark_time: float, raw: RawDetector, config: DetrendConfig) -> PreparedCalibration:
    """Combine the planes for one dark time: for many exposures of the detector of `raw`.

    The dark's noise is kept per pixel (16 bits) where it matters, that is where some good pixel's differs from the mean by more
    than 2 % of the read noise squared; else its mean is enough.

    Raises
    ------
    BadData
        As `detrend`; also a flat without any usable pixel.
    """
    _check(raw, calibration)
    noise = np.zeros(1, np.float32) if calibration.dark is None else np.maximum(calibration.dark * np.float32(dark_time), 0)
    noise = noise[np.isfinite(noise) & ~calibration.defects] if calibration.defects is not None and noise.size > 1 else \
        noise[np.isfinite(noise)]
    mean, top = (float(noise.mean(dtype=np.float64)), float(noise.max())) if noise.size else (0.0, 0.0)
    floor = min(amplifier.read_noise for amplifier in raw.detector.amplifiers)**2
    step = 0.0 if noise.size == 0 or max(top - mean, mean - float(noise.min())) <= 0.02 * floor else top / 65000.0
    planes, good = prepare(_planes(calibration), _options(dark_time, config), raw.detector.box.shape, step)
    if not good:
        raise BadData(f"{_name(raw)}: no pixel of the flat is above {config.min_flat}; take other flats or lower detrend.min_flat")
    constant = calibration.noise_variance(dark_time) + (0.0 if step else mean)
    return PreparedCalibration(planes, dark_time, constant, calibration.bias is not None, calibration)


def _name(raw: RawDetector) -> str:
    return f"{raw.name + ': ' if raw.name else ''}detector {raw.detector.name}"


def _planes(calibration: Calibration) -> Planes:
    def ready(plane: np.ndarray | None, dtype) -> np.ndarray | None:
        return None if plane is None else np.ascontiguousarray(plane, dtype)

    return Planes(ready(calibration.bias, np.float32), ready(calibration.dark, np.float32),
                  ready(calibration.response, np.float32), ready(calibration.defects, np.bool_))


def _count_good(image: MaskedImage) -> int:
    return int(np.count_nonzero(image.mask & np.uint32(bits("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")) == 0))


def _options(dark_time: float, config: DetrendConfig) -> DetrendBits:
    return DetrendBits(dark_time, config.min_flat, bits("SAT"), bits("BAD"), bits("UNMASKEDNAN"), bits("SUSPECT"))


def _check(raw: RawDetector, calibration: Calibration | PreparedCalibration) -> None:
    """Sizes agree.

    Raises
    ------
    BadData
        They do not.
    """
    amplifiers = raw.detector.amplifiers
    if len(raw.segments) != len(amplifiers):
        raise BadData(f"{_name(raw)}: {len(raw.segments)} segments for {len(amplifiers)} amplifiers; "
                      "check the files against the camera's description")
    for amplifier, segment in zip(amplifiers, raw.segments):
        if segment.shape != (amplifier.section[3], amplifier.section[2]):
            raise BadData(f"{_name(raw)}: amplifier {amplifier.name} is {segment.shape[1]} x {segment.shape[0]} pixels, the camera "
                          f"says {amplifier.section[2]} x {amplifier.section[3]}; correct its section or leave the file out")
    planes = calibration.planes._asdict() if isinstance(calibration, PreparedCalibration) else vars(calibration)
    for name, plane in planes.items():
        if isinstance(plane, np.ndarray) and plane.shape != raw.detector.box.shape:
            raise BadData(f"{_name(raw)}: the {name} is {plane.shape[1]} x {plane.shape[0]} pixels, the detector "
                          f"{raw.detector.box.nx} x {raw.detector.box.ny}; make the calibration for this camera")


class _Terms(NamedTuple):
    """dark_time : s; extra : electron^2, more variance; with_offset : a constant offset goes where there is no overscan."""

    dark_time: float
    extra: float
    with_offset: bool


def _detrend_into(image: MaskedImage, source: tuple[RawDetector, Calibration], planes: Planes,
                  terms: _Terms, config: DetrendConfig) -> int:
    """Detrend all amplifiers; source: the raw detector, the products that act before the planes."""
    raw, products = source
    crosstalk = (raw.crosstalk if products.crosstalk is None else products.crosstalk) if config.crosstalk.apply else None
    electronics, together = electronics_of(raw, products, config)
    readings = _readings(raw, products, electronics, terms, config)
    out, options = (image.image, image.variance, image.mask), _options(terms.dark_time, config)
    if crosstalk is None and not together:
        return sum(detrend_amplifier(segment, geometry, levels, planes, options, out) for segment, geometry, levels, _ in readings)
    mixing, foreign = (None, ()) if crosstalk is None else mixing_of(crosstalk, raw.detector, config.crosstalk)
    readings += _foreign_readings(raw, foreign, config)
    sizes = {reading.geometry.data[2:] for reading in readings}
    if mixing is not None and len(sizes) > 1:
        raise BadData(f"{_name(raw)}: amplifiers of {' and '.join(f'{nx} x {ny}' for nx, ny in sorted(sizes))} pixels are not read "
                      "side by side; set detrend.crosstalk.apply: false")
    return detrend_detector(readings, mixing, planes, options, out)


def _readings(raw: RawDetector, products: Calibration, electronics: list[Electronics], terms: _Terms,
              config: DetrendConfig) -> list[Reading]:
    """Segments with their levels, gains, noise and limits, as the kernels take them."""
    readings = []
    amplifiers = with_photon_transfer(raw.detector, products.ptc, config)
    for amplifier, segment, own in zip(amplifiers, raw.segments, electronics):
        if segment.dtype not in (np.uint16, np.int32, np.float32) or not segment.dtype.isnative:
            segment = segment.astype(np.float32)
        segment = np.ascontiguousarray(segment)
        check_overscan(segment, amplifier, config)
        rows, columns, noise = overscan_levels(segment, amplifier, config, amplifier.offset if terms.with_offset else 0.0)
        saturation, suspect = saturation_levels(amplifier, products.ptc, float(np.median(rows)), config)
        noise += bool(own.dither) / 12.0
        geometry = AmplifierGeometry(amplifier.data, amplifier.origin, amplifier.flip_x, amplifier.flip_y, amplifier.gain,
                                     amplifier.read_noise**2 + noise * amplifier.gain**2 + terms.extra, saturation, suspect)
        readings.append(Reading(segment, geometry, (rows, columns), own))
    return readings


def _foreign_readings(raw: RawDetector, foreign: tuple[tuple[str, str], ...], config: DetrendConfig) -> list[Reading]:
    """The amplifiers of other detectors that speak into this one, in electrons by the gains of their own headers or camera."""
    known, others = {}, raw.others
    for name in sorted({detector for detector, _ in foreign}):
        if name not in others:
            raise BadData(f"{_name(raw)}: crosstalk comes from detector {name}, whose raw frame of visit {raw.exposure.visit} is "
                          "not there; fetch it or set detrend.crosstalk.apply: false")
        _check(others[name], Calibration())
        electronics, _ = electronics_of(others[name], Calibration(), config)
        found = _readings(others[name], Calibration(), electronics, _Terms(0.0, 0.0, True), config)
        known[name] = dict(zip((amplifier.name for amplifier in others[name].detector.amplifiers), found))
    readings = []
    for detector, amplifier in foreign:
        if amplifier not in known[detector]:
            raise BadData(f"{_name(raw)}: crosstalk comes from {detector}/{amplifier}, detector {detector} has no such amplifier; "
                          "certify the matrix of this camera")
        readings.append(known[detector][amplifier])
    return readings


def _why_bad(raw: RawDetector, image: MaskedImage, config: DetrendConfig) -> str:
    """One line: why hardly a pixel is good, and what to do."""
    parts = {name: np.count_nonzero(image.mask & np.uint32(bits(name))) / image.box.area for name in ("UNMASKEDNAN", "SAT", "BAD")}
    worst = max(parts, key=parts.get)
    cure = {"UNMASKEDNAN": "not a number; leave the frame out",
            "SAT": "saturated; leave the frame out",
            "BAD": f"bad in the calibration (flat not above {config.min_flat}, or defect); take other flats"}[worst]
    return f"{_name(raw)}: {parts[worst]:.1%} of the pixels are {cure}"
