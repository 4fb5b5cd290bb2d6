"""fringe: interference of night-sky lines in the detector: a fixed pattern whose strength changes from exposure to exposure.

In each cell of a mesh the sky pixels are fitted by a level plus the pattern times one amplitude, by least squares; the levels are
eliminated cell by cell, so that the sky's shape does not enter. Pixels far from the fit are left out and it is repeated (the
amplitude as measured by Snodgrass & Carry 2013, The Messenger 152, 14, comes from pairs of points; all pixels are 100 times more
precise).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import background as cells_kernel
from ..kernels import fringe as kernel
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["FringeAmplitude", "FringeConfig", "fit_fringe", "subtract_fringe"]

NO_SKY = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "STREAK")

CUT = 0.98
"""Standard deviation of a normal distribution cut at three sigma, over its own: lower than that, the cut would wander inwards."""


class FringeConfig(Config):
    """How a fringe pattern is fitted and subtracted."""

    apply: bool = parameter(True, "whether fringes are subtracted, where there is a pattern")
    mesh: int = parameter(128, "side of the cells whose levels are free", unit="pixel", low=8)
    clip: float = parameter(3.0, "sky pixels farther than this from the fit are left out", unit="sigma", above=1.0)
    rows: int = parameter(512, "rows of the image that are fitted at most, evenly spread: more only cost time", low=16)
    rounds: int = parameter(8, "fits at most; each leaves out pixels by the one before", low=1, high=100)
    min_pixels: int = parameter(64, "cells with fewer sky pixels are left out", unit="pixel", low=8)
    cell_clip: float = parameter(6.0, "cells whose own amplitude is farther than this from all others' are left out", unit="sigma",
                                 above=2.0)


class FringeAmplitude(NamedTuple):
    """Strength of the pattern: electrons per unit of the pattern (rms electrons where the pattern has rms one), its error, and the
    chi^2 of the cells' own amplitudes per degree of freedom (NaN for a single cell; the error holds it where it is above one)."""

    value: float
    error: float
    chi2_dof: float


def subtract_fringe(image: MaskedImage, pattern: np.ndarray, config: FringeConfig,
                    exclude: np.ndarray | None = None) -> FringeAmplitude:
    """Fit the pattern to the sky of an image and subtract it, in place; where the pattern is not known, pixels stay.

    Parameters
    ----------
    image : MaskedImage, electron; with or without the sky
    pattern : (ny, nx) float32, mean zero, rms one; NaN: unknown
    exclude : (ny, nx) bool, pixels that are not sky, such as those of sources

    Raises
    ------
    BadData
        The pattern has another size, is not known anywhere, is constant, or there is no sky to fit it to.
    """
    amplitude = fit_fringe(image, pattern, config, exclude)
    pixels = np.ascontiguousarray(image.image)
    kernel.subtract(pixels, np.ascontiguousarray(pattern, np.float32), amplitude.value)
    if pixels is not image.image:
        image.image[...] = pixels
    return amplitude


def fit_fringe(image: MaskedImage, pattern: np.ndarray, config: FringeConfig, exclude: np.ndarray | None = None) -> FringeAmplitude:
    """The amplitude of a pattern; parameters and errors as in `subtract_fringe`."""
    if pattern.shape != image.box.shape:
        raise BadData(f"the fringe pattern is {pattern.shape[1]} x {pattern.shape[0]} pixels, the image {image.box.nx} x "
                      f"{image.box.ny}; make the calibration for this camera")
    mesh = tuple(max(1, round(side / config.mesh)) for side in image.box.shape)
    step = -(-image.box.ny // max(config.rows, mesh[0]))
    pattern = np.ascontiguousarray(pattern[::step], np.float32)
    exclude = None if exclude is None else np.ascontiguousarray(exclude[::step])
    planes = np.ascontiguousarray(image.image[::step]), np.ascontiguousarray(image.mask[::step]), exclude
    level, noise = coarse_levels(planes, bits(*NO_SKY), mesh)
    if not np.isfinite(level).any():
        raise BadData("no sky pixel to fit the fringe pattern to; set visits.fringe.apply to false or leave the exposure out")
    found = FringeAmplitude(0.0, np.inf, np.nan)
    for _ in range(config.rounds):
        sums = kernel.cell_sums(planes, bits(*NO_SKY), pattern, (level, (config.clip * noise).astype(np.float32)), found.value)
        before, found = found, _solve(sums, config)
        if abs(found.value - before.value) < 0.05 * found.error:
            break
        level, noise = _refined(level, noise, sums, found.value)
    return found


def coarse_levels(planes, bad: int, mesh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Level and noise of each cell of a mesh, float32, from cells four times as wide: to begin with.

    planes : image float32, mask uint32, exclude bool or None, all (ny, nx)
    """
    few = tuple(min(-(-number // 4), side) for number, side in zip(mesh, planes[0].shape))
    level, noise, _ = cells_kernel.cell_statistics(planes[0], planes[1], bad, few, (3.0, 3.0), planes[2])
    rows, columns = (np.arange(number) * coarse // number for number, coarse in zip(mesh, few))
    return tuple(np.ascontiguousarray(values[np.ix_(rows, columns)], np.float32) for values in (level, noise))


def _refined(level: np.ndarray, noise: np.ndarray, sums: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    """Levels and noise of the cells without the fringes, which widen the histogram that they were first taken from."""
    n, v, p, pp, vp, vv = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 2.0)
    mean = (v - amplitude * p) / n
    rest = vv - 2.0 * amplitude * vp + amplitude**2 * pp - n * mean**2
    return (level + mean).astype(np.float32), np.minimum(noise, np.sqrt(np.maximum(rest, 0.0) / (n - 1.0)) / CUT)


def _solve(sums: np.ndarray, config: FringeConfig) -> FringeAmplitude:
    """One amplitude for all cells, each with its own level."""
    n, v, p, pp, vp, vv = sums.reshape(-1, 6)[sums[..., 0].ravel() >= config.min_pixels].T
    if not len(n):
        raise BadData("the fringe pattern is known nowhere on the sky; build it from more exposures, or set visits.fringe.apply to false")
    power, product, scatter = pp - p * p / n, vp - v * p / n, vv - v * v / n
    if not (power > 1e-9 * pp + 1e-30).any():
        raise BadData("the fringe pattern is constant; build it again from exposures of the band's night sky")
    use = power > 1e-9 * pp + 1e-30
    n, power, product, scatter = n[use], power[use], product[use], scatter[use]
    own = product / power
    variance = np.maximum(scatter - own * product, 0.0) / np.maximum(n - 2.0, 1.0) + 1e-12
    keep = np.ones(len(n), bool)
    while True:
        weight = np.where(keep, power / variance, 0.0)
        value, error = float((weight * own).sum() / weight.sum()), float(weight.sum() ** -0.5)
        chi2 = float((weight * (own - value) ** 2).sum() / (keep.sum() - 1)) if keep.sum() > 1 else float("nan")
        far = keep & (np.abs(own - value) > config.cell_clip * np.sqrt(max(chi2, 1.0) * variance / power)) if keep.sum() > 2 else ~keep & keep
        if not far.any():
            return FringeAmplitude(value, error * max(chi2, 1.0) ** 0.5 if np.isfinite(chi2) else error, chi2)
        keep &= ~far
