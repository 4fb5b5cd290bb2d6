"""quality: the noise that calibration frames show, and the verdict on what was combined from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...products.calibration import CombinedFrames
from ...products.electronics import Verdict
from ..statistics import robust_sigma
from .stack import BLOCK, CELLS, Stack, mesh_of

__all__ = ["Found", "QualityConfig", "judge_bias", "judge_dark", "judge_flat", "noise_model", "objects_in"]


class QualityConfig(Config):
    """When a combination of frames is suspect or bad."""

    noise: float = parameter(1.3, "suspect: noise of a frame above this multiple of the read noise that the camera states", above=1.0)
    noise_bad: float = parameter(2.5, "bad: the same", above=1.0)
    drift: float = parameter(1.0, "suspect: biases whose levels differ by more than this multiple of the read noise", above=0.0)
    leak: float = parameter(1.0, "bad: darks that differ by more than this, or whose large-scale structure is larger (and half the "
                                 "mean dark current): light came in", unit="electron/s", above=0.0)
    max_dark: float = parameter(10.0, "bad: a higher dark current is light, or the detector is warm", unit="electron/s", above=0.0)
    gradient: float = parameter(0.1, "suspect: flats whose large-scale shapes differ by more than this", above=0.0)
    object_pixels: int = parameter(30, f"pixels of one flat clipped within {BLOCK} x {BLOCK} pixels: a star or a trail", low=4)
    clipped: float = parameter(0.01, "suspect: a frame with a larger fraction of its pixels clipped", above=0.0, high=1.0)
    unknown: float = parameter(0.01, "suspect: a product with a larger fraction of pixels without a value", above=0.0, high=1.0)


class Found(NamedTuple):
    """Pixels of one frame that were clipped together: the frame's number, the block (by, bx), how many."""

    frame: int
    block: tuple[int, int]
    pixels: int


def noise_model(stack: Stack, scales: np.ndarray) -> list[tuple[float, float]]:
    """Per amplifier (floor electron^2, slope electron): variance of a pixel of light L is floor + slope * L, L in electrons.

    From the differences of consecutive frames, which leave the pixels' pattern out; of a single frame, from neighbouring pixels.
    Bias and dark: the slope is 0 and 1, the floor is what is left. Flats: the camera's read noise, and both terms scaled to what
    is seen (a gain that is a little off must not change what is clipped).
    """
    kind, model = stack.exposures[0].kind, []
    lights = np.maximum(np.nan_to_num(np.array(stack.lights)), 0.0)
    for number, amplifier in enumerate(stack.detector.amplifiers):
        stated = max(amplifier.read_noise**2, 1.0)
        light, ratios, floors = lights[:, number], [], []
        members = [(i, i + 1) for i in range(len(stack.pairs))] if stack.pairs else [(0, 0)]
        for (i, j), seen in zip(members, stack.pairs or [2.0 * stack.spread]):
            inverse = 1.0 / scales[[i, j]] ** 2 if kind != "flat" else 1.0 / np.maximum(stack.levels[[i, j]], 1.0) ** 2
            floors.append((seen[number] - (light[[i, j]] * inverse).sum() * (kind == "dark")) / inverse.sum())
            ratios.append(seen[number] / ((light[[i, j]] + stated) * inverse).sum())
        floor, ratio = (float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan for values in (floors, ratios))
        if kind == "flat":
            ratio = max(ratio, 0.25) if np.isfinite(ratio) else 1.0
            model.append((ratio * stated, ratio))
        else:
            model.append((max(floor, 0.25 * stated, 1.0) if np.isfinite(floor) else stated, float(kind == "dark")))
    return model


def objects_in(stack: Stack, clipped: np.ndarray, config: QualityConfig) -> list[Found]:
    """Where pixels of one frame were clipped together; not in frames that are clipped all over."""
    found = []
    for i, counts in enumerate(clipped):
        if counts.sum() > config.clipped * stack.detector.box.area:
            continue
        found += [Found(i, (int(by), int(bx)), int(counts[by, bx])) for by, bx in zip(*np.nonzero(counts > config.object_pixels))]
    return found


def _common(stack: Stack, product: CombinedFrames, clipped: np.ndarray, config: QualityConfig) -> Verdict:
    """What is asked of every kind."""
    unknown = float(np.mean(~np.isfinite(product.image)))
    shares = clipped.sum(axis=(1, 2)) / product.image.size
    sample = product.image[::max(1, product.image.shape[0] // 512), ::max(1, product.image.shape[1] // 512)]
    sample = sample[np.isfinite(sample)]
    verdict = Verdict(statistics={
        "frames": float(len(stack)), "median": float(np.median(sample)) if sample.size else float("nan"),
        "pixel_scatter": robust_sigma(sample), "unknown_fraction": unknown, "clipped_fraction": float(shares.mean()),
        "level_lowest": float(stack.levels.min()), "level_highest": float(stack.levels.max())})
    if len(stack) < 3:
        verdict = verdict.but("suspect", f"{len(stack)} {product.kind} frame{'s' * (len(stack) > 1)}: nothing can be clipped; "
                                         "3 are needed")
    if unknown > config.unknown:
        verdict = verdict.but("bad" if unknown > 0.5 else "suspect", f"{unknown:.1%} of the pixels have no value")
    for i in np.nonzero(shares > config.clipped)[0]:
        verdict = verdict.but("suspect", f"{stack.names[i]}: {shares[i]:.1%} of its pixels were clipped: it differs from the others")
    return verdict


def _noise_verdict(stack: Stack, product: CombinedFrames, config: QualityConfig) -> Verdict:
    """Noise against what the camera states."""
    scales = stack.times if product.kind == "dark" else np.ones(len(stack))
    verdict = Verdict(statistics={"noise": product.noise})
    for amplifier, (floor, _) in zip(stack.detector.amplifiers, noise_model(stack, scales)):
        if not amplifier.read_noise > 0.0:
            continue
        ratio = np.sqrt(floor) / amplifier.read_noise
        if ratio > config.noise:
            verdict = verdict.but("bad" if ratio > config.noise_bad else "suspect",
                                  f"noise of amplifier {amplifier.name} is {np.sqrt(floor):.1f} electrons, the camera states "
                                  f"{amplifier.read_noise:.1f}")
    return verdict


def judge_bias(stack: Stack, product: CombinedFrames, clipped: np.ndarray, config: QualityConfig) -> Verdict:
    """Too few, too noisy, drifting."""
    verdict = _common(stack, product, clipped, config).and_(_noise_verdict(stack, product, config))
    levels = stack.levels
    drift, allowed = float(np.ptp(levels)), config.drift * max(product.noise, 1.0)
    if drift > allowed:
        verdict = verdict.but("suspect", f"levels drift by {drift:.1f} electrons between {stack.names[int(levels.argmin())]} and "
                                         f"{stack.names[int(levels.argmax())]}")
    return verdict


def judge_dark(stack: Stack, product: CombinedFrames, clipped: np.ndarray, config: QualityConfig) -> Verdict:
    """Also: light that came in, told by frames that differ, by large-scale structure, or by a high level."""
    verdict = _common(stack, product, clipped, config).and_(_noise_verdict(stack, product, config))
    rates = stack.levels / stack.times
    middle = float(np.median(rates))
    step = max(1, max(product.image.shape) // 1024)
    cells = tuple(int(np.clip(side // 32, 1, CELLS)) for side in product.image.shape)
    mesh = mesh_of(product.image[::step, ::step], cells)
    mesh = mesh[np.isfinite(mesh)]
    structure = float(np.subtract(*np.quantile(mesh, (0.95, 0.05)))) if mesh.size else 0.0
    verdict = verdict.and_(Verdict(statistics={"rate": middle, "rate_lowest": float(rates.min()), "rate_highest": float(rates.max()),
                                               "structure": structure}))
    allowed = max(config.leak, 0.5 * abs(middle))
    if middle > config.max_dark:
        verdict = verdict.but("bad", f"the dark current is {middle:.1f} electron/s, at most {config.max_dark:g} is expected: light "
                                     "came in, or the detector was warm")
    if structure > allowed + 3.0 * product.noise / product.dark_time / np.sqrt(1000.0):
        verdict = verdict.but("bad", f"large-scale structure of {structure:.2f} electron/s: light came in")
    for name, rate, time in zip(stack.names, rates, stack.times):
        if abs(rate - middle) > max(allowed, 3.0 * product.noise / time):
            verdict = verdict.but("bad", f"{name}: {rate:.2f} electron/s, the others {middle:.2f}: light came in; leave it out")
    return verdict


def judge_flat(stack: Stack, product: CombinedFrames, parts, config: QualityConfig) -> Verdict:
    """Also: objects in single flats, and shapes that change. parts: clipped, change of shape of each flat, objects."""
    clipped, drift, objects = parts
    verdict = _common(stack, product, clipped, config)
    verdict = verdict.and_(Verdict(statistics={"gradient_change": float(drift.max()), "objects": float(len(objects))}))
    for i in sorted({found.frame for found in objects}):
        worst = max((found for found in objects if found.frame == i), key=lambda found: found.pixels)
        x, y = (int((place + 0.5) * BLOCK) for place in worst.block[::-1])
        verdict = verdict.but("suspect", f"{stack.names[i]}: {sum(f.pixels for f in objects if f.frame == i)} pixels were clipped "
                                         f"together, most near x = {x}, y = {y}: a star or a trail; they were left out")
    for i in np.nonzero(drift > config.gradient)[0]:
        verdict = verdict.but("suspect", f"{stack.names[i]}: its large-scale shape differs by {drift[i]:.1%} from the others")
    if len(stack) == 2 and clipped.sum() == 0:
        verdict = verdict.and_(Verdict(statistics={"unclipped": 1.0}))
    return verdict
