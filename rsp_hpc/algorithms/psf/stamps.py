"""stamps: the stars of the PSF fit, cut from an image, with what is known of the sky under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...kernels import psf as kernels
from ...products.image import MaskedImage
from ...products.mask import bits
from ...products.psf import shift_matrix
from .peaks import row_quantile

__all__ = ["StarStamps", "azimuthal_mean"]

MARGIN = 5
"""Pixels around the grid in which the local sky is measured."""
REACH = 1.5
"""Pixels that a star may lie from its stamp's middle; further out it is held there."""


@dataclass
class StarStamps:
    """Stars cut from an image.

    Attributes
    ----------
    x, y : (n,) fitted positions, pixel of the image
    flux : (n,) fitted fluxes
    column, row : (n,) int, the stamps' middle pixels
    given : (n,) int, which of the positions given each star is
    data : (n, size, size) float64
    data_good : (n, size, size) bool, pixels with data
    good : (n, size, size) bool, those of them that show the star and the sky alone
    sky : (n,) fitted sky under the star: what the background model left
    sky_prior : (n, 2) its mean and inverse variance, from the surroundings
    sky_variance : (n,) variance of a sky pixel
    slope : variance per flux of a pixel (one over the gain)
    uneven : float, 0 where all stars stand on one level of sky, towards 1 where their surroundings differ: neighbours, nebulae
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    column: np.ndarray
    row: np.ndarray
    given: np.ndarray
    data: np.ndarray
    data_good: np.ndarray
    good: np.ndarray
    sky: np.ndarray
    sky_prior: np.ndarray
    sky_variance: np.ndarray
    slope: float
    uneven: float

    def __len__(self) -> int:
        return len(self.x)

    @property
    def size(self) -> int:
        return self.data.shape[-1]

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
        x, y, flux, column, row, given, data, variance, mask, good = (
            plane[usable] for plane in (x, y, flux, column, row, np.flatnonzero(finite), data, variance, mask, good))
        sky, sky_variance, error = _surroundings(data, variance, good, (mask & np.uint32(bits("DETECTED"))) == 0, size)
        data = np.where(good, data, 0.0).astype(float)[:, inner, inner]
        good, variance = good[:, inner, inner], np.where(good, variance, 0.0)[:, inner, inner]
        sky_prior, uneven = _sky_prior(sky, error, flux)
        slope = _noise_slope(data - sky[:, None, None], variance, good, sky_variance)
        return cls(x, y, flux, column, row, given, np.ascontiguousarray(data), good, good, sky_prior[:, 0].copy(), sky_prior,
                   sky_variance, slope, uneven)

    def median_stack(self) -> np.ndarray:
        """(size, size): median of the stars, each shifted onto its pixel and divided by its flux; sum one."""
        size = self.data.shape[-1]
        dx, dy = self.x - self.column, self.y - self.row
        light = (self.data - self.sky[:, None, None]) / self.flux[:, None, None]
        stamps = shift_matrix(-dy, size, size) @ light @ shift_matrix(-dx, size, size).swapaxes(1, 2)
        stack = np.median(np.where(self.good, stamps, np.median(stamps, axis=0)), axis=0)
        u = np.arange(size) - size // 2
        radius = np.hypot(u[:, None], u[None, :])
        profile = azimuthal_mean(stack, radius)
        noisy = stack < 0.02 * stack.max()  # a first model needs no noise in its wings
        stack = np.where(noisy, np.maximum(profile, 0.0), stack)
        return stack / stack.sum()

    def table(self, weight: np.ndarray, terms: np.ndarray, use: np.ndarray | slice = slice(None)) -> dict:
        """What `kernels.psf` takes, of all stars or of some."""
        shift = np.stack([self.x - self.column, self.y - self.row], axis=1)
        planes = {"data": self.data, "weight": weight, "terms": terms, "flux": self.flux, "sky": self.sky, "shift": shift}
        return {name: np.ascontiguousarray(plane[use]) for name, plane in planes.items()}

    def model(self, grid: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """(n, size, size): the PSF of each star on its own pixels, for flux one."""
        return kernels.draw(grid, terms, np.stack([self.x - self.column, self.y - self.row], axis=1))

    def weights(self, grid: np.ndarray, terms: np.ndarray, model_error: float) -> np.ndarray:
        """(n, size, size): inverse variances from the model, not the noisy data; `model_error` is relative to the light."""
        light = self.model(grid, terms)
        light *= self.flux[:, None, None]
        np.maximum(light, 0.0, out=light)
        variance = (self.slope + model_error**2 * light) * light
        variance += self.sky_variance[:, None, None]
        return self.good / variance

    def capped(self, weight: np.ndarray, max_snr: float) -> np.ndarray:
        """The weights of bright stars lowered to those of a star with this signal to noise."""
        snr2 = np.einsum("nyx,nyx,nyx->n", weight, self.data, self.data)
        return weight * np.minimum(1.0, max_snr**2 / np.maximum(snr2, 1e-300))[:, None, None]

    def refit(self, grid: np.ndarray, terms: np.ndarray, weight: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Newton steps on each star's flux, position and sky with the model held; chi2 and degrees of freedom then."""
        found, chi2 = kernels.refit(self.table(weight, terms), grid, self.sky_prior, steps)
        self.flux, self.sky = found[:, 0].copy(), found[:, 3].copy()
        self.x = self.column + np.clip(found[:, 1], -REACH, REACH)
        self.y = self.row + np.clip(found[:, 2], -REACH, REACH)
        total = weight.sum(axis=(1, 2))
        sky_share = total / (total + self.sky_prior[:, 1])
        return chi2, np.maximum(self.good.sum(axis=(1, 2)) - 3.0 - sky_share, 1.0)

    def mask_residuals(self, grid: np.ndarray, terms: np.ndarray, model_error: float) -> None:
        """Leave out pixels that are not the star's: neighbours, cosmic rays; at most a third of a stamp. What an earlier, worse
        model left out comes back."""
        light = self.flux[:, None, None] * self.model(grid, terms)
        variance = self.sky_variance[:, None, None] + self.slope * np.maximum(light, 0.0)
        noise = np.sqrt(variance + (5.0 * model_error * light) ** 2 + (0.0005 * self.flux[:, None, None]) ** 2)
        foreign = np.abs(self.data - self.sky[:, None, None] - light) > 5.0 * noise
        few = (foreign & self.data_good).sum(axis=(1, 2)) < self.data_good.sum(axis=(1, 2)) / 3
        self.good = self.data_good & ~(foreign & few[:, None, None])


def _surroundings(data, variance, good, empty, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sky in a frame around the stamps, the variance of one of its pixels, and the error of the sky; each (n,).

    The median of the pixels without a source; where sources are everywhere, the lower quartile of all, which is no better
    than half a pixel's noise. Without a pixel the sky is zero, its error that of a pixel.
    """
    frame = np.ones(data.shape[1:], bool)
    frame[MARGIN:MARGIN + size, MARGIN:MARGIN + size] = False
    values, clear = data[:, frame], good[:, frame] & empty[:, frame]
    crowded = clear.sum(axis=1) < 30
    use = np.where(crowded[:, None], good[:, frame], clear)
    count = use.sum(axis=1)
    known = count >= 30
    typical = float(np.median(variance[good])) if good.any() else 1.0  # of no star: anything
    sky, spread = np.zeros(len(data)), np.full(len(data), typical)
    for rows, quantile in ((known & ~crowded, 0.5), (known & crowded, 0.25)):
        if rows.any():
            sky[rows] = row_quantile(np.where(use, values, np.nan)[rows], quantile)
            spread[rows] = row_quantile(np.where(use, variance[:, frame], np.nan)[rows], quantile)
    error = np.sqrt(spread * np.where(crowded, 0.25, 1.57 / np.maximum(count, 1)))
    return sky, spread, np.where(known, error, np.sqrt(spread))


def _sky_prior(sky: np.ndarray, error: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2): mean and inverse variance of the sky under each star; and how uneven it is, 0 to 1.

    The frames' own measurements, drawn towards what the fainter stars (whose own wings do not count) have in common, as far as
    they agree: on a flat sky all stars share one level, and the PSF keeps its wings.
    """
    precision = 1.0 / error**2
    if len(sky) < 5:
        return np.stack([sky, precision], axis=1), 1.0
    common, noise2 = np.median(sky[flux <= np.median(flux)]), float(np.median(error**2))
    scatter2 = max((1.4826 * float(np.median(np.abs(sky - np.median(sky))))) ** 2 - noise2, 0.01 * noise2)
    mean = (precision * sky + common / scatter2) / (precision + 1.0 / scatter2)
    return np.stack([mean, precision + 1.0 / scatter2], axis=1), scatter2 / (scatter2 + noise2)


def _noise_slope(data, variance, good, sky_variance) -> float:
    """Variance per flux: slope of the variance plane over the stars' own light."""
    if len(data) == 0:
        return 0.0
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
