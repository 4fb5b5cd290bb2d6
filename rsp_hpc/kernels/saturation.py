"""saturation: pixels around saturated ones, bleed trails (csrc/saturation.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["TrailOptions", "grow", "trails"]


class TrailOptions(NamedTuple):
    """As rsp_trail_options in csrc/rsp.h."""

    x0: int
    y0: int
    x1: int
    y1: int
    length: int
    beyond: int
    beside: int
    edge_rows: int
    edge_reach: int
    read_at_top: bool
    saturated_bits: int
    set_bits: int


def grow(mask: np.ndarray, from_bits: int, radius: int, set_bits: int) -> int:
    """Set bits around pixels that have some, in place; the number of pixels newly set. mask (ny, nx) uint32."""
    count = ffi.new("int64_t *")
    call(lib.rsp_saturation_grow, *mask.shape, from_bits, radius, set_bits, pointer(mask, "u4"), count)
    return int(count[0])


def trails(mask: np.ndarray, options: TrailOptions) -> int:
    """Set bits along the bleed trails of an amplifier, in place; the number of pixels newly set. mask (ny, nx) uint32."""
    count = ffi.new("int64_t *")
    call(lib.rsp_saturation_trails, *mask.shape, ffi.new("rsp_trail_options *", options._asdict()), pointer(mask, "u4"), count)
    return int(count[0])
