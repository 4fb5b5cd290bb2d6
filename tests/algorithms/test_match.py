"""Matching trials on simulated fields: density, pointing, rotation, scale, contamination; and refusals."""

from time import process_time

import numpy as np
import pytest

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


@pytest.mark.parametrize("density", [10, 100, 300, 1000, 3000, 10000, 50000])
def test_random_fields_are_matched_or_refused(density):
    """Pointing off by up to 1', rotation by 3 degrees, scale by 3 %, half of the sources spurious."""
    rng = np.random.default_rng(density)
    counts = {"right": 0, "wrong": 0, "refused": 0}
    start = process_time()
    trials = 8
    for _ in range(trials):
        counts[outcome(trial(rng, density, rng.uniform(0, 60), rng.uniform(-3, 3), rng.uniform(0.97, 1.03)))] += 1
    seconds = (process_time() - start) / trials
    assert counts["wrong"] == 0
    assert counts["right"] >= (trials if density >= 1000 else 0), counts
    assert seconds < 0.6, seconds


@pytest.mark.parametrize("density", [100, 1000, 20000])
def test_a_good_header_needs_few_stars(density):
    rng = np.random.default_rng(density)
    results = [outcome(trial(rng, density, 1.0, 0.01, 1.0005)) for _ in range(10)]
    assert "wrong" not in results
    assert results.count("right") >= 9


@pytest.mark.parametrize("density", [30, 1000, 20000])
def test_a_pointing_that_is_far_off_is_refused(density):
    rng = np.random.default_rng(density)
    for _ in range(4):
        sources, reference, guess, _ = trial(rng, density, 0.0, 0.0, 1.0)
        other = trial(rng, density, 0.0, 0.0, 1.0)[0]  # another field's sources
        with pytest.raises(BadData, match="no match of .* check the pointing"):
            match(other, reference, guess, BOX, MatchConfig(), "r")


def test_double_images_are_refused():
    """Every star twice, as after a jump of the telescope: two equally good answers."""
    sources, reference, guess, _ = trial(np.random.default_rng(1), 3000, 20.0, 0.5, 1.01, spurious=0.0)
    arrays = {name: np.concatenate([sources[name]] * 2) for name in sources.columns}
    arrays["x"][len(sources):] += 60.0
    double = Catalogue(sources.columns.values(), arrays)
    with pytest.raises(BadData, match="no match"):
        match(double, reference, guess, BOX, MatchConfig(), "r")


def test_the_result_says_how_far_off_the_header_was():
    sources, reference, guess, truth = trial(np.random.default_rng(3), 3000, 50.0, 2.0, 1.02)
    found = match(sources, reference, guess, BOX, MatchConfig(), "r")
    assert np.hypot(*found.shift) == pytest.approx(50.0, abs=1.0)
    assert np.sqrt(np.linalg.det(found.matrix)) == pytest.approx(1.02, abs=1e-3)
    turn = np.degrees(np.arctan2(found.matrix[1, 0] - found.matrix[0, 1], np.trace(found.matrix)))
    assert abs(turn) == pytest.approx(2.0, abs=0.05)
    assert found.false_probability < 1e-20 and found.rms < 0.2
    assert len(np.unique(found.sources)) == len(np.unique(found.reference)) == len(found)
