"""Star fields with a true Kolmogorov PSF that varies over the detector, drawn by GalSim; and how far a model is from it."""

from __future__ import annotations

import galsim
import numpy as np

from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.psf import stamp_moments

SIDE, SKY, FWHM, HALF = 2048, 400.0, 3.6, 32


def profile(x, y) -> galsim.GSObject:
    """The PSF at a pixel: 4 % in size and 3 % in shear over the detector."""
    u, v = 2.0 * (x + 0.5) / SIDE - 1.0, 2.0 * (y + 0.5) / SIDE - 1.0
    fwhm = FWHM * (1.0 + 0.03 * u - 0.02 * v + 0.02 * u * v + 0.02 * u * u)
    return galsim.Kolmogorov(fwhm=fwhm).shear(g1=0.03 * u - 0.02 * v + 0.01 * u * v, g2=0.02 * v + 0.015 * u * u - 0.01)


def stamp(x, y, size: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """(size, size): the PSF at (x, y) on a stamp, moved by (dx, dy) from its middle pixel."""
    return profile(x, y).shift(dx, dy).drawImage(nx=size, ny=size, scale=1.0, dtype=float).array


def place(image: np.ndarray, light: np.ndarray, ix: int, iy: int) -> None:
    """Add a stamp about a pixel; what lies off the image is lost."""
    half = light.shape[0] // 2
    y0, y1, x0, x1 = max(iy - half, 0), min(iy + half + 1, SIDE), max(ix - half, 0), min(ix + half + 1, SIDE)
    image[y0:y1, x0:x1] += light[y0 - iy + half:y1 - iy + half, x0 - ix + half:x1 - ix + half]


def flux_of(snr: np.ndarray) -> np.ndarray:
    """Flux of a star with this signal to noise, its own photons included."""
    area = 5.2 * np.pi * (FWHM / 2.3548) ** 2
    return 0.5 * snr**2 * (1.0 + np.sqrt(1.0 + 4.0 * SKY * area / snr**2))


def star_field(seed: int, n: int = 100, snr=(100.0, 500.0)) -> tuple[MaskedImage, np.ndarray, np.ndarray, np.ndarray]:
    """An image of n stars on a jittered grid, gain one, sky subtracted; and their x, y, flux."""
    rng = np.random.default_rng(seed)
    per_side = int(np.ceil(np.sqrt(n)))
    pitch, cells = (SIDE - 80) / per_side, rng.permutation(per_side**2)[:n]
    x, y = (40 + pitch * (cell + rng.uniform(0.3, 0.7, n)) for cell in (cells % per_side, cells // per_side))
    flux = flux_of(10 ** rng.uniform(*np.log10(snr), n))
    image = np.zeros((SIDE, SIDE))
    for cx, cy, f in zip(x, y, flux):
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        place(image, f * stamp(cx, cy, 2 * HALF + 1, cx - ix, cy - iy), ix, iy)
    return noisy(image, rng), x, y, flux


def noisy(image: np.ndarray, rng) -> MaskedImage:
    """With the noise of the sky and of the light itself."""
    variance = image + SKY
    image = image + rng.normal(size=image.shape) * np.sqrt(variance)
    return MaskedImage(image.astype(np.float32), np.zeros(image.shape, np.uint32), variance.astype(np.float32))


class Truth:
    """The true PSF's moments on a grid of places, and how a model differs from them."""

    def __init__(self, per_side: int = 7):
        self.x, self.y = (grid.ravel() for grid in np.meshgrid(*[(np.arange(per_side) + 0.5) / per_side * SIDE - 0.5] * 2))
        self._moments: dict[int, np.ndarray] = {}

    def moments(self, size: int) -> np.ndarray:
        if size not in self._moments:
            self._moments[size] = stamp_moments(np.array([stamp(x, y, size) for x, y in zip(self.x, self.y)]))
        return self._moments[size]

    def compare(self, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) relative error of the size sigma, (n, 2) error of the distortion e1, e2, of stamps at `x`, `y`."""
        found, true = stamp_moments(stamps), self.moments(stamps.shape[-1])
        return size_of(found) / size_of(true) - 1.0, shape_of(found) - shape_of(true)


def size_of(moments: np.ndarray) -> np.ndarray:
    return np.sqrt(0.5 * (moments[:, 0] + moments[:, 1]))


def shape_of(moments: np.ndarray) -> np.ndarray:
    return np.stack([moments[:, 0] - moments[:, 1], 2.0 * moments[:, 2]], axis=1) / (moments[:, 0] + moments[:, 1])[:, None]
