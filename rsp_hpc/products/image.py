"""MaskedImage: image, mask and variance that agree, and know where they sit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .box import Box
from .mask import bits

__all__ = ["MaskedImage"]


@dataclass
class MaskedImage:
    """Pixels of one detector, patch or cutout.

    Attributes
    ----------
    image : (ny, nx) float32, in `unit`
    mask : (ny, nx) uint32, planes of `products.mask`
    variance : (ny, nx) float32, in unit**2; inf where unknown
    box : Box, where the array sits
    unit : 'electron' or 'nJy'
    """

    image: np.ndarray
    mask: np.ndarray
    variance: np.ndarray
    box: Box = field(default=None)  # type: ignore[assignment]
    unit: str = "electron"

    def __post_init__(self):
        if self.box is None:
            self.box = Box.of_shape(self.image.shape)
        for name, dtype in (("image", np.float32), ("mask", np.uint32), ("variance", np.float32)):
            plane = getattr(self, name)
            if plane.shape != self.box.shape or plane.dtype != dtype:
                raise ValueError(f"{name} is {plane.dtype} {plane.shape}, wanted {np.dtype(dtype)} {self.box.shape}")

    @classmethod
    def empty(cls, box: Box, unit: str = "electron") -> MaskedImage:
        """Uninitialised planes on a box."""
        return cls(np.empty(box.shape, np.float32), np.empty(box.shape, np.uint32),
                   np.empty(box.shape, np.float32), box, unit)

    @classmethod
    def without_data(cls, box: Box, unit: str = "electron") -> MaskedImage:
        """All pixels NO_DATA: value NaN, variance inf."""
        return cls(np.full(box.shape, np.nan, np.float32), np.full(box.shape, bits("NO_DATA"), np.uint32),
                   np.full(box.shape, np.inf, np.float32), box, unit)

    def cutout(self, box: Box) -> MaskedImage:
        """A view of the part inside `box`."""
        box = box.intersect(self.box)
        part = box.slices(self.box)
        return MaskedImage(self.image[part], self.mask[part], self.variance[part], box, self.unit)

    def copy(self) -> MaskedImage:
        """An independent copy."""
        return MaskedImage(self.image.copy(), self.mask.copy(), self.variance.copy(), self.box, self.unit)

    def good(self, *planes: str) -> np.ndarray:
        """(ny, nx) bool: finite, with finite positive variance, and none of the named planes set."""
        clear = (self.mask & np.uint32(bits(*planes))) == 0
        return clear & np.isfinite(self.image) & np.isfinite(self.variance) & (self.variance > 0)
