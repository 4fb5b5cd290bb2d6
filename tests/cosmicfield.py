"""A field with cosmic rays of known truth: stars of all brightness, galaxies, saturation and bleeding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits
from rsp_hpc.simulate.cosmics import CosmicRayConfig, thick_cosmic_rays
from rsp_hpc.simulate.detector import DetectorConfig, cosmic_rays, fill_wells
from rsp_hpc.simulate.render import KOLMOGOROV, Mixture, convolve, galaxy_mixture, render, shear_matrix

SKY, READ_NOISE, FULL_WELL = 800.0, 6.0, 100_000.0


class Field(NamedTuple):
    """What was made.

    image : MaskedImage, electron, sky in it
    psf_sigma : Gaussian width of the PSF in the pixels, pixel
    charge : (ny, nx) float32, electrons of the cosmic rays
    light : (ny, nx) float32, expected electrons of sky and objects
    """

    image: MaskedImage
    psf_sigma: float
    charge: np.ndarray
    light: np.ndarray


def make_field(size: int, fwhm: float, kind: str = "kolmogorov", density: float = 4.3e-4, tracks: int = 60,
               seed: int = 0, thick: bool = False) -> Field:
    """`density` objects per pixel, a third of them stars, fluxes N(>f) ~ f^-0.75 from 200 electrons; one in twenty is a
    bright star, to saturation and beyond. PSF 'kolmogorov', 'gaussian' or 'moffat' (beta 3), its width varying by 4 %, sheared
    by 0.05. The tracks are straight and thin, of 600 to 20,000 electrons; with `thick` those of `simulate.cosmics`: muons whose
    charge diffuses, worms and spots in 100 micron of silicon.
    """
    rng = np.random.default_rng(seed)
    n = int(density * size * size)
    light = _light(rng, size, n, fwhm, kind) if n else np.full((size, size), SKY)
    if thick:
        charge = thick_cosmic_rays(CosmicRayConfig(), light.shape, tracks, rng)
    else:
        charge = cosmic_rays(DetectorConfig(cosmic_rays=float(tracks)), light.shape, 1.0, rng)
    pixels = rng.poisson(light).astype(np.float32) + charge.astype(np.float32)
    fill_wells(pixels, FULL_WELL)
    mask = np.where(pixels >= 0.98 * FULL_WELL, bits("SAT"), 0).astype(np.uint32)
    image = (pixels + READ_NOISE * rng.standard_normal(light.shape)).astype(np.float32)
    variance = (np.maximum(image, 0.0) + READ_NOISE**2).astype(np.float32)
    return Field(MaskedImage(image, mask, variance), float(np.hypot(fwhm / 2.3548, 12**-0.5)), charge, light)


def _light(rng: np.random.Generator, size: int, n: int, fwhm: float, kind: str) -> np.ndarray:
    """(size, size): sky, stars and galaxies."""
    x, y = rng.uniform(0, size, (2, n))
    flux = np.minimum(200.0 * rng.uniform(size=n) ** (-1.0 / 0.75), 3e5)
    bright = rng.uniform(size=n) < 0.05
    flux[bright] = 10.0 ** rng.uniform(5.0, 7.5, bright.sum())
    width = fwhm * (1.0 + 0.04 * (2.0 * x / size - 1.0))
    matrix = np.broadcast_to(shear_matrix(0.05, 0.0), (n, 2, 2))
    psf = _sheared(PROFILES[kind], width, matrix)
    galaxies = np.nonzero((rng.uniform(size=n) > 1.0 / 3.0) & ~bright)[0]
    stars = np.setdiff1d(np.arange(n), galaxies)
    light = np.full((size, size), SKY)
    render(light, x[stars], y[stars], flux[stars], psf.rows(stars))
    shapes = galaxy_mixture(rng.lognormal(np.log(2.0), 0.5, len(galaxies)), rng.uniform(size=len(galaxies)) < 0.3,
                            shear_matrix(*(0.2 * rng.standard_normal((2, len(galaxies))))))
    render(light, x[galaxies], y[galaxies], flux[galaxies], convolve(shapes, psf.rows(galaxies)))
    return light


def score(field: Field, hit: np.ndarray) -> dict[str, float]:
    """Pixels with a hit beyond 8 sigma of light and read noise ('strong'), the fraction of them found, and false
    pixels: flagged more than 2 pixels from any true hit, of all pixels; on objects and on stars' cores, counted."""
    saturated = _near(field.image.mask & bits("SAT") != 0)
    strong = (field.charge > 8.0 * np.sqrt(field.light + READ_NOISE**2)) & ~saturated
    false = hit & ~_near(field.charge > 0)
    return {"strong": int(strong.sum()), "found": float((hit & strong).sum() / max(1, strong.sum())),
            "false": float(false.sum() / false.size),
            "false_on_objects": int((false & (field.light > 1.2 * SKY)).sum()),
            "false_on_cores": int((false & (field.light > 5.0 * SKY)).sum())}


def _near(plane: np.ndarray) -> np.ndarray:
    """Within two pixels of a set one."""
    ny, nx = plane.shape
    padded = np.pad(plane, 2)
    return np.any([padded[j:j + ny, i:i + nx] for j in range(5) for i in range(5)], axis=0)


def _sheared(table: np.ndarray, fwhm: np.ndarray, matrix: np.ndarray) -> Mixture:
    covariance = np.einsum("nij,nkj->nik", matrix, matrix) * (fwhm**2)[:, None, None]
    weight = np.broadcast_to(table[0] / table[0].sum(), (len(fwhm), table.shape[1])).copy()
    return Mixture(weight, *(covariance[:, i, j, None] * table[1] for i, j in ((0, 0), (1, 1), (0, 1))))


def _moffat(beta: float) -> np.ndarray:
    """A Moffat as the mixture of Gaussians that it is: inverse variances are gamma distributed (FWHM 1)."""
    alpha2 = 0.25 / (2.0 ** (1.0 / beta) - 1.0)
    logs = np.linspace(-3.0, 4.0, 24)  # of t = alpha^2 / (2 variance)
    t = np.exp(logs)
    return np.array([t ** (beta - 1.0) * np.exp(-t), alpha2 / (2.0 * t)])


PROFILES = {"kolmogorov": KOLMOGOROV, "gaussian": np.array([[1.0], [2.3548**-2]]), "moffat": _moffat(3.0)}
