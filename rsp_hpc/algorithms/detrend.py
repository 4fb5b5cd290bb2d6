"""detrend: raw amplifier segments to one image in electrons with variance and mask.

Overscan level, gain, assembly, bias, dark, flat, variance and mask in one pass of the C core. A camera that arrives detrended
goes the same way with an empty calibration: its soft bias and gain are applied and its own mask planes are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.combine import ClipOptions, clipped_mean
from ..kernels.detrend import AmplifierGeometry, DetrendBits, Planes, detrend_amplifier, prepare
from ..products.calibration import Calibration
from ..products.camera import Amplifier
from ..products.exposure import RawDetector
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["DetrendConfig", "PreparedCalibration", "assemble", "detrend", "overscan_levels", "prepare_calibration"]


class DetrendConfig(Config):
    """How a raw detector becomes an image in electrons."""

    overscan: Literal["none", "row", "mean"] = parameter(
        "row", "level of each row from its overscan (prescan where there is none), one level per amplifier, or none")
    overscan_skip: int = parameter(2, "first overscan columns left out: charge that was left behind", unit="pixel", low=0)
    overscan_samples: int = parameter(
        64, "rows are averaged until a level rests on so many overscan pixels: its noise is in every pixel of the row", low=1)
    parallel_overscan: Literal["none", "column"] = parameter(
        "none", "whether the profile of the parallel overscan along the row is subtracted too")
    clip: float = parameter(4.0, "overscan pixels farther than this from the median are left out", unit="sigma", above=1.0)
    min_flat: float = parameter(0.1, "pixels with a flat not above it are BAD", low=0.0, high=0.9)
    min_good: float = parameter(0.01, "a detector with a smaller fraction of good pixels is refused", low=0.0, high=1.0)


@dataclass(frozen=True)
class PreparedCalibration:
    """Calibration combined for one dark time, to be used for many exposures of a detector.

    Attributes
    ----------
    planes : Planes, as the kernel takes them
    dark_time : float, s
    constant_noise : float, electron^2: of the bias and dark frames, and the dark's mean where it is not in a plane
    has_bias : bool
    """

    planes: Planes
    dark_time: float
    constant_noise: float
    has_bias: bool


def detrend(raw: RawDetector, calibration: Calibration | PreparedCalibration, config: DetrendConfig) -> MaskedImage:
    """One detector in electrons: (raw - overscan) * gain - bias - dark * time, divided by the flat, with variance and mask.

    The variance is that of the electrons (signal and dark, Poisson) and of the read-out, divided by flat^2; it is inf where
    the value means nothing. Planes set: SAT (raw level at or above the amplifier's saturation), BAD (defects, flat not above
    `min_flat` or not finite, no bias or dark), UNMASKEDNAN (raw value not finite). Planes that came with the frame are kept.

    Raises
    ------
    BadData
        Segments or calibration of another size, or hardly a good pixel; says which and what to do.
    """
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
    good = _detrend_into(image, raw, planes, (dark_time, extra, not has_bias), config)
    if raw.masked is not None:
        image.mask |= raw.masked
        good = np.count_nonzero(image.mask & np.uint32(bits("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")) == 0)
    if good < max(1, config.min_good * image.box.area):
        raise BadData(_why_bad(raw, image, config))
    return image


def assemble(raw: RawDetector, config: DetrendConfig) -> MaskedImage:
    """Overscan correction, gain and assembly only, for calibration frames: a constant offset stays in, as part of the bias."""
    _check(raw, Calibration())
    image = MaskedImage.empty(raw.detector.box)
    _detrend_into(image, raw, Planes(), (0.0, 0.0, False), config)
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
    return PreparedCalibration(planes, dark_time, constant, calibration.bias is not None)


def _name(raw: RawDetector) -> str:
    return f"{raw.name + ': ' if raw.name else ''}detector {raw.detector.name}"


def _planes(calibration: Calibration) -> Planes:
    def ready(plane: np.ndarray | None, dtype) -> np.ndarray | None:
        return None if plane is None else np.ascontiguousarray(plane, dtype)

    return Planes(ready(calibration.bias, np.float32), ready(calibration.dark, np.float32),
                  ready(calibration.flat, np.float32), ready(calibration.defects, np.bool_))


def _options(dark_time: float, config: DetrendConfig) -> DetrendBits:
    return DetrendBits(dark_time, config.min_flat, bits("SAT"), bits("BAD"), bits("UNMASKEDNAN"))


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


def _detrend_into(image: MaskedImage, raw: RawDetector, planes: Planes, terms: tuple[float, float, bool],
                  config: DetrendConfig) -> int:
    """Detrend all amplifiers; terms: dark time (s), more variance (electron^2), whether a constant offset is subtracted."""
    dark_time, extra, with_offset = terms
    good = 0
    for amplifier, segment in zip(raw.detector.amplifiers, raw.segments):
        if segment.dtype not in (np.uint16, np.int32, np.float32) or not segment.dtype.isnative:
            segment = segment.astype(np.float32)
        segment = np.ascontiguousarray(segment)
        rows, columns, noise = overscan_levels(segment, amplifier, config, amplifier.offset if with_offset else 0.0)
        geometry = AmplifierGeometry(amplifier.data, amplifier.origin, amplifier.flip_x, amplifier.flip_y, amplifier.gain,
                                     amplifier.read_noise**2 + noise * amplifier.gain**2 + extra, amplifier.saturation)
        good += detrend_amplifier(segment, geometry, (rows, columns), planes, _options(dark_time, config),
                                  (image.image, image.variance, image.mask))
    return good


def overscan_levels(segment: np.ndarray, amplifier: Amplifier, config: DetrendConfig,
                    offset: float) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Level of each row (ny,), of each column (nx,) or None, in ADU; and the variance of a row's level, ADU^2."""
    ny = amplifier.data[3]
    region, skip = amplifier.serial_overscan, config.overscan_skip
    if region is None:
        region, skip = amplifier.prescan, 0
    if config.overscan == "none" or region is None:
        return np.full(ny, offset, np.float32), None, 0.0
    x0, y0, width, height = region
    skip = min(skip, width - 1)
    strip = segment[y0:y0 + height, x0 + skip:x0 + width]
    level, variance = _row_levels(strip, amplifier, config)
    rows = np.interp(np.arange(ny) + amplifier.data[1], np.arange(height) + y0, level).astype(np.float32)
    columns = None
    if config.parallel_overscan == "column" and amplifier.parallel_overscan is not None:
        columns = _column_profile(segment, amplifier, config)
    return rows, columns, variance


def _row_levels(strip: np.ndarray, amplifier: Amplifier, config: DetrendConfig) -> tuple[np.ndarray, float]:
    """Level of each row of an overscan strip (rows, columns), ADU, and its variance.

    Clipped mean of each row; rows that stand out (a star bled into them) take the median of their neighbours.

    Raises
    ------
    BadData
        No overscan pixel is finite and below saturation.
    """
    level, noise = _clipped(strip, amplifier, config)
    if not np.isfinite(level).any():
        raise BadData(f"amplifier {amplifier.name}: no overscan pixel is below saturation; the frame cannot be used, leave it out")
    around = _block_median(level, 50)
    with np.errstate(invalid="ignore"):
        wild = ~(np.abs(level - around) <= 8.0 * np.sqrt(noise) + 5.0 * _robust_sigma(level - around))
    level = np.where(wild, around, level)
    if config.overscan == "mean":
        middle = np.median(level)
        near = np.abs(level - middle) <= 3.0 * _robust_sigma(level - middle) + 1e-6
        return np.full(len(level), level[near].mean()), float(noise / near.sum())
    window = min(len(level), -(-config.overscan_samples // strip.shape[1]))
    return _running_mean(level, window | 1), float(noise / (window | 1))


def _clipped(strip: np.ndarray, amplifier: Amplifier, config: DetrendConfig) -> tuple[np.ndarray, float]:
    """Clipped mean along the rows of (rows, columns), NaN where nothing is left; and the mean variance of one, ADU^2."""
    columns = np.array(strip.T, dtype=np.float32, order="C")
    columns[columns >= amplifier.saturation] = np.nan
    read_noise = amplifier.read_noise / amplifier.gain
    noise = np.full((len(columns), 2), (read_noise**2 + 1.0 / 12.0, 0.0)) if read_noise > 0 else None
    combined = clipped_mean(columns, ClipOptions(kappa_low=config.clip, kappa_high=config.clip), noise=noise)
    usable = np.isfinite(combined.variance)
    return combined.mean.astype(np.float64), float(combined.variance[usable].mean()) if usable.any() else 0.0


def _column_profile(segment: np.ndarray, amplifier: Amplifier, config: DetrendConfig) -> np.ndarray:
    """Shape of the parallel overscan along the row, (nx,) float32 ADU, with median zero; smoothed over 15 columns."""
    x0, y0, width, height = amplifier.parallel_overscan
    level, _ = _clipped(segment[y0:y0 + height, x0:x0 + width].T, amplifier, config)
    smooth = _block_median(level, 15)
    smooth = np.interp(np.arange(amplifier.data[2]) + amplifier.data[0], np.arange(width) + x0, smooth)
    return (smooth - np.median(smooth)).astype(np.float32)


def _block_median(values: np.ndarray, size: int) -> np.ndarray:
    """Medians of blocks of so many values, NaN left out, joined by straight lines: a smooth and outlier-safe version."""
    n_blocks = max(1, len(values) // size)
    size = -(-len(values) // n_blocks)
    blocks = np.full((n_blocks, size), np.nan)
    blocks.ravel()[:len(values)] = values
    blocks.sort(axis=1)  # NaN comes last
    count = np.isfinite(blocks).sum(axis=1)
    at = np.arange(n_blocks)
    medians = 0.5 * (blocks[at, np.maximum(count - 1, 0) // 2] + blocks[at, np.minimum(count // 2, size - 1)])
    known = count > 0
    middle = np.minimum(at * size + 0.5 * (size - 1), len(values) - 1)
    return np.interp(np.arange(len(values)), middle[known], medians[known])


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of an odd window around each value, shorter at the ends."""
    if window <= 1:
        return values
    total = np.concatenate([[0.0], np.cumsum(values - values[0])])
    at = np.arange(len(values))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    return values[0] + (total[high] - total[low]) / (high - low)


def _robust_sigma(values: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation."""
    return float(1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values))))


def _why_bad(raw: RawDetector, image: MaskedImage, config: DetrendConfig) -> str:
    """One line: why hardly a pixel is good, and what to do."""
    parts = {name: np.count_nonzero(image.mask & np.uint32(bits(name))) / image.box.area for name in ("UNMASKEDNAN", "SAT", "BAD")}
    worst = max(parts, key=parts.get)
    cure = {"UNMASKEDNAN": "not a number; leave the frame out",
            "SAT": "saturated; leave the frame out",
            "BAD": f"bad in the calibration (flat not above {config.min_flat}, or defect); take other flats"}[worst]
    return f"{_name(raw)}: {parts[worst]:.1%} of the pixels are {cure}"
