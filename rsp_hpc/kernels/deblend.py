"""Face of csrc/deblend.c: shares out the light of blends."""

from __future__ import annotations

import numpy as np

from ..errors import KernelError
from . import call, ffi, lib, pointer

__all__ = ["share_light"]


def share_light(planes, footprints: dict, psfs, limits: tuple[int, int, float, float]):
    """Pixels of the peaks of blends.

    Parameters
    ----------
    planes : image, variance, mask, labels, each (ny, nx): float32, float32, uint32, int32
    footprints : boxes (m, 4) int32, areas (m,) int64, starts (m + 1,) int64, owners (ny, nx) int32, xy (n, 2) float64,
        snr (n,) float32
    psfs : (footprints with several peaks, k, k) float32
    limits : max_peaks, max_area, faint, misfit; see rsp.h

    Returns
    -------
    boxes (n, 4) int32, offsets (n,) int64, values float32, flags (n,) uint8
    """
    image, variance, mask, labels = planes
    n, n_footprints, side = len(footprints["xy"]), len(footprints["boxes"]), psfs.shape[-1]
    pixels = ffi.new("rsp_pixels *", {
        "ny": image.shape[0], "nx": image.shape[1], "image": pointer(image, "f4"),
        "variance": pointer(variance, "f4", image.shape), "mask": pointer(mask, "u4", image.shape),
        "labels": pointer(labels, "i4", image.shape), "never": 0, "reject": 0, "rescue": 0})
    found = ffi.new("rsp_footprints *", {
        "n": n_footprints, "boxes": pointer(footprints["boxes"], "i4", (n_footprints, 4)),
        "areas": pointer(footprints["areas"], "i8", (n_footprints,)),
        "starts": pointer(footprints["starts"], "i8", (n_footprints + 1,)),
        "owners": pointer(footprints["owners"], "i4", image.shape), "xy": pointer(footprints["xy"], "f8", (n, 2)),
        "snr": pointer(footprints["snr"], "f4", (n,))})
    boxes, offsets, flags = np.empty((n, 4), np.int32), np.empty(n, np.int64), np.empty(n, np.uint8)
    count = ffi.new("int64_t *")

    def attempt(capacity):
        values = np.empty(capacity, np.float32)
        call(lib.rsp_deblend, pixels, found, side, pointer(psfs, "f4", (len(psfs), side, side)), *limits, capacity,
             pointer(boxes, "i4"), pointer(offsets, "i8"), pointer(values, "f4"), pointer(flags, "u1"), count)
        return values[:count[0]]

    blended = int(np.sum(np.where(np.diff(footprints["starts"]) > 1, np.diff(footprints["starts"]), 0)))
    try:
        values = attempt(2 * blended * side * side + 64)
    except KernelError as error:
        if error.status != lib.RSP_FULL:
            raise
        values = attempt(int(count[0]))
    return boxes, offsets, values, flags
