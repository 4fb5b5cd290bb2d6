"""planes: assembled images of one detector kept for a combination: what does not fit the memory lies in a scratch file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...kernels.combine import ClipOptions
from ...kernels.detrend import AmplifierGeometry
from ...kernels.frames import FramePart, FrameTerms, combine_amplifier
from ...products.image import MaskedImage
from .stack import BLOCK, release, rows_in_bands

__all__ = ["USABLE", "PlaneStack"]

USABLE = ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "UNMASKEDNAN", "DETECTED", "DETECTED_NEGATIVE", "STREAK", "VIGNETTED", "INTRP")
"""Mask planes whose pixels are no empty sky."""

Allocate = Callable[..., np.ndarray]


@dataclass
class PlaneStack:
    """Images as float32 planes, NaN where they cannot be used.

    Attributes
    ----------
    memory : MB, for the planes; scratch : (shape, dtype) -> array for those that do not fit
    planes : n arrays (ny, nx); noise : (n,) rms of a pixel of each
    """

    memory: int
    scratch: Allocate
    planes: list[np.ndarray] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.planes)

    def add(self, image: MaskedImage, values: np.ndarray | None = None) -> None:
        """Keep an image, or other values under its mask."""
        good = image.good(*USABLE)
        values = image.image if values is None else values
        fits = 4 * values.size * (len(self.planes) + 1) <= 1e6 * self.memory
        plane = np.empty(values.shape, np.float32) if fits else self.scratch(values.shape, np.float32)
        np.copyto(plane, values)
        plane[~good] = np.nan
        some = image.variance[good][::97]
        self.noise.append(float(np.sqrt(np.median(some))) if some.size else float("inf"))
        self.planes.append(plane)
        release(plane)

    def combine(self, factors: np.ndarray, weights: np.ndarray, kappa: float) -> tuple[np.ndarray, np.ndarray]:
        """Clipped mean of factor * plane, and its variance; (ny, nx) float32, NaN and inf where nothing was usable."""
        ny, nx = self.planes[0].shape
        out = np.full((ny, nx), np.nan, np.float32), np.full((ny, nx), np.inf, np.float32)
        clipped = np.zeros((len(self), -(-ny // BLOCK), -(-nx // BLOCK)), np.int32)
        level = np.zeros(ny, np.float32)
        parts = [FramePart(plane, level) for plane in self.planes]
        noise = np.stack([(factors * np.array(self.noise)) ** 2, np.zeros(len(self))], axis=1)
        terms = FrameTerms(np.ascontiguousarray(factors, np.float64)[:, None, None], np.zeros(len(self)),
                           np.ascontiguousarray(weights / weights.mean(), np.float64), noise)
        geometry = AmplifierGeometry((0, 0, nx, ny), (0, 0), False, False, 1.0, 0.0, float("inf"))
        for rows in rows_in_bands(self.planes, ny):
            combine_amplifier(parts, geometry, terms, rows, (None, None, BLOCK, ClipOptions(kappa, kappa, min_inputs=3)),
                              (*out, clipped))
            for plane in self.planes:
                release(plane)
        return out
