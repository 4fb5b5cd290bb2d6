"""stack: the raw frames of one combination, kept as they are read, with what is measured of each while it passes by.

A frame keeps its data pixels as the file has them (two bytes each) and the levels of its overscan; those that do not fit the
memory go to a scratch file, of which only the band of rows at work is in memory. Levels, large-scale shape and noise come from
a thumbnail of every n-th pixel.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...errors import BadData
from ...kernels.combine import ClipOptions
from ...kernels.detrend import AmplifierGeometry
from ...kernels.frames import FramePart, FrameTerms, combine_amplifier
from ...products.camera import Detector
from ...products.exposure import Exposure, RawDetector
from ..detrend import DetrendConfig, overscan_levels

__all__ = ["BLOCK", "Frame", "Stack", "clipped_mean_of", "clipped_variance", "load_stack", "mesh_of", "raise_it", "release",
           "rows_in_bands", "without"]

BLOCK = 64  # pixels; clipped pixels are counted in blocks of this side
THUMBNAIL = 1024  # pixels at most along a side of a thumbnail
CELLS = 32  # cells at most along a side of the mesh
SAMPLES = 1 << 16  # pixels that a level, differences that a noise is measured from

Allocate = Callable[..., np.ndarray]
"""(shape, dtype) -> array, in memory or mapped from a scratch file."""


class Frame(NamedTuple):
    """One raw calibration frame, read when it is needed."""

    exposure: Exposure
    load: Callable[[], RawDetector]

    @property
    def name(self) -> str:
        """'flat r 20190503'."""
        return " ".join(f"{self.exposure.kind} {self.exposure.band} {self.exposure.visit}".split())


@dataclass
class Stack:
    """Frames of one detector, ready to be combined.

    Attributes
    ----------
    detector : of the first frame
    names, exposures : of the n frames
    parts : n lists with the FramePart of each amplifier
    mesh : n arrays (my, mx): what is left of each frame after bias and dark, electron, in cells
    lights : n arrays (amplifiers,): median of the same in each amplifier
    saturated : n floats, fraction of saturated pixels
    pairs : variance of the difference of each frame and the next, (amplifiers,) each, of frames divided by their median
        (by one for bias, by the dark time for dark frames)
    spread : of a single frame, the same from neighbouring pixels; half of it is the variance
    pedestal : bias and dark (ny, nx) or None
    """

    detector: Detector
    pedestal: tuple[np.ndarray | None, np.ndarray | None]
    names: list[str] = field(default_factory=list)
    exposures: list[Exposure] = field(default_factory=list)
    parts: list[list[FramePart]] = field(default_factory=list)
    mesh: list[np.ndarray] = field(default_factory=list)
    lights: list[np.ndarray] = field(default_factory=list)
    saturated: list[float] = field(default_factory=list)
    pairs: list[np.ndarray] = field(default_factory=list)
    spread: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def levels(self) -> np.ndarray:
        """(n,) electron: the median over the mesh."""
        return np.array([_median(mesh) for mesh in self.mesh])

    @property
    def times(self) -> np.ndarray:
        """(n,) s, dark times."""
        return np.array([exposure.dark_time for exposure in self.exposures], float)

    def geometry(self, number: int) -> AmplifierGeometry:
        """Of an amplifier, as the kernels take it."""
        amplifier = self.detector.amplifiers[number]
        return AmplifierGeometry(amplifier.data, amplifier.origin, amplifier.flip_x, amplifier.flip_y, amplifier.gain, 0.0,
                                 amplifier.saturation)

    def combine(self, terms: list[FrameTerms], clip: ClipOptions, out, rows: slice | None = None) -> None:
        """Clipped mean into out = (mean, variance, clipped), amplifier by amplifier; `terms` of each."""
        for number, amplifier in enumerate(self.detector.amplifiers):
            parts = [frame[number] for frame in self.parts]
            for band in rows_in_bands([part.data for part in parts], amplifier.data[3]):
                combine_amplifier(parts, self.geometry(number), terms[number], band, (*self.pedestal, BLOCK, clip), out)
                for part in parts:
                    release(part.data)


def raise_it(name: str, error: BadData) -> None:
    """For callers that leave nothing out."""
    raise error


def rows_in_bands(planes: list[np.ndarray], ny: int) -> Iterator[slice]:
    """All rows at once, or, where planes lie in a scratch file, bands of 64 MB in all."""
    size = sum(plane.nbytes for plane in planes if isinstance(plane, np.memmap))
    step = max(1, int(ny * 64e6 / size)) if size > 64e6 else ny
    for first in range(0, ny, step):
        yield slice(first, min(ny, first + step))


def release(plane: np.ndarray) -> None:
    """Give back the memory of a plane that lies in a file; it stays in the file."""
    if isinstance(plane, np.memmap):
        plane._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def load_stack(frames: Iterable[Frame], pedestal, settings: tuple[DetrendConfig, int], scratch: Allocate,
               leave_out: Callable[[str, BadData], None]) -> Stack | None:
    """Read frames one at a time.

    Parameters
    ----------
    pedestal : bias and dark (ny, nx) of the detector, or None
    settings : how overscan is subtracted; memory for the frames, MB

    Returns
    -------
    Stack; None if there is no frame that can be used

    Raises
    ------
    BadData
        Frames of different gain, binning or read-out.
    """
    config, memory = settings
    stack, used, previous = None, 0, None
    for frame in frames:
        try:
            raw = frame.load()
            if stack is not None:
                alike(stack.detector, raw, stack.names[0], frame.name)
                same_mode(stack.exposures[0], frame.exposure, stack.names[0], frame.name)
            parts = _parts_of(raw, config)
        except Mixed:
            raise
        except BadData as error:
            leave_out(frame.name, error)
            continue
        if stack is None:
            stack = Stack(raw.detector, pedestal)
        used += sum(part.data.nbytes for part in parts)
        if used > 1e6 * memory:
            parts = [_to_scratch(part, scratch) for part in parts]
        elif any(part.data.base is not None for part in parts):  # no more than the data pixels is kept
            parts = [part._replace(data=part.data.copy()) if part.data.base is not None else part for part in parts]
        del raw
        previous = _add(stack, frame, parts, previous)
    return stack


class Mixed(BadData):
    """Frames that must not be combined."""


def same_mode(first: Exposure, second: Exposure, one: str, other: str) -> None:
    """That headers do not tell of different modes.

    Raises
    ------
    Mixed
        Names both frames and what differs.
    """
    for what, a, b in (("read-out mode", first.readout_mode, second.readout_mode), ("binning", first.binning, second.binning)):
        if a != b:
            raise Mixed(f"{other}: its {what} is {b or 'not given'}, that of {one} {a or 'not given'}; combine them apart")


def alike(first: Detector, raw: RawDetector, one: str, other: str) -> None:
    """That a frame was read out as the first one.

    Raises
    ------
    Mixed
        Names both frames and what differs.
    """
    for a, b, segment in zip(first.amplifiers, raw.detector.amplifiers, raw.segments):
        shape = (a.section[3], a.section[2])
        if segment.shape != shape:
            raise Mixed(f"{other}: amplifier {a.name} is {segment.shape[1]} x {segment.shape[0]} pixels, in {one} {shape[1]} x "
                        f"{shape[0]}: another binning or read-out mode; combine them apart")
        if abs(b.gain / a.gain - 1.0) > 0.01:
            raise Mixed(f"{other}: the gain of amplifier {a.name} is {b.gain:g} electron/ADU, in {one} {a.gain:g}; "
                        "combine them apart")
        if max(a.read_noise, b.read_noise) > 1.5 * min(a.read_noise, b.read_noise) > 0.0:
            raise Mixed(f"{other}: the read noise of amplifier {a.name} is {b.read_noise:g} electrons, in {one} {a.read_noise:g}: "
                        "another read-out mode; combine them apart")
    if len(first.amplifiers) != len(raw.segments):
        raise Mixed(f"{other}: is read through {len(raw.segments)} amplifiers, {one} through {len(first.amplifiers)}; combine them "
                    "apart")


def _parts_of(raw: RawDetector, config: DetrendConfig) -> list[FramePart]:
    parts = []
    for amplifier, segment in zip(raw.detector.amplifiers, raw.segments):
        if segment.shape != (amplifier.section[3], amplifier.section[2]):
            raise BadData(f"{raw.name}: amplifier {amplifier.name} is {segment.shape[1]} x {segment.shape[0]} pixels, the camera "
                          f"says {amplifier.section[2]} x {amplifier.section[3]}; correct its section or leave the file out")
        if segment.dtype not in (np.uint16, np.int32, np.float32) or not segment.dtype.isnative:
            segment = segment.astype(np.float32)
        rows, columns, _ = overscan_levels(np.ascontiguousarray(segment), amplifier, config, 0.0)
        x0, y0, nx, ny = amplifier.data
        parts.append(FramePart(np.ascontiguousarray(segment[y0:y0 + ny, x0:x0 + nx]), rows, columns))
    return parts


def _to_scratch(part: FramePart, scratch: Allocate) -> FramePart:
    plane = scratch(part.data.shape, part.data.dtype)
    plane[:] = part.data
    release(plane)
    return part._replace(data=plane)


def _add(stack: Stack, frame: Frame, parts: list[FramePart], previous):
    """Measure a frame and append it; returns its thumbnail divided by its scale, for the difference with the next."""
    thumbnail, saturated = _thumbnail(stack, parts, frame.exposure.dark_time)
    lights = np.array([_median(thumbnail[place]) for place in _places(stack.detector, thumbnail)])
    scale = {"bias": 1.0, "dark": frame.exposure.dark_time}.get(frame.exposure.kind, _median(thumbnail))
    scaled = thumbnail / np.float32(scale if scale > 0.0 else np.nan)
    if previous is None:
        stack.spread = _spread_of(scaled, stack.detector)
    else:
        stack.pairs.append(_spread_of(scaled - previous, stack.detector))
    stack.names.append(frame.name)
    stack.exposures.append(frame.exposure)
    stack.parts.append(parts)
    stack.mesh.append(mesh_of(thumbnail, _cells(stack.detector)))
    stack.lights.append(lights)
    stack.saturated.append(saturated)
    for part in parts:
        release(part.data)
    return scaled


def without(stack: Stack, bad: Iterable[int]) -> Stack:
    """The stack without some frames; the noise of pairs with them is kept where both remain neighbours."""
    bad = set(bad)
    keep = [i for i in range(len(stack)) if i not in bad]
    pick = {name: [getattr(stack, name)[i] for i in keep] for name in ("names", "exposures", "parts", "mesh", "lights", "saturated")}
    pairs = [stack.pairs[i] for i in keep[:-1] if i + 1 not in bad]
    return Stack(stack.detector, stack.pedestal, **pick, pairs=pairs, spread=stack.spread)


def _step(detector: Detector) -> int:
    return max(1, max(detector.size) // THUMBNAIL)


def _cells(detector: Detector) -> tuple[int, int]:
    return tuple(int(np.clip(size // 32, 1, CELLS)) for size in detector.size[::-1])  # type: ignore[return-value]


def _places(detector: Detector, thumbnail: np.ndarray) -> list[tuple[slice, slice]]:
    """Where each amplifier is in a thumbnail."""
    step, places = _step(detector), []
    for amplifier in detector.amplifiers:
        box = amplifier.assembled_box
        places.append((slice(-(-box.y0 // step), -(-box.y1 // step)), slice(-(-box.x0 // step), -(-box.x1 // step))))
    return places


def _thumbnail(stack: Stack, parts: list[FramePart], dark_time: float) -> tuple[np.ndarray, float]:
    """Every n-th pixel of the detector in electrons, less bias and dark, NaN where saturated; and the fraction of those."""
    step, detector = _step(stack.detector), stack.detector
    out = np.empty([-(-size // step) for size in detector.size[::-1]], np.float32)
    bias, dark = stack.pedestal
    saturated = 0
    for amplifier, part, place in zip(detector.amplifiers, parts, _places(detector, out)):
        box = amplifier.assembled_box
        rows, columns = slice(-box.y0 % step, None, step), slice(-box.x0 % step, None, step)
        data, levels = part.data[:, ::-1] if amplifier.flip_x else part.data, part.rows
        data, levels = (data[::-1], levels[::-1]) if amplifier.flip_y else (data, levels)
        values = data[rows, columns].astype(np.float32)
        full = ~(values < amplifier.saturation)
        values -= levels[rows, None]
        if part.columns is not None:
            values -= (part.columns[::-1] if amplifier.flip_x else part.columns)[columns]
        values *= np.float32(amplifier.gain)
        values[full] = np.nan
        saturated += int(full.sum())
        out[place] = values
    if bias is not None:
        out -= bias[::step, ::step]
    if dark is not None:
        out -= np.float32(dark_time) * dark[::step, ::step]
    return out, saturated / out.size


def mesh_of(plane: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """(my, mx) float64: clipped mean of each cell of a plane; NaN where no pixel is finite. Edges that do not fill a cell are
    left out.
    """
    high, wide = plane.shape[0] // cells[0], plane.shape[1] // cells[1]
    values = plane[:high * cells[0], :wide * cells[1]].reshape(cells[0], high, cells[1], wide).transpose(0, 2, 1, 3)
    return clipped_mean_of(values.reshape(*cells, high * wide))


def clipped_mean_of(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis without NaN and what is beyond four sigma of the median; sigma from the quartiles."""
    values = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)

    def quantile(part: float) -> np.ndarray:
        return np.take_along_axis(values, np.maximum((part * (count - 1)).astype(np.int64), 0), axis=-1)

    middle, sigma = quantile(0.5), (quantile(0.75) - quantile(0.25)) / 1.349
    with np.errstate(invalid="ignore"):
        near = np.abs(values - middle) <= 4.0 * sigma + 1e-6 * np.abs(middle)
    number = near.sum(axis=-1)
    total = np.where(near, values - middle, 0.0).sum(axis=-1, dtype=np.float64)
    return np.where(number > 0, middle[..., 0] + total / np.maximum(number, 1), np.nan)


def _median(values: np.ndarray) -> float:
    """Of the finite values, or of every n-th of many."""
    values = values[::max(1, values.size // SAMPLES)] if values.ndim == 2 else values
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _spread_of(plane: np.ndarray, detector: Detector) -> np.ndarray:
    """(amplifiers,): variance of the pixels of a thumbnail, from neighbours, so that slopes do not count."""
    found = []
    for place in _places(detector, plane):
        part = plane[place]
        rows = part[::max(1, part.size // SAMPLES)]
        values = np.diff(rows, axis=1)
        values = values[np.isfinite(values)]
        found.append(0.5 * clipped_variance(values) if values.size >= 16 else np.nan)
    return np.array(found)


def clipped_variance(values: np.ndarray) -> float:
    """Variance without values beyond four sigma. (The median deviation of whole ADU can be off by a tenth.)"""
    values = values.astype(np.float64) - np.median(values)
    limit = 6.0 * np.median(np.abs(values)) + 1e-9
    for _ in range(5):
        variance = float(np.mean(values[np.abs(values) <= limit] ** 2))
        limit = 4.0 * np.sqrt(variance)
    return variance
