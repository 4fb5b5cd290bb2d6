"""Clipped mean of N registered images, pixel by pixel (csrc/combine.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["ClipOptions", "Combined", "clipped_mean"]


class ClipOptions(NamedTuple):
    """How the inputs of one pixel are combined; csrc/rsp.h (rsp_combine_options) says what each field means."""

    kappa_low: float = 4.0
    kappa_high: float = 4.0
    relative: float = 0.0
    majority_fraction: float = 0.5
    iterations: int = 2
    min_inputs: int = 3
    absent_bits: int = 0
    reject_bits: int = 0
    or_bits: int = 0
    majority_bits: int = 0
    clipped_bit: int = 0
    rejected_bit: int = 0
    no_data_bit: int = 0


class Combined(NamedTuple):
    """Result of `clipped_mean`; all planes have the inputs' shape.

    mean, variance (of the mean): float32; count: uint16, inputs used; mask: uint32; clipped: (n,) int64, pixels clipped
    in each input.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    mask: np.ndarray
    clipped: np.ndarray


def clipped_mean(images: Sequence[np.ndarray], options: ClipOptions = ClipOptions(), *,
                 variances: Sequence[np.ndarray] | None = None, masks: Sequence[np.ndarray] | None = None,
                 weights: np.ndarray | None = None, noise: np.ndarray | None = None) -> Combined:
    """Weighted mean of what is left after clipping about the median.

    Parameters
    ----------
    images : n arrays of one shape, float32 C-contiguous (or one array with leading axis n)
    options : ClipOptions
    variances, masks : n arrays like the images, float32 and uint32
    weights : (n,) float64, weight of each image; without it 1/variance of each pixel, or one
    noise : (n, 2) float64, floor and slope: variance = floor + slope * max(centre, 0); used where variances is None

    Raises
    ------
    KernelError
        Arrays of other dtype, shape or order; options outside their limits.
    """
    n, shape = len(images), images[0].shape
    out = Combined(np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint16),
                   np.empty(shape, np.uint32), np.empty(n, np.int64))
    weights = None if weights is None else np.ascontiguousarray(weights, np.float64)
    noise = None if noise is None else np.ascontiguousarray(noise, np.float64)
    call(lib.rsp_combine_clipped_mean, n, out.mean.size, _pointers(images, "f4", n, shape),
         _pointers(variances, "f4", n, shape), _pointers(masks, "u4", n, shape), pointer(weights, "f8", (n,)),
         pointer(noise, "f8", (n, 2)), ffi.new("rsp_combine_options *", options._asdict()), pointer(out.mean, "f4"),
         pointer(out.variance, "f4"), pointer(out.count, "u2"), pointer(out.mask, "u4"), pointer(out.clipped, "i8"))
    return out


def _pointers(arrays: Sequence[np.ndarray] | None, dtype: str, n: int, shape: tuple[int, ...]):
    """An array of n C pointers; NULL for None."""
    if arrays is None:
        return ffi.NULL
    kind = {"f4": "float *[]", "u4": "uint32_t *[]"}[dtype]
    return ffi.new(kind, [pointer(arrays[i], dtype, shape) for i in range(n)])
