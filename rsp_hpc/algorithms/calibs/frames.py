"""frames: bias, dark and flat frames of one detector combined, out of core in bands of rows; defects from the result.

Every frame becomes electrons (overscan, gain, assembly by `detrend`), then per pixel a clipped mean about the median, with
the noise that the frames themselves show: also three frames are clipped sensibly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...kernels.combine import ClipOptions, clipped_mean
from ...products.calibration import Calibration
from ...products.exposure import Exposure, RawDetector
from ...products.mask import bits
from ..detrend import DetrendConfig, assemble

__all__ = ["CalibsConfig", "Frame", "build_calibration", "find_defects"]


class CalibsConfig(Config):
    """How calibration frames are combined and defects found."""

    detrend: DetrendConfig = DetrendConfig()
    memory: int = parameter(600, "memory for the frames of one combination; more of them are kept in a scratch file", unit="MB",
                            low=1, neutral=True)
    kappa: float = parameter(4.0, "values further from the centre are clipped", unit="sigma", above=1.0)
    min_level: float = parameter(500.0, "flats with a lower median are left out", unit="electron", above=0.0)
    hot_rate: float = parameter(4.0, "hot: dark current above the detector's median by this", unit="electron/s", above=0.0)
    hot_sigma: float = parameter(6.0, "and by so many times its error", unit="sigma", above=0.0)
    dead_flat: float = parameter(0.5, "dead: response below this fraction of its surroundings", low=0.0, high=1.0)
    bright_flat: float = parameter(1.5, "bad: response above this multiple of its surroundings", low=1.0)
    bias_sigma: float = parameter(30.0, "bad: bias off its surroundings by so many times the noise of a frame", unit="sigma",
                                  above=0.0)


class Frame(NamedTuple):
    """One raw calibration frame, read when it is needed."""

    exposure: Exposure
    load: Callable[[], RawDetector]


class _Loaded(NamedTuple):
    """A frame in electrons: overscan and gain applied, assembled; (ny, nx) float32, NaN where it cannot be used."""

    exposure: Exposure
    plane: np.ndarray


Allocate = Callable[[tuple[int, int]], np.ndarray]
"""shape -> float32 array, in memory or mapped from a scratch file."""


def _raise(name: str, error: BadData) -> None:
    raise error


def build_calibration(frames: Sequence[Frame], shape: tuple[int, int], config: CalibsConfig, scratch: Allocate,
                      leave_out: Callable[[str, BadData], None] = _raise) -> dict[str, Calibration]:
    """Combine all calibration frames of one detector.

    Parameters
    ----------
    frames : bias, dark and flat frames of any bands
    shape : (ny, nx) of the assembled detector
    scratch : where frames are kept that do not fit `config.memory`
    leave_out : is told of a frame, or of all flats of a band, that cannot be used; what it does not raise is left out

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

    def loaded(kind: str, band: str = "") -> list[_Loaded]:
        return _load(groups.get((kind, band), []), shape, config, scratch, leave_out)

    bias = dark = None
    dark_error = noise = float("nan")
    known: dict[str, float] = {}
    if biases := loaded("bias"):
        bias, variance, noise = _combine(biases, config, lambda frame, at: frame.plane[at], lambda frame: 1.0)
        known["bias_variance"] = _typical(variance)
    del biases  # no more than one kind of frames is in memory
    if darks := loaded("dark"):
        dark, variance, _ = _combine(darks, config, lambda frame, at: frame.plane[at] - _part(bias, at),
                                     lambda frame: frame.exposure.dark_time)
        dark_error = np.sqrt(variance)
        known |= {"dark_variance": _typical(variance),
                  "dark_time": float(np.mean([frame.exposure.dark_time for frame in darks]))}
    del darks
    flats = {}
    for band in sorted(band for kind, band in groups if kind == "flat"):
        try:
            flats[band] = _combine_flat(loaded("flat", band), config, bias, dark)
        except BadData as error:
            leave_out(f"flat {band}", error)
    defects = find_defects((bias, dark, flats), (noise, dark_error), config)
    names = {key: tuple(f"{' '.join(key).strip()} {frame.exposure.visit}" for frame in members) for key, members in groups.items()}
    common = names.get(("bias", ""), ()) + names.get(("dark", ""), ())
    return {band: Calibration(bias, dark, flats.get(band), defects, common + names.get(("flat", band), ()), **known)
            for band in flats or [""]}


def _typical(variance: np.ndarray) -> float:
    """Mean over the detector without the highest hundredth, which are defects; 0 if nothing is finite."""
    finite = variance[np.isfinite(variance)]
    return float(finite[finite <= np.quantile(finite, 0.99)].mean(dtype=np.float64)) if finite.size else 0.0


def _load(frames: list[Frame], shape, config: CalibsConfig, scratch: Allocate, leave_out) -> list[_Loaded]:
    """Read and assemble frames one at a time; as float32 planes in memory if they fit, else in the scratch file."""
    fits = 4 * len(frames) * shape[0] * shape[1] <= config.memory * 1_000_000
    loaded = []
    for frame in frames:
        try:
            image = assemble(frame.load(), config.detrend)
        except BadData as error:
            leave_out(f"{frame.exposure.kind} {frame.exposure.visit}", error)
            continue
        plane = image.image if fits else scratch(shape)
        plane[:] = np.where(image.mask & np.uint32(bits("SAT", "UNMASKEDNAN", "NO_DATA")) != 0, np.float32(np.nan), image.image)
        loaded.append(_Loaded(frame.exposure, plane))
    return loaded


def _part(plane: np.ndarray | None, at: slice) -> np.ndarray | float:
    return 0.0 if plane is None else plane[at]


def _combine_flat(members: list[_Loaded], config: CalibsConfig, bias, dark) -> np.ndarray:
    """Flats scaled to their levels, combined, with mean one over the pixels that respond."""

    def light(frame: _Loaded, at: slice) -> np.ndarray:
        return frame.plane[at] - _part(bias, at) - np.float32(frame.exposure.dark_time) * _part(dark, at)

    levels = {frame.exposure.visit: _level(frame, light) for frame in members}
    lit = [frame for frame in members if levels[frame.exposure.visit] >= config.min_level]
    if not lit:
        raise BadData(f"no flat can be used: the brightest has {max(levels.values(), default=0.0):.0f} electrons, "
                      f"{config.min_level:.0f} are needed; take brighter flats or lower calibs.min_level")
    flat, _, _ = _combine(lit, config, light, lambda frame: levels[frame.exposure.visit])
    good = np.isfinite(flat) & (flat > 0.1)
    if not good.any():
        raise BadData(f"flat in band {members[0].exposure.band}: no pixel responds; replace these flats")
    return (flat / flat[good].mean(dtype=np.float64)).astype(np.float32)


def _level(frame: _Loaded, light) -> float:
    """The median of every eighth row: the frame's level, electron; 0 if no pixel can be used."""
    values = np.concatenate([light(frame, slice(y, y + 1))[0] for y in range(0, len(frame.plane), 8)])
    return float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0


def _bands(n_frames: int, shape, config: CalibsConfig) -> Iterator[slice]:
    """Bands of rows whose corrected floats stay within a quarter of the memory."""
    step = max(1, int(0.25 * config.memory * 1_000_000) // (4 * n_frames * shape[1]))
    for y0 in range(0, shape[0], step):
        yield slice(y0, min(shape[0], y0 + step))


def _combine(frames: list[_Loaded], config: CalibsConfig, correct, scale_of) -> tuple[np.ndarray, np.ndarray, float]:
    """Clipped mean of `correct(frame, rows) / scale_of(frame)`, in bands of rows.

    Returns
    -------
    mean, variance of the mean : (ny, nx) float32; noise of one frame before scaling, electron
    """
    kind, shape = frames[0].exposure.kind, frames[0].plane.shape
    scales = np.array([scale_of(frame) for frame in frames], float)
    if not (scales > 0).all():
        raise BadData(f"{kind} of visit {frames[int(np.argmin(scales))].exposure.visit}: exposure time or level is zero; leave it out")
    poisson = float(kind != "bias")
    noise = _noise_of(frames, correct, scales, poisson)
    model = np.stack([noise**2 / scales**2, poisson / scales], axis=1)
    weights = scales if poisson else np.ones(len(frames))
    options = ClipOptions(config.kappa, config.kappa, min_inputs=3)
    mean, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for at in _bands(len(frames), shape, config):
        planes = [np.ascontiguousarray(correct(frame, at) / np.float32(scale), np.float32) for frame, scale in zip(frames, scales)]
        combined = clipped_mean(planes, options, weights=weights, noise=model)
        mean[at], variance[at] = combined.mean, combined.variance
    return mean, variance, noise


def _noise_of(frames: list[_Loaded], correct, scales: np.ndarray, poisson: float) -> float:
    """Noise of one frame at zero light, electron: from the difference of the first two frames, which the pattern of the pixels
    leaves, less the light's own; of a single frame from the differences of neighbouring pixels.
    """
    def sample(number: int) -> np.ndarray:
        step = max(1, len(frames[number].plane) // 64)
        rows = [correct(frames[number], slice(y, y + 1)) for y in range(0, len(frames[number].plane), step)]
        return np.concatenate(rows) / scales[number]

    first = sample(0)
    if len(frames) > 1:
        difference, inverse = first - sample(1), 1.0 / scales[:2]
    else:
        difference, inverse = np.diff(first, axis=1), np.full(2, 1.0 / scales[0])
    difference = difference[np.isfinite(difference)]
    if difference.size < 16:
        raise BadData(f"{frames[0].exposure.kind} of visit {frames[0].exposure.visit}: hardly a pixel can be used; leave it out")
    total = _clipped_variance(difference)
    light = poisson * max(0.0, float(np.nanmedian(first))) * inverse.sum()
    return float(np.sqrt(max((total - light) / (inverse**2).sum(), 0.25 * total / (inverse**2).sum(), 1.0)))


def _clipped_variance(values: np.ndarray) -> float:
    """Variance without values beyond four sigma. (The median deviation of whole ADU can be off by a tenth.)"""
    values = values.astype(np.float64) - np.median(values)
    limit = 6.0 * np.median(np.abs(values)) + 1e-9
    for _ in range(5):
        variance = float(np.mean(values[np.abs(values) <= limit] ** 2))
        limit = 4.0 * np.sqrt(variance)
    return variance


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
    from scipy.ndimage import median_filter

    filled = np.where(np.isfinite(plane), plane, np.nanmedian(plane))
    coarse = median_filter(filled[1::3, 1::3], 5, mode="nearest")
    rows, columns = (np.minimum(np.arange(size) // 3, limit - 1) for size, limit in zip(plane.shape, coarse.shape))
    return coarse[np.ix_(rows, columns)]
