"""Raw amplifiers of a detector, together: crosstalk, linearity, deferred charge, then as detrend (csrc/electronics.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer
from .detrend import AmplifierGeometry, DetrendBits, Planes, amplifier_values, calibration_struct

__all__ = ["Electronics", "Mixing", "Reading", "TILE", "detrend_detector"]

TILE = 256
"""Columns worked on at a time: eight rows of so many of 16 amplifiers are 128 KiB, twice that with crosstalk. Longer pieces of
rows suit the memory better, more than this does not stay in the second cache of small processors."""


class Electronics(NamedTuple):
    """What happens to the charges of one amplifier (csrc/rsp.h, rsp_electronics); by default nothing.

    linearity : (n,) float32, electron, added to a charge of i * linearity_step electrons; None: nothing
    """

    reverse_x: bool = False
    reverse_y: bool = False
    dither: int = 0
    linearity: np.ndarray | None = None
    linearity_step: float = 1.0
    prescan: int = 0
    inefficiency: float = 0.0
    offset_scale: float = 0.0
    offset_fade: float = 0.0
    trap_size: float = 0.0
    trap_level: float = 1.0
    trap_keep: float = 0.0


class Reading(NamedTuple):
    """One amplifier of one read-out: its segment (uint16, int32 or float32), geometry, levels of rows and columns, electronics."""

    segment: np.ndarray
    geometry: AmplifierGeometry
    levels: tuple[np.ndarray, np.ndarray | None]
    electronics: Electronics


class Mixing(NamedTuple):
    """(targets, sources) float32: what is added to each target per electron, per electron^2 of each source; ghosts above
    ghost_limit (electron) of saturated pixels get ghost_bit."""

    linear: np.ndarray
    quadratic: np.ndarray
    ghost_limit: float
    ghost_bit: int


def detrend_detector(readings: Sequence[Reading], mixing: Mixing | None, planes: Planes, options: DetrendBits,
                     out: tuple[np.ndarray, np.ndarray, np.ndarray], tile: int = TILE) -> int:
    """Detrend all amplifiers of a detector into their places; returns the number of pixels without any mask bit.

    Parameters
    ----------
    readings : the detector's amplifiers, then those of other detectors that speak into them
    mixing : None: no crosstalk
    out : image float32, variance float32, mask uint32 of the detector, filled in place
    tile : columns worked on at a time, a multiple of 8 up to 512; changes no bit

    Raises
    ------
    KernelError
        A wrong dtype or shape, an amplifier that leaves its segment or the detector, amplifiers of several sizes with crosstalk.
    """
    image, variance, mask = out
    shape, n, good = image.shape, len(readings), ffi.new("int64_t *")
    n_targets = n if mixing is None else len(mixing.linear)
    amplifiers, electronics = ffi.new("rsp_amplifier[]", n), ffi.new("rsp_electronics[]", n)
    for number, reading in enumerate(readings):
        amplifiers[number] = amplifier_values(reading.segment, reading.geometry, reading.levels)
        values = reading.electronics._asdict()
        table = values["linearity"]
        electronics[number] = {**values, "linearity": pointer(table, "f4"), "n_linearity": 0 if table is None else len(table)}
    linear, quadratic = (None, None) if mixing is None else (mixing.linear, mixing.quadratic)
    what = ffi.new("rsp_sweep *", dict(
        n_targets=n_targets, n_sources=n, tile=tile, linear=pointer(linear, "f4", (n_targets, n)),
        quadratic=pointer(quadratic, "f4", (n_targets, n)), ghost_limit=0.0 if mixing is None else mixing.ghost_limit,
        ghost_bit=0 if mixing is None else mixing.ghost_bit))
    call(lib.rsp_electronics_detrend, what, amplifiers, electronics, calibration_struct(planes, shape),
         ffi.new("rsp_detrend_options *", options._asdict()), shape[0], shape[1], pointer(image, "f4", shape),
         pointer(variance, "f4", shape), pointer(mask, "u4", shape), good)
    return int(good[0])
