"""PSFs as pixel grids: a polynomial over a detector, or one per cell of a coadd.

Both offer `stamps(x, y) -> (n, k, k) float32`: the PSF at these positions, centred on the centre of the stamp's middle
pixel, sampled at the image's pixels (the pixel response included), sum one. Kernels (csrc/shift.c) move it by fractions of a
pixel, and so does `drawn`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box import Box

__all__ = ["CellPsf", "Psf", "PolynomialPsf", "polynomial_terms", "shift_matrix", "stamp_moments", "weighted_moments"]


def polynomial_terms(x, y, box: Box, order: int) -> np.ndarray:
    """(n, n_terms) float64: monomials x^i y^j, i + j <= order, of positions scaled to [-1, 1] on the box.

    Terms are ordered by total degree, then by the power of y: 1, x, y, x^2, xy, y^2, ...
    """
    u = 2.0 * (np.asarray(x, float) - (box.x0 - 0.5)) / box.nx - 1.0
    v = 2.0 * (np.asarray(y, float) - (box.y0 - 0.5)) / box.ny - 1.0
    return np.stack([u ** (d - j) * v**j for d in range(order + 1) for j in range(d + 1)], axis=-1)


def shift_matrix(shift: np.ndarray, n_out: int, n_in: int) -> np.ndarray:
    """(n, n_out, n_in) float64: rows that interpolate a centred 1-D stamp for sources at `shift` from the middle pixel.

    Eleven taps about the nearest pixel, a sinc in the window exp(9 (sqrt(1 - u^2) - 1)) (Barnett, Magland & af Klinteberg
    2019), of unit sum: the same as csrc/shift.c.
    """
    shift = np.atleast_1d(np.asarray(shift, float))
    whole, reach = np.rint(shift), 5.5
    u = (shift - whole)[:, None] + np.arange(-5, 6)
    taps = np.sinc(u) * np.exp(9.0 * (np.sqrt(np.maximum(1.0 - (u / reach) ** 2, 1e-12)) - 1.0))
    taps = np.concatenate([taps / taps.sum(axis=1, keepdims=True), np.zeros((len(taps), 1))], axis=1)
    distance = (np.arange(n_in) - n_in // 2)[None, None, :] - (np.arange(n_out) - n_out // 2)[None, :, None]
    tap = distance + whole.astype(int)[:, None, None] + 5
    return np.take_along_axis(taps[:, None, :], np.where((tap >= 0) & (tap < 11), tap, 11), axis=2)


class Psf:
    """What every PSF offers; `size` is the odd side of its stamps."""

    size: int

    def stamps(self, x, y) -> np.ndarray:
        """(n, size, size) float32: the PSF at n positions of the image's pixel coordinates."""
        raise NotImplementedError

    def drawn(self, x, y, size: int | None = None) -> np.ndarray:
        """(n, size, size) float64: the PSF as it falls on the pixels about the one nearest to each position (x, y)."""
        x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
        along, across = (shift_matrix(place - np.rint(place), size or self.size, self.size) for place in (x, y))
        return across @ self.stamps(x, y).astype(float) @ along.swapaxes(1, 2)

    def moments(self, x, y) -> np.ndarray:
        """(n, 3) float64: adaptive-like second moments (Ixx, Iyy, Ixy) in pixel^2, with a Gaussian weight."""
        return stamp_moments(self.stamps(np.atleast_1d(x), np.atleast_1d(y)))

    def fwhm(self, x, y) -> np.ndarray:
        """(n,) float64: 2.3548 times the root of half the trace of the moments, pixel."""
        moments = self.moments(x, y)
        return 2.3548 * np.sqrt(0.5 * (moments[:, 0] + moments[:, 1]))


def weighted_moments(stamp: np.ndarray, tolerance: float = 1e-8) -> tuple[float, float, float]:
    """Adaptive second moments of one stamp: `stamp_moments`."""
    xx, yy, xy = stamp_moments(stamp[None], tolerance)[0]
    return float(xx), float(yy), float(xy)


def stamp_moments(stamps: np.ndarray, tolerance: float = 1e-8, iterations: int = 60) -> np.ndarray:
    """(n, 3): adaptive second moments (Ixx, Iyy, Ixy) of centred stamps, pixel^2; NaN where there are none.

    Gaussian weight of matched shape (Bernstein & Jarvis 2002, AJ 123, 583, section 3). The weight is a product of functions of
    x, y and xy, so that a round costs one exponential and three sums per pixel.
    """
    half = stamps.shape[-1] // 2
    u = np.arange(-half, half + 1, dtype=float)
    powers = np.stack([np.ones_like(u), u, u * u])
    product = u[:, None] * u
    flat = np.asarray(stamps, float)
    moments = np.tile([2.0, 2.0, 0.0], (len(flat), 1))
    todo = np.arange(len(flat))
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            xx, yy, xy = moments[todo].T
            determinant = xx * yy - xy * xy
            across, along = (np.exp(-0.5 * (q / determinant)[:, None] * u * u) for q in (xx, yy))
            weight = flat[todo] * np.exp((xy / determinant)[:, None, None] * product)
            sums = (across[:, None, :] * powers) @ weight @ (along[:, None, :] * powers).swapaxes(1, 2)
            total = sums[:, 0, 0]
            seen = np.stack([sums[:, 0, 2], sums[:, 2, 0], sums[:, 1, 1]]) / total
            new = _unweighted(seen, (xx, yy, xy)).T
            new[~(determinant > 1e-6)] = np.nan
            moving = np.abs(new - moments[todo]).sum(axis=1) >= tolerance
            moments[todo] = new
            todo = todo[moving]
            if len(todo) == 0:
                break
    return moments


def _unweighted(seen: np.ndarray, weight) -> np.ndarray:
    """(3, n): the Gaussian that shows these moments under a Gaussian weight; twice what is seen where there is none."""
    (a, b, c), (p, q, r) = seen, weight
    inner, outer = a * b - c * c, p * q - r * r
    yy, xx, xy = a / inner - p / outer, b / inner - q / outer, -(c / inner - r / outer)  # the inverse's elements
    determinant = xx * yy - xy * xy
    own = np.stack([yy, xx, -xy]) / determinant
    fine = (determinant > 0) & (xx > 0) & (own[0] < 4.0 * a) & (own[1] < 4.0 * b)
    return np.where(fine, own, 2.0 * seen)


@dataclass(frozen=True)
class PolynomialPsf(Psf):
    """A detector's PSF: each stamp pixel a polynomial of the position.

    Attributes
    ----------
    coefficients : (n_terms, size, size) float64, terms as `polynomial_terms`
    order : int
    box : Box of the detector, on which positions are scaled
    n_stars : int, stars that the fit used
    chi2 : float, reduced chi2 of the reserved stars (of the fitted ones if none was reserved)
    n_reserved : int, stars held back
    covariance : (n_terms, n_terms, size, size) float32 of each pixel's coefficients, or None; pixels are as good as independent,
        but for the level of the sky under the stars, which is not in it
    mean_color : float, magnitude: the stars' mean; if finite, the last term is the colour less this. NaN: no colour term
    """

    coefficients: np.ndarray
    order: int
    box: Box
    n_stars: int = 0
    chi2: float = float("nan")
    n_reserved: int = 0
    covariance: np.ndarray | None = None
    mean_color: float = float("nan")

    @property
    def size(self) -> int:
        return self.coefficients.shape[-1]

    def terms(self, x, y, color=None) -> np.ndarray:
        """(n, n_terms) float64: what the coefficients are multiplied with at n positions."""
        terms = polynomial_terms(np.atleast_1d(x), np.atleast_1d(y), self.box, self.order)
        if not np.isfinite(self.mean_color):
            return terms
        beyond = np.zeros(len(terms)) if color is None else np.nan_to_num(np.broadcast_to(color, len(terms)) - self.mean_color)
        return np.concatenate([terms, beyond[:, None]], axis=1)

    def stamps(self, x, y, color=None) -> np.ndarray:
        """As of every PSF; `color` (n,) of the sources, magnitude: the stars' mean where it is missing."""
        flat = self.terms(x, y, color) @ self.coefficients.reshape(len(self.coefficients), -1)
        return flat.reshape(-1, self.size, self.size).astype(np.float32)

    def errors(self, x, y, color=None) -> np.ndarray:
        """(n, size, size) float32: one-sigma errors of `stamps`; NaN where the PSF was not fitted."""
        terms = self.terms(x, y, color)
        if self.covariance is None:
            return np.full((len(terms), self.size, self.size), np.nan, np.float32)
        flat = self.covariance.reshape(*self.covariance.shape[:2], -1)
        variance = np.einsum("sa,sb,abk->sk", terms, terms, flat, optimize=True)
        return np.sqrt(np.maximum(variance, 0.0)).reshape(-1, self.size, self.size).astype(np.float32)


@dataclass(frozen=True)
class CellPsf(Psf):
    """A coadd's PSF: one stamp per cell, scaled so that the fitted PSF flux of a star is its total flux: a stamp's sum is one
    over the aperture correction of its inputs.

    Attributes
    ----------
    cells : (ncy, ncx, size, size) float32; NaN where a cell has no input
    cell : int, side of a cell, pixel
    box : Box that the cells tile from its lower left corner
    """

    cells: np.ndarray
    cell: int
    box: Box

    @property
    def size(self) -> int:
        return self.cells.shape[-1]

    def index(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Cell rows and columns of positions, clipped to the grid."""
        column = np.floor((np.atleast_1d(x) + 0.5 - self.box.x0) / self.cell).astype(int)
        row = np.floor((np.atleast_1d(y) + 0.5 - self.box.y0) / self.cell).astype(int)
        return np.clip(row, 0, self.cells.shape[0] - 1), np.clip(column, 0, self.cells.shape[1] - 1)

    def stamps(self, x, y) -> np.ndarray:
        return self.cells[self.index(x, y)]
