"""Covariances of neighbouring pixels in the difference of two flats (csrc/covariance.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import KernelError
from . import call, ffi, lib, pointer

__all__ = ["MAX_LAGS", "PairSums", "pair_sums"]

MAX_LAGS = 32


class PairSums(NamedTuple):
    """Sums over the used pixels of d = first - ratio * second.

    product : (L, 2L-1) float64: at [j, L-1+i] the sum of d(x, y) d(x+i, y+j); count: int64, pairs in it
    first, second, difference, ratio : float, sums over the used pixels; n : int, their number
    """

    product: np.ndarray
    count: np.ndarray
    first: float
    second: float
    difference: float
    ratio: float
    n: int


def pair_sums(first, second, masks, options: tuple[np.ndarray, float, int], n_lags: int) -> PairSums:
    """Sums of products of neighbouring pixels of the difference of two images of one rectangle.

    Parameters
    ----------
    first, second : (ny, nx) float32, rows contiguous: a cut-out of a larger plane will do
    masks : two (ny, nx) uint32 with the strides of the images
    options : (ratio, limit, skip): six coefficients of the ratio's surface in (u, v) from -1 to 1 over the rectangle: 1, u, v, u^2,
        u v, v^2; pixels with |d| above the limit, or with a bit of `skip` in either mask, are left out
    n_lags : L, 1 to MAX_LAGS

    Raises
    ------
    KernelError
        Arrays of other dtype, shape or strides; arguments outside their limits.
    """
    ny, nx = first.shape
    planes = {"first": (first, "f4"), "second": (second, "f4"), "first_mask": (masks[0], "u4"), "second_mask": (masks[1], "u4")}
    pair = ffi.new("rsp_flat_pair *", {"nx": nx, "ny": ny, "stride": first.strides[0] // 4, "limit": options[1],
                                       "skip_bits": options[2]})
    for name, (plane, dtype) in planes.items():
        if plane.dtype != np.dtype(dtype) or plane.shape != first.shape or plane.strides != first.strides or plane.strides[1] != 4:
            raise KernelError(f"covariance wants {dtype} planes of one shape and stride, {name} is {plane.dtype} {plane.shape}")
        setattr(pair, name, ffi.cast("uint32_t *" if dtype == "u4" else "float *", plane.ctypes.data))
    pair.ratio = [float(value) for value in options[0]]
    product, count, sums = np.empty((n_lags, 2 * n_lags - 1)), np.empty((n_lags, 2 * n_lags - 1), np.int64), np.empty(4)
    call(lib.rsp_covariance, pair, n_lags, pointer(product, "f8"), pointer(count, "i8"), pointer(sums, "f8"))
    return PairSums(product, count, *(float(value) for value in sums), int(count[0, n_lags - 1]))
