"""Background: the sky on a mesh of a detector or patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box import Box

__all__ = ["Background"]


@dataclass(frozen=True)
class Background:
    """Mesh values; between the mesh centres a bicubic spline, evaluated by `algorithms.background`.

    Attributes
    ----------
    level : (my, mx) float32, sky in the image's unit at the centre of each mesh cell
    noise : (my, mx) float32, robust standard deviation of the sky pixels there
    mesh : int, side of a mesh cell, pixel
    box : Box of the image it belongs to
    """

    level: np.ndarray
    noise: np.ndarray
    mesh: int
    box: Box
