"""Calibration products of one detector: what detrending needs. All assembled, in electrons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """Combined frames of one detector; None where the camera has none (the step is then left out and said so).

    Attributes
    ----------
    bias : (ny, nx) float32, electron, after overscan correction
    dark : (ny, nx) float32, electron/s
    flat : (ny, nx) float32, relative response, mean one over the camera's good pixels; <= 0 or NaN is bad
    defects : (ny, nx) bool
    inputs : names of the files that went in
    """

    bias: np.ndarray | None = None
    dark: np.ndarray | None = None
    flat: np.ndarray | None = None
    defects: np.ndarray | None = None
    inputs: tuple[str, ...] = ()
