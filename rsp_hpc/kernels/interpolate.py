"""interpolate: fill bad pixels from good neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["FillOptions", "interpolate"]


class FillOptions(NamedTuple):
    """As rsp_interpolate_options in csrc/rsp.h."""

    radius: int
    max_radius: int
    sigma: float
    inflation: float
    fill_bits: int
    avoid_bits: int
    done_bit: int


def interpolate(image: np.ndarray, mask: np.ndarray, variance: np.ndarray, options: FillOptions) -> int:
    """Fill in place; the number of pixels filled. Planes are (ny, nx) float32, uint32, float32."""
    filled = ffi.new("int64_t *")
    call(lib.rsp_interpolate, *image.shape, ffi.new("rsp_interpolate_options *", options._asdict()), pointer(image, "f4"),
         pointer(mask, "u4", image.shape), pointer(variance, "f4", image.shape), filled)
    return int(filled[0])
