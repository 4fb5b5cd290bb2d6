"""frames: bias, dark and flat frames of one detector combined, out of core; with a verdict on each product.

Per pixel a clipped mean about the median, with the noise that the frames themselves show, so that also three frames are clipped
sensibly. The overscan is subtracted and the gain applied as the raw pixels pass by (csrc/frames.c). Flats are first brought to
one level and one large-scale shape, each by a polynomial: lamps drift, and what is a gradient must not be clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...kernels.combine import ClipOptions
from ...kernels.frames import FrameTerms
from ...products.calibration import Calibration, CombinedFrames
from ...products.electronics import Verdict
from ..detrend import DetrendConfig
from .defects import DefectsConfig, build_defects
from .gradient import fit_gradients, remove_gradient
from .objects import mask_objects
from .quality import QualityConfig, judge_bias, judge_dark, judge_flat, noise_model, objects_in
from .stack import BLOCK, Frame, Stack, load_stack, raise_it, without

__all__ = ["CalibsConfig", "Frame", "build_bias", "build_calibration", "build_dark", "build_flat"]


class CalibsConfig(Config):
    """How calibration frames are combined and defects found."""

    detrend: DetrendConfig = DetrendConfig()
    defects: DefectsConfig = DefectsConfig()
    quality: QualityConfig = QualityConfig()
    memory: int = parameter(700, "memory for the frames of one combination; more of them are kept in a scratch file", unit="MB",
                            low=1, neutral=True)
    kappa: float = parameter(4.0, "values further from the centre are clipped", unit="sigma", above=1.0)
    min_frames: int = parameter(3, "fewer frames of a kind are refused: clipping needs three", low=1)
    min_level: float = parameter(500.0, "flats with a lower median are left out", unit="electron", above=0.0)
    max_saturated: float = parameter(0.02, "flats with a larger fraction of saturated pixels are left out", low=0.0, high=1.0)
    gradient_order: int = parameter(2, "order of the polynomial that brings each flat to the common large-scale shape; 0: only the "
                                       "level", low=0, high=8)
    gradient: Literal["keep", "remove"] = parameter(
        "keep", "the mean large-scale gradient of the flats: kept, or divided out (where an illumination correction follows)")


Allocate = Callable[..., np.ndarray]
"""(shape, dtype) -> array, in memory or mapped from a scratch file."""

LeaveOut = Callable[[str, BadData], None]
"""Told of a frame that cannot be used; what it does not raise is left out."""


def build_bias(frames: Iterable[Frame], calibration: Calibration, config: CalibsConfig, scratch: Allocate = np.empty,
               leave_out: LeaveOut = raise_it) -> tuple[CombinedFrames, Verdict]:
    """The pattern that is left in a frame without light after its overscan, electron.

    Parameters
    ----------
    frames : read one at a time
    calibration : not used here; the three builders of frames are called alike
    scratch : (shape, dtype) -> array, where frames are kept that do not fit `config.memory`

    Raises
    ------
    BadData
        Too few frames; frames of different gain, binning or read-out.
    """
    stack = _usable(load_stack(frames, (None, None), (config.detrend, config.memory), scratch, leave_out), "bias", config, leave_out)
    product, clipped = _combine(stack, np.ones((len(stack), 1, 1)), config)
    return product, judge_bias(stack, product, clipped, config.quality)


def build_dark(frames: Iterable[Frame], calibration: Calibration, config: CalibsConfig, scratch: Allocate = np.empty,
               leave_out: LeaveOut = raise_it) -> tuple[CombinedFrames, Verdict]:
    """The dark current, electron/s: frames of any dark times, each weighted by its own.

    Parameters
    ----------
    calibration : whose bias is subtracted, if it has one
    frames, scratch, leave_out : see `build_bias`

    Raises
    ------
    BadData
        As `build_bias`; or a dark time that is zero or unknown.
    """
    stack = load_stack(frames, (calibration.bias, None), (config.detrend, config.memory), scratch, leave_out)
    stack = _usable(stack, "dark", config, leave_out)
    for name, time in zip(stack.names, stack.times):
        if not time > 0.0:
            raise BadData(f"{name}: its dark time is {time:g} s; leave it out, or give header.dark_time in the camera")
    product, clipped = _combine(stack, 1.0 / stack.times[:, None, None], config)
    return product, judge_dark(stack, product, clipped, config.quality)


def build_flat(frames: Iterable[Frame], calibration: Calibration, config: CalibsConfig, scratch: Allocate = np.empty,
               leave_out: LeaveOut = raise_it) -> tuple[CombinedFrames, Verdict]:
    """The relative response, mean one over the pixels that respond.

    Each flat is multiplied by a polynomial that brings it to the large-scale shape that the flats have in the median. Where
    pixels of one flat are clipped together (a star, a plane) the surroundings that stand out are left out too, and the block is
    combined again.

    Parameters
    ----------
    calibration : whose bias and dark are subtracted, if it has them
    frames, scratch, leave_out : see `build_bias`

    Raises
    ------
    BadData
        As `build_bias`; no flat has light, or no pixel responds.
    """
    stack = load_stack(frames, (calibration.bias, calibration.dark), (config.detrend, config.memory), scratch, leave_out)
    stack = _usable(stack, "flat", config, leave_out)
    factors, drift = fit_gradients(stack, config.gradient_order)
    product, clipped = _combine(stack, factors, config)
    objects = objects_in(stack, clipped, config.quality)
    if objects and len(stack) >= 3:
        product = mask_objects(stack, product, factors, objects, lambda out: _combine(stack, factors, config, out)[0])
    flat = product.image
    with np.errstate(invalid="ignore"):
        good = np.isfinite(flat) & (flat > 0.1)
    if not good.any():
        raise BadData(f"flat in band {product.band}: no pixel responds; replace these flats")
    if config.gradient == "remove":
        remove_gradient(product, good, max(1, config.gradient_order))
    scale = np.float32(1.0 / flat[good].mean(dtype=np.float64))
    np.multiply(flat, scale, out=flat)
    np.multiply(product.variance, scale**2, out=product.variance)
    return product, judge_flat(stack, product, (clipped, drift, objects), config.quality)


def build_calibration(frames: Sequence[Frame], shape: tuple[int, int], config: CalibsConfig, scratch: Allocate = np.empty,
                      leave_out: LeaveOut = raise_it) -> dict[str, Calibration]:
    """Combine all calibration frames of one detector.

    Parameters
    ----------
    frames : bias, dark and flat frames of any bands
    shape : (ny, nx) of the assembled detector
    scratch : where frames are kept that do not fit `config.memory`
    leave_out : is told of a frame, or of all frames of a kind, that cannot be used; what it does not raise is left out

    Returns
    -------
    band -> Calibration, with the same bias, dark and defects in all; band '' where there is no flat. What has no frames is None

    Raises
    ------
    BadData
        See `build_bias`, `build_dark`, `build_flat`.
    """
    groups: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.exposure.kind, frame.exposure.band), []).append(frame)

    def built(build, kind: str, band: str, known: Calibration):
        members = groups.get((kind, band))
        try:
            return build(members, known, config, scratch, leave_out) if members else (None, None)
        except BadData as error:
            leave_out(f"{kind} {band}".strip(), error)
            return None, None

    bias, bias_verdict = built(build_bias, "bias", "", Calibration())
    dark, dark_verdict = built(build_dark, "dark", "", Calibration(bias=_image(bias)))
    known = Calibration(bias=_image(bias), dark=_image(dark))
    flats = {band: built(build_flat, "flat", band, known) for band in sorted(band for kind, band in groups if kind == "flat")}
    flats = {band: found for band, found in flats.items() if found[0] is not None}
    numbers: dict[str, float] = {}
    if bias is not None:
        numbers["bias_variance"] = _typical(bias.variance)
    if dark is not None:
        numbers |= {"dark_variance": _typical(dark.variance), "dark_time": dark.dark_time}
    defects = defects_verdict = None
    if bias is not None or dark is not None or flats:
        defects, defects_verdict = build_defects(bias, dark, [flat for flat, _ in flats.values()], config.defects)
    common = {"bias": bias_verdict, "dark": dark_verdict, "defects": defects_verdict}
    result = {}
    for band in flats or [""]:
        flat, verdict = flats.get(band, (None, None))
        verdicts = {kind: one for kind, one in {**common, "flat": verdict}.items() if one is not None}
        inputs = tuple(name for product in (bias, dark, flat) if product is not None for name in product.inputs)
        result[band] = Calibration(known.bias, known.dark, _image(flat), defects, inputs, **numbers, verdicts=verdicts)
    return result


def _image(product: CombinedFrames | None) -> np.ndarray | None:
    return None if product is None else product.image


def _typical(variance: np.ndarray) -> float:
    """Mean over the detector without the highest hundredth, which are defects; 0 if nothing is finite."""
    finite = variance[np.isfinite(variance)]
    return float(finite[finite <= np.quantile(finite, 0.99)].mean(dtype=np.float64)) if finite.size else 0.0


def _usable(stack: Stack | None, kind: str, config: CalibsConfig, leave_out: LeaveOut) -> Stack:
    """The stack without frames that cannot be used.

    Raises
    ------
    BadData
        Too few are left.
    """
    bad, flat, example = [], kind == "flat", ""
    for i, (name, level) in enumerate(zip(stack.names, stack.levels) if stack is not None else ()):
        why = ""
        if flat and stack.saturated[i] > config.max_saturated:
            why = f"{stack.saturated[i]:.0%} of its pixels are saturated; take it with less light"
        elif not np.isfinite(level):
            why = "no pixel can be used; leave it out"
        elif flat and level < config.min_level:
            why = (f"its median is {level:.0f} electrons, {config.min_level:.0f} are needed; take it with more light or lower "
                   "calibs.min_level")
        if why:
            bad.append(i)
            example = f" ({name}: {why.split(';')[0]})"
            leave_out(name, BadData(f"{name}: {why}"))
    stack = without(stack, bad) if stack is not None and bad else stack
    number = 0 if stack is None else len(stack)
    if number < config.min_frames:
        raise BadData(f"{kind}: {number} {kind} frame{'s' * (number != 1)} can be used, {config.min_frames} are needed{example}; take "
                      f"more{' and better ones' * bool(bad)}, or lower calibs.min_frames")
    return stack


def _combine(stack: Stack, factors: np.ndarray, config: CalibsConfig, out=None) -> tuple[CombinedFrames, np.ndarray]:
    """Clipped mean of the frames times their factors.

    Returns
    -------
    CombinedFrames; (n, blocks, blocks) int32 pixels clipped in each block of each frame
    """
    shape, n, kind = stack.detector.box.shape, len(stack), stack.exposures[0].kind
    blocks = tuple(-(-side // BLOCK) for side in shape)
    if out is None:
        out = np.full(shape, np.nan, np.float32), np.full(shape, np.inf, np.float32)
    clipped = np.zeros((n, *blocks), np.int32)
    scale, weights = factors[:, 0, 0], np.ones(n)
    if kind != "bias":
        weights = 1.0 / scale
    noise = noise_model(stack, 1.0 / scale)
    terms = [FrameTerms(np.ascontiguousarray(factors), stack.times * (kind == "flat"), weights / weights.mean(),
                        np.stack([floor * scale**2, slope * scale], axis=1)) for floor, slope in noise]
    stack.combine(terms, ClipOptions(config.kappa, config.kappa, min_inputs=3), (*out, clipped))
    times = stack.times
    return CombinedFrames(kind, *out, float(np.sqrt(np.mean([floor for floor, _ in noise]))),
                          float(np.mean(times)) if kind == "dark" else 0.0, tuple(stack.names), stack.exposures[0].band), clipped
