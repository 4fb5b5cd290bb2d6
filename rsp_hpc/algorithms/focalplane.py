"""The focal plane of one visit: one astrometric solution from the matched stars of all its detectors.

A star's tangent-plane position is what the detector's guess says (header, camera geometry), plus a polynomial over the
focal plane that all detectors share (pointing, distortion, refraction), plus a small polynomial of its detector (mounting,
what the guess got wrong there). Headers often give each detector a linear guess of a distorted plane: what that misses inside of
the detectors changes smoothly over the focal plane, and is shared too. Each group of coefficients of one order has a normal prior about zero, whose width comes
from the data (empirical Bayes: MacKay 1992, Neural Computation 4, 415; Efron & Morris 1975): orders that the stars do not
ask for vanish, a detector with few stars follows the others, and no order has to be chosen. The detectors' coefficients are
eliminated one by one (Schur complement), so the cost is linear in the stars and in the detectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Sequence

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.box import Box
from ..products.geometry import angular_separation, deproject, project, sky_of_vectors, unit_vectors
from ..products.wcs import Wcs
from .astrometry import wcs_of_grid
from .statistics import intrinsic_scatter, robust_sigma

__all__ = ["DetectorStars", "FocalPlaneConfig", "FocalPlaneFit", "fit_focal_plane"]

_WIDEST = 600.0  # arcsec: the most that a prior's width may become
_FIRST = 0.3  # arcsec: first width of the detectors' priors; the data make it larger or smaller
_SOFT = 6  # turns in which far stars get less weight (a Cauchy distribution's); from then on they are in or out
_OVER = 1.8  # exponent on the steps of the widths, which alone are slow near zero; less than 2
_LOCAL = 3  # highest order inside of a detector of what all guesses got wrong alike
_TERMS_PER_STAR = 0.25  # highest order of the shared polynomial: so many coefficients per star


class FocalPlaneConfig(Config):
    """How the detectors of a visit are solved together."""

    order: int = parameter(7, "highest order of the polynomial over the focal plane", low=1, high=9)
    detector_order: int = parameter(3, "highest order of each detector's own polynomial", low=0, high=5)
    clip: float = parameter(4.0, "stars further off, in sigma, are left out", above=1.0)
    min_stars: int = parameter(20, "visits with fewer matched stars keep their detectors' own solutions", low=10)
    max_scatter: float = parameter(0.2, "a solution with a larger scatter per axis is refused", unit="arcsec", above=0.0)


@dataclass(frozen=True)
class DetectorStars:
    """The stars of one detector that were matched, and what was known of its place.

    Attributes
    ----------
    guess : Wcs before any fit; box : Box of the detector
    x, y, x_err, y_err : (n,) float64, pixel
    ra, dec : (n,) float64, degrees, of the reference stars at the epoch of the visit
    ra_err, dec_err : (n,) float64, arcsec, ra's times cos(dec)
    """

    guess: Wcs
    box: Box
    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    ra_err: np.ndarray
    dec_err: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def center(self) -> tuple[float, float]:
        """(ra, dec) of the middle of the detector by the guess."""
        ra, dec = self.guess.pixel_to_sky(self.box.x0 + 0.5 * (self.box.nx - 1), self.box.y0 + 0.5 * (self.box.ny - 1))
        return float(ra), float(dec)


class _Frame(NamedTuple):
    """Tangent point (degrees), units (degrees: of the focal plane, of a detector), and orders."""

    center: tuple[float, float]
    radius: float
    size: float
    order: int
    own: int
    bending: int  # order over the focal plane of what the guesses got wrong inside of the detectors; 0: none

    @classmethod
    def of(cls, detectors: Sequence[DetectorStars], config: FocalPlaneConfig) -> _Frame:
        """About the middle of the detectors, with orders that the stars and the detectors can bear."""
        middles = [d.center() for d in detectors]
        ra, dec = (float(value) for value in sky_of_vectors(np.sum([unit_vectors(*m) for m in middles], axis=0)))
        corners = [d.guess.pixel_to_sky(*d.box.corners().T) for d in detectors]
        radius = max(float(np.max(angular_separation(*c, ra, dec))) for c in corners)
        size = max(float(np.max(angular_separation(*c, *m))) for c, m in zip(corners, middles))
        stars = sum(map(len, detectors))
        order = max(n for n in range(1, config.order + 1) if n == 1 or _terms(n) <= _TERMS_PER_STAR * stars)
        bending = max(n for n in range(4) if n == 0 or _terms(n) <= len(detectors) / 4)
        return cls((ra, dec), radius, size, order, config.detector_order, bending)

    def groups(self) -> np.ndarray:
        """The prior's group of each shared coefficient: its order; beyond these, one for each order inside of detectors."""
        inside = np.repeat(_orders(_LOCAL)[1:], _terms(self.bending)) if self.bending else np.zeros(0, int)
        return np.concatenate([_orders(self.order), self.order + inside])


@dataclass(frozen=True)
class FocalPlaneFit:
    """The solution of one visit; lists have one entry per detector, in the order given.

    Attributes
    ----------
    frame : tangent point, units and orders of the polynomials
    shared : (2, k) arcsec, coefficients of what the detectors share (Legendre products) for east and north
    own : (2, n_detectors, m) arcsec, coefficients of the detectors' polynomials
    covariance : (2, k, k) arcsec^2, of the shared coefficients
    scatter : float, mas per axis beyond the known errors: the atmosphere, for the most part
    east, north : arcsec, reference minus fitted position of each star of each detector
    east_err, north_err : arcsec, their known errors, without the scatter
    kept : which stars were fitted
    widths : arcsec, rms of the prior of each group of shared coefficients from order 2 on, of the detectors' from order 0 on
    """

    detectors: tuple[DetectorStars, ...]
    config: FocalPlaneConfig
    frame: _Frame
    shared: np.ndarray
    own: np.ndarray
    covariance: np.ndarray
    scatter: float
    east: list[np.ndarray]
    north: list[np.ndarray]
    east_err: list[np.ndarray]
    north_err: list[np.ndarray]
    kept: list[np.ndarray]
    widths: tuple[np.ndarray, np.ndarray]
    _blocks: list = field(default_factory=list, repr=False)

    def plane(self, number: int, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Tangent-plane coordinates (degrees about `frame.center`) of pixels of a detector."""
        (xi, eta), shared, own = self._bases(number, x, y)
        return tuple(guess + (shared @ self.shared[axis] + own @ self.own[axis, number]) / 3600.0
                     for axis, guess in enumerate((xi, eta)))  # type: ignore[return-value]

    def sky(self, number: int, x, y) -> tuple[np.ndarray, np.ndarray]:
        """(ra, dec) in degrees of pixels of a detector."""
        return deproject(*self.plane(number, x, y), *self.frame.center)

    def error(self, number: int, x, y) -> tuple[np.ndarray, np.ndarray]:
        """One sigma (east, north) in arcsec of the solution at pixels of a detector."""
        _, shared, own = self._bases(number, x, y)
        errors = []
        for axis in range(2):
            gain, inverse = self._blocks[axis][number]
            row = shared - own @ gain  # what a change of the shared coefficients does, the detector's own following it
            errors.append(np.sqrt(np.einsum("ij,jk,ik->i", row, self.covariance[axis], row)
                                  + np.einsum("ij,jk,ik->i", own, inverse, own)))
        return errors[0], errors[1]

    def wcs(self, number: int) -> Wcs:
        """The solution at one detector as TAN-SIP, to 0.1 mas."""
        return wcs_of_grid(lambda x, y: self.sky(number, x, y), self.detectors[number].guess, self.detectors[number].box)

    def strangers(self) -> list[int]:
        """Detectors whose place or scale differs from the guess unlike the others': their match is believed to be wrong."""
        found: set[int] = set()
        seen = np.array([kept.any() for kept in self.kept])
        if seen.sum() < 4:
            return []
        for term in range(min(3, self.own.shape[2])):
            values = self.own[:, :, term]
            width = np.array([robust_sigma(side[seen]) for side in values])[:, None]
            far = np.abs(values - np.median(values[:, seen], axis=1)[:, None]) > 10.0 * width + 1.0
            found.update(np.flatnonzero(far.any(axis=0) & seen).tolist())
        return sorted(found)

    def rms(self) -> tuple[float, float]:
        """Robust scatter (east, north) of the fitted stars, arcsec."""
        return tuple(robust_sigma(np.concatenate([values[kept] for values, kept in zip(side, self.kept)]))
                     for side in (self.east, self.north))  # type: ignore[return-value]

    @property
    def n_stars(self) -> int:
        """Stars fitted."""
        return int(sum(kept.sum() for kept in self.kept))

    def _bases(self, number: int, x, y):
        return _bases(self.detectors[number], np.atleast_1d(x), np.atleast_1d(y), self.frame)


def fit_focal_plane(detectors: Sequence[DetectorStars], config: FocalPlaneConfig) -> FocalPlaneFit:
    """Fit all detectors of a visit together. The result does not depend on anything but their order.

    Raises
    ------
    BadData
        There are too few stars, or they scatter too much.
    """
    total = sum(map(len, detectors))
    if total < config.min_stars:
        raise BadData(f"{total} matched stars on {len(detectors)} detectors, {config.min_stars} are needed for a solution "
                      "of the focal plane; the detectors keep their own")
    frame = _Frame.of(detectors, config)
    result = FocalPlaneFit(tuple(detectors), config, frame, *_solve([_Data.of(d, frame) for d in detectors], frame, config))
    if max(result.rms()) > config.max_scatter:
        raise BadData(f"the focal plane's solution scatters by {max(result.rms()):.2f} arcsec (limit {config.max_scatter:g}); "
                      "the detectors keep their own")
    return result


@dataclass(frozen=True)
class _Data:
    """One detector's stars as the fit wants them: (n, k) and (n, m) bases; per axis differences and errors in arcsec."""

    shared: np.ndarray
    own: np.ndarray
    offset: tuple[np.ndarray, np.ndarray]
    sigma: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, stars: DetectorStars, frame: _Frame) -> _Data:
        (xi, eta), shared, own = _bases(stars, stars.x, stars.y, frame)
        target = project(stars.ra, stars.dec, *frame.center)
        jacobian = stars.guess.local_jacobian(stars.box.x0 + 0.5 * stars.box.nx, stars.box.y0 + 0.5 * stars.box.ny)
        sigma = tuple(np.sqrt((jacobian[k, 0] * stars.x_err) ** 2 + (jacobian[k, 1] * stars.y_err) ** 2 + err**2)
                      for k, err in enumerate((stars.ra_err, stars.dec_err)))
        return cls(shared, own, (3600.0 * (target[0] - xi), 3600.0 * (target[1] - eta)), sigma)  # type: ignore[arg-type]


def _bases(stars: DetectorStars, x, y, frame: _Frame):
    """((xi, eta) by the guess, shared basis (n, k), own basis (n, m)) at pixels."""
    xi, eta = project(*stars.guess.pixel_to_sky(x, y), *frame.center)
    u = (np.asarray(x, float) - stars.box.x0 - 0.5 * (stars.box.nx - 1)) / (0.5 * stars.box.nx)
    v = (np.asarray(y, float) - stars.box.y0 - 0.5 * (stars.box.ny - 1)) / (0.5 * stars.box.ny)
    shared = _legendre(xi / frame.radius, eta / frame.radius, frame.order)
    if frame.bending:
        middle = project(*stars.center(), *frame.center)
        local = _legendre((xi - middle[0]) / frame.size, (eta - middle[1]) / frame.size, _LOCAL)[:, 1:]
        across = _legendre(*(np.array([w]) / frame.radius for w in middle), frame.bending)[0]
        shared = np.hstack([shared, (local[:, :, None] * across).reshape(len(local), local.shape[1] * len(across))])
    return (xi, eta), shared, _legendre(u, v, frame.own)


def _legendre(u: np.ndarray, v: np.ndarray, order: int) -> np.ndarray:
    """(n, k) products of Legendre polynomials, by total order."""
    first, second = (np.polynomial.legendre.legvander(w, order) for w in (u, v))
    return np.stack([first[:, total - j] * second[:, j] for total in range(order + 1) for j in range(total + 1)], -1)


def _terms(order: int) -> int:
    return (order + 1) * (order + 2) // 2


def _orders(order: int) -> np.ndarray:
    """Total order of each term."""
    return np.repeat(np.arange(order + 1), np.arange(1, order + 2))


class _Axis(NamedTuple):
    """The solution of one axis, arcsec."""

    shared: np.ndarray  # (k,)
    own: np.ndarray  # (detectors, m)
    covariance: np.ndarray  # (k, k) of the shared coefficients
    blocks: list  # per detector (m, k): how much its own follow the shared ones; (m, m): their covariance, these fixed
    spread: np.ndarray  # (detectors, m): variance of its own
    free: float  # coefficients that the data determine


def _solve(data: list[_Data], frame: _Frame, config: FocalPlaneConfig):
    """Priors, scatter and clipping in turn until the set of stars stays: the last fields of FocalPlaneFit."""
    kinds = frame.groups(), _orders(frame.own)
    first = min(_WIDEST, float(np.sqrt(np.mean(np.concatenate([side for d in data for side in d.offset]) ** 2))))
    widths = tuple(np.full(kind.max() + 1, width) for kind, width in zip(kinds, (first, min(first, _FIRST))))
    kept = [np.ones(len(d.offset[0]), bool) for d in data]
    scatter, settled = 0.0, 0
    for turn in range(40):
        solutions = [_one_axis(data, kept, axis, (kinds, widths, scatter)) for axis in range(2)]
        left = [[d.offset[axis] - d.shared @ s.shared - d.own @ s.own[i] for i, d in enumerate(data)]
                for axis, s in enumerate(solutions)]
        widths = _new_widths(solutions, kinds, (kept, widths))
        soft = turn < _SOFT  # mismatches must not make the solution and the scatter that then hide them
        scatter = (max(_robust_scatter(left[axis], data, axis) for axis in range(2)) if soft else
                   _scatter(left, data, kept, solutions))
        pulls = [np.hypot(*(side[i] / np.hypot(s, scatter) for side, s in zip(left, d.sigma))) for i, d in enumerate(data)]
        if turn + 1 < _SOFT:
            kept = [1.0 / np.sqrt(1.0 + (pull / 2.4) ** 2) for pull in pulls]
            continue
        new = [pull <= 1.15 * config.clip for pull in pulls]  # the radius in 2-D that is as rare as the clip in 1-D
        changed = sum(np.sum(after != before) for after, before in zip(new, kept))
        settled = settled + 1 if changed <= 1e-3 * sum(map(len, kept)) else 0  # one on the border may come and go for ever
        kept = new
        if settled >= 2 and turn >= _SOFT + 8:
            break
    shared, own = np.array([s.shared for s in solutions]), np.array([s.own for s in solutions])
    return (shared, own, np.array([s.covariance for s in solutions]), 1e3 * scatter, left[0], left[1],
            [d.sigma[0] for d in data], [d.sigma[1] for d in data], kept, (widths[0][2:], widths[1]), [s.blocks for s in solutions])


def _one_axis(data: list[_Data], kept, axis: int, state) -> _Axis:
    """One penalised weighted least squares.

    A detector's own coefficients are projected out of its rows, by QR: differences of normal matrices would lose the digits.
    """
    kinds, widths, scatter = state
    k, m = len(kinds[0]), len(kinds[1])
    penalty = np.where(kinds[0] < 2, 0.0, 1.0 / widths[0][kinds[0]])
    own_penalty = 1.0 / widths[1][kinds[1]]
    matrix, blocks = np.diag(np.append(penalty**2, 0.0)), []
    for d, use in zip(data, kept):
        root = (use / np.hypot(d.sigma[axis], scatter))[:, None]
        base, triangle = np.linalg.qr(np.vstack([d.own * root, np.diag(own_penalty)]))
        rows = np.vstack([np.column_stack([d.shared, d.offset[axis]]) * root, np.zeros((m, k + 1))])
        along = base.T @ rows
        rows -= base @ along
        matrix += rows.T @ rows
        inverse = np.linalg.inv(triangle)
        blocks.append((inverse @ along[:, :k], inverse, inverse @ along[:, k]))
    scale = 1.0 / np.sqrt(np.diag(matrix)[:k])
    covariance = np.linalg.pinv(matrix[:k, :k] * np.outer(scale, scale), 1e-14, hermitian=True) * np.outer(scale, scale)
    shared = covariance @ matrix[:k, k]
    own = np.array([alone - gain @ shared for gain, _, alone in blocks])
    spread = np.array([np.sum(inverse**2, axis=1) + np.einsum("ij,jk,ik->i", gain, covariance, gain)
                       for gain, inverse, _ in blocks])
    free = float(k - np.sum(penalty**2 * np.diag(covariance)) + np.sum(1.0 - spread * own_penalty**2))
    return _Axis(shared, own, covariance, [(gain, inverse @ inverse.T) for gain, inverse, _ in blocks], spread, free)


def _new_widths(solutions, kinds, state) -> tuple[np.ndarray, np.ndarray]:
    """Widths of the priors from the coefficients and their errors: one over-relaxed step of expectation maximisation."""
    kept, widths = state
    shared = np.mean([s.shared ** 2 + np.diag(s.covariance) for s in solutions], axis=0)
    seen = np.array([use.any() for use in kept])
    own = np.mean([s.own[seen] ** 2 + s.spread[seen] for s in solutions], axis=(0, 1))
    new = [np.array([old[n] * (np.sqrt(np.mean(power[kind == n])) / old[n]) ** _OVER for n in range(len(old))])
           for power, kind, old in zip((shared, own), kinds, widths)]
    return tuple(np.clip(values, 1e-5, _WIDEST) for values in new)  # type: ignore[return-value]


def _robust_scatter(left, data, axis: int) -> float:
    sigma = np.concatenate([d.sigma[axis] for d in data])
    return float(np.sqrt(max(0.0, robust_sigma(np.concatenate(left)) ** 2 - np.median(sigma) ** 2)))


def _scatter(left, data, kept, solutions) -> float:
    """What the residuals of both axes have beyond the errors, arcsec."""
    residuals = np.concatenate([r[use] for side in left for r, use in zip(side, kept)])
    sigma = np.concatenate([d.sigma[axis][use] for axis in range(2) for d, use in zip(data, kept)])
    return intrinsic_scatter(residuals, sigma, len(residuals) - sum(s.free for s in solutions))

