"""Matching trials on simulated fields: density, pointing, rotation, scale, contamination; and refusals."""

from time import process_time

import numpy as np
import pytest
from matchfield import BOX, SCALE, outcome, trial

from rsp_hpc.algorithms.match import MatchConfig, match
from rsp_hpc.errors import BadData
from rsp_hpc.products.catalogue import Catalogue


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


@pytest.mark.parametrize("density", [300, 3000, 20000])
def test_doubled_fields_never_match_wrongly(density):
    """Jumps of 2 to 100 pixels, both images of the same or of different strength: right by the stronger, or refused."""
    rng = np.random.default_rng(density + 7)
    for _ in range(6):
        sources, reference, guess, truth = trial(rng, density, rng.uniform(0, 40), rng.uniform(-1, 1), rng.uniform(0.98, 1.02), 0.0)
        jump, share = rng.uniform(2, 100), rng.choice([0.3, 1.0])
        second = np.flatnonzero(rng.random(len(sources)) < share)
        arrays = {name: np.concatenate([sources[name], sources[name][second]]) for name in sources.columns}
        arrays["x"][len(sources):] += jump
        double = Catalogue(sources.columns.values(), arrays)
        case = double, reference, guess, np.concatenate([truth, np.where(jump * SCALE * 3600 < 3.0, truth[second], -1)])
        assert outcome(case) != "wrong"


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
