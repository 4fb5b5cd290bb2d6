"""PSF: a pixel grid whose pixels are polynomials of the position, fitted to stars; star selection; aperture correction.

Model (in the manner of Piff, Jarvis et al. 2021, MNRAS 501, 1282): pixel values between grid points by Lanczos-5, the
same that measuring uses. The linear system is solved without forming its matrix, by preconditioned conjugate gradients,
with a shrinkage prior towards the elliptical mean profile that stops noise from being fitted (algorithms.md C.2).

A PSF says how it came about: fitted (`chi2` finite), guessed from peaks (`chi2` NaN, `n_stars` > 0), or the configured
default (`n_stars` 0).
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.catalogue import Catalogue
from ..products.image import MaskedImage
from ..products.psf import PolynomialPsf, Psf, polynomial_terms, weighted_moments
from .measure import MeasureConfig, measure_forced
from .psf_peaks import adaptive_moments, find_peaks, half_sample_mode
from .psf_solve import StarStamps, lanczos_matrix, solve_grid

__all__ = ["ApertureCorrection", "PsfConfig", "aperture_correction", "fit_psf", "guess_psf", "select_stars"]

logger = logging.getLogger(__name__)

BAD_PLANES = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "INTRP")
FLAGS = ("centroid_flag", "i_flag", "psfFlux_flag", "pixelFlags_saturatedCenter", "pixelFlags_crCenter",
         "pixelFlags_suspectCenter", "pixelFlags_interpolatedCenter", "pixelFlags_saturated", "pixelFlags_offimage",
         "pixelFlags_nodata")
REFITS, CORE, ANNULUS = 2, 2, 5
FWHM_OF_SIGMA = 2.3548


class PsfConfig(Config):
    """How stars are chosen and the PSF is fitted."""

    order: int = parameter(2, "order of the polynomial in position; lower where stars are few", low=0, high=2)
    size: int = parameter(0, "odd side of the pixel grid; 0: 8 FWHM, 21 to 41", unit="pixel", low=0, high=101)
    default_fwhm: float = parameter(4.0, "width taken where an image has no star to guess it from", unit="pixel",
                                    above=0.5)
    min_snr: float = parameter(20.0, "faintest star", unit="sigma", above=0.0)
    max_snr: float = parameter(200.0, "brighter stars get no more weight than this", unit="sigma", above=0.0)
    max_stars: int = parameter(150, "stars used, spread over the detector", low=3)
    max_neighbour: float = parameter(0.05, "flux of neighbours nearer than 4 FWHM, relative to the star's", low=0.0)
    prior: float = parameter(0.15, "relative width of the prior about the mean profile", above=0.0)
    model_error: float = parameter(0.01, "error of the model relative to the PSF, for outliers", low=0.0)
    iterations: int = parameter(4, "times that grid and stars are refitted in turn", low=2, high=15)
    max_chi2: float = parameter(4.0, "a star this far beyond the others' chi2 is an outlier", unit="sigma", above=0.0)
    reserve: float = parameter(0.15, "fraction of stars held back to test the fit", low=0.0, high=0.5)
    aperture: float = parameter(4.0, "radius of the calibration aperture", unit="FWHM", above=0.5)


class ApertureCorrection(NamedTuple):
    """`factor` on PSF fluxes and its one-sigma error: NaN if no star was found; the factor is then 1."""

    factor: float
    error: float


def guess_psf(image: MaskedImage, config: PsfConfig) -> PolynomialPsf:
    """A constant, elliptical Moffat PSF from the bright unsaturated peaks of an image; the sky may still be in it.

    Peaks that are sharper than a star or one-sided (cosmic rays) are left out; the width is the mode of the others'
    adaptive moments, so that galaxies and blends do not count.

    Raises
    ------
    BadData
        The image has no pixel with data.
    """
    peaks = find_peaks(image, BAD_PLANES)
    moments = np.array([config.default_fwhm**2 / FWHM_OF_SIGMA**2 * m for m in (1.0, 1.0, 0.0)])
    n_peaks = 0
    if len(peaks) >= 3:
        size = np.log(peaks[:, 0] + peaks[:, 1])
        like = np.abs(size - half_sample_mode(size)) < 0.2
        if like.sum() >= 3:
            n_peaks, moments = int(like.sum()), np.median(peaks[like], axis=0)
    if n_peaks == 0:
        logger.warning("no star-like peak: the PSF is the default of %g pixel", config.default_fwhm)
    stamp = moffat(moments, config.size or grid_size(FWHM_OF_SIGMA * np.sqrt(0.5 * (moments[0] + moments[1]))))
    return PolynomialPsf(stamp[None], 0, image.box, n_peaks)


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


def select_stars(image: MaskedImage, sources: Catalogue, config: PsfConfig) -> np.ndarray:
    """Rows of the catalogue that look like clean, isolated, unresolved stars, brightest first.

    Parameters
    ----------
    sources : what `measure` gives: x, y, psfFlux, psfFluxErr, ixx, iyy, ixy, pixelFlags_*

    Returns
    -------
    (n,) int64; may be empty
    """
    flux, size = sources["psfFlux"], sources["ixx"] + sources["iyy"]
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = flux / sources["psfFluxErr"]
        usable = np.isfinite(snr) & np.isfinite(size) & (size > 0) & (snr > config.min_snr)
    for name in FLAGS:
        if name in sources:
            usable &= ~sources[name]
    box = image.box.grow(-6)
    usable &= box.contains(sources["x"], sources["y"])
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return rows
    rows = rows[_on_locus(sources.rows(rows), image)]
    rows = rows[_isolated(sources, rows, config)]
    return _spread(sources, rows, image, config)


def _on_locus(sources: Catalogue, image: MaskedImage) -> np.ndarray:
    """Which sources lie on the locus of stars: the mode of the size, allowed to vary slowly over the detector."""
    size = np.log(sources["ixx"] + sources["iyy"])
    trace = sources["ixx"] + sources["iyy"]
    shape = np.stack([(sources["ixx"] - sources["iyy"]) / trace, 2.0 * sources["ixy"] / trace])
    bright = np.argsort(-sources["psfFlux"])[:max(20, len(size) // 2)]
    mode = half_sample_mode(size[bright])
    on = np.abs(size - mode) < 0.25
    if on.sum() < 4:
        return on
    terms = polynomial_terms(sources["x"], sources["y"], image.box, 1 if on.sum() >= 12 else 0)
    for _ in range(5):
        keep = np.ones(len(size), bool)
        for values, floor in ((size, 0.03), (shape[0], 0.02), (shape[1], 0.02)):
            residual = values - terms @ np.linalg.lstsq(terms[on], values[on], rcond=None)[0]
            middle = np.median(residual[on])
            scatter = 1.4826 * np.median(np.abs(residual[on] - middle))
            keep &= np.abs(residual - middle) < np.clip(4.0 * scatter, floor, 0.2)
        if keep.sum() < 4 or (keep == on).all():
            break
        on = keep
    return on


def _isolated(sources: Catalogue, rows: np.ndarray, config: PsfConfig) -> np.ndarray:
    """Which rows have no neighbour that matters; nearer ones are tolerated where too few stars would be left."""
    fwhm = FWHM_OF_SIGMA * np.sqrt(0.5 * np.median(sources["ixx"][rows] + sources["iyy"][rows]))
    x, y, flux = (sources[name] for name in ("x", "y", "psfFlux"))
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (flux > 0))
    order = known[np.argsort(x[known])]
    quiet = np.zeros(len(rows), bool)
    for radius, factor in ((4.0, 1.0), (3.0, 2.0), (2.0, 4.0)):
        reach, limit = radius * fwhm, factor * config.max_neighbour
        first = np.searchsorted(x[order], x[rows] - reach)
        last = np.searchsorted(x[order], x[rows] + reach)
        for k, row in enumerate(rows):
            near = order[first[k]:last[k]]
            near = near[(np.hypot(x[near] - x[row], y[near] - y[row]) < reach) & (near != row)]
            quiet[k] = flux[near].sum() <= limit * flux[row]
        if quiet.sum() >= 25:
            break
    return quiet


def _spread(sources: Catalogue, rows: np.ndarray, image: MaskedImage, config: PsfConfig) -> np.ndarray:
    """At most `max_stars` rows, the brightest of each of 4 x 4 parts of the detector in turn."""
    rows = rows[np.argsort(-sources["psfFlux"][rows], kind="stable")]
    box = image.box
    part = (np.clip(4 * (sources["x"][rows] - box.x0) // box.nx, 0, 3) * 4
            + np.clip(4 * (sources["y"][rows] - box.y0) // box.ny, 0, 3)).astype(int)
    rank = np.zeros(len(rows), int)
    for number in range(16):
        rank[part == number] = np.arange((part == number).sum())
    chosen = np.argsort(rank, kind="stable")[:config.max_stars]
    return rows[np.sort(chosen)]


def fit_psf(image: MaskedImage, x, y, flux, config: PsfConfig) -> PolynomialPsf:
    """Fit the PSF to stars.

    Parameters
    ----------
    image : MaskedImage, sky subtracted
    x, y : (n,) positions of the stars, pixel; refined here
    flux : (n,) their fluxes, image unit; refined here

    Returns
    -------
    PolynomialPsf; with fewer than three usable stars that of `guess_psf` (`chi2` is NaN)

    Raises
    ------
    BadData
        The image has no pixel with data.
    """
    x, y, flux = (np.atleast_1d(np.asarray(values, float)) for values in (x, y, flux))
    size = config.size or 25
    stars = StarStamps.cut(image, x, y, flux, size, BAD_PLANES)
    if len(stars) >= 3 and not config.size:
        stars = StarStamps.cut(image, x, y, flux, grid_size(_width(stars)), BAD_PLANES)
    if len(stars) < 3:
        logger.warning("%d usable stars: the PSF is a guess", len(stars))
        return guess_psf(image, config)
    reserved = _reserved(stars, config.reserve) if len(stars) >= 10 else np.zeros(len(stars), bool)
    return _iterate(stars, reserved, image, config)


def _width(stars: StarStamps) -> float:
    """Median FWHM of the stars, pixel."""
    moments = adaptive_moments(np.where(stars.good, stars.data, 0.0)[:60])
    trace = moments[:, 0] + moments[:, 1]
    trace = trace[np.isfinite(trace)]
    return FWHM_OF_SIGMA * float(np.sqrt(0.5 * np.median(trace))) if len(trace) else 4.0


def _reserved(stars: StarStamps, fraction: float) -> np.ndarray:
    """Stars held back, by a hash of their position: the same whatever their order or number."""
    hashed = (np.rint(stars.x * 8).astype(np.int64) * 73856093) ^ (np.rint(stars.y * 8).astype(np.int64) * 19349663)
    return (hashed * 2654435761 >> 16) % 1000 < 1000 * fraction


def _iterate(stars: StarStamps, reserved: np.ndarray, image: MaskedImage, config: PsfConfig) -> PolynomialPsf:
    """Grid and stars in turn: solve the grid, fix its gauge, refit every star with it, clip."""
    alive = ~reserved
    grid = stars.median_stack()[None]
    stars.refit(grid, np.ones((len(stars), 1)), REFITS)
    for iteration in range(config.iterations):
        order = min(config.order, 2 if alive.sum() >= 25 else 1 if alive.sum() >= 10 else 0)
        terms = polynomial_terms(stars.x, stars.y, image.box, order)
        grid = np.concatenate([grid, np.zeros((terms.shape[1], *grid.shape[1:]))])[:terms.shape[1]]
        weight = stars.weights(grid, terms, config.max_snr, config.model_error)
        grid = gauge(solve_grid(stars, np.where(alive[:, None, None], weight, 0.0), terms, grid, config.prior))
        stars.refit(grid, terms, REFITS)
        chi2, dof = stars.chi2(grid, terms, weight)
        if iteration + 1 < config.iterations:
            if iteration > 0:
                alive &= ~_outliers(chi2 / dof, alive, config)
            stars.mask_residuals(grid, terms, config.model_error)
    chi2, dof = stars.chi2(grid, terms, stars.weights(grid, terms, np.inf, 0.0))
    judged = reserved & ~_outliers(chi2 / dof, reserved, config) if reserved.sum() >= 3 else alive
    return PolynomialPsf(grid, order, image.box, int(alive.sum()), float(chi2[judged].sum() / dof[judged].sum()))


def _outliers(chi2: np.ndarray, alive: np.ndarray, config: PsfConfig) -> np.ndarray:
    """Stars far beyond the scatter of the others' chi2: at most a tenth at a time, and never below three."""
    middle = np.median(chi2[alive])
    scatter = max(1.4826 * np.median(np.abs(chi2[alive] - middle)), 0.05 * middle)
    beyond = np.where(alive, (chi2 - middle) / scatter, 0.0)
    most = min(max(1, int(0.1 * alive.sum())), max(0, int(alive.sum()) - 3))
    worst = np.argsort(-beyond, kind="stable")[:most]
    result = np.zeros(len(chi2), bool)
    result[worst] = beyond[worst] > config.max_chi2
    return result


def gauge(grid: np.ndarray) -> np.ndarray:
    """The same model with sum one, mean zero at the border and (Gaussian-weighted) centroid zero at every position.

    What is constant over a stamp is sky: in crowded fields a grid would take it for wings.
    """
    size = grid.shape[-1]
    u = np.arange(size) - size // 2
    border = np.ones((size, size), bool)
    border[1:-1, 1:-1] = False
    grid = grid - grid[:, border].mean(axis=1)[:, None, None]
    grid /= grid[0].sum()
    grid[1:] -= grid[1:].sum(axis=(1, 2), keepdims=True) * grid[0]
    ixx, iyy, _ = weighted_moments(grid[0])
    sigma2 = 0.5 * (ixx + iyy) if np.isfinite(ixx + iyy) else 4.0
    window = np.exp(-0.5 * (u[:, None] ** 2 + u[None, :] ** 2) / sigma2)
    step = 1e-3  # derivatives of the model by its own interpolation
    fore, back = (lanczos_matrix(np.array([d]), size, size)[0] for d in (step, -step))
    slopes = [grid[0] @ (fore - back).T / (2 * step), (fore - back) @ grid[0] / (2 * step)]
    for _ in range(2):
        for lever, slope in ((u[None, :] * window, slopes[0]), (u[:, None] * window, slopes[1])):
            response = (lever * slope).sum()
            grid -= (lever * grid).sum(axis=(1, 2), keepdims=True) / response * slope
        grid[0] /= grid[0].sum()
        grid[1:] -= grid[1:].sum(axis=(1, 2), keepdims=True) * grid[0]
    return grid


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
    residual = stamps.data / stamps.flux[:, None, None] - model
    light = stamps.flux[:, None, None] * np.maximum(model, 0.0)
    error = np.sqrt(stamps.sky_variance[:, None, None] + stamps.slope * light)
    error = np.hypot(error / stamps.flux[:, None, None], 0.02 * np.abs(model) + 2e-5)
    good = stamps.good & (np.abs(residual - np.median(residual, axis=0)) < 3.0 * error)
    weight = good / np.median(error[:, outside], axis=1)[:, None, None] ** 2
    mean = (weight * residual).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    sky = np.median(mean[outside])
    each = (share * (np.where(good, residual, mean) - sky)).sum(axis=(1, 2))
    expected = np.sqrt((share * error**2).sum(axis=(1, 2)))
    pull = np.abs(each - (share * (mean - sky)).sum()) / expected
    error_of_mean = max(1.0, 1.4826 * float(np.median(pull))) / np.sqrt((expected**-2.0).sum())
    return ApertureCorrection(float((share * (model.mean(axis=0) + mean - sky)).sum()), float(error_of_mean))


def _aperture_weight(distance: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's share in an aperture (its edge smoothed over a pixel), and the pixels outside that show the sky."""
    return np.clip(radius + 0.5 - distance, 0.0, 1.0), distance > radius + 0.5


def _on_stamps(psf: Psf, stars: StarStamps) -> np.ndarray:
    """(n, size, size): the PSF of each star on its stamp's pixels; zero where the PSF's own stamp ends."""
    size = stars.data.shape[-1]
    across, along = (lanczos_matrix(shift, size, psf.size) for shift in (stars.y - stars.row, stars.x - stars.column))
    return across @ psf.stamps(stars.x, stars.y).astype(float) @ along.swapaxes(1, 2)
