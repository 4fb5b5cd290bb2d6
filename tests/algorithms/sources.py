"""Small star fields with known truth, for the tests of the source steps."""

from __future__ import annotations

import numpy as np

from rsp_hpc.products.box import Box
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.psf import PolynomialPsf
from rsp_hpc.simulate.render import psf_mixture, render

SKY, READ_NOISE = 400.0, 5.0
NOISE = np.sqrt(SKY + READ_NOISE**2)


def psf_of(fwhm: float, box: Box) -> PolynomialPsf:
    """A PSF that is the same everywhere; 25 x 25."""
    stamp = np.zeros((25, 25))
    render(stamp, np.array([12.0]), np.array([12.0]), np.array([1e6]), psf_mixture(*np.array([[fwhm], [0.0], [0.0]])))
    return PolynomialPsf(stamp[None] / 1e6, 0, box)


def star_image(shape, x, y, flux, fwhm: float = 3.5, seed: int = 1, origin=(0, 0), sky: float = 0.0) -> MaskedImage:
    """Stars at (x, y), in the coordinates of the box, with photon and read noise; the sky's noise but `sky` for its level."""
    rng, light = np.random.default_rng(seed), np.zeros(shape)
    x, y, flux = (np.asarray(v, float) for v in (x, y, flux))
    if len(x):
        ones = np.ones(len(x))
        render(light, x - origin[0], y - origin[1], flux, psf_mixture(fwhm * ones, 0 * ones, 0 * ones))
    counts = rng.poisson(light + SKY) + READ_NOISE * rng.standard_normal(shape)
    variance = np.maximum(counts, 0.5 * SKY) + READ_NOISE**2
    return MaskedImage((counts - SKY + sky).astype(np.float32), np.zeros(shape, np.uint32), variance.astype(np.float32),
                       Box.of_shape(shape, origin))


def grid(n: int, step: float, seed: int = 2):
    """n x n positions about `step` apart, at random fractions of a pixel."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(step * (np.arange(n) + 0.7), step * (np.arange(n) + 0.7))
    return x.ravel() + rng.uniform(-0.5, 0.5, n * n), y.ravel() + rng.uniform(-0.5, 0.5, n * n)


def flux_of(snr, psf: PolynomialPsf):
    """Flux of a point source whose optimal S/N, photon noise included, is about `snr`."""
    area = 1.0 / float((psf.coefficients[0]**2).sum())
    return 0.5 * (np.asarray(snr)**2 + np.sqrt(np.asarray(snr)**4 + 4.0 * np.asarray(snr)**2 * area * NOISE**2))


def pull_width(values) -> float:
    """Half of the central 68 %."""
    low, high = np.percentile(values, [15.87, 84.13])
    return 0.5 * (high - low)
