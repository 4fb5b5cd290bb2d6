"""Face of csrc/filter.c and csrc/detect.c: matched filter, footprints, peaks."""

from __future__ import annotations

import numpy as np

from ..errors import KernelError
from . import call, ffi, lib, pointer

__all__ = ["filter_image", "find_footprints", "find_peaks"]


def filter_image(planes, bits: tuple[int, int, int], signal, noise, correlation):
    """The filtered image, and the signal to noise of a point source at each pixel.

    Parameters
    ----------
    planes : image, mask, variance, each (ny, nx): float32, uint32, float32
    bits : (reject, rescue, never) mask bits, see rsp.h
    signal, noise : (rows, columns), each (n_terms, 2 half + 1) float32: the separable terms of the filter P and of P^2
    correlation : (gy, gx) float32, factors on the variance

    Returns
    -------
    level, snr : (ny, nx) float32
    """
    image, mask, variance = planes
    level, snr = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    taps = signal[0].shape[1]
    terms = [part for rows, columns in (signal, noise) for part in
             (len(rows), pointer(rows, "f4", (len(rows), taps)), pointer(columns, "f4", (len(rows), taps)))]
    call(lib.rsp_detect_filter, *image.shape, pointer(image, "f4"), pointer(mask, "u4", image.shape),
         pointer(variance, "f4", image.shape), *bits, taps // 2, *terms, *correlation.shape,
         pointer(correlation, "f4"), pointer(level, "f4"), pointer(snr, "f4"))
    return level, snr


def find_footprints(snr, mask, levels: tuple[float, float], min_area: int, detected: int):
    """Connected pixels above levels[0] with a pixel above levels[1]; sets the bits `detected` in mask.

    Returns
    -------
    labels : (ny, nx) int32, from 1; 0 = none
    boxes : (n, 4) int32: x0, y0, x1, y1, half open
    areas : (n,) int64, pixel
    """
    labels, count = np.empty(snr.shape, np.int32), ffi.new("int64_t *")

    def attempt(capacity):
        boxes, areas = np.empty((capacity, 4), np.int32), np.empty(capacity, np.int64)
        call(lib.rsp_detect_footprints, *snr.shape, pointer(snr, "f4"), *levels, min_area, detected, capacity,
             pointer(mask, "u4", snr.shape), pointer(labels, "i4"), pointer(boxes, "i4"), pointer(areas, "i8"), count)
        return boxes[:count[0]], areas[:count[0]]

    return (labels, *_with_room(attempt, snr.size // 1000 + 256, count))


def find_peaks(level, snr, labels, boxes, limits: tuple[float, float, float]):
    """Peaks of `level` in footprints; limits are (threshold, min_drop, contrast), see rsp.h.

    Returns
    -------
    owners : (ny, nx) int32, peak + 1 to which a footprint's pixel climbs; 0 = none
    xy : (n, 2) float64, pixel
    peak_snr : (n,) float32
    starts : (n_footprints + 1,) int64, first peak of each footprint
    """
    owners, count = np.empty(snr.shape, np.int32), ffi.new("int64_t *")
    starts = np.empty(len(boxes) + 1, np.int64)

    def attempt(capacity):
        xy, peak_snr = np.empty((capacity, 2)), np.empty(capacity, np.float32)
        call(lib.rsp_detect_peaks, *snr.shape, pointer(level, "f4", snr.shape), pointer(snr, "f4"),
             pointer(labels, "i4", snr.shape), len(boxes), pointer(np.ascontiguousarray(boxes), "i4"), *limits, capacity,
             pointer(owners, "i4"), pointer(xy, "f8"), pointer(peak_snr, "f4"), pointer(starts, "i8"), count)
        return xy[:count[0]], peak_snr[:count[0]]

    xy, peak_snr = _with_room(attempt, 4 * len(boxes) + 1024, count)
    return owners, xy, peak_snr, starts


def _with_room(attempt, capacity: int, count):
    """Run a kernel that says how much room it needs; a second time if the guess was too small."""
    try:
        return attempt(capacity)
    except KernelError as error:
        if error.status != lib.RSP_FULL:
            raise
        return attempt(int(count[0]))
