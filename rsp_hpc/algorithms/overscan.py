"""overscan: the level of every row, and of every column, of an amplifier from the pixels that saw no light."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.combine import ClipOptions, clipped_mean
from ..products.camera import Amplifier

__all__ = ["OverscanConfig", "overscan_levels"]


class OverscanConfig(Config):
    """How the level of an amplifier is found (part of the section `detrend`)."""

    overscan: Literal["none", "row", "mean"] = parameter(
        "row", "level of each row from its overscan (prescan where there is none), one level per amplifier, or none")
    overscan_skip: int = parameter(2, "first overscan columns left out: charge that was left behind", unit="pixel", low=0)
    overscan_samples: int = parameter(
        64, "rows are averaged until a level rests on so many overscan pixels: its noise is in every pixel of the row", low=1)
    parallel_overscan: Literal["none", "column"] = parameter(
        "none", "whether the profile of the parallel overscan along the row is subtracted too")
    clip: float = parameter(4.0, "overscan pixels farther than this from the median are left out", unit="sigma", above=1.0)


def overscan_levels(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig,
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


def _row_levels(strip: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> tuple[np.ndarray, float]:
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


def _clipped(strip: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> tuple[np.ndarray, float]:
    """Clipped mean along the rows of (rows, columns), NaN where nothing is left; and the mean variance of one, ADU^2."""
    columns = np.array(strip.T, dtype=np.float32, order="C")
    columns[columns >= amplifier.saturation] = np.nan
    read_noise = amplifier.read_noise / amplifier.gain
    noise = np.full((len(columns), 2), (read_noise**2 + 1.0 / 12.0, 0.0)) if read_noise > 0 else None
    combined = clipped_mean(columns, ClipOptions(kappa_low=config.clip, kappa_high=config.clip), noise=noise)
    usable = np.isfinite(combined.variance)
    return combined.mean.astype(np.float64), float(combined.variance[usable].mean()) if usable.any() else 0.0


def _column_profile(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> np.ndarray:
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
