"""Python face of csrc/coadd.c: the clipped weighted mean of warps that overlap in part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["Input", "clipped_mean"]


class Input(NamedTuple):
    """One warp: its planes (float32, float32, uint32), the output pixel of its first, and its weight."""

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    x0: int
    y0: int
    weight: float


def clipped_mean(inputs: list[Input], shape: tuple[int, int], rules: dict) -> tuple:
    """Combine inputs, in this order, on an output of this shape; `rules` are the fields of `rsp_coadd_rules`.

    Returns
    -------
    image, variance : (ny, nx) float32; mask : (ny, nx) uint32; count : (ny, nx) uint16; clipped : (n,) int64
    """
    c_inputs = ffi.new("rsp_coadd_input[]", len(inputs))
    for entry, given in zip(c_inputs, inputs):
        part = given.image.shape
        entry.image, entry.variance = pointer(given.image, "f4"), pointer(given.variance, "f4", part)
        entry.mask = pointer(given.mask, "u4", part)
        entry.x0, entry.y0, entry.weight = given.x0, given.y0, given.weight
        entry.ny, entry.nx = part
    image, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    mask, count, clipped = np.empty(shape, np.uint32), np.empty(shape, np.uint16), np.empty(len(inputs), np.int64)
    call(lib.rsp_coadd, c_inputs, len(inputs), *shape, ffi.new("rsp_coadd_rules *", rules), pointer(image, "f4"),
         pointer(variance, "f4"), pointer(mask, "u4"), pointer(count, "u2"), pointer(clipped, "i8"))
    return image, variance, mask, count, clipped
