"""Raw amplifiers to an assembled image with variance and mask (csrc/detrend.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import KernelError
from . import call, ffi, lib, pointer

__all__ = ["AmplifierGeometry", "DetrendBits", "Planes", "amplifier_values", "calibration_struct", "detrend_amplifier",
           "flatten_planes", "prepare"]

RAW_TYPES = {"uint16": ("u2", lib.RSP_RAW_UINT16), "int32": ("i4", lib.RSP_RAW_INT32), "float32": ("f4", lib.RSP_RAW_FLOAT)}


class AmplifierGeometry(NamedTuple):
    """Where an amplifier's data region is in its segment and in the detector, and its numbers (csrc/rsp.h, rsp_amplifier)."""

    data: tuple[int, int, int, int]  # x0, y0, nx, ny in the segment
    origin: tuple[int, int]
    flip_x: bool
    flip_y: bool
    gain: float
    constant_variance: float
    saturation: float
    suspect: float = float("inf")


class Planes(NamedTuple):
    """Calibration planes (ny, nx), None where there is none; `prepared` as `prepare` makes them (csrc/rsp.h, rsp_calibration)."""

    bias: np.ndarray | None = None
    dark: np.ndarray | None = None
    flat: np.ndarray | None = None
    defects: np.ndarray | None = None
    dark_noise: np.ndarray | None = None
    dark_step: float = 0.0
    prepared: bool = False


class DetrendBits(NamedTuple):
    """Limits and mask bits (csrc/rsp.h, rsp_detrend_options)."""

    dark_time: float
    min_flat: float
    sat_bit: int
    bad_bit: int
    nan_bit: int
    suspect_bit: int = 0


def calibration_struct(planes: Planes, shape: tuple[int, int]):
    """Calibration planes as C takes them; the planes must live as long."""
    defects = None if planes.defects is None else planes.defects.view(np.uint8)
    return ffi.new("rsp_calibration *", dict(
        bias=pointer(planes.bias, "f4", shape), dark=pointer(planes.dark, "f4", shape), flat=pointer(planes.flat, "f4", shape),
        defects=pointer(defects, "u1", shape), dark_noise=pointer(planes.dark_noise, "u2", shape),
        dark_step=planes.dark_step, prepared=planes.prepared))


def amplifier_values(segment: np.ndarray, geometry: AmplifierGeometry, levels: tuple[np.ndarray, np.ndarray | None]) -> dict:
    """The members of C's rsp_amplifier; the arrays must live as long.

    Raises
    ------
    KernelError
        A wrong dtype or shape, or data that leave the segment.
    """
    if segment.dtype.name not in RAW_TYPES:
        raise KernelError(f"raw pixels are {segment.dtype.name}; the kernel takes {', '.join(RAW_TYPES)}")
    code, raw_type = RAW_TYPES[segment.dtype.name]
    x0, y0, nx, ny = geometry.data
    if x0 < 0 or y0 < 0 or x0 + nx > segment.shape[1] or y0 + ny > segment.shape[0]:
        raise KernelError(f"data region {geometry.data} leaves the segment of shape {segment.shape}")
    return dict(
        raw=pointer(segment, code) + (y0 * segment.shape[1] + x0), raw_type=raw_type, flip_x=geometry.flip_x,
        flip_y=geometry.flip_y, raw_stride=segment.shape[1], nx=nx, ny=ny, x0=geometry.origin[0], y0=geometry.origin[1],
        gain=geometry.gain, constant_variance=geometry.constant_variance, saturation=geometry.saturation,
        suspect=geometry.suspect, row_level=pointer(levels[0], "f4", (ny,)), column_level=pointer(levels[1], "f4", (nx,)))


def detrend_amplifier(segment: np.ndarray, geometry: AmplifierGeometry, levels: tuple[np.ndarray, np.ndarray | None],
                      planes: Planes, options: DetrendBits, out: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int:
    """Detrend one amplifier into its place; returns the number of pixels without any mask bit.

    Parameters
    ----------
    segment : 2-D uint16, int32 or float32, C-contiguous, ADU
    levels : (ny,) float32 level of each row of the data region, ADU; (nx,) of each column, or None
    planes : calibration of the detector
    out : image float32, variance float32, mask uint32 of the detector, filled in place

    Raises
    ------
    KernelError
        A wrong dtype or shape, or an amplifier that leaves its segment or the detector.
    """
    image, variance, mask = out
    shape, good = image.shape, ffi.new("int64_t *")
    amplifier = ffi.new("rsp_amplifier *", amplifier_values(segment, geometry, levels))
    call(lib.rsp_detrend_amplifier, amplifier, calibration_struct(planes, shape), ffi.new("rsp_detrend_options *", options._asdict()),
         shape[0], shape[1], pointer(image, "f4", shape), pointer(variance, "f4", shape), pointer(mask, "u4", shape), good)
    return int(good[0])


def flatten_planes(planes: Planes, options: DetrendBits, out: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int:
    """Divide image and variance (float32) by the flat and its square, in place; mask (uint32) gets the bad bit.

    Returns the number of pixels without any mask bit.
    """
    image, variance, mask = out
    shape, good = image.shape, ffi.new("int64_t *")
    call(lib.rsp_detrend_flatten, calibration_struct(planes, shape), ffi.new("rsp_detrend_options *", options._asdict()), image.size,
         pointer(image, "f4", shape), pointer(variance, "f4", shape), pointer(mask, "u4", shape), good)
    return int(good[0])


def prepare(planes: Planes, options: DetrendBits, shape: tuple[int, int], dark_step: float = 0.0) -> tuple[Planes, int]:
    """Combine planes for one dark time, fewer bytes per pixel; also the number of usable pixels.

    dark_step : electron^2, unit of the dark's noise plane; 0: no such plane (the caller adds its mean to the constant variance).
    """
    pedestal, inverse = np.empty(shape, np.float32), np.empty(shape, np.float32)
    noise = np.empty(shape, np.uint16) if dark_step > 0 else None
    good = ffi.new("int64_t *")
    call(lib.rsp_detrend_prepare, calibration_struct(planes._replace(dark_step=dark_step), shape),
         ffi.new("rsp_detrend_options *", options._asdict()), pedestal.size, pointer(pedestal, "f4"), pointer(inverse, "f4"),
         pointer(noise, "u2"), good)
    return Planes(bias=pedestal, flat=inverse, dark_noise=noise, dark_step=dark_step, prepared=True), int(good[0])
