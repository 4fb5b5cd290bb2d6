"""Cosmic rays as thick, fully depleted CCDs see them: muon tracks that widen with depth, worms of electrons, spots.

A muon crosses the sensor in a straight line, at zenith angles of cos^2, and frees about 80 electrons per micron with the
fluctuations of Landau; charge from deeper in the silicon drifts longer and spreads by diffusion (Fisher-Levine and
Nomerotski 2015, JINST 10, C08006; Groom 2002, Exp. Astr. 14, 45). Electrons of radioactivity scatter until they stop.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter

__all__ = ["CosmicRayConfig", "thick_cosmic_rays"]


class CosmicRayConfig(Config):
    """What hits the sensor, and what the sensor makes of it."""

    thickness: float = parameter(100.0, "thickness of the silicon", unit="micron", above=1.0)
    pixel: float = parameter(10.0, "side of a pixel", unit="micron", above=1.0)
    diffusion: float = parameter(4.5, "spread of charge from the far side, one sigma; nearer, with the root of the depth",
                                 unit="micron", low=0.0)
    muons: float = parameter(0.55, "share of straight tracks", low=0.0, high=1.0)
    worms: float = parameter(0.3, "share of scattered electrons; the rest are spots", low=0.0, high=1.0)
    ionisation: float = parameter(76.0, "most probable charge of a muon", unit="electron/micron", above=0.0)


STEP = 1.0
"""Length of a piece of track, micron."""


def thick_cosmic_rays(config: CosmicRayConfig, shape: tuple[int, int], number: int, rng: np.random.Generator) -> np.ndarray:
    """(ny, nx) float32, whole electrons, of so many rays at random places."""
    ny, nx = shape
    image = np.zeros(ny * nx)
    for _ in range(number):
        start = rng.uniform(0.0, (nx * config.pixel, ny * config.pixel))
        kind = rng.random()
        make = _muon if kind < config.muons else _worm if kind < config.muons + config.worms else _spot
        x, y, depth, charge = make(config, rng)
        electrons = rng.poisson(charge)
        sigma = np.repeat(config.diffusion * np.sqrt(np.clip(depth / config.thickness, 0.0, 1.0)), electrons)
        column, row = (np.floor((place + np.repeat(track, electrons) + sigma * rng.standard_normal(len(sigma))) / config.pixel)
                       for place, track in zip(start, (x, y)))
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        at, count = np.unique((row[inside] * nx + column[inside]).astype(np.int64), return_counts=True)
        image[at] += count
    return image.reshape(shape).astype(np.float32)


def _muon(config: CosmicRayConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """x, y along the surface, depth (micron), mean electrons of each piece of a track through the whole sensor."""
    cosine = max(rng.random() ** 0.25, 0.05)  # intensity cos^2, and once more for the inclined surface: cos^3 d cos
    length = config.thickness / cosine
    angle, pieces = rng.uniform(0.0, 2.0 * np.pi), int(np.ceil(length / STEP))
    along = (np.arange(pieces) + 0.5) / pieces * length
    across = along * np.sqrt(1.0 - cosine**2)
    total = config.ionisation * length * (1.0 + 0.09 * _moyal(rng, 1)[0])  # Landau's width in 100 micron of silicon
    share = np.maximum(1.0 + 0.3 * _moyal(rng, pieces), 0.1)  # and the unevenness along the track
    return across * np.cos(angle), across * np.sin(angle), config.thickness - along * cosine, total * share / share.sum()


def _worm(config: CosmicRayConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """An electron of some hundred keV: scattered ever more, and freeing ever more charge, until it stops or leaves."""
    pieces = int(rng.uniform(60.0, 500.0) / STEP)
    left = 1.0 - np.arange(pieces) / pieces
    azimuth = rng.uniform(0.0, 2.0 * np.pi) + np.cumsum(rng.standard_normal(pieces) * 0.08 / np.sqrt(left))
    slope = 0.6 * np.sin(rng.uniform(0.0, 2.0 * np.pi) + np.cumsum(rng.standard_normal(pieces) * 0.06 / np.sqrt(left)))
    flat = np.sqrt(1.0 - slope**2)
    depth = rng.uniform(0.0, config.thickness) + STEP * np.cumsum(slope)
    out = np.nonzero((depth < 0.0) | (depth > config.thickness))[0]
    end = int(out[0]) if len(out) else pieces
    charge = STEP * config.ionisation * np.minimum(left ** -0.5, 6.0)
    return tuple(values[:end] for values in (STEP * np.cumsum(flat * np.cos(azimuth)), STEP * np.cumsum(flat * np.sin(azimuth)),
                                             depth, charge))


def _spot(config: CosmicRayConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """An X ray: all its charge in one place."""
    return np.zeros(1), np.zeros(1), rng.uniform(0.0, config.thickness, 1), 10.0 ** rng.uniform(2.6, 4.0, 1)


def _moyal(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) of Moyal's distribution, the shape of Landau's: most probable at zero, a long tail upwards."""
    return np.minimum(-np.log(np.maximum(rng.standard_normal(n) ** 2, 1e-9)), 20.0)
