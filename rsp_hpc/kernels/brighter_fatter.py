"""brighter_fatter: charge back across borders that charges had shifted (csrc/brighter_fatter.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["Separable", "TransportOptions", "correct"]


class Separable(NamedTuple):
    """A kernel as a sum of products of columns (terms, ny) and rows (terms, nx), float32; `centre` is [y, x] of lag zero.

    symmetry : 1, -1: the columns turned upside down are themselves, their opposites; 0: neither
    """

    column: np.ndarray
    row: np.ndarray
    centre: tuple[int, int]
    symmetry: int = 0


class TransportOptions(NamedTuple):
    """As rsp_brighter_fatter_options in csrc/rsp.h."""

    exclude_bits: int
    level: float
    passes: int
    tolerance: float
    measured_share: float


def _separable(kernel: Separable):
    """The C struct, and what it points into."""
    column, row = (np.ascontiguousarray(part, np.float32) for part in (kernel.column, kernel.row))
    (n, ny), nx, (y, x) = column.shape, row.shape[1], kernel.centre
    struct = ffi.new("rsp_separable *", dict(n_terms=n, before=x, after=nx - 1 - x, below=y, above=ny - 1 - y, symmetry=kernel.symmetry,
                                             row=pointer(row, "f4", (n, nx)), column=pointer(column, "f4")))
    return struct, (column, row)


def correct(planes: tuple[np.ndarray, np.ndarray, np.ndarray], defects: np.ndarray | None, east: Separable,
            north: Separable | None, options: TransportOptions) -> tuple[int, int, float]:
    """Correct image and variance (ny, nx) float32 in place; the mask uint32 is read, `defects` (ny, nx) bool too.

    Without `north`, `east` is the potential. Returns excluded pixels, passes, and the largest change of the last pass, electron.
    """
    image, mask, variance = planes
    shape, bad = image.shape, None if defects is None else defects.view(np.uint8)
    (first, _keep), (second, _keep_too) = _separable(east), (ffi.NULL, None) if north is None else _separable(north)
    excluded, passes, change = ffi.new("int64_t *"), ffi.new("int64_t *"), ffi.new("double *")
    call(lib.rsp_brighter_fatter, *shape, ffi.new("rsp_brighter_fatter_options *", options._asdict()), first, second,
         pointer(mask, "u4", shape), pointer(bad, "u1", shape), pointer(image, "f4", shape), pointer(variance, "f4", shape),
         excluded, passes, change)
    return int(excluded[0]), int(passes[0]), float(change[0])
