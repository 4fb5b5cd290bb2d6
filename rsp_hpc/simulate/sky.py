"""The sky of a simulated survey: stars and galaxies with fluxes in every band, and a reference catalogue of the bright stars."""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..products.catalogue import Catalogue, Column
from ..products.geometry import deproject
from ..products.photocal import nanojansky_of
from .seeds import generator

__all__ = ["SkyConfig", "reference_of", "sky_of"]


class SkyConfig(Config):
    """What is on the sky, and what the reference catalogue knows of it."""

    ra: float = parameter(150.0, "centre of the field", unit="deg")
    dec: float = parameter(2.0, "centre of the field", unit="deg", low=-89.0, high=89.0)
    radius: float = parameter(7.0, "half side of the square field that holds objects", unit="arcmin", above=0.0)
    star_density: float = parameter(20.0, "stars brighter than the limit", unit="1/arcmin^2", low=0.0)
    galaxy_density: float = parameter(40.0, "galaxies brighter than the limit", unit="1/arcmin^2", low=0.0)
    brightest_star: float = parameter(16.0, "r magnitude", unit="mag")
    brightest_galaxy: float = parameter(18.0, "r magnitude", unit="mag")
    limit: float = parameter(26.0, "faintest r magnitude", unit="mag")
    star_slope: float = parameter(0.12, "d log10(number) / d magnitude", above=0.0)
    galaxy_slope: float = parameter(0.32, "d log10(number) / d magnitude", above=0.0)
    dev_fraction: float = parameter(0.2, "galaxies with a de Vaucouleurs profile; the others are exponential", low=0.0, high=1.0)
    galaxy_size: float = parameter(0.55, "median half-light radius at r = 22; 0.06 dex smaller per magnitude", unit="arcsec",
                                   above=0.0)
    ellipticity: float = parameter(0.2, "rms per component of the galaxies' shear", low=0.0, high=0.5)
    reference_limit: float = parameter(21.5, "faintest r magnitude of the reference catalogue", unit="mag")
    reference_position_error: float = parameter(5.0, "one sigma per axis", unit="mas", low=0.0)
    reference_flux_error: float = parameter(0.01, "one sigma", unit="mag", low=0.0)


COLOURS = {"u": (1.1, 0.9), "g": (0.75, 0.55), "r": (0.0, 0.0), "i": (-0.35, -0.3), "z": (-0.55, -0.45), "y": (-0.65, -0.55)}
"""Mean magnitude minus r of stars and of galaxies. The scatter of g - r carries over to the other bands."""


def sky_of(config: SkyConfig, bands: tuple[str, ...], seed: int) -> Catalogue:
    """All true objects.

    Returns
    -------
    Catalogue with id, ra, dec, is_star, radius and is_dev and g1, g2 (galaxies; shear about north through east), sigma,
    and flux_<band> in nJy for every band
    """
    rng = generator(seed, "sky")
    area = (2.0 * config.radius) ** 2
    n_stars, n_galaxies = rng.poisson(config.star_density * area), rng.poisson(config.galaxy_density * area)
    n = n_stars + n_galaxies
    star = np.arange(n) < n_stars
    xi, eta = (rng.uniform(-config.radius, config.radius, n) / 60.0 for _ in range(2))
    ra, dec = deproject(xi, eta, config.ra, config.dec)
    magnitude = np.where(star, _magnitudes(rng, n, config.brightest_star, config.limit, config.star_slope),
                         _magnitudes(rng, n, config.brightest_galaxy, config.limit, config.galaxy_slope))
    scatter = rng.normal(0.0, 0.25, n)
    fluxes = {f"flux_{band}": nanojansky_of(magnitude + np.where(star, *COLOURS[band]) * (1.0 + scatter)) for band in bands}
    size = config.galaxy_size * 10.0 ** (-0.06 * (magnitude - 22.0) + 0.15 * rng.standard_normal(n))
    radius = np.where(star, 0.0, np.clip(size, 0.1, 2.5))
    shear = config.ellipticity * rng.standard_normal((2, n))
    shear *= np.minimum(1.0, 0.6 / np.maximum(np.hypot(*shear), 1e-9))
    arrays = {"id": np.arange(1, n + 1), "ra": ra, "dec": dec, "is_star": star, "radius": radius,
              "is_dev": ~star & (rng.random(n) < config.dev_fraction), "g1": np.where(star, 0.0, shear[0]),
              "g2": np.where(star, 0.0, shear[1]), "sigma": radius / 1.1774, **fluxes}
    return Catalogue([
        Column("id", "i8", "", "number of the true object"), Column("ra", "f8", "deg", "ICRS"), Column("dec", "f8", "deg", "ICRS"),
        Column("is_star", "?", "", "point source"), Column("radius", "f8", "arcsec", "half-light radius before shear; 0: star"),
        Column("is_dev", "?", "", "de Vaucouleurs profile, else exponential"),
        Column("g1", "f8", "", "shear, positive along north-south"), Column("g2", "f8", "", "shear, positive along NE-SW"),
        Column("sigma", "f8", "arcsec", "sigma of the round Gaussian of the same half-light radius; 0: star"),
        *(Column(f"flux_{band}", "f8", "nJy", f"total flux in {band}") for band in bands)], arrays)


def _magnitudes(rng: np.random.Generator, n: int, bright: float, faint: float, slope: float) -> np.ndarray:
    """Magnitudes with cumulative counts proportional to 10^(slope m) between the limits."""
    low, high = 10.0 ** (slope * bright), 10.0 ** (slope * faint)
    return np.log10(low + rng.random(n) * (high - low)) / slope


def reference_of(config: SkyConfig, sky: Catalogue, bands: tuple[str, ...], seed: int) -> Catalogue:
    """The reference catalogue: stars down to a limit, with errors as stated in it.

    Returns
    -------
    Catalogue with id, ra, dec, ra_err, dec_err (arcsec on the sky), and flux_<band>, flux_<band>_err in nJy
    """
    rng = generator(seed, "reference")
    band = "r" if "r" in bands else bands[0]
    stars = sky.rows(sky["is_star"] & (sky[f"flux_{band}"] > nanojansky_of(config.reference_limit)))
    n, error = len(stars), config.reference_position_error / 3.6e6
    arrays = {"id": stars["id"], "dec": stars["dec"] + error * rng.standard_normal(n),
              "ra": stars["ra"] + error * rng.standard_normal(n) / np.cos(np.radians(stars["dec"])),
              "ra_err": np.full(n, 3600.0 * error), "dec_err": np.full(n, 3600.0 * error)}
    columns = [Column("id", "i8", "", "number of the star"), Column("ra", "f8", "deg", "ICRS"), Column("dec", "f8", "deg", "ICRS"),
               Column("ra_err", "f8", "arcsec", "one sigma in ra times cos dec"), Column("dec_err", "f8", "arcsec", "one sigma")]
    for name in bands:
        flux = stars[f"flux_{name}"]
        relative = 0.4 * np.log(10.0) * config.reference_flux_error
        arrays[f"flux_{name}"] = flux * (1.0 + relative * rng.standard_normal(n))
        arrays[f"flux_{name}_err"] = flux * relative
        columns += [Column(f"flux_{name}", "f8", "nJy", f"flux in {name}"), Column(f"flux_{name}_err", "f8", "nJy", "one sigma")]
    return Catalogue(columns, arrays)
