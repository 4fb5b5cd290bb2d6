"""Footprints: what detection found (footprints and their peaks) and how blends were shared out (children)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box import Box

__all__ = ["Children", "Detections"]


@dataclass(frozen=True)
class Detections:
    """Footprints of one image and the peaks in them.

    Peaks are sorted by footprint, the most significant first; footprints by their first pixel (row by row).

    Attributes
    ----------
    box : Box of the image
    labels : (ny, nx) int32, footprint + 1; 0 = none
    owners : (ny, nx) int32, peak + 1 whose slope a footprint's pixel lies on; 0 = none
    x, y : (n,) float64, peaks, pixel, in the coordinates of `box`
    snr : (n,) float32, significance of a point source at the peak
    footprint : (n,) int32, index of the peak's footprint
    boxes : (n_footprints, 4) int32: x0, y0, x1, y1, half open, relative to the box's origin
    areas : (n_footprints,) int64, pixel
    starts : (n_footprints + 1,) int64: peaks of footprint f are starts[f] .. starts[f + 1] - 1
    bands : (n, n_bands) bool, optional, in which of several images the peak is significant by itself
    """

    box: Box
    labels: np.ndarray
    owners: np.ndarray
    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    footprint: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    starts: np.ndarray
    bands: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_peaks(self) -> np.ndarray:
        """(n_footprints,) int64: peaks in each footprint."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Children:
    """Pixels of the peaks of blends in one image: in every pixel of a blend they sum to the image.

    Attributes
    ----------
    boxes : (n, 4) int32: x0, y0, x1, y1, half open, relative to the image's origin; child k has the pixels of boxes[k]
    offsets : (n,) int64, where child k begins in `values`; -1 = not a child: the peak is alone, or was left blended
    values : float32, the children's pixels one after the other, in the image's unit
    flags : (n,) uint8, bits: 1 left blended (footprint too large or too many peaks), 2 shared as point source
    """

    boxes: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    flags: np.ndarray

    NOT_DEBLENDED = 1
    POINT_SOURCE = 2

    def __len__(self) -> int:
        return len(self.offsets)

    def pixels(self, k: int) -> np.ndarray:
        """(ny, nx) float32 view: child k on boxes[k].

        Raises
        ------
        IndexError
            Peak k has no child pixels.
        """
        if self.offsets[k] < 0:
            raise IndexError(f"peak {k} has no child pixels: it is alone or was left blended")
        x0, y0, x1, y1 = self.boxes[k]
        return self.values[self.offsets[k]:self.offsets[k] + (y1 - y0) * (x1 - x0)].reshape(y1 - y0, x1 - x0)

    @classmethod
    def none(cls, size: int) -> Children:
        """No child at all for so many peaks."""
        return cls(np.zeros((size, 4), np.int32), np.full(size, -1, np.int64), np.zeros(0, np.float32),
                   np.zeros(size, np.uint8))
