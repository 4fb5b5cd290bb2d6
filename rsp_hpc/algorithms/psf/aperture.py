"""The aperture correction: what makes PSF fluxes equal to the flux in the calibration aperture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...products.catalogue import Catalogue
from ...products.image import MaskedImage
from ...products.psf import Psf, shift_matrix
from ..measure import MeasureConfig, measure_forced
from .config import BAD_PLANES, PsfConfig
from .select import select_stars
from .stamps import StarStamps

__all__ = ["ApertureCorrection", "aperture_correction"]


class ApertureCorrection(NamedTuple):
    """`factor` on PSF fluxes and its one-sigma error: NaN if no star was found; the factor is then 1."""

    factor: float
    error: float


def aperture_correction(image: MaskedImage, psf: Psf, sources: Catalogue, config: PsfConfig) -> ApertureCorrection:
    """The factor that makes PSF fluxes equal to the flux in the calibration aperture.

    Parameters
    ----------
    image : MaskedImage, sky subtracted; psf : its Psf
    sources : what `measure` gives: its stars are selected; or a table of x, y of stars

    Returns
    -------
    ApertureCorrection

    Notes
    -----
    The PSF's sum within the aperture, plus what the stars have there beyond it: the clipped mean of their residuals,
    pixel by pixel, so that neighbours do not count as wings. The error is that of the mean over the stars.
    """
    stars = sources.rows(select_stars(image, sources, config)) if "ixx" in sources else sources
    if len(stars) == 0:
        return ApertureCorrection(1.0, float("nan"))
    middle = image.box.x0 + 0.5 * image.box.nx, image.box.y0 + 0.5 * image.box.ny
    radius = config.aperture * float(psf.fwhm(*middle)[0])
    measured = measure_forced(image, None, None, stars["x"], stars["y"], psf, MeasureConfig(radii=(3.0,)))
    flux = np.where(measured["psfFlux_flag"], np.nan, measured["psfFlux"])
    size = 2 * max(int(np.ceil(radius)) + 3, psf.size // 2) + 1
    stamps = StarStamps.cut(image, stars["x"], stars["y"], flux, size, BAD_PLANES)
    if len(stamps) == 0:
        return ApertureCorrection(1.0, float("nan"))
    grid = np.arange(size) - size // 2
    share, outside = _aperture_weight(np.hypot(grid[:, None], grid[None, :]), radius)
    model = _on_stamps(psf, stamps)
    residual = (stamps.data - stamps.sky[:, None, None]) / stamps.flux[:, None, None] - model
    light = stamps.flux[:, None, None] * np.maximum(model, 0.0)
    error = np.sqrt(stamps.sky_variance[:, None, None] + stamps.slope * light)
    error = np.hypot(error / stamps.flux[:, None, None], 0.02 * np.abs(model) + 2e-5)
    good = stamps.good & (np.abs(residual - np.median(residual, axis=0)) < 3.0 * error)
    weight = good / np.median(error[:, outside], axis=1)[:, None, None] ** 2
    mean = (weight * residual).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    star = model.mean(axis=0) + mean
    sky = np.median(star[outside])
    each = (share * np.where(good, residual, mean)).sum(axis=(1, 2))
    expected = np.sqrt((share * error**2).sum(axis=(1, 2)))
    pull = np.abs(each - (share * mean).sum()) / expected
    error_of_mean = max(1.0, 1.4826 * float(np.median(pull))) / np.sqrt((expected**-2.0).sum())
    return ApertureCorrection(float((share * (star - sky)).sum()), float(error_of_mean))


def _aperture_weight(distance: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's share in an aperture (its edge smoothed over a pixel), and the pixels outside that show the sky."""
    return np.clip(radius + 0.5 - distance, 0.0, 1.0), distance > radius + 0.5


def _on_stamps(psf: Psf, stars: StarStamps) -> np.ndarray:
    """(n, size, size): the PSF of each star on its stamp's pixels; zero where the PSF's own stamp ends."""
    size = stars.data.shape[-1]
    across, along = (shift_matrix(shift, size, psf.size) for shift in (stars.y - stars.row, stars.x - stars.column))
    return across @ psf.stamps(stars.x, stars.y).astype(float) @ along.swapaxes(1, 2)
