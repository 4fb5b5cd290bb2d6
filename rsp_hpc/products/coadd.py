"""The coadd of one band on one patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .catalogue import Catalogue
from .image import MaskedImage
from .psf import CellPsf

__all__ = ["Coadd"]


@dataclass(frozen=True)
class Coadd:
    """Combined pixels of one band on one patch, in nJy, on the tract's pixels.

    Attributes
    ----------
    band : str
    image : MaskedImage, nJy; its box is the patch's outer box in tract pixels
    n_inputs : (ny, nx) uint16, visits that went into each pixel
    psf : CellPsf, on cells that tile the same box
    noise_correlation : (ncy, ncx) float32 >= 1, per cell: variance of a smooth weighted sum over what the variance
        plane alone would give (interpolation correlates neighbouring pixels); 1 = white
    inputs : Catalogue of the visits and detectors that went in, with their weights
    """

    band: str
    image: MaskedImage
    n_inputs: np.ndarray
    psf: CellPsf
    noise_correlation: np.ndarray
    inputs: Catalogue
