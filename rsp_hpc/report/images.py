"""What is measured on pixels for the report: residuals of the PSF at stars, and the noise of blank sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..products.coadd import Coadd
from ..products.image import MaskedImage
from ..products.photocal import magnitude_of
from ..products.visit import VisitDetector
from .robust import Estimate, median, width

__all__ = ["BlankSky", "PsfSample", "adaptive_moments", "blank_sky", "psf_sample"]

UNFIT = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN")


@dataclass(frozen=True)
class PsfSample:
    """Stars of one detector against its PSF model.

    Attributes
    ----------
    x, y : (n,) float64, pixel
    size_star, size_model : (n,) float64, T = Ixx + Iyy in arcsec^2, adaptive
    shape_star, shape_model : (n, 2) float64, e1 = (Ixx - Iyy) / T, e2 = 2 Ixy / T on the detector's pixels
    snr : (n,) float64
    stack : (k, k) float64, mean of (star - model) / flux, and `stack_error` its error, per pixel
    model : (k, k) float64, mean model of unit sum
    """

    x: np.ndarray
    y: np.ndarray
    size_star: np.ndarray
    size_model: np.ndarray
    shape_star: np.ndarray
    shape_model: np.ndarray
    snr: np.ndarray
    stack: np.ndarray
    stack_error: np.ndarray
    model: np.ndarray

    @property
    def size_residual(self) -> np.ndarray:
        """(n,) relative: (T_star - T_model) / T_model."""
        return self.size_star / self.size_model - 1.0


def adaptive_moments(stamp: np.ndarray, dx: float = 0.0, dy: float = 0.0,
                     iterations: int = 60) -> tuple[float, float, float]:
    """(Ixx, Iyy, Ixy) in pixel^2 about (dx, dy) from the middle.

    The weight is a Gaussian of matched shape (Bernstein & Jarvis 2002, section 3). NaN where the iteration runs away,
    as it does on noise.
    """
    half = stamp.shape[0] // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(float)
    x, y = x - dx, y - dy
    xx, yy, xy = 2.0, 2.0, 0.0
    for _ in range(iterations):
        det = xx * yy - xy * xy
        if not 1e-6 < det < half**4:
            break
        weight = np.exp(-0.5 * (yy * x * x + xx * y * y - 2.0 * xy * x * y) / det) * stamp
        total = weight.sum()
        if not total > 0:
            break
        new = tuple(2.0 * float((weight * plane).sum() / total) for plane in (x * x, y * y, x * y))
        done = max(abs(new[0] - xx), abs(new[1] - yy), abs(new[2] - xy)) < 1e-7
        xx, yy, xy = new
        if done:
            return xx, yy, xy
    return float("nan"), float("nan"), float("nan")


def bright_stars(visit: VisitDetector, most: int) -> np.ndarray:
    """Rows of the brightest stars that can judge the PSF: reserved ones if there are any, else used, or S/N > 50."""
    sources = visit.sources
    good = np.isfinite(sources["x"]) & np.isfinite(sources["y"]) & _alone(visit)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.nan_to_num(sources["psfFlux"] / sources["psfFluxErr"])
    if "psfFlux_flag" in sources:
        good &= sources["psfFlux_flag"] == 0
    for name in ("calib_psf_reserved", "calib_psf_used"):
        if name in sources and sources[name].sum() >= 5:
            good &= sources[name].astype(bool)
            break
    else:
        good &= snr > 50.0
        for name in ("sizeExtendedness", "extendedness"):
            if name in sources:
                good &= ~(sources[name] > 0.5)
                break
    rows = np.nonzero(good)[0]
    return rows[np.argsort(-snr[rows], kind="stable")][:most]


def _alone(visit: VisitDetector, share: float = 0.01) -> np.ndarray:
    """(n,) bool: no other source of more than 1 % of the flux is on the stamp."""
    from scipy.spatial import cKDTree

    x, y, flux = (np.nan_to_num(visit.sources[name].astype(float)) for name in ("x", "y", "psfFlux"))
    alone = np.ones(len(x), bool)
    if len(x):
        pairs = cKDTree(np.stack([x, y], axis=-1)).query_pairs(0.75 * visit.psf.size, output_type="ndarray")
        for i, j in (pairs.T, pairs.T[::-1]):
            alone[i[flux[j] > share * flux[i]]] = False
    return alone


def psf_sample(visit: VisitDetector, most: int = 100) -> PsfSample | None:
    """Compare up to `most` bright stars of a detector with its PSF model; None where no star is fit for it."""
    rows = bright_stars(visit, most)
    scale2 = visit.wcs.pixel_scale**2
    kept, residuals, errors, models, numbers = [], [], [], [], []
    for row in rows:
        x, y = float(visit.sources["x"][row]), float(visit.sources["y"][row])
        model = visit.psf.stamps([x], [y])[0].astype(float)
        pixels, variance = _stamp(visit.image, x, y, len(model))
        if pixels is None:
            continue
        dx, dy = x - round(x), y - round(y)
        model = shifted(model, dx, dy)
        flux = float((pixels * model / variance).sum() / (model**2 / variance).sum())
        star, fit = adaptive_moments(pixels / flux if flux > 0 else pixels, dx, dy), adaptive_moments(model, dx, dy)
        if not (flux > 0 and np.isfinite(star).all() and np.isfinite(fit).all()):
            continue
        kept.append(row)
        residuals.append(pixels / flux - model)
        errors.append(variance / flux**2)
        models.append(model)
        numbers.append([x, y, *star, *fit, flux / np.sqrt(1.0 / (model**2 / variance).sum())])
    if not kept:
        return None
    table, weight = np.array(numbers), 1.0 / np.array(errors)
    star, fit = table[:, 2:5], table[:, 5:8]
    return PsfSample(table[:, 0], table[:, 1], scale2 * (star[:, 0] + star[:, 1]), scale2 * (fit[:, 0] + fit[:, 1]),
                     _shapes(star), _shapes(fit), table[:, 8], (weight * residuals).sum(axis=0) / weight.sum(axis=0),
                     weight.sum(axis=0) ** -0.5, np.mean(models, axis=0))


def shifted(stamp: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The stamp moved by a fraction of a pixel: band-limited (Fourier) interpolation, exact for a well-sampled profile.

    Splines lower the size of a PSF of 2-3 pixel FWHM by 0.3 %, more than what is to be measured.
    """
    size = stamp.shape[0]
    pad = size // 2
    wide = np.pad(stamp, pad)
    ky, kx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])[None, :]
    turned = np.fft.rfft2(wide) * np.exp(-2j * np.pi * (kx * dx + ky * dy))
    return np.fft.irfft2(turned, wide.shape)[pad:pad + size, pad:pad + size]


def _shapes(moments: np.ndarray) -> np.ndarray:
    trace = moments[:, 0] + moments[:, 1]
    return np.stack([(moments[:, 0] - moments[:, 1]) / trace, 2.0 * moments[:, 2] / trace], axis=-1)


def _stamp(image: MaskedImage, x: float, y: float, size: int):
    """(size, size) pixels and variances about a position; (None, None) off the image or with an unfit pixel."""
    half = size // 2
    column, row = round(x) - image.box.x0, round(y) - image.box.y0
    ny, nx = image.image.shape
    if column < half or row < half or column + half >= nx or row + half >= ny:
        return None, None
    part = image.cutout(type(image.box)(round(x) - half, round(y) - half, size, size))
    if not part.good(*UNFIT).all():
        return None, None
    return part.image.astype(float), part.variance.astype(float)


@dataclass(frozen=True)
class BlankSky:
    """The noise of PSF fluxes at blank places of a coadd.

    Attributes
    ----------
    band : str
    scatter : Estimate, robust scatter of the fluxes, nJy
    expected : float, median of their errors from the variance plane and the noise correlation, nJy
    bias : Estimate, median flux, nJy
    """

    band: str
    scatter: Estimate
    expected: float
    bias: Estimate

    @property
    def depth(self) -> float:
        """AB magnitude of a star at 5 sigma of the measured scatter."""
        return float(magnitude_of(5.0 * self.scatter.value))

    @property
    def ratio(self) -> Estimate:
        """Measured scatter over expected error."""
        return Estimate(self.scatter.value / self.expected, self.scatter.error / self.expected, self.scatter.n)


BLANK_STAMP, BLANK_RADIUS = 21, 9
"""Pixel: side of the stamps at blank places, and how far from any object they stay."""


def blank_sky(coadd: Coadd, n: int, seed: int = 1, objects=((), ())) -> BlankSky | None:
    """PSF fluxes at n random places away from all objects and unfit pixels; None where there are under 10.

    Parameters
    ----------
    objects : (x, y) of the detected objects, in the coadd's pixels: pixels within BLANK_RADIUS of one are not blank
    """
    image, size = coadd.image, min(coadd.psf.size, BLANK_STAMP)
    ny, nx = image.image.shape
    if ny <= size or nx <= size:
        return None
    from scipy.ndimage import distance_transform_edt, minimum_filter

    empty = np.ones((ny, nx), bool)
    column, row = (np.clip(np.rint(np.asarray(axis, float)).astype(int) - start, 0, limit - 1)
                   for axis, start, limit in zip(objects, (image.box.x0, image.box.y0), (nx, ny)))
    empty[row, column] = False
    free = image.good(*UNFIT, "DETECTED", "DETECTED_NEGATIVE")
    if not empty.all():
        free &= distance_transform_edt(empty) > BLANK_RADIUS
    half, margin = size // 2, (coadd.psf.size - size) // 2
    blank = minimum_filter(free, size=size)
    blank[:half], blank[ny - half:], blank[:, :half], blank[:, nx - half:] = False, False, False, False
    rows, columns = np.nonzero(blank)
    if len(rows) < 10:
        return None
    pick = np.random.default_rng(seed).choice(len(rows), size=min(n, len(rows)), replace=False)
    rows, columns = rows[pick], columns[pick]
    stamps = coadd.psf.stamps(columns + image.box.x0, rows + image.box.y0).astype(float)
    stamps = stamps[:, margin:margin + size, margin:margin + size]
    cell = coadd.psf.index(columns + image.box.x0, rows + image.box.y0)
    window = np.arange(size) - half
    index = rows[:, None, None] + window[:, None], columns[:, None, None] + window[None, :]
    pixels, variance = image.image[index].astype(float), image.variance[index].astype(float)
    weight = stamps / variance
    norm = (weight * stamps).sum(axis=(1, 2))
    flux = (weight * pixels).sum(axis=(1, 2)) / norm
    error = np.sqrt(coadd.noise_correlation[cell] / norm)
    return BlankSky(coadd.band, width(flux), median(error).value, median(flux))
