"""Raw calibration frames combined as they are corrected (csrc/frames.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer
from .combine import ClipOptions
from .detrend import RAW_TYPES, AmplifierGeometry

__all__ = ["FramePart", "FrameTerms", "combine_amplifier"]


class FramePart(NamedTuple):
    """One frame of one amplifier: its data region (ny, nx) uint16, int32 or float32, ADU, C-contiguous; the level of each row
    (ny,) float32, of each column (nx,) float32 or None.
    """

    data: np.ndarray
    rows: np.ndarray
    columns: np.ndarray | None = None


class FrameTerms(NamedTuple):
    """What each of n frames is multiplied by and how it counts (csrc/rsp.h, rsp_frames_combine); all float64.

    factor : (n, k, k) coefficients [j, i] of v^j u^i;  dark_time : (n,) s;  weight : (n,);  noise : (n, 2)
    """

    factor: np.ndarray
    dark_time: np.ndarray
    weight: np.ndarray
    noise: np.ndarray


def combine_amplifier(parts: Sequence[FramePart], geometry: AmplifierGeometry, terms: FrameTerms, rows: slice,
                      planes: tuple[np.ndarray | None, np.ndarray | None, int, ClipOptions], out) -> None:
    """Combine some raw rows of an amplifier's data region into its place.

    Parameters
    ----------
    rows : of the data region, as read
    planes : bias and dark (ny, nx) float32 of the detector, or None; side of the blocks in which clipped pixels are counted; how to
        clip
    out : mean, variance (ny, nx) float32; clipped (n, blocks, blocks) int32, added to

    Raises
    ------
    KernelError
        Arrays of other dtype, shape or order.
    """
    bias, dark, block, clip = planes
    mean, variance, clipped = out
    n, shape = len(parts), mean.shape
    size = terms.factor.shape[1]
    nx, ny = geometry.data[2:]
    frames, alive = [], []
    for part in parts:
        code, raw_type = RAW_TYPES[part.data.dtype.name]
        alive.append((pointer(part.data, code, (ny, nx)), pointer(part.rows, "f4", (ny,)), pointer(part.columns, "f4", (nx,))))
        frames.append(dict(
            raw=alive[-1][0], raw_type=raw_type, flip_x=geometry.flip_x, flip_y=geometry.flip_y, raw_stride=nx, nx=nx, ny=ny,
            x0=geometry.origin[0], y0=geometry.origin[1], gain=geometry.gain, saturation=geometry.saturation,
            row_level=alive[-1][1], column_level=alive[-1][2]))
    options = dict(first_row=rows.start, n_rows=rows.stop - rows.start, order=size - 1, block=block)
    blocks = tuple(-(-side // block) for side in shape)
    call(lib.rsp_frames_combine, n, ffi.new("rsp_amplifier[]", frames), ffi.new("rsp_frames_options *", options),
         pointer(terms.factor, "f8", (n, size, size)), pointer(terms.dark_time, "f8", (n,)), pointer(bias, "f4", shape),
         pointer(dark, "f4", shape), pointer(terms.weight, "f8", (n,)), pointer(terms.noise, "f8", (n, 2)),
         ffi.new("rsp_combine_options *", clip._asdict()), *shape, pointer(mean, "f4"), pointer(variance, "f4", shape),
         pointer(clipped, "i4", (n, *blocks)))
