"""Python face of csrc/warp.c: Lanczos-3 resampling of image, variance and mask, and of PSF stamps."""

from __future__ import annotations

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["STEP", "warp", "warp_psf"]

STEP = 32
"""Distance of the position grid's nodes, output pixels."""


def warp(planes: tuple, grid: tuple, rules: dict, offset: tuple[int, int], shape: tuple[int, int]) -> tuple:
    """Resample image, variance and mask in one pass.

    Parameters
    ----------
    planes : image (ny, nx) float32, variance (ny, nx) float32, mask (ny, nx) uint32 of the source
    grid : x, y, scale, each (gny, gnx) float64 at nodes STEP output pixels apart, see `rsp_warp` in rsp.h
    rules : fields of `rsp_warp_rules`
    offset : (row, column) of the first output pixel after node (1, 1)
    shape : (ny, nx) of the output

    Returns
    -------
    image float32, variance float32, mask uint32 : (ny, nx)
    """
    image, variance, mask = planes
    source, nodes = image.shape, grid[0].shape
    c_rules = ffi.new("rsp_warp_rules *", rules)
    out = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint32)
    call(lib.rsp_warp, pointer(image, "f4"), pointer(variance, "f4", source), pointer(mask, "u4", source), *source,
         *(pointer(values, "f8", nodes) for values in grid), *nodes, c_rules, *offset, *shape,
         pointer(out[0], "f4"), pointer(out[1], "f4"), pointer(out[2], "u4"))
    return out


def warp_psf(stamps: np.ndarray, phase: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    """Resample PSF stamps (n, k, k) float32 as `warp` resamples stars on output pixel centres: (n, size, size) float32.

    `phase` (n, 2) float64: the star's fractional source position (x, y); `affine` (n, 2, 2) float64:
    d(source)/d(output).
    """
    n, k = stamps.shape[:2]
    out = np.empty((n, size, size), np.float32)
    call(lib.rsp_warp_psf, pointer(stamps, "f4", (n, k, k)), n, k, pointer(phase, "f8", (n, 2)),
         pointer(affine, "f8", (n, 2, 2)), size, pointer(out, "f4"))
    return out
