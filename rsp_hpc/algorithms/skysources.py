"""skysources: empty positions of a detector, measured as if there were sources: they tell whether the noise is true.

Positions depend on visit and detector alone, and on where there is light.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..products.catalogue import Catalogue, Column
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import Psf
from .measure import MeasureConfig, measure_forced

__all__ = ["SKY_SOURCE", "SkySourcesConfig", "empty_positions", "with_sky_sources"]

SKY_SOURCE = Column("sky_source", "?", "", "an empty position, drawn at random to test the noise: no source")


class SkySourcesConfig(Config):
    """How many empty positions are measured, and what empty is."""

    number: int = parameter(100, "sky sources per detector; fewer where there is no room", low=0, high=100_000)
    distance: float = parameter(2.5, "half side of the square that must be free of sources and defects", unit="FWHM", above=0.0)
    tries: int = parameter(30, "positions drawn for each one wanted", low=1)
    avoid_planes: tuple[str, ...] = parameter(
        ("DETECTED", "BAD", "SAT", "CR", "EDGE", "NO_DATA", "UNMASKEDNAN", "SUSPECT", "VIGNETTED"), "pixels of these planes are not empty")


def empty_positions(image: MaskedImage, fwhm: float, seed: tuple[int, int], config: SkySourcesConfig) -> tuple[np.ndarray, np.ndarray]:
    """(n,), (n,) float64: at most `number` empty positions, further apart than the distance.

    Parameters
    ----------
    image : MaskedImage in which sources were detected
    fwhm : of the PSF, pixel
    seed : visit, detector
    """
    half, (ny, nx) = int(np.ceil(config.distance * fwhm)), image.box.shape
    if min(nx, ny) <= 2 * half + 1 or config.number == 0:
        return np.zeros(0), np.zeros(0)
    rng = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence([*(int(word) for word in seed), 0x5C1])))
    draws = rng.uniform((half, half), (nx - 1 - half, ny - 1 - half), (config.tries * config.number, 2))
    avoid, chosen = np.uint32(bits(*config.avoid_planes)), np.zeros((config.number, 2))
    n = 0
    for x, y in draws:
        column, row = int(np.rint(x)), int(np.rint(y))
        if (np.abs(chosen[:n] - (x, y)).max(axis=1, initial=0.0) <= half).any():
            continue
        if (image.mask[row - half:row + half + 1, column - half:column + half + 1] & avoid).any():
            continue
        chosen[n] = x, y
        n += 1
        if n == config.number:
            break
    return chosen[:n, 0] + image.box.x0, chosen[:n, 1] + image.box.y0


def with_sky_sources(sources: Catalogue, image: MaskedImage, psf: Psf, seed: tuple[int, int],
                     configs: tuple[SkySourcesConfig, MeasureConfig]) -> Catalogue:
    """The sources, and behind them the sky sources, with the same columns and `sky_source`.

    Columns that only a detection has (footprint, blend) are NaN, 0 or False for sky sources.
    """
    middle = image.box.x0 + 0.5 * image.box.nx, image.box.y0 + 0.5 * image.box.ny
    x, y = empty_positions(image, float(psf.fwhm(*middle)[0]), seed, configs[0])
    sources = sources.with_columns([SKY_SOURCE], {"sky_source": np.zeros(len(sources), bool)})
    if len(x) == 0:
        return sources
    measured, absent = measure_forced(image, None, None, x, y, psf, configs[1]), Catalogue(sources.columns.values(), size=len(x))
    arrays = {name: measured[name] if name in measured else array for name, array in absent.arrays.items()}
    arrays["sky_source"] = np.ones(len(x), bool)
    return Catalogue.concatenate([sources, Catalogue(sources.columns.values(), arrays)])
