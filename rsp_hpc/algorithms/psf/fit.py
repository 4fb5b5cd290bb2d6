"""fit: the PSF from stars, a pixel grid whose pixels are polynomials of the position (csrc/psf.c).

In the manner of Piff (Jarvis et al. 2021, MNRAS 501, 1282), with the interpolation that measuring uses, and a shrinkage
prior towards the elliptical mean profile that stops noise from being fitted and polynomials from running away where there is
no star (algorithms.md C.2). Grid and stars are solved in turn: grid, gauge, then flux, position and sky of every star.

A PSF says how it came about: fitted (`chi2` finite), guessed from peaks (`chi2` NaN, `n_stars` > 0), or the configured
default (`n_stars` 0).
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from ...kernels import psf as kernels
from ...products.box import Box
from ...products.image import MaskedImage
from ...products.psf import PolynomialPsf, polynomial_terms, shift_matrix, stamp_moments, weighted_moments
from .config import BAD_PLANES, FWHM_OF_SIGMA, PsfConfig
from .guess import grid_size, guess_psf, refuse_trails
from .peaks import adaptive_moments
from .stamps import StarStamps

__all__ = ["elliptical_profile", "fit_psf", "gauge", "pedestal", "reserve"]

logger = logging.getLogger(__name__)

STARS_PER_ORDER = (1, 10, 25, 60)
"""Stars needed for a polynomial of order 0, 1, 2, 3."""
N_TERMS = (1, 3, 6, 10)
REFITS, SETTLE = 2, 1
"""Newton steps on a star per solution of the grid; solutions after the order was changed."""
FLOOR, WIDTHS = 0.006, (0.003, 0.5)
"""Of the peak: the prior's width in the wings is that in the core times this. Limits of the widths."""
ZONES = (0.01, 0.1)
"""Levels relative to the peak between which the prior has one width: wings, flanks, core."""
N_MODES, SHAPES = 3, 2
"""Size and the two shapes; solutions before which they are fitted: the first, and those after the stars changed."""
SHAPE_SCATTER, SHAPE_RANGE = 0.005, 0.05
"""Of the modes, from star to star beyond the noise; of their polynomials' coefficients, a prior against running away."""
SHAPE_ROUNDS, SHAPE_REACH, ODD = 4, 3.0, 6.0
"""Rounds of the robust fit; sigma beyond which a star counts less; sigma beyond which it is no star."""
MAX_CHANGE = np.log(2.5)
"""Of the moments over the detector; beyond it the fit has run away."""


class Solution(NamedTuple):
    """grid (n_terms, size, size), its covariance (n_terms, n_terms, size, size), the order."""

    grid: np.ndarray
    covariance: np.ndarray
    order: int


def fit_psf(image: MaskedImage, x, y, flux, config: PsfConfig, color=None) -> PolynomialPsf:
    """Fit the PSF to stars.

    Parameters
    ----------
    image : MaskedImage, sky subtracted
    x, y : (n,) positions of the stars, pixel; refined here
    flux : (n,) their fluxes, image unit; refined here
    color : (n,) their colours, magnitude (NaN: taken as the mean), for a PSF that depends on it; None: it does not

    Returns
    -------
    PolynomialPsf; without a usable star, or where no fit is sound, that of `guess_psf` (`chi2` is NaN)

    Raises
    ------
    BadData
        The image has no pixel with data, or its stars are trails.
    """
    x, y, flux = (np.atleast_1d(np.asarray(values, float)) for values in (x, y, flux))
    stars = StarStamps.cut(image, x, y, flux, config.size or _size(image, x, y, flux), BAD_PLANES)
    guess = guess_psf(image, config) if len(stars) < 3 else None
    if len(stars) == 0:
        logger.warning("no usable star: the PSF is a guess")
        return guess
    reserved = reserve(stars.x, stars.y, config.reserve) if len(stars) >= 10 else np.zeros(len(stars), bool)
    start = stars.median_stack() if guess is None else _resized(guess.coefficients[0], stars.size)
    beyond, mean_color = _centred(color, stars)
    fit = Fit(stars, (reserved, beyond), image.box, config, start)
    solution = fit.best()
    if solution is None:
        logger.warning("the fit of %d stars is not sound: the PSF is a guess", len(stars))
        return guess or guess_psf(image, config)
    xx, yy, xy = weighted_moments(solution.grid[0], tolerance=1e-3)
    if len(stars) >= 5:
        refuse_trails(np.tile([(xx - yy) / (xx + yy), 2.0 * xy / (xx + yy)], (len(stars), 1)), config)
    chi2 = fit.judge(solution)
    return PolynomialPsf(solution.grid, solution.order, image.box, int(fit.alive.sum()), chi2,
                         int(reserved.sum()), (max(1.0, chi2) * solution.covariance).astype(np.float32), mean_color)


def _centred(color, stars: StarStamps) -> tuple[np.ndarray | None, float]:
    """The stars' colours less their mean, 0 where unknown; None and NaN without colours."""
    own = np.full(1, np.nan) if color is None else np.asarray(color, float)[stars.given]
    if not np.isfinite(own).any():
        return None, float("nan")
    mean = float(np.nanmean(own))
    return np.nan_to_num(own - mean), mean


def reserve(x: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
    """Stars held back, by a hash of their whole pixel: the same whatever their order or number."""
    hashed = (np.rint(x).astype(np.int64).astype(np.uint64) << np.uint64(32)) ^ np.rint(y).astype(np.int64).astype(np.uint64)
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # the finaliser of splitmix64
        hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(multiplier)
    return (hashed >> np.uint64(40)).astype(float) < fraction * 2.0**24


def _size(image: MaskedImage, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> int:
    """The side of a grid for the brighter stars' median width."""
    bright = np.argsort(-np.nan_to_num(flux), kind="stable")[:15]
    stars = StarStamps.cut(image, x[bright], y[bright], flux[bright], 25, BAD_PLANES)
    moments = adaptive_moments(np.where(stars.good, stars.data - stars.sky[:, None, None], 0.0), iterations=10)
    trace = moments[:, 0] + moments[:, 1]
    trace = trace[np.isfinite(trace)]
    return grid_size(FWHM_OF_SIGMA * float(np.sqrt(0.5 * np.median(trace))) if len(trace) else 4.0)


def _resized(stamp: np.ndarray, size: int) -> np.ndarray:
    """A stamp cut or padded with zeros to another odd side."""
    half, own = size // 2, stamp.shape[0] // 2
    padded = np.pad(stamp, max(0, half - own))
    middle = padded.shape[0] // 2
    return padded[middle - half:middle + half + 1, middle - half:middle + half + 1]


class Fit:
    """The alternation of grid and stars; `stars`, `alive` (stars that the grid is fitted to) and the prior change on the way."""

    def __init__(self, stars: StarStamps, kinds: tuple[np.ndarray, np.ndarray | None], box: Box, config: PsfConfig,
                 start: np.ndarray):
        """kinds: which stars are reserved, and their colours less the mean or None; start: (size, size), a first PSF."""
        self.stars, self.box, self.config = stars, box, config
        self.reserved, self.color = kinds
        self.alive, self.odd = ~self.reserved, np.zeros(len(stars), bool)
        start = start - stars.uneven * pedestal(start)
        self.window = _window(start)
        self.start = gauge(start[None], self.window)
        self.target = None if len(stars) >= 3 else elliptical_profile(self.start[0])
        self.widths = np.full((N_TERMS[config.order] + 1, len(ZONES) + 1), config.prior)
        flat = np.ones((len(stars), 1))
        stars.refit(self.start, flat, stars.weights(self.start, flat, config.model_error), REFITS)

    def best(self) -> Solution | None:
        """The order that predicts the reserved stars best, among those that the stars allow; None if none is sound."""
        top = max(order for order in range(self.config.order + 1) if self.alive.sum() >= STARS_PER_ORDER[order])
        best, lowest, judges = None, np.empty(0), self.reserved
        for order in range(top, -1, -1):
            solution = self._iterate(order, self.config.iterations if best is None else SETTLE, clean=best is None)
            if not self._sound(solution):
                continue
            chi2, dof = self._chi2(solution, self.config.model_error)
            if best is None:  # the other orders are judged by the same stars
                judges = self._judges(chi2 / dof)
            else:
                gain = lowest - chi2[judges]
                if gain.sum() <= 3.0 * np.sqrt((gain**2).sum()):  # the prior keeps what is not needed small
                    break
            best, lowest = solution, chi2[judges]
            if self.reserved.sum() < 3:
                break
        return best

    def judge(self, solution: Solution) -> float:
        """Reduced chi2 of the reserved stars, without outliers; of the fitted ones if less than three were reserved."""
        chi2, dof = self._chi2(solution, 0.0)
        judges = self._judges(chi2 / dof)
        return float(chi2[judges].sum() / dof[judges].sum())

    def _judges(self, chi2: np.ndarray) -> np.ndarray:
        return self.reserved & ~_outliers(chi2, self.reserved, self.config) if self.reserved.sum() >= 3 else self.alive

    def _chi2(self, solution: Solution, model_error: float) -> tuple[np.ndarray, np.ndarray]:
        """Of each star, refitted with the solution."""
        terms = self._terms(solution.order)
        return self.stars.refit(solution.grid, terms, self.stars.weights(solution.grid, terms, model_error), REFITS)

    def _terms(self, order: int) -> np.ndarray:
        terms = polynomial_terms(self.stars.x, self.stars.y, self.box, order)
        return terms if self.color is None else np.concatenate([terms, self.color[:, None]], axis=1)

    def _iterate(self, order: int, times: int, clean: bool) -> Solution:
        """Solve the grid, fix its gauge, refit every star with it, leave out stars and pixels that do not fit."""
        stars, config = self.stars, self.config
        n_terms = N_TERMS[order] + (self.color is not None)
        grid = np.concatenate([self.start, np.zeros((n_terms - 1, *self.start.shape[1:]))])
        shapes, removed = np.zeros((len(grid), N_MODES)), np.zeros(len(stars), bool)
        for iteration in range(times):
            terms = self._terms(order)
            weight = stars.weights(grid, terms, config.model_error)
            mean = elliptical_profile(grid[0]) if self.target is None else self.target
            modes = shape_modes(mean)
            if n_terms > 1 and (iteration < SHAPES or removed.any()):
                basis = np.concatenate([grid[:1], np.tensordot(shapes[1:], modes, 1)])
                shapes = self._shapes((weight, terms, basis, modes), shapes)
            target = np.concatenate([mean[None], np.tensordot(shapes[1:], modes, 1)])
            solved, covariance = self._solve(weight, terms, target, grid)
            solved[0] -= stars.uneven * pedestal(solved[0])
            grid = gauge(solved, self.window)
            chi2, dof = stars.refit(grid, terms, weight, REFITS)
            if clean and iteration + 1 < times:
                if iteration > 0:
                    before, self.alive = self.alive, self._members(chi2 / dof)
                    removed = before != self.alive
                stars.mask_residuals(grid, terms, config.model_error)
        return Solution(grid, covariance, order)

    def _members(self, chi2: np.ndarray) -> np.ndarray:
        """The stars to fit: those that are no outliers; what an earlier, worse model left out may come back."""
        back = ~self.reserved & ~self.alive & ~_outliers(chi2, self.alive, self.config, every=True)
        members = (self.alive & ~_outliers(chi2, self.alive, self.config) | back) & ~self.odd
        return members if members.sum() >= 0.7 * (~self.reserved).sum() else self.alive

    def _shapes(self, fit: tuple, present: np.ndarray) -> np.ndarray:
        """(n_terms, N_MODES): polynomials of the modes in the stars, `present` being in the basis already.

        Each star's amplitudes together with its flux, position and sky, then a weighted fit of the polynomials to them.
        fit: weight, terms, basis (n_terms, size, size), modes
        """
        weight, terms, basis, modes = fit
        stars, use = self.stars, ~self.reserved
        table = stars.table(weight, terms, use)
        amplitude, covariance = kernels.modes(table, basis, np.ascontiguousarray(stars.sky_prior[use]), modes)
        covariance[~np.isfinite(covariance).all(axis=(1, 2))] = 1e12 * np.eye(N_MODES)
        inverse = np.linalg.inv(covariance + SHAPE_SCATTER**2 * np.eye(N_MODES))
        terms = terms[use]
        found, distance2 = np.zeros_like(present), np.zeros(len(terms))
        for _ in range(SHAPE_ROUNDS):  # weights of Cauchy's distribution: doubles and galaxies at the border have long levers
            kept = inverse * (self.alive[use] / (1.0 + distance2 / SHAPE_REACH**2))[:, None, None]
            matrix = np.einsum("sm,sn,sij->minj", terms, terms, kept, optimize=True).reshape(present.size, present.size)
            right = np.einsum("sm,sij,sj->mi", terms, kept, amplitude)
            right[1:] -= present[1:] / SHAPE_RANGE**2
            matrix[np.diag_indices(len(matrix))] += np.repeat([1e-9] + [SHAPE_RANGE**-2] * (len(present) - 1), N_MODES)
            found = np.linalg.solve(matrix, right.ravel()).reshape(present.shape)
            residual = amplitude - terms @ found
            distance2 = np.einsum("si,sij,sj->s", residual, inverse, residual)
        self.odd[use] = distance2 > ODD**2 * max(1.0, np.median(distance2) / N_MODES)
        return present + found

    def _solve(self, weight: np.ndarray, terms: np.ndarray, target: np.ndarray,
               start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The grid with the prior as it stands; the prior's widths are then made those of the solution's departures.

        MacKay's (1992, Neural Computation 4, 415) fixed point: the mean square departure per parameter that the data determine.
        """
        mean = target[0]
        scale = mean + FLOOR * mean.max()
        zone = np.digitize(mean / mean.max(), ZONES)
        spread = np.ascontiguousarray(self.widths[:len(start), zone] * scale)
        table = self.stars.table(self.stars.capped(weight, self.config.max_snr), terms, self.alive)
        grid, covariance, _ = kernels.solve(table, (target, 1.0 / spread**2), start)
        if self.target is None:
            own = np.arange(len(grid))
            known, departure = 1.0 - covariance[own, own] / spread**2, ((grid - target) / scale) ** 2
            for z in range(len(ZONES) + 1):
                effective = known[:, zone == z].sum(axis=1)
                found = np.sqrt(departure[:, zone == z].sum(axis=1) / np.maximum(effective, 1.0))
                self.widths[:len(grid), z] = np.clip(found, *WIDTHS)
        return grid, covariance

    def _sound(self, solution: Solution) -> bool:
        """Finite, and everywhere of about the size of the stars' median."""
        if not np.isfinite(solution.grid).all():
            return False
        box = self.box
        x, y = (grid.ravel() for grid in np.meshgrid(*(np.array([first, first + 0.5 * n, first + n]) - 0.5
                                                       for first, n in ((box.x0, box.nx), (box.y0, box.ny)))))
        spatial = PolynomialPsf(solution.grid[:N_TERMS[solution.order]], solution.order, box)
        moments = stamp_moments(spatial.stamps(x, y), tolerance=1e-2)
        trace, middle = moments[:, 0] + moments[:, 1], 2.0 * self.window
        return bool((np.abs(np.log(np.where(trace > 0, trace, np.nan) / middle)) < MAX_CHANGE).all())


def _outliers(chi2: np.ndarray, alive: np.ndarray, config: PsfConfig, every: bool = False) -> np.ndarray:
    """Stars far beyond the scatter of the chi2 of those `alive`: of these at most a tenth at a time and never below three;
    `every`: of all stars, without a limit to their number."""
    middle = np.nanmedian(chi2[alive])
    scatter = max(1.4826 * np.nanmedian(np.abs(chi2[alive] - middle)), 0.05 * middle)
    beyond = np.nan_to_num((chi2 - middle) / scatter, nan=np.inf)
    if every:
        return beyond > config.max_chi2
    beyond = np.where(alive, beyond, 0.0)
    most = min(max(1, int(0.1 * alive.sum())), max(0, int(alive.sum()) - 3))
    worst = np.argsort(-beyond, kind="stable")[:most]
    result = np.zeros(len(chi2), bool)
    result[worst] = beyond[worst] > config.max_chi2
    return result


def pedestal(stamp: np.ndarray) -> float:
    """What lies under a PSF, of neighbours' light: its level at the border beyond what wings like r^-3.3 would have there."""
    u = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    radius = np.hypot(u[:, None], u)
    border, inside = (stamp[np.abs(radius - r) < 1.0].mean() for r in (u[-1], 0.5 * u[-1]))
    return float((border - 0.1 * inside) / 0.9)


def gauge(grid: np.ndarray, sigma2: float | None = None) -> np.ndarray:
    """The same model with sum one and centroid zero at every position, in a Gaussian window of variance sigma2 [pixel^2]."""
    size = grid.shape[-1]
    grid = grid / grid[0].sum()
    grid[1:] -= grid[1:].sum(axis=(1, 2), keepdims=True) * grid[0]
    sigma2 = _window(grid[0]) if sigma2 is None else sigma2
    u = np.arange(size) - size // 2
    window = np.exp(-0.5 * (u[:, None] ** 2 + u[None, :] ** 2) / sigma2)
    for _ in range(2):
        for lever, slope in zip((u[None, :] * window, u[:, None] * window), slopes(grid[0])):
            response = (lever * slope).sum()
            grid -= (lever * grid).sum(axis=(1, 2), keepdims=True) / response * slope
        grid[0] /= grid[0].sum()
        grid[1:] -= grid[1:].sum(axis=(1, 2), keepdims=True) * grid[0]
    return grid


def _window(stamp: np.ndarray) -> float:
    """Variance of a window that suits a stamp, pixel^2."""
    ixx, iyy, _ = weighted_moments(stamp, tolerance=1e-3)
    return 0.5 * (ixx + iyy) if np.isfinite(ixx + iyy) else 4.0


def slopes(stamp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The change of a stamp when its source moves along x, and along y, by its own interpolation."""
    step, size = 1e-3, stamp.shape[0]
    fore, back = (shift_matrix(np.array([d]), size, size)[0] for d in (step, -step))
    return stamp @ (fore - back).T / (2 * step), (fore - back) @ stamp / (2 * step)


def shape_modes(profile: np.ndarray) -> np.ndarray:
    """(3, size, size): the change of a profile when it grows, and is sheared along the axes and the diagonals; sum zero."""
    u = np.arange(profile.shape[0]) - profile.shape[0] // 2
    x, y = u[None, :], u[:, None]
    along_x, along_y = slopes(profile)
    modes = np.stack([x * along_x + y * along_y, x * along_x - y * along_y, x * along_y + y * along_x])
    return modes - modes.sum(axis=(1, 2), keepdims=True) / profile.sum() * profile


def elliptical_profile(stamp: np.ndarray) -> np.ndarray:
    """The stamp's mean over ellipses of its own shape, not negative."""
    ixx, iyy, ixy = weighted_moments(stamp, tolerance=1e-6)
    determinant = ixx * iyy - ixy * ixy
    u = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    x, y = u[None, :], u[:, None]
    if not determinant > 0.05:
        radius = np.hypot(x, y)
    else:
        radius = np.sqrt((iyy * x * x + ixx * y * y - 2.0 * ixy * x * y) / np.sqrt(determinant))
    count = int(radius.max()) + 3  # cubic B-splines of the radius on knots a pixel apart, even about zero
    basis = _bspline(radius[..., None] - np.arange(count))
    basis[..., 1] += _bspline(radius + 1.0)
    basis = basis.reshape(stamp.size, count)
    coefficients = np.linalg.solve(basis.T @ basis + 1e-9 * np.eye(count), basis.T @ stamp.ravel())
    return np.maximum(basis @ coefficients, 0.0).reshape(stamp.shape)


def _bspline(x: np.ndarray) -> np.ndarray:
    """The cubic B-spline of unit spacing."""
    x = np.abs(x)
    return np.where(x < 1.0, (4.0 + 3.0 * x * x * (x - 2.0)) / 6.0, np.maximum(2.0 - x, 0.0) ** 3 / 6.0)
