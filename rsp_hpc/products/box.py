"""A Box: half-open integer pixels with an origin, so that every image knows where it sits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Box"]


@dataclass(frozen=True)
class Box:
    """Pixels x0 <= x < x0 + nx, y0 <= y < y0 + ny; pixel centres are at integer coordinates."""

    x0: int
    y0: int
    nx: int
    ny: int

    def __post_init__(self):
        if self.nx < 0 or self.ny < 0:
            raise ValueError(f"a Box has no negative size: nx={self.nx}, ny={self.ny}")

    @classmethod
    def of_shape(cls, shape: tuple[int, int], origin: tuple[int, int] = (0, 0)) -> Box:
        """The box of an array of shape (ny, nx) whose first pixel is at origin (x0, y0)."""
        return cls(int(origin[0]), int(origin[1]), int(shape[1]), int(shape[0]))

    @property
    def x1(self) -> int:
        """One past the last column."""
        return self.x0 + self.nx

    @property
    def y1(self) -> int:
        """One past the last row."""
        return self.y0 + self.ny

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), as numpy has it."""
        return self.ny, self.nx

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.nx * self.ny

    def intersect(self, other: Box) -> Box:
        """The pixels in both; a box of size zero where there are none."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        return Box(x0, y0, max(0, min(self.x1, other.x1) - x0), max(0, min(self.y1, other.y1) - y0))

    def grow(self, pixels: int) -> Box:
        """Larger by so many pixels on each side."""
        return Box(self.x0 - pixels, self.y0 - pixels, max(0, self.nx + 2 * pixels), max(0, self.ny + 2 * pixels))

    def shift(self, dx: int, dy: int) -> Box:
        """Moved by (dx, dy)."""
        return Box(self.x0 + dx, self.y0 + dy, self.nx, self.ny)

    def slices(self, within: Box) -> tuple[slice, slice]:
        """Index of this box in an array that covers `within`."""
        return (slice(self.y0 - within.y0, self.y1 - within.y0), slice(self.x0 - within.x0, self.x1 - within.x0))

    def contains(self, x, y) -> np.ndarray:
        """Whether positions lie on the box's pixels: within half a pixel of the outermost centres."""
        x, y = np.asarray(x), np.asarray(y)
        return (x >= self.x0 - 0.5) & (x < self.x1 - 0.5) & (y >= self.y0 - 0.5) & (y < self.y1 - 0.5)

    def corners(self) -> np.ndarray:
        """(4, 2) float64: outer corners (x, y) of the pixels, anticlockwise from the lower left."""
        left, right, low, high = self.x0 - 0.5, self.x1 - 0.5, self.y0 - 0.5, self.y1 - 0.5
        return np.array([[left, low], [right, low], [right, high], [left, high]])
