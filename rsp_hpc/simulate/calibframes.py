"""What falls on a detector in frames that are taken for calibration: lamps and spots."""

from __future__ import annotations

import numpy as np

from ..products.box import Box
from ..products.camera import Detector
from .observing import SimulatedExposure

__all__ = ["spots"]

SPOT_RADIUS = 7.0
"""Pixels; spots stand three radii apart."""


def spots(exposure: SimulatedExposure, detector: Detector) -> np.ndarray:
    """(ny, nx) float32 electron: soft-edged discs on one amplifier, from a tenth of the frame's level to all of it."""
    ny, nx = detector.box.shape
    light = np.zeros((ny, nx), np.float32)
    amplifier = detector.amplifiers[exposure.number % len(detector.amplifiers)]
    part = light[amplifier.assembled_box.slices(Box.of_shape((ny, nx)))]
    step = 3.0 * SPOT_RADIUS
    centres = [np.arange(0.5 * step, size - 0.5 * SPOT_RADIUS, step) for size in part.shape]
    y, x = np.arange(part.shape[0])[:, None], np.arange(part.shape[1])[None, :]
    levels = np.linspace(0.1, 1.0, len(centres[0]) * len(centres[1]))
    for level, (row, column) in zip(levels, ((row, column) for row in centres[0] for column in centres[1])):
        disc = np.clip(SPOT_RADIUS + 0.5 - np.hypot(x - column, y - row), 0.0, 1.0)
        part += (exposure.light * level * disc).astype(np.float32)
    return light
