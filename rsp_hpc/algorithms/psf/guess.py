"""The first guess of the PSF, from the peaks of an image that nothing else is known about."""

from __future__ import annotations

import logging

import numpy as np

from ...errors import BadData
from ...products.image import MaskedImage
from ...products.psf import PolynomialPsf, weighted_moments
from .config import BAD_PLANES, FWHM_OF_SIGMA, PsfConfig
from .peaks import compact_mode, find_peaks

__all__ = ["grid_size", "guess_psf", "moffat", "refuse_trails"]

logger = logging.getLogger(__name__)


def guess_psf(image: MaskedImage, config: PsfConfig) -> PolynomialPsf:
    """A constant, elliptical Moffat PSF from the bright unsaturated peaks of an image; the sky may still be in it.

    Peaks that are sharper than a star or one-sided (cosmic rays) are left out; the width is the mode of the others'
    adaptive moments, so that galaxies and blends do not count.

    Raises
    ------
    BadData
        The image has no pixel with data, or its stars are trails.
    """
    peaks, distortions = find_peaks(image, BAD_PLANES)
    moments = np.array([config.default_fwhm**2 / FWHM_OF_SIGMA**2 * m for m in (1.0, 1.0, 0.0)])
    n_peaks = 0
    if len(peaks) >= 3:
        size = np.log(peaks[:, 0] + peaks[:, 1])
        like = np.abs(size - compact_mode(size)) < 0.2
        if like.sum() >= 3:
            n_peaks, moments = int(like.sum()), np.median(peaks[like], axis=0)
    if n_peaks == 0:
        refuse_trails(distortions, config)
        logger.warning("no star-like peak: the PSF is the default of %g pixel", config.default_fwhm)
    stamp = moffat(moments, config.size or grid_size(FWHM_OF_SIGMA * np.sqrt(0.5 * (moments[0] + moments[1]))))
    return PolynomialPsf(stamp[None], 0, image.box, n_peaks)


def refuse_trails(distortions: np.ndarray, config: PsfConfig) -> None:
    """BadData if peaks are alike and longer than a PSF may be.

    distortions : (n, 2) e1, e2 of each
    """
    if len(distortions) < 5:
        return
    middle = np.median(distortions, axis=0)
    scatter = 1.4826 * np.median(np.abs(distortions - middle), axis=0).max()
    length = float(np.hypot(*middle))
    if length > config.max_ellipticity and scatter < 0.15:
        angle = 0.5 * np.degrees(np.arctan2(middle[1], middle[0]))
        raise BadData(f"the stars are trails (distortion {length:.2f} at {angle:.0f} degrees from the x axis): leave the "
                      "exposure out, or raise psf.max_ellipticity")


def grid_size(fwhm: float) -> int:
    """Odd side of a grid that holds the PSF and its wings."""
    return int(np.clip(2 * np.ceil(4.0 * fwhm) + 1, 21, 41))


def moffat(moments: np.ndarray, size: int, beta: float = 3.0) -> np.ndarray:
    """(size, size) float64: an elliptical Moffat profile with given adaptive moments (Ixx, Iyy, Ixy), sum one."""
    grid = np.arange(size) - size // 2
    matrix = np.array(moments, float)
    for _ in range(6):  # the moments of a pixellated, truncated profile: correct by what is missing
        determinant = matrix[0] * matrix[1] - matrix[2] ** 2
        x, y = grid[None, :], grid[:, None]
        radius = (matrix[1] * x * x + matrix[0] * y * y - 2.0 * matrix[2] * x * y) / determinant
        stamp = (1.0 + radius / (2.0 * (beta - 1.0))) ** -beta
        stamp /= stamp.sum()
        correction = np.array(moments) - np.array(weighted_moments(stamp))
        if not np.isfinite(correction).all():
            break
        new = matrix + correction
        if not new[0] * new[1] - new[2] ** 2 > 0.05:
            break
        matrix = new
    return stamp
