"""psf: stars chosen, the PSF fitted to them, and the aperture correction; one file per idea.

`guess` needs nothing but an image; `select` chooses stars among measured sources; `stamps` cuts them; `fit` makes the PSF.
"""

from .aperture import ApertureCorrection, aperture_correction
from .config import PsfConfig
from .fit import fit_psf
from .guess import guess_psf
from .select import select_stars

__all__ = ["ApertureCorrection", "PsfConfig", "aperture_correction", "fit_psf", "guess_psf", "select_stars"]
