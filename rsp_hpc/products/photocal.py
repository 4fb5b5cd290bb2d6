"""PhotoCal: from electrons to nJy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["PhotoCal", "AB_ZERO_POINT", "magnitude_of", "nanojansky_of"]

AB_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""


def magnitude_of(flux):
    """AB magnitude of a flux in nJy; NaN for fluxes that are not positive."""
    flux = np.asarray(flux, float)
    return AB_ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))


def nanojansky_of(magnitude):
    """Flux in nJy of an AB magnitude."""
    return 10.0 ** (0.4 * (AB_ZERO_POINT - np.asarray(magnitude, float)))


@dataclass(frozen=True)
class PhotoCal:
    """The calibration of one detector in one visit.

    Attributes
    ----------
    scale : float, nJy per electron (of the whole exposure)
    scale_err : float, one sigma, nJy per electron
    n_stars : int, reference stars used
    scatter : float, robust rms of the stars about the zero point, mag
    """

    scale: float
    scale_err: float
    n_stars: int = 0
    scatter: float = float("nan")

    @property
    def zero_point(self) -> float:
        """AB magnitude of one electron."""
        return float(magnitude_of(self.scale))

    @property
    def zero_point_err(self) -> float:
        """One sigma, mag."""
        return 2.5 / np.log(10.0) * self.scale_err / self.scale
