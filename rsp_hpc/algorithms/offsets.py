"""offsets: amplifiers whose level is wrong by a constant, set right by the sky's continuity at their borders (pattern continuity).

The levels of the sky on both sides of a border, in cells at several distances from it, are fitted along each stretch of the border
by a step and a smooth function of the distance, so that a slope of the sky is no step. The steps of all borders, weighted by their
errors, give one offset per amplifier by least squares; their mean is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.fringe import cell_sums
from ..products.box import Box
from ..products.camera import Detector
from ..products.image import MaskedImage
from ..products.mask import bits
from .fringe import coarse_levels
from .gains import borders

__all__ = ["Offsets", "OffsetsConfig", "measure_offsets", "subtract_offsets"]

NO_SKY = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "STREAK")


class OffsetsConfig(Config):
    """How amplifiers are made to continue each other's sky."""

    apply: bool = parameter(False, "whether offsets are measured and subtracted")
    inset: int = parameter(4, "pixels next to the border that are left out", unit="pixel", low=0)
    depth: int = parameter(128, "so far from the border the sky is used (or half the amplifier)", unit="pixel", low=8)
    bins: int = parameter(8, "cells over that depth", low=3, high=100)
    stretch: int = parameter(128, "length of border that gives one step", unit="pixel", low=16)
    min_fraction: float = parameter(0.5, "cells with a smaller share of sky pixels are left out", low=0.0, high=1.0)
    min_good: float = parameter(0.3, "borders with a smaller share of usable stretches are left out", low=0.0, high=1.0)
    clip: float = parameter(4.0, "stretches farther than this from the border's median are left out", unit="sigma", above=1.0)
    largest: float = parameter(20.0, "larger steps are not believed: something lies on the border", unit="electron", above=0.0)


class Offsets(NamedTuple):
    """value, error : (n_amplifiers,) electron; value 0 and error NaN for an amplifier that no border determines."""

    value: np.ndarray
    error: np.ndarray


def subtract_offsets(image: MaskedImage, detector: Detector, config: OffsetsConfig, exclude: np.ndarray | None = None) -> Offsets:
    """Measure the offsets of the amplifiers and subtract them, in place.

    Parameters
    ----------
    image : MaskedImage of the whole detector, electron, with or without the sky
    exclude : (ny, nx) bool, pixels that are not sky, such as those of sources

    Raises
    ------
    BadData
        The image is not that of the whole detector.
    """
    offsets = measure_offsets(image, detector, config, exclude)
    for amplifier, value in zip(detector.amplifiers, offsets.value):
        if value:
            image.image[amplifier.assembled_box.slices(image.box)] -= np.float32(value)
    return offsets


def measure_offsets(image: MaskedImage, detector: Detector, config: OffsetsConfig, exclude: np.ndarray | None = None) -> Offsets:
    """The offsets alone; parameters and errors as in `subtract_offsets`."""
    if image.box != detector.box:
        raise BadData(f"offsets are measured on the whole detector {detector.name} of {detector.size[0]} x {detector.size[1]} pixels, "
                      f"the image is {image.box}; give the detector's image")
    n = len(detector.amplifiers)
    design, steps, weights = [], [], []
    for border in borders(detector, config.depth):
        step, error = _step(image, border, config, exclude)
        if not (np.isfinite(step) and abs(step) <= config.largest):
            continue
        row = np.zeros(n)
        row[[border.first, border.second]] = -1.0, 1.0
        design.append(row)
        steps.append(step)
        weights.append(1.0 / error)
    if not design:
        return Offsets(np.zeros(n), np.full(n, np.nan))
    matrix, weight = np.array(design), np.array(weights)
    laplacian = matrix.T @ (weight[:, None] ** 2 * matrix)
    inverse = np.linalg.pinv(laplacian, rcond=1e-9, hermitian=True)  # of least norm: the mean of each connected group is zero
    value = inverse @ (matrix.T @ (weight**2 * np.array(steps)))
    error = np.sqrt(np.maximum(np.diag(inverse), 0.0))
    alone = np.diag(laplacian) == 0.0
    return Offsets(np.where(alone, 0.0, value), np.where(alone, np.nan, error))


def _step(image: MaskedImage, border, config: OffsetsConfig, exclude: np.ndarray | None) -> tuple[float, float]:
    """How much higher the sky is on the second side of a border than on the first, electron, and its error; NaN if not known."""
    levels, errors, distances = [], [], []
    for side, sign in ((border.near, -1.0), (border.far, 1.0)):
        level, error, distance = _levels(image, side, sign, border.near.x1 == border.far.x0, (config, exclude))
        levels.append(level)
        errors.append(error)
        distances.append(distance)
    level, error, distance = (np.concatenate(parts, axis=-1) for parts in (levels, errors, distances))
    found = _fit(level, error, distance)
    if len(found) < max(1.0, config.min_good * len(level)):
        return float("nan"), float("nan")
    middle = np.median(found[:, 0])
    spread = max(1.4826 * np.median(np.abs(found[:, 0] - middle)), np.median(found[:, 1]))
    found = found[np.abs(found[:, 0] - middle) <= config.clip * spread]
    weight = 1.0 / found[:, 1] ** 2
    step = float((weight * found[:, 0]).sum() / weight.sum())
    chi2 = float((weight * (found[:, 0] - step) ** 2).sum() / max(1, len(found) - 1))
    return step, float(np.sqrt(max(1.0, chi2) / weight.sum()))


def _levels(image: MaskedImage, side: Box, sign: float, upright: bool, context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sky levels and errors (stretches, bins), electron, NaN where there is too little sky; distances (bins,) from the border."""
    config, exclude = context
    deep, long = (side.nx, side.ny) if upright else (side.ny, side.nx)
    inset = min(config.inset, deep // 2)
    low = inset if sign > 0 else 0  # the border is at the low end of the second side, at the high end of the first
    box = Box(side.x0 + low, side.y0, deep - inset, long) if upright else Box(side.x0, side.y0 + low, long, deep - inset)
    at = box.slices(image.box)
    bins, stretches = max(1, min(config.bins, (deep - inset) // 4)), max(1, round(long / config.stretch))
    cells = (stretches, bins) if upright else (bins, stretches)
    hide = None if exclude is None else np.ascontiguousarray(exclude[at])
    planes = np.ascontiguousarray(image.image[at]), np.ascontiguousarray(image.mask[at]), hide
    level, error = _cell_means(planes, cells, config)
    if not upright:
        level, error = level.T, error.T
    middle = (np.arange(bins) + 0.5) * (deep - inset) / bins
    return level, error, (inset + middle if sign > 0 else middle - deep)


def _cell_means(planes, cells: tuple[int, int], config: OffsetsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Means of the sky pixels of each cell, those beyond three sigma left out, and their errors; NaN where there is too little sky.

    The first levels come from a few large cells and every third pixel of them.
    """
    image, mask, hide = planes
    thin = tuple(None if plane is None else np.ascontiguousarray(plane[::3, ::3]) for plane in planes)
    level, noise = coarse_levels(thin, bits(*NO_SKY), cells)
    sums = cell_sums((image, mask, hide), bits(*NO_SKY), None, (level, 3.0 * noise), 0.0)
    n = np.maximum(sums[..., 0], 2.0)
    level = (level + sums[..., 1] / n).astype(np.float32)  # wrong by 3 % of how wrong the first was
    error = np.sqrt(np.maximum(sums[..., 5] - sums[..., 1] ** 2 / n, 0.0) / (n - 1.0) / n)
    pixels = image.size / (cells[0] * cells[1])
    return level, np.where(sums[..., 0] >= max(4.0, config.min_fraction * pixels), error, np.nan)


def _fit(level: np.ndarray, error: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(n, 2): step at distance zero of a straight line with a step, and its error, of each stretch with enough sky on both sides.

    level, error : (stretches, bins) electron; distance : (bins,) pixel, negative on the first side
    """
    use = np.isfinite(level) & np.isfinite(error) & (error > 0)
    enough = np.minimum((use & (distance < 0)).sum(axis=1), (use & (distance > 0)).sum(axis=1)) >= 2
    use, level, error = use[enough], level[enough], error[enough]
    weight = np.where(use, 1.0, 0.0) / np.where(use, error, 1.0)
    terms = np.stack([np.ones(len(distance)), distance / np.abs(distance).max(), np.where(distance > 0, 1.0, 0.0)], axis=1)
    design = weight[:, :, None] * terms
    covariance = np.linalg.inv(np.einsum("sbi,sbj->sij", design, design))
    right = np.einsum("sbi,sb->si", design, weight * np.where(use, level, 0.0))
    return np.stack([np.einsum("si,si->s", covariance[:, 2], right), np.sqrt(covariance[:, 2, 2])], axis=1)
