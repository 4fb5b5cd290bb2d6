"""PSFs as pixel grids: a polynomial over a detector, or one per cell of a coadd.

Both offer `stamps(x, y) -> (n, k, k) float32`: the PSF at these positions, centred on the centre of the stamp's middle
pixel, sampled at the image's pixels (the pixel response included), sum one. Kernels shift it by a fraction of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box import Box

__all__ = ["CellPsf", "Psf", "PolynomialPsf", "polynomial_terms"]


def polynomial_terms(x, y, box: Box, order: int) -> np.ndarray:
    """(n, n_terms) float64: monomials x^i y^j, i + j <= order, of positions scaled to [-1, 1] on the box.

    Terms are ordered by total degree, then by the power of y: 1, x, y, x^2, xy, y^2, ...
    """
    u = 2.0 * (np.asarray(x, float) - (box.x0 - 0.5)) / box.nx - 1.0
    v = 2.0 * (np.asarray(y, float) - (box.y0 - 0.5)) / box.ny - 1.0
    return np.stack([u ** (d - j) * v**j for d in range(order + 1) for j in range(d + 1)], axis=-1)


class Psf:
    """What every PSF offers; `size` is the odd side of its stamps."""

    size: int

    def stamps(self, x, y) -> np.ndarray:
        """(n, size, size) float32: the PSF at n positions of the image's pixel coordinates."""
        raise NotImplementedError

    def moments(self, x, y) -> np.ndarray:
        """(n, 3) float64: adaptive-like second moments (Ixx, Iyy, Ixy) in pixel^2, with a Gaussian weight."""
        return np.array([weighted_moments(stamp) for stamp in self.stamps(np.atleast_1d(x), np.atleast_1d(y))])

    def fwhm(self, x, y) -> np.ndarray:
        """(n,) float64: 2.3548 times the root of half the trace of the moments, pixel."""
        moments = self.moments(x, y)
        return 2.3548 * np.sqrt(0.5 * (moments[:, 0] + moments[:, 1]))


def weighted_moments(stamp: np.ndarray, iterations: int = 30) -> tuple[float, float, float]:
    """Adaptive second moments of a stamp (Bernstein & Jarvis 2002, section 3): Gaussian weight of matched shape."""
    half = stamp.shape[0] // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(float)
    sxx, syy, sxy = 2.0, 2.0, 0.0
    for _ in range(iterations):
        determinant = sxx * syy - sxy * sxy
        if not determinant > 1e-6:
            return float("nan"), float("nan"), float("nan")
        weight = np.exp(-0.5 * (syy * x * x + sxx * y * y - 2.0 * sxy * x * y) / determinant) * stamp
        total = weight.sum()
        new = 2.0 * (weight * x * x).sum() / total, 2.0 * (weight * y * y).sum() / total, 2.0 * (weight * x * y).sum() / total
        change = abs(new[0] - sxx) + abs(new[1] - syy) + abs(new[2] - sxy)
        sxx, syy, sxy = new
        if change < 1e-8:
            break
    return sxx, syy, sxy


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
    """

    coefficients: np.ndarray
    order: int
    box: Box
    n_stars: int = 0
    chi2: float = float("nan")

    @property
    def size(self) -> int:
        return self.coefficients.shape[-1]

    def stamps(self, x, y) -> np.ndarray:
        terms = polynomial_terms(np.atleast_1d(x), np.atleast_1d(y), self.box, self.order)
        flat = terms @ self.coefficients.reshape(len(self.coefficients), -1)
        return flat.reshape(-1, self.size, self.size).astype(np.float32)


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
