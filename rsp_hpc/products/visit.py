"""A calibrated visit: what `visits/<visit>.h5` holds, one VisitDetector per detector."""

from __future__ import annotations

from dataclasses import dataclass, field

from .background import Background
from .catalogue import Catalogue
from .exposure import Exposure
from .image import MaskedImage
from .photocal import PhotoCal
from .psf import PolynomialPsf
from .sky import SkyBins
from .wcs import Wcs

__all__ = ["VisitDetector"]


@dataclass(frozen=True)
class VisitDetector:
    """One calibrated detector image and its sources.

    Attributes
    ----------
    exposure : Exposure
    detector : str, name; detector_id : int
    image : MaskedImage, electron, background subtracted
    background : Background that was subtracted
    psf : PolynomialPsf
    wcs : Wcs
    photocal : PhotoCal
    aperture_correction : float, factor on PSF flux so that it equals the flux in the calibration aperture
    sources : Catalogue
    summary : numbers of this detector (n_sources, psf_fwhm, sky, sky_noise, astrometric rms, depth, seconds, ...)
    matches : Catalogue, stars of the reference catalogue that were found (`algorithms.wholevisit.MATCH_COLUMNS`)
    sky_bins : SkyBins, its sky in super-bins, for the model of the whole visit
    sky : Background, what that model says of this detector; None where there is none
    guess : Wcs before the fit; not stored
    wcs_known, photocal_known : False while only the visit's other detectors can tell; `problem` says why. Not stored
    """

    exposure: Exposure
    detector: str
    detector_id: int
    image: MaskedImage
    background: Background
    psf: PolynomialPsf
    wcs: Wcs
    photocal: PhotoCal
    aperture_correction: float
    sources: Catalogue
    summary: dict[str, float] = field(default_factory=dict)
    matches: Catalogue = field(default_factory=lambda: Catalogue(()))
    sky_bins: SkyBins | None = None
    sky: Background | None = None
    guess: Wcs | None = None
    wcs_known: bool = True
    photocal_known: bool = True
    problem: str = ""
