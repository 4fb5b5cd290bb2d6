"""HEALPix, nested numbering: which pixel a position is in, which pixels a cone may touch (Gorski et al. 2005, ApJ 622, 759)."""

from __future__ import annotations

import numpy as np

from .geometry import unit_vectors

__all__ = ["center_of_pixel", "cone", "pixel_of"]

_ROW = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of the southernmost corner of each base pixel
_COLUMN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def pixel_of(ra, dec, order: int) -> np.ndarray:
    """(n,) int64 nested pixel numbers, 12 x 4^order on the sky, of positions in degrees."""
    z = np.sin(np.radians(np.asarray(dec, float)))
    quarter = np.mod(np.asarray(ra, float) / 90.0, 4.0)  # longitude in units of pi / 2
    side = 1 << order
    face, x, y = np.where(np.abs(z) <= 2.0 / 3.0, _equatorial(z, quarter, side), _polar(np.asarray(dec, float), z, quarter, side))
    return face * side**2 + _spread(x) + 2 * _spread(y)


def _equatorial(z, quarter, side: int) -> np.ndarray:
    """(3, n): base pixel, x, y, by the indices of ascending and descending lines."""
    up = np.floor(side * (0.5 + quarter - 0.75 * z)).astype(np.int64)
    down = np.floor(side * (0.5 + quarter + 0.75 * z)).astype(np.int64)
    above, below = up // side, down // side
    face = np.where(above == below, (above & 3) + 4, np.where(above < below, above & 3, (below & 3) + 8))
    return np.stack([face, down & (side - 1), side - 1 - (up & (side - 1))])


def _polar(dec, z, quarter, side: int) -> np.ndarray:
    """The same in the caps; 1 - |z| by the half angle, which keeps its digits at the poles."""
    sector = np.minimum(np.floor(quarter), 3.0)
    along = quarter - sector
    reach = side * np.sqrt(6.0) * np.abs(np.sin(np.radians(0.5 * (90.0 - np.abs(dec)))))
    near = np.minimum(np.floor(along * reach), side - 1).astype(np.int64)
    far = np.minimum(np.floor((1.0 - along) * reach), side - 1).astype(np.int64)
    sector = sector.astype(np.int64)
    north = z > 0
    return np.stack([np.where(north, sector, sector + 8), np.where(north, side - 1 - far, near),
                     np.where(north, side - 1 - near, far)])


def _spread(value: np.ndarray) -> np.ndarray:
    """The bits of a number at every second place."""
    value = np.asarray(value, np.int64)
    for shift, mask in ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F), (2, 0x3333333333333333),
                        (1, 0x5555555555555555)):
        value = (value | value << shift) & mask
    return value


def _gather(value: np.ndarray) -> np.ndarray:
    """Every second bit: the inverse of `_spread`."""
    value = np.asarray(value, np.int64) & 0x5555555555555555
    for shift, mask in ((1, 0x3333333333333333), (2, 0x0F0F0F0F0F0F0F0F), (4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF),
                        (16, 0x00000000FFFFFFFF)):
        value = (value | value >> shift) & mask
    return value


def center_of_pixel(pixel, order: int) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) in degrees of the centres of pixels."""
    side, pixel = 1 << order, np.asarray(pixel, np.int64)
    face, within = pixel // side**2, pixel % side**2
    x, y = _gather(within), _gather(within >> 1)
    ring = _ROW[face] * side - x - y - 1  # counted from the north pole
    length = np.minimum(np.minimum(ring, 4 * side - ring), side)  # pixels of a ring in a quarter
    cap = length < side
    shift = np.where(cap, 0, (ring - side) & 1)
    z = np.where(ring < side, 1.0 - length**2 / (3.0 * side**2), np.where(ring > 3 * side, length**2 / (3.0 * side**2) - 1.0,
                                                                         (2 * side - ring) * 2.0 / (3.0 * side)))
    step = np.mod((_COLUMN[face] * length + x - y + 1 + shift) // 2, 4 * length)
    step = np.where(step < 1, step + 4 * length, step)
    return np.mod((step - 0.5 * (shift + 1)) * 90.0 / length, 360.0), np.degrees(np.arcsin(z))


def cone(ra: float, dec: float, radius: float, order: int) -> np.ndarray:
    """Sorted pixels that a cone may touch (all degrees); all that it does, and perhaps some of their neighbours.

    From the base pixels downwards: a pixel's corners are less than 1.15 of the root of its area from its centre.
    """
    center = unit_vectors(ra, dec)
    pixels = np.arange(12)
    for level in range(order + 1):
        reach = np.degrees(np.sqrt(np.pi / 3.0)) / (1 << level) * 1.15
        near = unit_vectors(*center_of_pixel(pixels, level)) @ center >= np.cos(np.radians(min(180.0, radius + reach)))
        pixels = pixels[near]
        if level < order:
            pixels = (4 * pixels[:, None] + np.arange(4)).ravel()
    return pixels
