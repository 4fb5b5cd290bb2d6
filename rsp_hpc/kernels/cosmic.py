"""cosmic: pixels hit by cosmic rays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["CosmicOptions", "find_hits"]


class CosmicOptions(NamedTuple):
    """As rsp_cosmic_options in csrc/rsp.h."""

    sigma: float
    peak: float
    edge: float
    grow_peak: float
    grow_edge: float
    contrast: float
    grow_contrast: float
    relative: float
    rounds: int
    margin: int
    skip_bits: int
    saturated_bit: int
    hit_bit: int


def find_hits(image: np.ndarray, mask: np.ndarray, variance: np.ndarray, sky: np.ndarray,
              options: CosmicOptions) -> int:
    """Set hit_bit in the mask, in place; the number of pixels newly hit. Planes (ny, nx) float32, the mask uint32."""
    hits = ffi.new("int64_t *")
    call(lib.rsp_cosmic, *image.shape, ffi.new("rsp_cosmic_options *", options._asdict()), pointer(image, "f4"),
         pointer(variance, "f4", image.shape), pointer(sky, "f4", image.shape), pointer(mask, "u4", image.shape), hits)
    return int(hits[0])
