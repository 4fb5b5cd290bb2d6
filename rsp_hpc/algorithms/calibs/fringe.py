"""fringe: the pattern of thin-film interference of the night sky's lines in a detector, from dithered science frames.

Every frame is an amplitude times one pattern, on top of large-scale structure that is taken out first. Amplitudes and pattern are
found in turn: the amplitudes by least squares on the pattern, the pattern as the clipped mean of frames over amplitudes, until they
stand (a fit of rank one). Sources are masked and stand elsewhere in other frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import CombinedFrames
from ...products.electronics import Verdict
from ...products.image import MaskedImage
from ...products.mask import bits
from ..background import BackgroundConfig, evaluate_background, fit_background
from .planes import PlaneStack
from .stack import clipped_mean_of, release

__all__ = ["FringeConfig", "build_fringe"]

DETECTED = ("DETECTED", "DETECTED_NEGATIVE")
SAMPLES = 200_000  # pixels that the amplitudes are fitted on


class FringeConfig(Config):
    """How the fringe pattern is found."""

    memory: int = parameter(700, "memory for the frames; more of them are kept in a scratch file", unit="MB", low=1, neutral=True)
    min_frames: int = parameter(4, "frames needed: sources must be elsewhere in most of them", low=3)
    scale: int = parameter(128, "structure of the frames and of the pattern larger than this is taken out", unit="pixel", low=16)
    smooth: float = parameter(2.0, "width of the Gaussian that smooths the pattern; 0: none", unit="pixel", low=0.0, high=20.0)
    kappa: float = parameter(3.0, "values further from the centre are clipped", unit="sigma", above=1.0)
    iterations: int = parameter(8, "rounds at most", low=2, high=100)
    tolerance: float = parameter(1e-3, "amplitudes that change less, relative to their mean, stand", above=0.0)
    significance: float = parameter(5.0, "suspect: a median amplitude below so many times its error", unit="sigma", above=0.0)


def build_fringe(images: Iterable[MaskedImage], config: FringeConfig, names: Iterable[str] = (), band: str = "",
                 scratch=np.empty) -> tuple[CombinedFrames, Verdict]:
    """The fringe pattern of a detector in a band.

    Parameters
    ----------
    images : detrended (flat divided), sky subtracted, sources in the planes DETECTED; read one at a time
    names : of the images
    scratch : (shape, dtype) -> array, where frames are kept that do not fit `config.memory`

    Returns
    -------
    CombinedFrames of kind 'fringe': mean zero, rms one over the good pixels. The verdict's statistics hold the amplitudes (electron)

    Raises
    ------
    BadData
        Too few frames, of different size, or hardly a pixel without sources.
    """
    stack = PlaneStack(config.memory, scratch)
    for image in images:
        if stack.planes and image.image.shape != stack.planes[0].shape:
            raise BadData(f"fringe: frames of {image.image.shape[1]} x {image.image.shape[0]} and {stack.planes[0].shape[1]} x "
                          f"{stack.planes[0].shape[0]} pixels; give those of one binning")
        stack.add(image, _flattened(image, config))
    if len(stack) < config.min_frames:
        raise BadData(f"fringe: {len(stack)} frame{'s' * (len(stack) != 1)}, {config.min_frames} are needed: dithered, so that sources "
                      "move; add frames")
    amplitudes, errors, pattern, variance, rounds = _rank_one(stack, config)
    product = CombinedFrames("fringe", pattern, variance, inputs=tuple(names), band=band)
    return product, _judge(product, amplitudes, errors, rounds, config)


def _flattened(image: MaskedImage, config: FringeConfig) -> np.ndarray:
    """The image without its large-scale structure."""
    try:
        rest = fit_background(image, BackgroundConfig(mesh=config.scale, upper_cut=3.0, upper_cut_excluded=3.0, filter_size=1),
                              exclude=image.mask & np.uint32(bits(*DETECTED)) != 0)
    except BadData as error:
        raise BadData(f"fringe: {error}") from None
    return image.image - evaluate_background(rest)


def _rank_one(stack: PlaneStack, config: FringeConfig):
    """amplitudes, errors (n,); pattern, variance (ny, nx); rounds."""
    step = max(1, int(np.ceil(np.sqrt(stack.planes[0].size / SAMPLES))))
    amplitudes = _first_amplitudes(stack)
    for rounds in range(1, config.iterations + 1):
        weights = (amplitudes / np.array(stack.noise)) ** 2
        if not (weights > 0.0).any():
            raise BadData("fringe: no frame has a pixel without sources; mask fewer sources or give other frames")
        usable = weights > 1e-4 * weights.max()
        safe = np.where(usable, amplitudes, 1.0)
        pattern, variance = stack.combine(1.0 / safe, np.where(usable, weights, 0.0), config.kappa)
        _normalise(pattern, variance, config)
        before = amplitudes
        amplitudes, errors = _amplitudes(stack, pattern, step)
        if np.abs(amplitudes - before).max() <= config.tolerance * np.abs(amplitudes).mean():
            break
    return amplitudes, errors, pattern, variance, rounds


def _first_amplitudes(stack: PlaneStack) -> np.ndarray:
    """Scatter of means of 4 x 4 pixels, less what noise makes of it: positive, hence of one sign with the pattern."""
    found = []
    for plane, noise in zip(stack.planes, stack.noise):
        ny, nx = (side // 4 * 4 for side in plane.shape)
        with np.errstate(invalid="ignore"):
            blocks = plane[:ny, :nx].reshape(ny // 4, 4, nx // 4, 4).mean(axis=(1, 3))
        blocks = blocks[np.isfinite(blocks)]
        spread = float(np.subtract(*np.quantile(blocks, (0.75, 0.25)))) / 1.349 if blocks.size >= 16 else 0.0
        found.append(np.sqrt(max(spread**2 - noise**2 / 16.0, 0.05 * spread**2)))
        release(plane)
    return np.array(found)


def _normalise(pattern: np.ndarray, variance: np.ndarray, config: FringeConfig) -> None:
    """Smooth, take the mean out and bring the rms to one, in place."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(pattern)
    if known.mean() < 0.1:
        raise BadData("fringe: hardly a pixel without sources in any frame; mask fewer sources or give other frames")
    pattern[known] -= float(clipped_mean_of(pattern[known][::11]))
    if config.smooth > 0.0:
        weight = gaussian_filter(known.astype(np.float32), config.smooth)
        smooth = gaussian_filter(np.where(known, pattern, np.float32(0.0)), config.smooth)
        near = weight > 0.1
        pattern[near] = smooth[near] / weight[near]
        pattern[~near] = np.nan
        variance *= np.float32(1.0 / max(4.0 * np.pi * config.smooth**2, 1.0))
    known = np.isfinite(pattern)
    values = pattern[known]
    rms = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    noise = float(np.median(variance[known & np.isfinite(variance)])) if np.isfinite(variance).any() else 0.0
    rms = np.sqrt(max(rms**2 - noise, 0.01 * rms**2, 1e-30))  # of the fringes, not of their noise
    pattern /= np.float32(rms)
    variance /= np.float32(rms**2)


def _amplitudes(stack: PlaneStack, pattern: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of every frame on the pattern and a constant, of every n-th pixel, with one round of clipping."""
    shape = pattern[::step, ::step]
    values, errors = np.zeros(len(stack)), np.full(len(stack), np.inf)
    for i, plane in enumerate(stack.planes):
        data = plane[::step, ::step]
        good = np.isfinite(data) & np.isfinite(shape)
        for _ in range(3):
            if good.sum() < 100:
                break
            p, d = shape[good].astype(np.float64), data[good].astype(np.float64)
            p_mean, d_mean = p.mean(), d.mean()
            values[i] = ((p - p_mean) * (d - d_mean)).sum() / ((p - p_mean) ** 2).sum()
            left = d - d_mean - values[i] * (p - p_mean)
            spread = 1.4826 * np.median(np.abs(left))
            errors[i] = spread / np.sqrt(((p - p_mean) ** 2).sum())
            residual = data - d_mean - values[i] * (shape - p_mean)
            with np.errstate(invalid="ignore"):
                good = np.isfinite(data) & np.isfinite(shape) & (np.abs(residual) <= 4.0 * spread)
        release(plane)
    return values, errors


def _judge(product: CombinedFrames, amplitudes: np.ndarray, errors: np.ndarray, rounds: int, config: FringeConfig) -> Verdict:
    middle, error = float(np.median(amplitudes)), float(np.median(errors))
    known = np.isfinite(product.image)
    noise = float(np.sqrt(np.median(product.variance[known & np.isfinite(product.variance)]))) if known.any() else float("inf")
    verdict = Verdict(statistics={"frames": float(len(amplitudes)), "amplitude": middle, "amplitude_error": error,
                                  "amplitude_lowest": float(amplitudes.min()), "amplitude_highest": float(amplitudes.max()),
                                  "pattern_noise": noise, "unknown_fraction": float(1.0 - known.mean()), "rounds": float(rounds)})
    if not middle > config.significance * error or noise > 0.5:
        verdict = verdict.but("suspect", f"no clear fringes: amplitude {middle:.2f} electrons, noise of the pattern {noise:.2f} of it")
    if rounds >= config.iterations:
        verdict = verdict.but("suspect", f"amplitudes still change after {rounds} rounds")
    if known.mean() < 0.95:
        verdict = verdict.but("suspect", f"{1.0 - known.mean():.1%} of the pixels have no value: more dithered frames are needed")
    return verdict
