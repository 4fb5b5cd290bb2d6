"""A small sky for tests: stars of known flux as a VisitDetector, with shifts, rotation, distortion, noise."""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.photocal import PhotoCal
from rsp_hpc.products.psf import PolynomialPsf
from rsp_hpc.products.visit import VisitDetector
from rsp_hpc.products.wcs import Wcs

SCALE = 0.2 / 3600.0
TARGET = Wcs((150.0, 2.0), (0.0, 0.0), ((-SCALE, 0.0), (0.0, SCALE)))
"""The sky pixels of the tests: 0.2 arcsec, north up, east left."""


def wcs_of(angle: float, crpix: tuple[float, float], scale: float = 1.0, distortion: float = 0.0) -> Wcs:
    """A source WCS about the same sky position: rotated (degrees), scaled, with a SIP distortion of the third order."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cd = SCALE * scale * np.array([[-c, s], [s, c]])
    a = b = None
    if distortion:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = distortion
        a[2, 0] = b[1, 1] = 30 * distortion
    return Wcs((150.0, 2.0), crpix, tuple(map(tuple, cd)), a, b)  # type: ignore[arg-type]


def gaussian(x, y, cx, cy, fwhm) -> np.ndarray:
    """A round Gaussian of flux one at (cx, cy), integrated over pixels centred on x and y: (ny, nx)."""
    s = fwhm / 2.3548 * np.sqrt(2.0)
    ex, ey = (0.5 * (erf((q + 0.5 - c) / s) - erf((q - 0.5 - c) / s)) for q, c in ((x, cx), (y, cy)))
    return ey[:, None] * ex[None, :]


def draw(shape: tuple[int, int], x, y, flux, fwhm: float, half: int = 25) -> np.ndarray:
    """Stars on an array: (ny, nx) float64."""
    image = np.zeros(shape)
    for cx, cy, f in zip(x, y, flux):
        x0, y0 = int(np.rint(cx)) - half, int(np.rint(cy)) - half
        columns = np.arange(max(x0, 0), min(x0 + 2 * half + 1, shape[1]))
        rows = np.arange(max(y0, 0), min(y0 + 2 * half + 1, shape[0]))
        if len(columns) and len(rows):
            image[np.ix_(rows, columns)] += f * gaussian(columns, rows, cx, cy, fwhm)
    return image


def gaussian_psf(fwhm: float, box: Box, size: int = 31) -> PolynomialPsf:
    """The PSF of `draw`, constant over the box."""
    grid = np.arange(size) - size // 2
    return PolynomialPsf(gaussian(grid, grid, 0.0, 0.0, fwhm)[None], 0, box)


def visit_of(number: int, wcs: Wcs, sky, fwhm: float = 3.5, shape=(400, 400), noise: float = 0.0, variance: float = 1.0,
             seed: int = 0, scale: float = 2.0) -> VisitDetector:
    """A calibrated detector that sees stars `sky` = (ra, dec, flux in nJy), with white noise of `noise` electrons."""
    ra, dec, flux = sky
    box = Box.of_shape(shape)
    image = draw(shape, *wcs.sky_to_pixel(ra, dec), np.asarray(flux) / scale, fwhm)
    if noise:
        image += np.random.default_rng((seed, number)).normal(0.0, noise, shape)
        variance = noise**2
    masked = MaskedImage(image.astype(np.float32), np.zeros(shape, np.uint32), np.full(shape, variance, np.float32))
    exposure = Exposure(number, "science", "r", 60000.0 + number, 30.0, 30.0)
    empty = np.zeros((1, 1), np.float32)
    return VisitDetector(exposure, "S00", 0, masked, Background(empty, empty, 128, box), gaussian_psf(fwhm, box), wcs,
                         PhotoCal(scale, 0.001 * scale), 1.0, Catalogue([], {}))
