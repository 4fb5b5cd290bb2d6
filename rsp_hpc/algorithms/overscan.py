"""overscan: the level of every row, and of every column, of an amplifier from the pixels that saw no light."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.combine import ClipOptions, clipped_mean
from ..products.camera import Amplifier
from .linearity import natural_spline

__all__ = ["OverscanConfig", "check_overscan", "overscan_levels"]

LIGHT = 0.2
"""Overscan columns above this fraction of the light in the data hold light themselves: no charge left behind is as much."""


class OverscanConfig(Config):
    """How the level of an amplifier is found (part of the section `detrend`)."""

    overscan: Literal["none", "row", "median", "spline", "mean"] = parameter(
        "row", "level of each row: clipped mean or median of its overscan (prescan where there is none), a smooth curve through "
               "the rows, one level per amplifier, or none; row: the camera's constant offset where an amplifier has neither")
    overscan_skip: int = parameter(2, "first overscan columns left out: charge that was left behind", unit="pixel", low=0)
    overscan_samples: int = parameter(
        64, "rows are averaged until a level rests on so many overscan pixels: its noise is in every pixel of the row", low=1)
    overscan_knots: int = parameter(128, "rows, or columns, between the knots of a smooth curve", unit="pixel", low=8)
    parallel_overscan: Literal["none", "column", "median", "spline", "mean"] = parameter(
        "none", "whether the profile of the parallel overscan along the row is subtracted too, and how it is found: median over 15 "
                "columns, median or clipped mean of each column, or a smooth curve")
    clip: float = parameter(4.0, "overscan pixels farther than this from the median are left out", unit="sigma", above=1.0)


def check_overscan(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> None:
    """That the overscan is there and is one.

    Raises
    ------
    BadData
        It is absent though asked for, narrower than what is left out, empty, or holds light.
    """
    region, skip = _serial_region(amplifier, config)
    name = f"amplifier {amplifier.name}"
    if config.parallel_overscan != "none" and amplifier.parallel_overscan is None:
        raise BadData(f"{name} has no parallel overscan; describe it in the camera or set detrend.parallel_overscan: none")
    if region is None and config.overscan not in ("none", "row"):
        raise BadData(f"{name} has no overscan and no prescan; describe one in the camera or set detrend.overscan: none")
    if region is None or config.overscan == "none":
        return
    if skip >= region[2]:
        raise BadData(f"{name}: its overscan is {region[2]} columns wide and the first {skip} are left out; mend its width in the "
                      "camera or lower detrend.overscan_skip")
    with np.errstate(invalid="ignore"):
        strip = _strip(segment, amplifier, config)
        columns = np.median(strip[::8].astype(np.float32), axis=0)
        if not columns.any() and strip.max() == 0:
            raise BadData(f"{name}: its overscan holds nothing but zeros; the file was trimmed: describe it so in the camera, "
                          "without overscan")
        data = amplifier.data
        light = float(np.median(segment[data[1]:data[1] + data[3]:16, data[0]:data[0] + data[2]:16])) - float(np.min(columns))
        if light > 20.0 * max(amplifier.read_noise / amplifier.gain, 1.0):
            lit = np.flatnonzero(columns - np.min(columns) > LIGHT * light)
            if lit.size and np.max(columns) < amplifier.saturation:
                raise BadData(f"{name}: {lit.size} of the {columns.size} columns of its overscan hold light; mend the "
                              "overscan's or the data's width in the camera")


def _serial_region(amplifier: Amplifier, config: OverscanConfig) -> tuple[tuple[int, int, int, int] | None, int]:
    """The columns that tell the level of each row, and how many of them are left out."""
    if amplifier.serial_overscan is None:
        return amplifier.prescan, 0
    return amplifier.serial_overscan, config.overscan_skip


def _strip(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> np.ndarray:
    """The overscan pixels that count: those read first are left out."""
    (x0, y0, width, height), skip = _serial_region(amplifier, config)
    skip = min(skip, width - 1)
    first = 0 if amplifier.read_backwards[0] else skip
    return segment[y0:y0 + height, x0 + first:x0 + first + width - skip]


def overscan_levels(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig,
                    offset: float) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Level of each row (ny,), of each column (nx,) or None, in ADU; and the variance of a row's level, ADU^2.

    offset : ADU, the level where there is no overscan
    """
    ny = amplifier.data[3]
    region, _ = _serial_region(amplifier, config)
    rows, variance = np.full(ny, offset, np.float32), 0.0
    with_rows = config.overscan != "none" and region is not None
    if with_rows:
        level, variance = _row_levels(_strip(segment, amplifier, config), amplifier, config)
        rows = np.interp(np.arange(ny) + amplifier.data[1], np.arange(region[3]) + region[1], level).astype(np.float32)
    columns = None
    if config.parallel_overscan != "none" and amplifier.parallel_overscan is not None:
        columns = _column_profile(segment, amplifier, config, with_rows)
    return rows, columns, variance


def _row_levels(strip: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> tuple[np.ndarray, float]:
    """Level of each row of an overscan strip (rows, columns), ADU, and its variance.

    Clipped mean or median of each row; rows that stand out (a star bled into them) take the median of their neighbours.

    Raises
    ------
    BadData
        No overscan pixel is finite and below saturation.
    """
    level, noise = (_medians if config.overscan == "median" else _clipped)(strip, amplifier, config)
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
    if config.overscan == "spline":
        smooth, n_knots = _smooth_curve(level, config)
        return smooth, float(noise * n_knots / len(level))
    window = min(len(level), -(-config.overscan_samples // strip.shape[1]))
    return _running_mean(level, window | 1), float(noise / (window | 1))


def _medians(strip: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> tuple[np.ndarray, float]:
    """Median along the rows of (rows, columns), NaN where nothing is left; and the mean variance of one, ADU^2.

    Whole numbers get random fractions, the same ones for every strip: medians have no steps then.
    """
    values = np.array(strip, dtype=np.float32, order="C")
    values[values >= amplifier.saturation] = np.nan
    if strip.dtype.kind in "iu":
        values += np.random.Generator(np.random.PCG64DXSM(0)).random(values.shape, np.float32) - np.float32(0.5)
    middle = np.median(values, axis=1).astype(np.float64)
    for row in np.flatnonzero(~np.isfinite(middle)):
        known = values[row][np.isfinite(values[row])]
        middle[row] = np.median(known) if known.size else np.nan
    spread = _robust_sigma(values - middle[:, None]) if np.isfinite(middle).any() else 0.0
    return middle, float(0.5 * np.pi * spread**2 / values.shape[1])


def _smooth_curve(level: np.ndarray, config: OverscanConfig) -> tuple[np.ndarray, int]:
    """The natural cubic spline, with so many knots, that fits levels best; what is 4 sigma off is left out, three times."""
    at, n_knots = np.arange(len(level), dtype=float), max(2, round(len(level) / config.overscan_knots) + 1)
    knots = np.linspace(0.0, max(len(level) - 1.0, 1.0), n_knots)
    basis = np.stack([natural_spline(knots, unit)(at) for unit in np.eye(n_knots)], axis=1)
    used = np.isfinite(level)
    for _ in range(4):
        curve = basis @ np.linalg.lstsq(basis[used], level[used], rcond=None)[0]
        with np.errstate(invalid="ignore"):
            near = np.abs(level - curve) <= config.clip * _robust_sigma((level - curve)[used]) + 1e-9
        if near.sum() <= n_knots or (near == used).all():
            break
        used = near
    return curve, n_knots


def _clipped(strip: np.ndarray, amplifier: Amplifier, config: OverscanConfig) -> tuple[np.ndarray, float]:
    """Clipped mean along the rows of (rows, columns), NaN where nothing is left; and the mean variance of one, ADU^2."""
    columns = np.array(strip.T, dtype=np.float32, order="C")
    columns[columns >= amplifier.saturation] = np.nan
    read_noise = amplifier.read_noise / amplifier.gain
    noise = np.full((len(columns), 2), (read_noise**2 + 1.0 / 12.0, 0.0)) if read_noise > 0 else None
    combined = clipped_mean(columns, ClipOptions(kappa_low=config.clip, kappa_high=config.clip), noise=noise)
    usable = np.isfinite(combined.variance)
    return combined.mean.astype(np.float64), float(combined.variance[usable].mean()) if usable.any() else 0.0


def _column_profile(segment: np.ndarray, amplifier: Amplifier, config: OverscanConfig, with_rows: bool) -> np.ndarray:
    """Level of each column from the parallel overscan, (nx,) float32 ADU; with median zero where the rows have their own.

    Columns that stand out (a saturated one trails into them) take the median of their neighbours.
    """
    x0, y0, width, height = amplifier.parallel_overscan
    strip = segment[y0:y0 + height, x0:x0 + width].T
    level, noise = (_medians if config.parallel_overscan == "median" else _clipped)(strip, amplifier, config)
    if not np.isfinite(level).any():
        return np.zeros(amplifier.data[2], np.float32)
    around = _block_median(level, 15)
    if config.parallel_overscan == "column":
        profile = around
    else:
        with np.errstate(invalid="ignore"):
            wild = ~(np.abs(level - around) <= 8.0 * np.sqrt(noise) + 5.0 * _robust_sigma(level - around))
        profile = np.where(wild, around, level)
        if config.parallel_overscan == "spline":
            profile, _ = _smooth_curve(profile, config)
    profile = np.interp(np.arange(amplifier.data[2]) + amplifier.data[0], np.arange(width) + x0, profile)
    return (profile - (np.median(profile) if with_rows else 0.0)).astype(np.float32)


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
