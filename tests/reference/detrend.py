"""Slow twin of kernels.detrend: one amplifier with numpy expressions in double precision."""

from __future__ import annotations

import numpy as np


def detrend_amplifier(segment, geometry, levels, planes, options, shape):
    """(image, variance, mask) of the amplifier's own pixels, in the detector's orientation, and their slices in it."""
    x0, y0, nx, ny = geometry.data
    raw = segment[y0:y0 + ny, x0:x0 + nx].astype(np.float64)
    level = levels[0][:, None].astype(np.float64) + (0 if levels[1] is None else levels[1][None, :])
    flips = (slice(None, None, -1 if geometry.flip_y else 1), slice(None, None, -1 if geometry.flip_x else 1))
    raw, level = raw[flips], np.broadcast_to(level, raw.shape)[flips]
    part = (slice(geometry.origin[1], geometry.origin[1] + ny), slice(geometry.origin[0], geometry.origin[0] + nx))

    def plane(name, missing):
        found = getattr(planes, name)
        return np.broadcast_to(missing, shape)[part] if found is None else found[part].astype(np.float64)

    bias, flat, dark = plane("bias", 0.0), plane("flat", 1.0), options.dark_time * plane("dark", 0.0)
    bad = ~((flat > options.min_flat) & np.isfinite(flat)) | (plane("defects", 0.0) != 0) | ~np.isfinite(bias + dark)
    flat = np.where((flat > options.min_flat) & np.isfinite(flat), flat, 1.0)
    dark, pedestal = (np.where(np.isfinite(bias + dark), term, 0.0) for term in (dark, bias + dark))
    electrons = (raw - level) * geometry.gain - pedestal
    finite = np.isfinite(raw)
    variance = (np.maximum(electrons, 0) + np.maximum(dark, 0) + geometry.constant_variance) / flat**2
    mask = (np.where(raw >= geometry.saturation, options.sat_bit, 0) | np.where(bad, options.bad_bit, 0)
            | np.where(finite, 0, options.nan_bit))
    return electrons / flat, np.where(finite & ~bad, variance, np.inf), mask.astype(np.uint32), part
