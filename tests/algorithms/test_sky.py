"""The sky of a visit's focal plane: polynomial and steps are found, light stays, missing and masked detectors do no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsp_hpc.algorithms.background import evaluate_background
from rsp_hpc.algorithms.sky import SkyModelConfig, fit_visit_sky, sky_on_mesh
from rsp_hpc.errors import BadData
from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.sky import SkyBins

SIDE, PITCH, CELLS = 400, 4.2, (8, 8)
CONFIG = SkyModelConfig()


def visit(light=lambda x, y: 0.0, steps: float = 1.0, noise: float = 0.2):
    """Bins of 7 x 7 detectors with a quadratic sky; the true steps."""
    random = np.random.default_rng(5)
    parts, truth = [], steps * random.standard_normal(49)
    for number in range(49):
        origin = (PITCH * (number % 7 - 3) - 2.0, PITCH * (number // 7 - 3) - 2.0)
        ones = np.ones(CELLS, np.float32)
        bins = SkyBins(ones, np.full(CELLS, noise / 4, np.float32), ones, ones, (SIDE, SIDE), origin, ((0.01, 0.0), (0.0, 0.01)))
        x, y = bins.places(CELLS)
        level = sky(x, y) + truth[number] + light(x, y) + noise * random.standard_normal(CELLS)
        parts.append((number, replace(bins, level=level.astype(np.float32))))
    return parts, truth


def sky(x, y):
    return 2000.0 + 1.5 * x - y + 0.05 * x * y - 0.04 * (x * x + y * y)


def error(model, parts, numbers) -> np.ndarray:
    """Model less truth (without steps) on the meshes of some detectors."""
    result = []
    for number in numbers:
        bins, mesh = parts[number][1], Background(np.ones(CELLS, np.float32), np.ones(CELLS, np.float32), 50, Box(0, 0, SIDE, SIDE))
        x, y = bins.places(CELLS)
        result.append(sky_on_mesh(model, number, bins, mesh).level - model.pistons[number] - sky(x, y))
    return np.array(result)


@pytest.fixture(scope="module")
def plain():
    parts, truth = visit()
    return parts, truth, fit_visit_sky(parts, CONFIG)


def test_polynomial_and_steps_are_found(plain):
    parts, truth, model = plain
    assert model.order == 2 and model.n_kept > 0.8 * model.n_bins
    left = model.pistons - truth
    assert np.std(left - left.mean()) < 0.35 and np.corrcoef(model.pistons, truth)[0, 1] > 0.9
    assert np.abs(error(model, parts, range(49)) + left[:, None, None]).max() < 0.5


def test_a_bright_galaxy_stays(plain):
    parts, _, model = plain
    bright = lambda x, y: 60.0 * np.exp(-np.hypot(x - 1.0, y - 1.0) / 0.6)  # noqa: E731
    with_light, _ = visit(bright)
    other = fit_visit_sky(with_light, CONFIG)
    taken = error(other, with_light, range(49)) - error(model, parts, range(49)) + (other.pistons - model.pistons)[:, None, None]
    places = [bins.places(CELLS) for _, bins in parts]
    near = [np.hypot(x - 1.0, y - 1.0) < 3.0 for x, y in places]
    light = sum(float(bright(x, y)[inside].sum()) for (x, y), inside in zip(places, near))
    share = sum(float(lost[inside].sum()) for lost, inside in zip(taken, near)) / light
    print(f"share of the galaxy that the visit's sky takes: {share:.2%}")
    assert abs(share) < 0.02


def test_a_missing_a_masked_and_a_half_masked_detector(plain):
    parts, _, model = plain
    masked = replace(parts[24][1], level=np.full(CELLS, np.nan, np.float32))
    half = replace(parts[10][1], level=np.where(np.arange(8)[:, None] < 4, parts[10][1].level, np.nan).astype(np.float32))
    some = [part for part in parts if part[0] not in (5, 10, 24)] + [(10, half), (24, masked)]
    other = fit_visit_sky(sorted(some, key=lambda part: part[0]), CONFIG)
    assert 5 not in other.detectors and other.pistons[other.detectors == 24] == 0.0
    assert np.abs(other.pistons[other.detectors == 10] - model.pistons[10]) < 0.6
    mesh = Background(np.ones(CELLS, np.float32), np.ones(CELLS, np.float32), 50, Box(0, 0, SIDE, SIDE))
    assert np.abs(sky_on_mesh(other, 24, masked, mesh).level - sky(*masked.places(CELLS))).max() < 1.0
    assert np.isfinite(evaluate_background(sky_on_mesh(other, 24, masked, mesh))).all()


def test_all_masked_is_refused(plain):
    parts = [(number, replace(bins, level=np.full(CELLS, np.nan, np.float32))) for number, bins in plain[0]]
    with pytest.raises(BadData, match="0 bins of the visit show an empty sky"):
        fit_visit_sky(parts, CONFIG)
