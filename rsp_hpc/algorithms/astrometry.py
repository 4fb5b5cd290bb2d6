"""The WCS of one detector: match to the reference catalogue, then a weighted, clipped polynomial fit (TAN-SIP)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.box import Box
from ..products.catalogue import Catalogue
from ..products.geometry import angular_separation, deproject, project
from ..products.reference import ReferenceCatalogue
from ..products.wcs import Wcs
from .match import Match, MatchConfig, match, tree_of
from .statistics import intrinsic_scatter, robust_sigma

__all__ = ["AstrometricFit", "AstrometryConfig", "fit_wcs", "pair_by_wcs", "wcs_of_grid"]

_ROUNDS = 3  # of pairing sources with stars by the latest solution
_STARS_FOR_ORDER = {1: 3, 2: 10, 3: 20, 4: 30, 5: 42}  # twice the coefficients


class AstrometryConfig(Config):
    """How the WCS is fitted."""

    match: MatchConfig = parameter(MatchConfig(), "the first match")
    order: int = parameter(3, "highest order; lower where stars are few (10, 20) or do not ask for it", low=1, high=5)
    min_snr: float = parameter(10.0, "least signal to noise of a source that is fitted", low=3.0)
    clip: float = parameter(4.0, "pairs further off, in sigma, are left out", above=1.0)
    error_floor: float = parameter(1.0, "least error of a measured position", unit="mas", low=0.0)
    max_rms: float = parameter(0.5, "a fit with a larger scatter per axis is refused", unit="arcsec", above=0.0)


@dataclass(frozen=True)
class AstrometricFit:
    """The fitted WCS and what it rests on.

    Attributes
    ----------
    wcs : Wcs
    sources, reference : (n,) int64, rows of the two catalogues that were fitted
    east, north : (n,) arcsec, reference minus fitted position
    rms_east, rms_north : float, arcsec, robust scatter of those
    scatter : float, mas per axis, beyond the known errors (atmosphere, wrong error estimates)
    order : int, polynomial order; 0: only the position was shifted
    error_east, error_north : float, mas, error of the solution, rms over the detector
    false_probability : float, that chance gave the match
    shift_only : bool, fewer than three stars: rotation, scale and distortion are the header's
    """

    wcs: Wcs
    sources: np.ndarray
    reference: np.ndarray
    east: np.ndarray
    north: np.ndarray
    rms_east: float
    rms_north: float
    scatter: float
    order: int
    error_east: float
    error_north: float
    false_probability: float
    shift_only: bool
    covariance: tuple = field(default=(), repr=False)
    frame: _Frame | None = field(default=None, repr=False)

    def error(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """One sigma (east, north) in arcsec of the solution at pixels."""
        return _solution_error(self.covariance, self.frame, np.asarray(x, float), np.asarray(y, float))

    @property
    def n(self) -> int:
        """Number of stars fitted."""
        return len(self.sources)


@dataclass(frozen=True)
class _Pairs:
    """Matched positions and errors, as the fit wants them."""

    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    ra_err: np.ndarray  # arcsec
    dec_err: np.ndarray
    sources: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, sources: Catalogue, reference: ReferenceCatalogue, s: np.ndarray, r: np.ndarray) -> _Pairs:
        """Of the rows s of the sources and r of the reference catalogue."""
        return cls(*(np.asarray(sources[name], float)[s] for name in ("x", "y", "xErr", "yErr")), reference.ra[r],
                   reference.dec[r], reference.ra_err[r] / 1e3, reference.dec_err[r] / 1e3, s, r)


@dataclass(frozen=True)
class _Solution:
    """One least squares solution: the WCS and, over the detector, its error."""

    wcs: Wcs
    order: int
    scatter: float  # arcsec
    keep: np.ndarray
    east: np.ndarray  # arcsec, of all pairs
    north: np.ndarray
    covariance: tuple  # arcsec^2, of the coefficients of xi and eta
    frame: _Frame | None
    errors: tuple[float, float] = field(default=(np.nan, np.nan))  # arcsec


def fit_wcs(sources: Catalogue, reference: ReferenceCatalogue, guess: Wcs, box: Box, config: AstrometryConfig,
            band: str = "") -> AstrometricFit:
    """Fit the WCS of a detector to reference stars.

    Tangent-plane polynomials are linear in their coefficients, and become CD matrix and forward SIP terms exactly;
    distortion of the guess above the fitted order is kept. Sources need the columns x, y, xErr, yErr (pixels),
    psfFlux and psfFluxErr; the reference is at the epoch of the exposure.

    Raises
    ------
    BadData
        There is no certain match, or the fit scatters more than `max_rms`.
    """
    first = match(sources, reference, guess, box, config.match, band)
    usable = _usable(sources, config)
    base, index = _from_match(guess, first, box), np.flatnonzero(reference.is_star)
    wcs = base
    solution, pairs = None, None
    radius = 0.0
    for turn in range(_ROUNDS):
        rows = _pair(sources, usable, reference, index, (wcs, radius)) if turn else _both(first, usable, index)
        pairs = _Pairs.of(sources, reference, *rows)
        if len(pairs.x) == 0:
            raise BadData(f"none of the {len(first)} matched stars has a usable position (signal to noise >= "
                          f"{config.min_snr:g}, errors known); there is nothing to fit the WCS to")
        solution = _fit(pairs, base, box, config)
        wcs = solution.wcs
        radius = max(6.0 * max(map(robust_sigma, (solution.east[solution.keep], solution.north[solution.keep]))), 0.1)
    return _checked(_result(pairs, solution, first), config)


def pair_by_wcs(sources: Catalogue, reference: ReferenceCatalogue, wcs: Wcs, radius: float,
                config: AstrometryConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rows (sources, reference) of pairs within a radius (arcsec) by a WCS that is good to it; ambiguous ones are left out."""
    return _pair(sources, _usable(sources, config), reference, np.arange(len(reference)), (wcs, radius))


def _usable(sources: Catalogue, config: AstrometryConfig) -> np.ndarray:
    """Rows with a position, its errors, and enough signal."""
    with np.errstate(invalid="ignore"):
        good = np.asarray(sources["psfFlux"]) >= config.min_snr * np.asarray(sources["psfFluxErr"])
    for name in ("x", "y", "xErr", "yErr"):
        good &= np.isfinite(sources[name])
    return np.flatnonzero(good & (sources["xErr"] > 0) & (sources["yErr"] > 0))


def _from_match(guess: Wcs, found: Match, box: Box) -> Wcs:
    """The guess moved by the match: good to the match's rms near the detector, which is all that pairing needs."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(box.x0, box.x1, 9), np.linspace(box.y0, box.y1, 9)))
    plane = 3600.0 * np.stack(project(*guess.pixel_to_sky(x, y), *found.center), -1) @ found.matrix.T + found.shift
    ra, dec = deproject(*(plane.T / 3600.0), *found.center)
    one = np.ones(len(x))
    wcs, _ = _polynomial_fit(x, y, (ra, dec), (one, one), _Frame.of(guess, box, 1))
    return wcs


def _both(found: Match, usable: np.ndarray, stars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The match's rows (source, reference) that may be fitted."""
    good = np.isin(found.sources, usable) & np.isin(found.reference, stars)
    return found.sources[good], found.reference[good]


def _pair(sources: Catalogue, usable, reference: ReferenceCatalogue, stars, solution) -> tuple[np.ndarray, np.ndarray]:
    """Rows (source, reference) of pairs within a radius (arcsec) by a WCS; ambiguous ones are left out.

    A source or a star with a second candidate within the radius is dropped: it cannot be told which one is right.
    """
    wcs, radius = solution
    points = 3600.0 * np.stack(wcs.pixel_to_plane(sources["x"][usable], sources["y"][usable]), -1)
    targets = 3600.0 * np.stack(project(reference.ra[stars], reference.dec[stars], *wcs.crval), -1)
    ok = np.isfinite(targets).all(axis=-1)
    stars, targets = stars[ok], targets[ok]
    if not len(stars) or not len(points):
        i = j = np.zeros(0, int)
    else:
        distance, near = tree_of(targets).query(points, k=min(2, len(stars)), distance_upper_bound=radius)
        distance, near = distance.reshape(len(points), -1), near.reshape(len(points), -1)
        alone = np.isfinite(distance).sum(axis=1) == 1
        i, j = np.flatnonzero(alone), near[alone, 0]
        once = np.bincount(j, minlength=len(stars))[j] == 1
        i, j = i[once], j[once]
    return usable[i], stars[j]


@dataclass(frozen=True)
class _Frame:
    """What a fit starts from: tangent point, reference pixel, order, and the distortion that is kept as it is."""

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: np.ndarray
    order: int
    a: np.ndarray | None  # kept terms, orders above `order`
    b: np.ndarray | None
    unit: float  # pixels, half the detector: conditions the powers

    @classmethod
    def of(cls, guess: Wcs, box: Box, order: int) -> _Frame:
        """About the detector's centre; about the guess's reference pixel where its distortion is kept."""
        unit = 0.5 * max(box.nx, box.ny)
        if guess.a is not None and len(guess.a) - 1 > order:
            powers = np.add.outer(np.arange(len(guess.a)), np.arange(len(guess.a)))
            kept = [np.where(powers > order, table, 0.0) for table in (guess.a, guess.b)]
            return cls(guess.crval, guess.crpix, np.asarray(guess.cd), order, kept[0], kept[1], unit)
        center = (box.x0 + 0.5 * (box.nx - 1), box.y0 + 0.5 * (box.ny - 1))
        ra, dec = guess.pixel_to_sky(*center)
        return cls((float(ra), float(dec)), center, np.asarray(guess.cd), order, None, None, unit)

    def kept(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u, v with the kept distortion added."""
        if self.a is None:
            return u, v
        plain = Wcs((0.0, 0.0), (0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), self.a, self.b)
        return plain.pixel_to_plane(u, v)

    def design(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, k) 1, u, v (with the kept distortion), u^i v^j of orders 2 to `order`, in units of half the detector."""
        u, v = x - self.crpix[0], y - self.crpix[1]
        columns = [np.ones(len(u)), *(w / self.unit for w in self.kept(u, v))]
        u, v = u / self.unit, v / self.unit
        return np.stack(columns + [u**i * v**j for i, j in self.powers()], -1)

    def powers(self) -> list[tuple[int, int]]:
        """Exponents of the terms above the first order."""
        return [(total - j, j) for total in range(2, self.order + 1) for j in range(total + 1)]

    def wcs(self, crval: tuple[float, float], xi: np.ndarray, eta: np.ndarray) -> Wcs:
        """The WCS of coefficients (degrees) without a constant: CD from the linear ones, SIP from the rest."""
        cd = np.array([xi[1:3], eta[1:3]]) / self.unit
        size = max(self.order, len(self.a) - 1 if self.a is not None else 1) + 1
        tables = [np.zeros((size, size)) if kept is None else np.array(kept) for kept in (self.a, self.b)]
        if self.order > 1:
            terms = np.linalg.solve(cd, np.array([xi[3:], eta[3:]]))
            for k, (i, j) in enumerate(self.powers()):
                for table, term in zip(tables, terms):
                    table[i, j] = term[k] / self.unit ** (i + j)
        a, b = tables if size > 2 else (None, None)
        return Wcs(crval, self.crpix, tuple(map(tuple, cd.tolist())), a, b)  # type: ignore[arg-type]


def _polynomial_fit(x, y, sky, weights, frame: _Frame) -> tuple[Wcs, tuple[np.ndarray, np.ndarray]]:
    """Weighted least squares of tangent-plane polynomials; the tangent point moves until the constant vanishes.

    Parameters
    ----------
    sky : (ra, dec) degrees; weights : of xi and eta, 1 / arcsec^2

    Returns
    -------
    The WCS, and the (k, k) covariances (arcsec^2) of the coefficients of xi and eta.
    """
    design = frame.design(x, y)
    solvers = [_Solver(design, weight) for weight in weights]
    crval = frame.crval
    for _ in range(10):
        xi, eta = (solver.solve(target) for solver, target in zip(solvers, project(*sky, *_turned(crval))))
        ra, dec = deproject(xi[0], eta[0], *_turned(crval))
        moved, crval = np.hypot(xi[0], eta[0]), (float(ra), float(dec))
        if moved < 1e-13:
            break
    return frame.wcs(crval, xi, eta), (solvers[0].covariance, solvers[1].covariance)


def wcs_of_grid(sky, guess: Wcs, box: Box, tolerance: float = 0.1) -> Wcs:
    """A TAN-SIP WCS over a box that follows `sky(x, y) -> (ra, dec)`: the lowest order that is good to a tolerance (mas)."""
    (x, y), (tx, ty) = ([grid.ravel() for grid in np.meshgrid(np.linspace(box.x0 - 0.5, box.x1 - 0.5, n),
                                                              np.linspace(box.y0 - 0.5, box.y1 - 0.5, n))] for n in (13, 20))
    plain = Wcs(guess.crval, guess.crpix, guess.cd)
    target, one, wcs = sky(x, y), np.ones(len(x)), plain
    test = sky(tx, ty)
    for order in range(1, 8):
        wcs, _ = _polynomial_fit(x, y, target, (one, one), _Frame.of(plain, box, order))
        if 3.6e6 * float(np.max(angular_separation(*wcs.pixel_to_sky(tx, ty), *test))) <= tolerance:
            break
    return wcs


def _turned(crval: tuple[float, float]) -> tuple[float, float]:
    """The tangent point kept off the exact poles, where its right ascension would be undefined."""
    return crval[0], float(np.clip(crval[1], -89.9999999, 89.9999999))


class _Solver:
    """Weighted linear least squares with one design matrix and many right-hand sides."""

    def __init__(self, design: np.ndarray, weight: np.ndarray):
        root = np.sqrt(weight)
        self._root, self._scale = root, np.sqrt((design**2).sum(axis=0))
        self._inverse = np.linalg.pinv(design / self._scale * root[:, None], rcond=1e-12)
        self.covariance = (self._inverse @ self._inverse.T) / np.outer(self._scale, self._scale)

    def solve(self, target: np.ndarray) -> np.ndarray:
        return self._inverse @ (self._root * target) / self._scale


def _fit(pairs: _Pairs, guess: Wcs, box: Box, config: AstrometryConfig) -> _Solution:
    """Fit with the highest order that the number of stars can bear, then with the order that they ask for.

    An order is raised where the next ones' gain in chi2 would be chance once in a thousand (F test).
    """
    from scipy.special import fdtrc

    highest = _clipped_fit(pairs, guess, box, config, config.order)
    keep, sigma = highest.keep, _errors(pairs, guess, config)
    weights = tuple(1.0 / (s[keep] ** 2 + highest.scatter**2) for s in sigma)
    best, best_chi2 = 0, np.inf
    for order in range(min(1, highest.order), highest.order + 1):
        residuals = _residuals(pairs, _solve(pairs, keep, guess, box, (weights, order))[0])
        chi2 = sum(float(np.sum(w * r[keep] ** 2)) for w, r in zip(weights, residuals))
        free, more = 2.0 * (keep.sum() - _terms(order)), 2.0 * (_terms(order) - _terms(best))
        if best_chi2 == np.inf or free > 0 and fdtrc(more, free, (best_chi2 - chi2) / more / (chi2 / free)) < 1e-3:
            best, best_chi2 = order, chi2
    return highest if best == highest.order else _clipped_fit(pairs, guess, box, config, best)


def _clipped_fit(pairs: _Pairs, guess: Wcs, box: Box, config: AstrometryConfig, highest: int) -> _Solution:
    """Fit, clip, and estimate the scatter beyond the errors, until the set of stars stays."""
    sigma = _errors(pairs, guess, config)
    east, north = _residuals(pairs, guess)
    keep = _not_far(east, sigma[0]) & _not_far(north, sigma[1])
    scatter, order, wcs, covariance, frame = 0.0, 0, guess, None, None
    for _ in range(20):
        order = _order(int(keep.sum()), highest)
        weights = tuple(1.0 / (s[keep] ** 2 + scatter**2) for s in sigma)
        wcs, covariance, frame = _solve(pairs, keep, guess, box, (weights, order))
        east, north = _residuals(pairs, wcs)
        scatter = intrinsic_scatter(np.concatenate([east[keep], north[keep]]),
                                    np.concatenate([sigma[0][keep], sigma[1][keep]]),
                                    2.0 * (keep.sum() - _terms(order)))
        pull = np.hypot(east / np.hypot(sigma[0], scatter), north / np.hypot(sigma[1], scatter))
        before, keep = keep, pull <= config.clip * 1.15  # the radius in 2-D that is as rare as the clip in 1-D
        if np.array_equal(before, keep) or not keep.any():
            keep = before
            break
    return _Solution(wcs, order, scatter, keep, east, north, covariance, frame, _detector_error(covariance, frame, box))


def _order(stars: int, highest: int) -> int:
    """The highest order that so many stars can bear; 0 (shift only) for less than three."""
    return max((order for order, least in _STARS_FOR_ORDER.items() if stars >= least and order <= highest), default=0)


def _terms(order: int) -> int:
    """Coefficients per axis."""
    return 1 if order == 0 else (order + 1) * (order + 2) // 2


def _solve(pairs: _Pairs, keep, guess: Wcs, box: Box, state):
    """One weighted fit of the kept pairs: (wcs, covariances, frame), the last two None for a shift."""
    weights, order = state
    if order == 0:
        return _shifted(pairs, keep, guess, weights), tuple(np.array([[1.0 / w.sum()]]) for w in weights), None
    frame = _Frame.of(guess, box, order)
    wcs, covariance = _polynomial_fit(pairs.x[keep], pairs.y[keep], (pairs.ra[keep], pairs.dec[keep]), weights, frame)
    return wcs, covariance, frame


def _shifted(pairs: _Pairs, keep, guess: Wcs, weights) -> Wcs:
    """The guess with its tangent point moved by the mean offset of the kept pairs."""
    wcs = guess
    for _ in range(5):
        east, north = _residuals(pairs, wcs)
        xi, eta = (np.sum(w * r[keep]) / np.sum(w) / 3600.0 for w, r in zip(weights, (east, north)))
        ra, dec = deproject(xi, eta, *_turned(wcs.crval))
        wcs = Wcs((float(ra), float(dec)), wcs.crpix, wcs.cd, wcs.a, wcs.b)
    return wcs


def _errors(pairs: _Pairs, wcs: Wcs, config: AstrometryConfig) -> tuple[np.ndarray, np.ndarray]:
    """One sigma (east, north) in arcsec of each pair's difference."""
    jacobian = 3600.0 * np.asarray(wcs.cd)
    floor = config.error_floor / 1e3
    return tuple(np.sqrt((jacobian[k, 0] * pairs.x_err) ** 2 + (jacobian[k, 1] * pairs.y_err) ** 2 + err**2 + floor**2)
                 for k, err in enumerate((pairs.ra_err, pairs.dec_err)))  # type: ignore[return-value]


def _residuals(pairs: _Pairs, wcs: Wcs) -> tuple[np.ndarray, np.ndarray]:
    """Reference minus fitted position, arcsec east and north."""
    ra, dec = wcs.pixel_to_sky(pairs.x, pairs.y)
    xi, eta = project(pairs.ra, pairs.dec, ra, dec)
    return 3600.0 * xi, 3600.0 * eta


def _not_far(residual: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """A first cut that a few wrong pairs cannot spoil: five robust sigma about the median."""
    middle = np.median(residual)
    return np.abs(residual - middle) <= 5.0 * np.hypot(robust_sigma(residual), sigma)


def _detector_error(covariance, frame: _Frame | None, box: Box) -> tuple[float, float]:
    """Error of the solution (east, north), arcsec, rms over the detector."""
    x, y = (grid.ravel().astype(float) for grid in np.meshgrid(np.linspace(box.x0, box.x1 - 1, 11),
                                                               np.linspace(box.y0, box.y1 - 1, 11)))
    return tuple(float(np.sqrt(np.mean(side**2)))
                 for side in _solution_error(covariance, frame, x, y))  # type: ignore[return-value]


def _solution_error(covariance, frame: _Frame | None, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One sigma (east, north), arcsec, of the solution at pixels."""
    design = np.ones((len(x), 1)) if frame is None else frame.design(x, y)
    return tuple(np.sqrt(np.einsum("ij,jk,ik->i", design, c, design)) for c in covariance)  # type: ignore[return-value]


def _result(pairs: _Pairs, solution: _Solution, first: Match) -> AstrometricFit:
    keep = solution.keep
    east, north = solution.east[keep], solution.north[keep]
    free = np.sqrt(len(east) / max(1.0, len(east) - _terms(solution.order)))  # the fit took some of the scatter
    rms = [float(np.sqrt(np.mean(values**2)) * free) for values in (east, north)]
    return AstrometricFit(solution.wcs, pairs.sources[keep], pairs.reference[keep], east, north, rms[0], rms[1],
                          1e3 * solution.scatter, solution.order, 1e3 * solution.errors[0], 1e3 * solution.errors[1],
                          first.false_probability, solution.order == 0, solution.covariance, solution.frame)


def _checked(fit: AstrometricFit, config: AstrometryConfig) -> AstrometricFit:
    if max(fit.rms_east, fit.rms_north) > config.max_rms:
        raise BadData(f"the WCS fit of {fit.n} stars scatters by {fit.rms_east:.2f}, {fit.rms_north:.2f} arcsec (limit "
                      f"{config.max_rms:g}); the header or the reference catalogue is wrong here")
    return fit
