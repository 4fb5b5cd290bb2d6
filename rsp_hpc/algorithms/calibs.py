"""calibs: bias, dark and flat frames of one detector combined, out of core in bands of rows; defects from the result.

Every frame becomes electrons (overscan, gain, assembly by `detrend`), then per pixel a clipped mean about the median, with
the noise that the frames themselves show: also three frames are clipped sensibly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import median_filter

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.combine import ClipOptions, clipped_mean
from ..products.calibration import Calibration
from ..products.exposure import Exposure, RawDetector
from .detrend import DetrendConfig, electrons

__all__ = ["CalibsConfig", "Frame", "build_calibration", "find_defects"]


class CalibsConfig(Config):
    """How calibration frames are combined and defects found."""

    detrend: DetrendConfig = DetrendConfig()
    memory: int = parameter(800, "memory for the frames of one combination", unit="MB", low=64)
    kappa: float = parameter(4.0, "values further from the centre are clipped", unit="sigma", above=1.0)
    min_level: float = parameter(500.0, "flats with a lower median are left out", unit="electron", above=0.0)
    hot_rate: float = parameter(4.0, "hot: dark current above the detector's median by this", unit="electron/s", above=0.0)
    hot_sigma: float = parameter(6.0, "and by so many times its error", unit="sigma", above=0.0)
    dead_flat: float = parameter(0.5, "dead: response below this fraction of its surroundings", low=0.0, high=1.0)
    bright_flat: float = parameter(1.5, "bad: response above this multiple of its surroundings", low=1.0)
    bias_sigma: float = parameter(30.0, "bad: bias off its surroundings by so many times the noise of a frame", unit="sigma",
                                  above=0.0)


@dataclass
class Frame:
    """One raw frame that is read when it is needed.

    Attributes
    ----------
    exposure : Exposure
    load : reads the raw segments
    keep : keep them once read
    """

    exposure: Exposure
    load: Callable[[], RawDetector]
    keep: bool = True
    _raw: RawDetector | None = field(default=None, repr=False)

    def rows(self, y0: int, y1: int, config: DetrendConfig) -> np.ndarray:
        """(y1 - y0, nx) float32 electrons of the assembled detector; NaN where saturated."""
        raw = self._raw or self.load()
        if self.keep:
            self._raw = raw
        return electrons(raw, config, (y0, y1))

    @property
    def nbytes(self) -> int:
        """Bytes of the raw segments."""
        raw = self._raw or self.load()
        if self.keep:
            self._raw = raw
        return sum(segment.nbytes for segment in raw.segments)


def build_calibration(frames: Sequence[Frame], shape: tuple[int, int], config: CalibsConfig) -> dict[str, Calibration]:
    """Combine all calibration frames of one detector.

    Parameters
    ----------
    frames : bias, dark and flat frames of any bands
    shape : (ny, nx) of the assembled detector

    Returns
    -------
    band -> Calibration, with the same bias, dark and defects in all; band '' where there is no flat. What has no frames is None

    Raises
    ------
    BadData
        A flat has no light, or all its pixels are zero.
    """
    groups: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.exposure.kind, frame.exposure.band), []).append(frame)
    bias = dark = None
    dark_error = noise = float("nan")
    if biases := groups.get(("bias", "")):
        bias, _, noise = _combine(biases, shape, config, lambda frame, rows, at: rows, lambda frame: 1.0)
    if darks := groups.get(("dark", "")):
        dark, variance, _ = _combine(darks, shape, config, lambda frame, rows, at: rows - _part(bias, at),
                                     lambda frame: frame.exposure.dark_time)
        dark_error = np.sqrt(variance)
    flats = {band: _combine_flat(members, shape, config, bias, dark)
             for (kind, band), members in sorted(groups.items()) if kind == "flat"}
    defects = find_defects((bias, dark, flats), (noise, dark_error), config)
    names = {key: tuple(f"{' '.join(key).strip()} {frame.exposure.visit}" for frame in members) for key, members in groups.items()}
    common = names.get(("bias", ""), ()) + names.get(("dark", ""), ())
    return {band: Calibration(bias, dark, flats.get(band), defects, common + names.get(("flat", band), ()))
            for band in flats or [""]}


def _part(plane: np.ndarray | None, at: slice) -> np.ndarray | float:
    return 0.0 if plane is None else plane[at]


def _combine_flat(members: list[Frame], shape, config: CalibsConfig, bias, dark) -> np.ndarray:
    """Flats scaled to their levels, combined, with mean one over the pixels that respond."""

    def light(frame: Frame, rows: np.ndarray, at: slice) -> np.ndarray:
        return rows - _part(bias, at) - np.float32(frame.exposure.dark_time) * _part(dark, at)

    levels = {id(frame): _level(frame, shape, config, light) for frame in members}
    lit = [frame for frame in members if levels[id(frame)] >= config.min_level]
    if not lit:
        brightest = max(levels.values())
        raise BadData(f"flat in band {members[0].exposure.band}: the brightest has {brightest:.0f} electrons, "
                      f"{config.min_level:.0f} are needed; take brighter flats or lower calibs.min_level")
    flat, _, _ = _combine(lit, shape, config, light, lambda frame: levels[id(frame)])
    good = np.isfinite(flat) & (flat > 0.1)
    if not good.any():
        raise BadData(f"flat in band {members[0].exposure.band}: no pixel responds; replace these flats")
    return (flat / flat[good].mean(dtype=np.float64)).astype(np.float32)


def _level(frame: Frame, shape, config: CalibsConfig, light) -> float:
    """The median of every eighth row: the frame's level."""
    rows = [light(frame, frame.rows(y, y + 1, config.detrend), slice(y, y + 1))[0] for y in range(4, shape[0], 8)]
    values = np.concatenate(rows)
    return float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0


def _bands(frames: Sequence[Frame], shape, config: CalibsConfig) -> Iterator[tuple[int, int]]:
    """Bands of rows such that the frames' floats, and their raw data if these fit too, stay within the memory."""
    budget = config.memory * 1_000_000
    raw = frames[0].nbytes * len(frames)
    for frame in frames:
        frame.keep = raw < 0.7 * budget
        if not frame.keep:
            frame._raw = None
    row = 8 * len(frames) * shape[1]
    step = int(max(1, min(shape[0], (budget - (raw if frames[0].keep else 2 * frames[0].nbytes)) // row)))
    for y0 in range(0, shape[0], step):
        yield y0, min(shape[0], y0 + step)


def _combine(frames: Sequence[Frame], shape, config: CalibsConfig, correct, scale_of) -> tuple[np.ndarray, np.ndarray, float]:
    """Clipped mean of `correct(frame, rows, at) / scale_of(frame)`.

    Returns
    -------
    mean, variance of the mean : (ny, nx) float32; noise of one frame before scaling, electron
    """
    scales = np.array([scale_of(frame) for frame in frames], float)
    if not (scales > 0).all():
        raise BadData(f"{frames[0].exposure.kind} of visit {frames[int(np.argmin(scales))].exposure.visit}: exposure time or "
                      "level is zero; leave it out")
    noise = _noise_of(frames, shape, config)
    poisson = 0.0 if frames[0].exposure.kind == "bias" else 1.0
    model = np.stack([noise**2 / scales**2, poisson / scales], axis=1)
    weights = np.ones(len(frames)) if poisson == 0.0 else scales
    options = ClipOptions(config.kappa, config.kappa, min_inputs=3)
    mean, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for y0, y1 in _bands(frames, shape, config):
        at = slice(y0, y1)
        planes = [np.ascontiguousarray(correct(frame, frame.rows(y0, y1, config.detrend), at) / np.float32(scale), np.float32)
                  for frame, scale in zip(frames, scales)]
        combined = clipped_mean(planes, options, weights=weights, noise=model)
        mean[at], variance[at] = combined.mean, combined.variance
    return mean, variance, noise


def _noise_of(frames: Sequence[Frame], shape, config: CalibsConfig) -> float:
    """Noise of one frame at zero light, electron: differences of neighbouring pixels, robust, of the first frame.

    Flats and darks have their Poisson noise in there too; it is taken out with their level.
    """
    rows = np.concatenate([frames[0].rows(y, y + 1, config.detrend) for y in range(2, shape[0], max(1, shape[0] // 64))])
    steps = np.diff(rows, axis=1)
    steps = steps[np.isfinite(steps)]
    if steps.size < 16:
        raise BadData(f"{frames[0].exposure.kind} of visit {frames[0].exposure.visit}: hardly a pixel can be used; leave it out")
    total = (1.4826 * np.median(np.abs(steps - np.median(steps)))) ** 2 / 2.0
    poisson = 0.0 if frames[0].exposure.kind == "bias" else max(0.0, float(np.nanmedian(rows)))
    return float(np.sqrt(max(total - poisson, 0.25 * total, 1.0)))


def find_defects(frames, errors, config: CalibsConfig) -> np.ndarray | None:
    """Pixels that must not be used: hot, dead, too bright, or off in the bias.

    Parameters
    ----------
    frames : (bias, dark, flats by band); each may be None or empty
    errors : (noise of a bias frame, electron; error of the dark, electron/s, scalar or (ny, nx))

    Returns
    -------
    (ny, nx) bool; None if there is no frame at all
    """
    bias, dark, flats = frames
    planes = [plane for plane in (bias, dark, *flats.values()) if plane is not None]
    if not planes:
        return None
    bad = np.zeros(planes[0].shape, bool)
    for plane in planes:
        bad |= ~np.isfinite(plane)
    if bias is not None:
        bad |= np.abs(bias - _smooth(bias)) > config.bias_sigma * max(errors[0], 1.0)
    if dark is not None:
        excess = dark - np.nanmedian(dark)
        bad |= excess > np.maximum(config.hot_rate, config.hot_sigma * errors[1])
    for flat in flats.values():
        surroundings = _smooth(flat)
        bad |= (flat < config.dead_flat * surroundings) | (flat > config.bright_flat * surroundings) | ~(flat > 0)
    return bad


def _smooth(plane: np.ndarray) -> np.ndarray:
    """Median of 15 x 15 pixels, of every third pixel in each direction: what the surroundings are like."""
    filled = np.where(np.isfinite(plane), plane, np.nanmedian(plane))
    coarse = median_filter(filled[1::3, 1::3], 5, mode="nearest")
    rows, columns = (np.minimum(np.arange(size) // 3, limit - 1) for size, limit in zip(plane.shape, coarse.shape))
    return coarse[np.ix_(rows, columns)]
