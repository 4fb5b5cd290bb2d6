"""Slow numpy twin of csrc/frames.c for one amplifier."""

from __future__ import annotations

import numpy as np

from .combine import clipped_mean

__all__ = ["combine_amplifier"]


def combine_amplifier(parts, geometry, terms, shape, bias, dark, options):
    """mean, variance of the amplifier's place in the detector (NaN and inf elsewhere); pixels clipped in each frame."""
    ny, nx = shape
    x0, y0 = geometry.origin
    wide, high = geometry.data[2:]
    place = slice(y0, y0 + high), slice(x0, x0 + wide)
    v = ((2.0 * np.arange(ny) + 1.0) / ny - 1.0)[place[0], None]
    u = ((2.0 * np.arange(nx) + 1.0) / nx - 1.0)[None, place[1]]
    planes = []
    for part, factor, time in zip(parts, terms.factor, terms.dark_time):
        raw = part.data.astype(np.float64)
        value = np.where(raw < geometry.saturation, raw - part.rows[:, None] - (0.0 if part.columns is None else part.columns), np.nan)
        value = value[:, ::-1] if geometry.flip_x else value
        value = value[::-1] if geometry.flip_y else value
        value = value * geometry.gain - bias[place] - time * dark[place]
        scale = sum(factor[j, i] * v**j * u**i for j in range(len(factor)) for i in range(len(factor)))
        planes.append((value * scale).astype(np.float32))
    mean, variance = np.full(shape, np.nan), np.full(shape, np.inf)
    mean[place], variance[place], _, _, clipped = clipped_mean(planes, options, weights=terms.weight, noise=terms.noise)
    return mean, variance, clipped
