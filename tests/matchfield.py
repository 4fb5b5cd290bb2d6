"""Simulated fields for matching: sources and reference stars, half of the sources spurious, a header that is wrong."""

from __future__ import annotations

import numpy as np

from rsp_hpc.algorithms.match import MatchConfig, match
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.reference import ReferenceCatalogue
from rsp_hpc.products.wcs import Wcs

BOX = Box(0, 0, 4096, 4096)
SCALE = 0.2 / 3600


def trial(rng, density, offset, turn, stretch, spurious=0.5):
    """(sources, reference, guess, true row of each source or -1) of a field of so many stars per sq degree."""
    ra0, dec0 = rng.uniform(0, 360), rng.uniform(-80, 80)
    side = 0.7
    n = rng.poisson(density * side**2)
    plane = Wcs((ra0, dec0), (0.0, 0.0), ((-1.0, 0.0), (0.0, 1.0)))
    ra, dec = plane.pixel_to_sky(*rng.uniform(-side / 2, side / 2, (2, n)))
    flux = 1e3 * (1.0 - rng.random(n)) ** (-1 / 0.7)
    one = np.ones(n)
    reference = ReferenceCatalogue(ra, dec, one, one, 0 * one, 0 * one, 0 * one, 0 * one, 6e4, one > 0, {"r": flux},
                                   {"r": 0.01 * flux})
    position = rng.uniform(0, 360)
    guess = wcs_of(ra0, dec0, position, SCALE)
    move = rng.uniform(0, 2 * np.pi)
    truth = wcs_of(ra0 + offset / 3600 * np.cos(move) / np.cos(np.radians(dec0)), dec0 + offset / 3600 * np.sin(move),
                   position + turn, SCALE * stretch)
    x, y = truth.sky_to_pixel(ra, dec)
    seen = np.flatnonzero(BOX.contains(x, y) & (rng.random(n) < 0.9))
    extra = int(len(seen) * spurious / (1 - spurious))
    sx = np.concatenate([x[seen] + 0.3 * rng.normal(size=len(seen)), rng.uniform(0, 4096, extra)])
    sy = np.concatenate([y[seen] + 0.3 * rng.normal(size=len(seen)), rng.uniform(0, 4096, extra)])
    measured = np.concatenate([flux[seen] * 10 ** (0.2 * rng.normal(size=len(seen))),
                               1e3 * (1 - rng.random(extra)) ** (-1 / 0.7)])
    sources = Catalogue([Column(name, "f8", "", "") for name in ("x", "y", "psfFlux", "psfFluxErr")],
                        {"x": sx, "y": sy, "psfFlux": measured, "psfFluxErr": measured / 30})
    return sources, reference, guess, np.concatenate([seen, np.full(extra, -1)])


def wcs_of(ra, dec, position, scale):
    c, s = scale * np.cos(np.radians(position)), scale * np.sin(np.radians(position))
    return Wcs((ra % 360.0, dec), (2047.5, 2047.5), ((-c, s), (s, c)))


def outcome(case):
    """'right', 'wrong' or 'refused'."""
    sources, reference, guess, truth = case
    try:
        found = match(sources, reference, guess, BOX, MatchConfig(), "r")
    except BadData:
        return "refused"
    return "right" if np.mean(truth[found.sources] == found.reference) > 0.6 else "wrong"
