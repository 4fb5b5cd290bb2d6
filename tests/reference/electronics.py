"""Slow twins: what the electronics of amplifiers do to charges (`read_out`), and detrending of a whole detector, in double."""

from __future__ import annotations

import numpy as np

from . import detrend as plain


def deferred(charge, e):
    """Forward: charges (ny, nx) in read-out order to what is read, pixel by pixel as the model of ChargeTransfer says."""
    ny, nx = charge.shape
    arrived = np.zeros((ny, nx))
    for x in range(nx):
        n, share = x + e.prescan + 1, 1.0
        for late in range(min(8, nx - x)):
            arrived[:, x + late] += charge[:, x] * share * (1.0 - e.inefficiency)**n
            share *= e.inefficiency * (n + late) / (late + 1)
    held, remembered = np.zeros(ny), np.zeros(ny)
    for x in range(nx):
        column = arrived[:, x] + held * (1.0 - e.trap_keep)
        held = held * e.trap_keep
        taken = np.maximum(e.trap_size * np.clip(column / e.trap_level, 0.0, 1.0) - held, 0.0) if e.trap_size else 0.0
        held = held + taken
        column = column - taken
        remembered = np.maximum(remembered * e.offset_fade, e.offset_scale * column)
        arrived[:, x] = column + remembered
    return arrived


def restored(read, e):
    """Backward: the same, undone pixel by pixel."""
    ny, nx = read.shape
    held, remembered, given = np.zeros(ny), np.zeros(ny), np.zeros(ny)
    out = np.zeros((ny, nx))
    slope = e.trap_size / e.trap_level
    for x in range(nx):
        remembered = np.maximum(remembered * e.offset_fade, read[:, x] * e.offset_scale / (1.0 + e.offset_scale))
        column = read[:, x] - remembered
        taken = np.clip((slope * column - held) / (1.0 - slope), 0.0, e.trap_size - held)
        held = held + taken
        column = column + taken - given
        given, held = held * (1.0 - e.trap_keep), held * e.trap_keep
        for late in range(1, min(8, x + 1)):
            n, share = x - late + e.prescan + 1, 1.0
            for k in range(late):
                share *= e.inefficiency * (n + k) / (k + 1)
            column = column - out[:, x - late] * share * (1.0 - e.inefficiency)**n
        out[:, x] = column / (1.0 - e.inefficiency)**(x + e.prescan + 1)
    return out


def detrend_detector(readings, mixing, planes, options, shape):
    """image, variance, mask of the detector; the ghosts' flags apart."""
    charges, odd = [], []
    for segment, geometry, levels, e in readings:
        x0, y0, nx, ny = geometry.data
        raw = segment[y0:y0 + ny, x0:x0 + nx].astype(np.float64)
        level = levels[0][:, None] + (0.0 if levels[1] is None else levels[1][None, :])
        charge = np.where(np.isfinite(raw), (raw - level) * geometry.gain, 0.0)
        flip = (slice(None, None, -1 if e.reverse_y else 1), slice(None, None, -1 if e.reverse_x else 1))
        charges.append(charge[flip])
        odd.append(raw)
    if mixing is not None:
        stack = np.array(charges)
        charges = [stack[i] + np.tensordot(mixing.linear[i].astype(float), stack, 1)
                   + np.tensordot(mixing.quadratic[i].astype(float), stack**2, 1) for i in range(len(mixing.linear))]
    out = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.uint32)
    for (segment, geometry, _, e), charge, raw in zip(readings, charges, odd):
        if e.linearity is not None:
            at = np.clip(charge / e.linearity_step, 0.0, len(e.linearity) - 1)
            charge = charge + np.interp(at, np.arange(len(e.linearity)), e.linearity)
        charge = restored(charge, e)
        charge = charge[::-1 if e.reverse_y else 1, ::-1 if e.reverse_x else 1]
        charge = np.where(np.isfinite(raw), charge, np.nan)
        whole = geometry._replace(data=(0, 0, *geometry.data[2:]), gain=1.0, saturation=np.inf)
        image, variance, mask, part = plain.detrend_amplifier(charge, whole, (np.zeros(len(charge)), None), planes, options, shape)
        raw = raw[::-1 if geometry.flip_y else 1, ::-1 if geometry.flip_x else 1]
        saturated = raw >= geometry.saturation
        mask |= np.where(saturated, options.sat_bit, np.where(raw >= geometry.suspect, options.suspect_bit, 0)).astype(np.uint32)
        out[0][part], out[1][part], out[2][part] = image, variance, mask
    return out
