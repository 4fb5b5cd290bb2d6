"""How stars are chosen and the PSF is fitted: the configuration, and what its files share."""

from __future__ import annotations

from ...config import Config, parameter

__all__ = ["BAD_PLANES", "FWHM_OF_SIGMA", "PsfConfig"]

BAD_PLANES = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "INTRP")
FWHM_OF_SIGMA = 2.3548


class PsfConfig(Config):
    """How stars are chosen and the PSF is fitted."""

    order: int = parameter(2, "highest order of the polynomial in position; lower where that predicts reserved stars better, or "
                           "stars are few", low=0, high=3)
    size: int = parameter(0, "odd side of the pixel grid; 0: 8 FWHM, 21 to 41", unit="pixel", low=0, high=101)
    default_fwhm: float = parameter(4.0, "width taken where an image has no star to guess it from", unit="pixel",
                                    above=0.5)
    min_snr: float = parameter(20.0, "faintest star", unit="sigma", above=0.0)
    max_snr: float = parameter(500.0, "brighter stars get no more weight than this", unit="sigma", above=0.0)
    max_stars: int = parameter(150, "stars used, spread over the detector", low=3)
    max_neighbour: float = parameter(0.05, "flux of neighbours nearer than 4 FWHM, relative to the star's", low=0.0)
    prior: float = parameter(0.15, "relative width of the prior about the mean profile, to begin with", above=0.0)
    model_error: float = parameter(0.005, "error of the model relative to the PSF", low=0.0)
    iterations: int = parameter(4, "times that grid and stars are refitted in turn", low=2, high=15)
    max_chi2: float = parameter(4.0, "a star this far beyond the others' chi2 is an outlier", unit="sigma", above=0.0)
    reserve: float = parameter(0.2, "fraction of stars held back to test the fit", low=0.0, high=0.5)
    max_ellipticity: float = parameter(0.6, "distortion (a^2 - b^2) / (a^2 + b^2) of a PSF beyond which an exposure is refused",
                                       above=0.0, high=1.0)
    aperture: float = parameter(4.0, "radius of the calibration aperture", unit="FWHM", above=0.5)
