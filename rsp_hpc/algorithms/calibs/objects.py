"""objects: stars and trails in single flats, found by their clipped cores; what surrounds these is left out too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...kernels.frames import FramePart
from ...products.calibration import CombinedFrames
from .gradient import polynomial_on
from .stack import BLOCK, Stack

__all__ = ["mask_objects"]

REACH, CUT = 7, 3.0  # side of the box over which the residual is averaged, pixel; significance beyond which it is left out


def mask_objects(stack: Stack, product: CombinedFrames, factors: np.ndarray, objects, combine: Callable) -> CombinedFrames:
    """Leave out, in each frame with objects, the pixels about them that stand out after smoothing; combine again.

    Parameters
    ----------
    product : the first combination, whose planes are filled anew
    factors : (n, k, k) of the frames
    objects : `quality.Found`, clipped together in one frame
    combine : (mean, variance) planes -> CombinedFrames, of the stack as it is then
    """
    ny, nx = product.image.shape
    u = (2.0 * np.arange(nx) + 1.0) / nx - 1.0
    v = (2.0 * np.arange(ny) + 1.0) / ny - 1.0
    for frame in sorted({found.frame for found in objects}):
        wanted = np.zeros([-(-side // BLOCK) for side in (ny, nx)], bool)
        for found in objects:
            if found.frame == frame:
                by, bx = found.block
                wanted[max(0, by - 1):by + 2, max(0, bx - 1):bx + 2] = True
        for number, amplifier in enumerate(stack.detector.amplifiers):
            box = amplifier.assembled_box
            inside = np.repeat(np.repeat(wanted, BLOCK, 0), BLOCK, 1)[box.y0:box.y1, box.x0:box.x1]
            if not inside.any():
                continue
            part = stack.parts[frame][number]
            factor = polynomial_on(factors[frame], v[box.y0:box.y1, None], u[None, box.x0:box.x1])
            values = _corrected(stack, frame, number, box) * factor.astype(np.float32)
            stack.parts[frame][number] = _without(part, amplifier, _outstanding(values - product.image[box.y0:box.y1, box.x0:box.x1],
                                                                               inside))
    return combine((product.image, product.variance))


def _corrected(stack: Stack, frame: int, number: int, box) -> np.ndarray:
    """(ny, nx) float32 of one amplifier in the orientation of the detector, electron, less bias and dark; NaN where saturated."""
    amplifier, part = stack.detector.amplifiers[number], stack.parts[frame][number]
    values = part.data.astype(np.float32)
    values[~(values < amplifier.saturation)] = np.nan
    values -= part.rows[:, None]
    if part.columns is not None:
        values -= part.columns
    values *= np.float32(amplifier.gain)
    values = values[:, ::-1] if amplifier.flip_x else values
    values = values[::-1] if amplifier.flip_y else values
    bias, dark = stack.pedestal
    if bias is not None:
        values = values - bias[box.y0:box.y1, box.x0:box.x1]
    if dark is not None:
        values = values - np.float32(stack.exposures[frame].dark_time) * dark[box.y0:box.y1, box.x0:box.x1]
    return values


def _outstanding(residual: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Pixels whose smoothed residual stands out of the smoothed noise, within the blocks asked for."""
    from scipy.ndimage import uniform_filter

    residual = np.where(np.isfinite(residual), residual, 0.0)
    limit = 6.0 * 1.4826 * np.median(np.abs(residual[inside]))
    smooth = uniform_filter(np.clip(residual, -limit, limit), REACH)
    sigma = 1.4826 * np.median(np.abs(smooth[inside] - np.median(smooth[inside])))
    return inside & ((np.abs(smooth - np.median(smooth[inside])) > CUT * sigma) | (np.abs(residual) > limit))


def _without(part: FramePart, amplifier, bad: np.ndarray) -> FramePart:
    """A frame's pixels with those that are bad (in the orientation of the detector) as if saturated."""
    bad = bad[:, ::-1] if amplifier.flip_x else bad
    bad = bad[::-1] if amplifier.flip_y else bad
    data = part.data if part.data.flags.writeable else part.data.copy()
    top = np.iinfo(data.dtype).max if data.dtype.kind in "iu" else np.inf
    if top < amplifier.saturation:  # there is no such value: as floats then
        data, top = data.astype(np.float32), np.inf
    data[bad] = top
    return part._replace(data=data)
