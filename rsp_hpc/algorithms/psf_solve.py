"""The linear algebra of the PSF fit: star stamps, Lanczos matrices, and the grid's solution by conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import weighted_moments
from .psf_peaks import row_quantile

__all__ = ["StarStamps", "lanczos_matrix", "solve_grid"]

LANCZOS_ORDER = 5
MARGIN = 5
"""Pixels around the grid in which the local sky is measured."""


def lanczos_matrix(shift: np.ndarray, n_out: int, n_in: int) -> np.ndarray:
    """(n, n_out, n_in) float64: rows that interpolate a centred grid at pixels displaced by -shift.

    The grid's value at u - shift for the pixels u of an array of n_out, centred as the grid; Lanczos of order 5, the
    ten weights normalised to unit sum (those that fall off the grid included).
    """
    fraction = np.asarray(shift, float)[:, None]
    whole = np.arange(-LANCZOS_ORDER - 1, LANCZOS_ORDER + 2)
    taps = _lanczos(whole - fraction)
    taps = np.concatenate([taps / taps.sum(axis=1, keepdims=True), np.zeros((len(taps), 1))], axis=1)
    distance = (np.arange(n_out) - n_out // 2)[:, None] - (np.arange(n_in) - n_in // 2)
    near = np.abs(distance) <= LANCZOS_ORDER + 1
    return taps[:, np.where(near, distance + LANCZOS_ORDER + 1, len(whole))]


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < LANCZOS_ORDER, np.sinc(x) * np.sinc(x / LANCZOS_ORDER), 0.0)


@dataclass
class StarStamps:
    """Stars cut from an image.

    Attributes
    ----------
    x, y : (n,) fitted positions, pixel of the image
    flux : (n,) fitted fluxes
    column, row : (n,) int, the stamps' middle pixels
    data : (n, size, size) float64, the sky around the stamp subtracted
    sky : (n,) fitted remainder of the sky: faint neighbours and what the background model missed
    good : (n, size, size) bool
    sky_variance : (n,) variance of a sky pixel
    slope : variance per flux of a pixel (one over the gain)
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    column: np.ndarray
    row: np.ndarray
    data: np.ndarray
    sky: np.ndarray
    good: np.ndarray
    sky_variance: np.ndarray
    slope: float

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def cut(cls, image: MaskedImage, x, y, flux, size: int, bad_planes: tuple[str, ...]) -> StarStamps:
        """Stamps of the stars with a clean core and at least half of their pixels."""
        half, outer = size // 2, size // 2 + MARGIN
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(flux) & (flux > 0) & image.box.contains(x, y)
        x, y, flux = x[finite], y[finite], flux[finite]
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        offset = np.arange(-outer, outer + 1)
        rows = row[:, None, None] - image.box.y0 + offset[:, None]
        columns = column[:, None, None] - image.box.x0 + offset[None, :]
        on = (rows >= 0) & (rows < image.box.ny) & (columns >= 0) & (columns < image.box.nx)
        rows, columns = np.clip(rows, 0, image.box.ny - 1), np.clip(columns, 0, image.box.nx - 1)
        data, variance, mask = (plane[rows, columns] for plane in (image.image, image.variance, image.mask))
        good = on & np.isfinite(data) & np.isfinite(variance) & (variance > 0)
        good &= (mask & np.uint32(bits(*bad_planes))) == 0
        inner = slice(MARGIN, MARGIN + size)
        core = good[:, outer - 2:outer + 3, outer - 2:outer + 3].all(axis=(1, 2))
        usable = core & (good[:, inner, inner].mean(axis=(1, 2)) >= 0.5)
        sky, sky_variance = _surroundings(data, variance, good, (mask & np.uint32(bits("DETECTED"))) == 0, size)
        sky_variance = np.where(np.isfinite(sky_variance), sky_variance, np.nanmedian(np.where(good, variance, np.nan))
                                if good.any() else 1.0)
        data = np.where(good, data - sky[:, None, None], 0.0).astype(float)[:, inner, inner]
        good, variance = good[:, inner, inner], np.where(good, variance, 0.0)[:, inner, inner]
        slope = _noise_slope(data[usable], variance[usable], good[usable], sky_variance[usable])
        planes = x, y, flux, column, row, data, np.zeros(len(x)), good, sky_variance
        return cls(*(plane[usable].copy() for plane in planes), slope)

    def median_stack(self) -> np.ndarray:
        """(size, size): median of the stars, each shifted onto its pixel and divided by its flux; sum one."""
        size = self.data.shape[-1]
        dx, dy = self.x - self.column, self.y - self.row
        stamps = lanczos_matrix(-dy, size, size) @ (self.data / self.flux[:, None, None]) @ lanczos_matrix(
            -dx, size, size).swapaxes(1, 2)
        stack = np.median(np.where(self.good, stamps, np.median(stamps, axis=0)), axis=0)
        u = np.arange(size) - size // 2
        radius = np.hypot(u[:, None], u[None, :])
        profile = azimuthal_mean(stack, radius)
        noisy = stack < 0.02 * stack.max()  # a first model needs no noise in its wings
        stack = np.where(noisy, np.maximum(profile, 0.0), stack)
        return stack / stack.sum()

    def matrices(self, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Lanczos matrices (n, size, size) along y and x at the present positions (plus `step`)."""
        size = self.data.shape[-1]
        return (lanczos_matrix(self.y - self.row + step, size, size),
                lanczos_matrix(self.x - self.column + step, size, size))

    def model(self, grid: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """(n, size, size): the PSF of each star on its own pixels, for flux one."""
        across, along = self.matrices()
        return across @ at_positions(grid, terms) @ along.swapaxes(1, 2)

    def weights(self, grid: np.ndarray, terms: np.ndarray, max_snr: float, model_error: float) -> np.ndarray:
        """(n, size, size): inverse variances from the model, not the noisy data; bright stars held to `max_snr`."""
        light = np.maximum(self.model(grid, terms), 0.0) * self.flux[:, None, None]
        variance = self.sky_variance[:, None, None] + self.slope * light
        snr2 = (light**2 / variance).sum(axis=(1, 2))
        cap = np.minimum(1.0, max_snr**2 / np.maximum(snr2, 1e-300))
        return np.where(self.good, cap[:, None, None] / (variance + (model_error * light) ** 2), 0.0)

    def refit(self, grid: np.ndarray, terms: np.ndarray, steps: int) -> None:
        """Newton steps on each star's flux, position and sky with the model held."""
        stamps = at_positions(grid, terms)
        step = 1e-3
        for _ in range(steps):
            (across, along), (across1, along1) = self.matrices(), self.matrices(step)
            along, along1 = along.swapaxes(1, 2), along1.swapaxes(1, 2)
            half = across @ stamps
            model = half @ along
            columns = np.stack([model, self.flux[:, None, None] * (half @ along1 - model) / step,
                                self.flux[:, None, None] * (across1 @ stamps @ along - model) / step,
                                np.ones_like(model)], axis=1)
            light = np.maximum(model, 0.0) * self.flux[:, None, None]
            weight = np.where(self.good, 1.0 / (self.sky_variance[:, None, None] + self.slope * light), 0.0)
            flat = columns.reshape(len(self), 4, -1)
            weighted = flat * weight.reshape(len(self), 1, -1)
            normal = weighted @ flat.swapaxes(1, 2) + 1e-12 * np.eye(4)
            residual = self.data - self.sky[:, None, None] - self.flux[:, None, None] * model
            change = np.linalg.solve(normal, weighted @ residual.reshape(len(self), -1, 1))[..., 0]
            self.flux = np.maximum(self.flux + change[:, 0], 1e-3 * self.flux)
            self.x = np.clip(self.x + np.clip(change[:, 1], -0.5, 0.5), self.column - 1.5, self.column + 1.5)
            self.y = np.clip(self.y + np.clip(change[:, 2], -0.5, 0.5), self.row - 1.5, self.row + 1.5)
            self.sky = self.sky + change[:, 3]

    def chi2(self, grid: np.ndarray, terms: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chi2 and degrees of freedom of each star; `weight` as in the fit."""
        residual = self.data - self.sky[:, None, None] - self.flux[:, None, None] * self.model(grid, terms)
        return (weight * residual**2).sum(axis=(1, 2)), np.maximum(self.good.sum(axis=(1, 2)) - 4.0, 1.0)

    def mask_residuals(self, grid: np.ndarray, terms: np.ndarray, model_error: float) -> None:
        """Take out pixels that are not the star's: neighbours, cosmic rays; at most a third of a stamp."""
        light = self.flux[:, None, None] * self.model(grid, terms)
        variance = self.sky_variance[:, None, None] + self.slope * np.maximum(light, 0.0)
        noise = np.sqrt(variance + (5.0 * model_error * light) ** 2 + (0.0005 * self.flux[:, None, None]) ** 2)
        foreign = np.abs(self.data - self.sky[:, None, None] - light) > 5.0 * noise
        few = (foreign & self.good).sum(axis=(1, 2)) < self.good.sum(axis=(1, 2)) / 3
        self.good = self.good & ~(foreign & few[:, None, None])


def at_positions(grid: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """(n, size, size): the grid's polynomials evaluated."""
    return (terms @ grid.reshape(len(grid), -1)).reshape(len(terms), *grid.shape[1:])


def _surroundings(data, variance, good, empty, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sky and its variance in a frame around the stamps; zero and NaN where it has less than 30 pixels.

    The median of the pixels without a source; where sources are everywhere, the lower quartile of all.
    """
    frame = np.ones(data.shape[1:], bool)
    frame[MARGIN:MARGIN + size, MARGIN:MARGIN + size] = False
    values, clear = data[:, frame], good[:, frame] & empty[:, frame]
    crowded = clear.sum(axis=1) < 30
    use = np.where(crowded[:, None], good[:, frame], clear)
    known = use.sum(axis=1) >= 30
    sky, spread = np.zeros(len(data)), np.full(len(data), np.nan)
    for rows, quantile in ((known & ~crowded, 0.5), (known & crowded, 0.25)):
        if rows.any():
            sky[rows] = row_quantile(np.where(use, values, np.nan)[rows], quantile)
            spread[rows] = row_quantile(np.where(use, variance[:, frame], np.nan)[rows], quantile)
    return sky, spread


def _noise_slope(data, variance, good, sky_variance) -> float:
    """Variance per flux: slope of the variance plane over the stars' own light."""
    lit = good & (data > 3.0 * np.sqrt(sky_variance)[:, None, None])
    if not lit.any():
        return 0.0
    excess = (variance - sky_variance[:, None, None])[lit]
    return float(max(0.0, (excess * data[lit]).sum() / (data[lit] ** 2).sum()))


def azimuthal_mean(stamp: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The stamp's mean profile in rings one pixel wide, on the stamp's pixels."""
    ring = np.rint(radius).astype(int)
    count = np.bincount(ring.ravel())
    at, mean = np.bincount(ring.ravel(), radius.ravel()) / count, np.bincount(ring.ravel(), stamp.ravel()) / count
    return np.interp(radius, at, mean)


def solve_grid(stars: StarStamps, weight: np.ndarray, terms: np.ndarray, start: np.ndarray, prior: float) -> np.ndarray:
    """The grid's coefficients that fit the stars at their present fluxes and positions.

    Minimises sum w (d - f L_y P L_x^T)^2 + sum ((q_0 - g) / s)^2 + sum_{m > 0} (q_m / s)^2, g the elliptical mean
    profile of `start` and s = prior (g + 3e-4).

    Parameters
    ----------
    weight : (n, size, size), zero for stars that do not count; terms : (n, m); start : (m, size, size)

    Returns
    -------
    (m, size, size) float64
    """
    use = weight.reshape(len(weight), -1).any(axis=1)
    across, along = (matrix[use] for matrix in stars.matrices())
    terms, flux = terms[use], stars.flux[use][:, None, None]
    weight = weight[use] * flux**2
    mean = elliptical_profile(start[0])
    precision = 1.0 / (prior * (mean + 3e-4)) ** 2
    target = np.zeros_like(start)
    target[0] = mean
    across_t, along_t = across.swapaxes(1, 2), along.swapaxes(1, 2)

    def back(stamps):  # from star pixels to the grid
        return (terms.T @ (across_t @ stamps @ along).reshape(len(terms), -1)).reshape(start.shape)

    def product(grid):
        return back(weight * (across @ at_positions(grid, terms) @ along_t)) + precision * grid

    data = stars.data[use] - stars.sky[use][:, None, None]
    right = back(weight * data / flux) + precision * target
    diagonal = (across**2).swapaxes(1, 2) @ weight @ along**2
    blocks = np.einsum("sm,sn,sk->kmn", terms, terms, diagonal.reshape(len(terms), -1), optimize=True)
    blocks += precision.ravel()[:, None, None] * np.eye(len(start))
    inverse = np.linalg.inv(blocks)

    def precondition(grid):
        flat = grid.reshape(len(grid), -1)
        return np.einsum("kmn,nk->mk", inverse, flat).reshape(grid.shape)

    return _conjugate_gradients(product, precondition, right, start)


def _conjugate_gradients(product, precondition, right, start, tolerance: float = 1e-6, most: int = 30) -> np.ndarray:
    """Solve product(x) = right; stops when the preconditioned residual fell by `tolerance` (its square in energy)."""
    x = start.copy()
    residual = right - product(x)
    z = precondition(residual)
    direction, energy = z, (residual * z).sum()
    limit = tolerance**2 * (right * precondition(right)).sum()
    for _ in range(most):
        if not energy > limit:
            break
        image = product(direction)
        alpha = energy / (direction * image).sum()
        x = x + alpha * direction
        residual = residual - alpha * image
        z = precondition(residual)
        energy, last = (residual * z).sum(), energy
        direction = z + energy / last * direction
    return x


def elliptical_profile(stamp: np.ndarray) -> np.ndarray:
    """The stamp's mean over ellipses of its own shape, not negative."""
    ixx, iyy, ixy = weighted_moments(stamp)
    determinant = ixx * iyy - ixy * ixy
    u = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    x, y = u[None, :], u[:, None]
    if not determinant > 0.05:
        radius = np.hypot(x, y)
    else:
        radius = np.sqrt((iyy * x * x + ixx * y * y - 2.0 * ixy * x * y) / np.sqrt(determinant))
    return np.maximum(azimuthal_mean(stamp, radius), 0.0)
