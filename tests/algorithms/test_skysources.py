"""Sky sources: empty, the same for a visit and detector, and with true noise; few or none where there is no room."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.sources import grid, psf_of, pull_width, star_image
from scipy.spatial import cKDTree

from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.algorithms.measure import MeasureConfig, measure
from rsp_hpc.algorithms.skysources import SkySourcesConfig, empty_positions, with_sky_sources
from rsp_hpc.products.mask import bits

CONFIGS = SkySourcesConfig(number=500), MeasureConfig(radii=(3.0, 6.0))


@pytest.fixture(scope="module")
def field():
    x, y = grid(12, 70.0)
    image = star_image((850, 850), x, y, np.full(144, 8000.0), seed=8)
    psf = psf_of(3.5, image.box)
    return image, psf, measure(image, detect(image, psf, DetectConfig()), None, psf, CONFIGS[1])


def test_noise_of_empty_positions_is_true(field):
    image, psf, sources = field
    table = with_sky_sources(sources, image, psf, (12, 3), CONFIGS)
    sky = table.rows(table["sky_source"])
    assert len(table) == len(sources) + len(sky) and len(sky) > 400 and not table["sky_source"][:len(sources)].any()
    near = cKDTree(np.stack([sources["x"], sources["y"]], axis=1)).query(np.stack([sky["x"], sky["y"]], axis=1))[0]
    assert near.min() > 9.0 and not sky["psfFlux_flag"].any() and not sky["pixelFlags_edge"].any()
    for name in ("psfFlux", "ap03Flux"):
        pull = sky[name] / sky[name + "Err"]
        assert pull_width(pull) == pytest.approx(1.0, abs=0.02 + 3 * 0.82 / np.sqrt(len(sky))) and abs(np.median(pull)) < 0.2


def test_positions_depend_on_visit_and_detector_only(field):
    image = field[0]
    first, again, other = (empty_positions(image, 3.5, seed, CONFIGS[0]) for seed in ((12, 3), (12, 3), (13, 3)))
    assert np.array_equal(first, again) and not np.array_equal(first[0][:50], other[0][:50])


def test_no_room_gives_none(field):
    image, psf, sources = field
    full = image.copy()
    full.mask[::9, ::9] |= bits("DETECTED")
    table = with_sky_sources(sources, full, psf, (1, 1), CONFIGS)
    assert len(table) == len(sources) and "sky_source" in table
    tiny = star_image((15, 15), [], [], [])
    assert len(empty_positions(tiny, 3.5, (1, 1), CONFIGS[0])[0]) == 0
