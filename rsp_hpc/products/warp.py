"""Warp: one detector of one visit on the pixels of a patch, in nJy. It stays in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .image import MaskedImage
from .psf import CellPsf

__all__ = ["Warp"]


@dataclass(frozen=True)
class Warp:
    """What a visit's detector contributes to a patch (or to a block of rows of it).

    Attributes
    ----------
    image : MaskedImage, nJy, on the part of the target box (and a margin around it) that the detector covers
    visit, detector : int, ids
    weight : float, nJy^-2: one over the median variance of the detector, the same wherever it is warped to
    psf : CellPsf on the target box; NaN in cells that the detector does not touch
    noise_factor : (ncy, ncx) float32, mean sum of squared kernel weights in each cell: pixel variance over the variance
        that counts for smooth sums; NaN in cells that the detector does not touch
    coverage : (ncy, ncx) float32, fraction of each cell's pixels that have a value
    aperture_correction : float, of the visit
    """

    image: MaskedImage
    visit: int
    detector: int
    weight: float
    psf: CellPsf
    noise_factor: np.ndarray
    coverage: np.ndarray
    aperture_correction: float
