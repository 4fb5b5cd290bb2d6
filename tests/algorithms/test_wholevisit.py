"""A visit's detectors solved together: errors of the sources, a detector without a match, clouds, nothing to solve with."""

from dataclasses import replace

import numpy as np
import pytest
from skyplane import BOX, Camera

from rsp_hpc.algorithms.astrometry import AstrometryConfig
from rsp_hpc.algorithms.focalplane import FocalPlaneConfig
from rsp_hpc.algorithms.photometry import PhotometryConfig
from rsp_hpc.algorithms.wholevisit import matched_stars, place_sources, solve_visit
from rsp_hpc.errors import BadData
from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.geometry import project
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.photocal import PhotoCal
from rsp_hpc.products.reference import ReferenceCatalogue
from rsp_hpc.products.visit import VisitDetector

CONFIG = AstrometryConfig(), FocalPlaneConfig(), PhotometryConfig()
EXPOSURE = Exposure(1, "science", "r", 6e4, 30.0, 30.0, 150.0, 30.0, 0.0, 1.2)
TRUE_SCALE = 3.0
COLUMNS = [Column(name, kind, unit, "") for name, kind, unit in (
    ("x", "f8", "pixel"), ("y", "f8", "pixel"), ("xErr", "f4", "pixel"), ("yErr", "f4", "pixel"), ("psfFlux", "f4", "nJy"),
    ("psfFluxErr", "f4", "nJy"), ("psfFlux_flag", "?", ""))]


def simulated(seed=0, n=60, loss=None, lost=()):
    """(camera, visits, reference): 9 detectors, half of whose sources are in the catalogue; those in `lost` have no match."""
    rng, camera = np.random.default_rng(seed), Camera(3, seed)
    visits, places, fluxes = [], [], []
    for i in range(9):
        x, y = rng.uniform(20, 1980, (2, n))
        true = 2e4 * (1.0 - rng.random(n)) ** (-1 / 0.9)
        error, seen = rng.uniform(0.005, 0.05, n), 10 ** (-0.4 * (loss(i) if loss else 0.0))
        noise = 0.01 * true
        sources = Catalogue(COLUMNS, {"x": x + np.hypot(error, 0.03) * rng.normal(size=n),
                                      "y": y + np.hypot(error, 0.03) * rng.normal(size=n), "xErr": error, "yErr": error,
                                      "psfFlux": true * seen + noise * rng.normal(size=n), "psfFluxErr": noise,
                                      "psfFlux_flag": np.zeros(n, bool)})
        places.append(np.stack(camera.sky(i, x[:n // 2], y[:n // 2])))
        fluxes.append(TRUE_SCALE * true[:n // 2])
        empty = np.zeros((1, 1), np.float32)
        guess = camera.guesses[i]
        visits.append(VisitDetector(EXPOSURE, f"D{i}", i, MaskedImage.empty(Box(0, 0, 0, 0)), Background(empty, empty, 128, BOX),
                                    None, guess, PhotoCal(1.0, float("nan")), 1.0, place_sources(sources, guess, (0.0, 0.0)),
                                    {"depth_5sigma_mag": 25.0}, guess=guess))
    (ra, dec), flux = np.concatenate(places, axis=1), np.concatenate(fluxes)
    one = np.ones(len(ra))
    reference = ReferenceCatalogue(ra, dec, 0.1 * one, 0.1 * one, *[0 * one] * 4, 6e4, one > 0, {"r": flux}, {"r": 0.005 * flux})
    for i, visit in enumerate(visits):
        found = i not in lost
        rows = (np.arange(n // 2), i * (n // 2) + np.arange(n // 2)) if found else (np.zeros(0, int),) * 2
        table = matched_stars(i, visit.sources, reference, rows, ("r", CONFIG[2]))
        visits[i] = replace(visit, matches=table, wcs_known=found, photocal_known=found, problem="" if found else "no match of")
    return camera, visits, reference


def test_errors_of_the_sources_hold_centroid_atmosphere_and_solution():
    pulls = []
    for seed in range(6):
        camera, visits, reference = simulated(seed)
        for i, visit in enumerate(solve_visit(visits, reference, CONFIG)):
            known = visit.sources.rows(slice(0, 30))
            xi, eta = project(reference.ra[30 * i:30 * i + 30], reference.dec[30 * i:30 * i + 30], known["ra"], known["dec"])
            pulls += [xi / known["raErr"], eta / known["decErr"]]
            assert (known["raErr_fit"] > 0).all() and (known["raErr_fit"] < known["raErr"]).all()
            assert visit.summary["astrometric_scatter_mas"] == pytest.approx(6.0, abs=2.0)
    assert 0.85 < np.std(np.concatenate(pulls)) < 1.05  # a little less than one: these stars made the fit


def test_a_detector_that_matches_nothing_is_placed_by_the_others():
    camera, visits, reference = simulated(1, lost=(4,))
    solved = solve_visit(visits, reference, CONFIG)
    assert not any(isinstance(item, BadData) for item in solved)
    there = solved[4]
    assert there.wcs_known and there.photocal_known and len(there.matches) >= 25
    xi, eta = project(*there.wcs.pixel_to_sky([10, 1990], [10, 1990]), *camera.sky(4, [10, 1990], [10, 1990]))
    assert 3.6e6 * np.hypot(xi, eta).max() < 30.0
    assert there.photocal.scale == pytest.approx(TRUE_SCALE, rel=0.02)
    np.testing.assert_allclose(there.sources["psfFlux"], visits[4].sources["psfFlux"] * there.photocal.scale, rtol=1e-5)


def test_where_nothing_matches_every_detector_is_refused_with_its_reason():
    _, visits, reference = simulated(2, lost=range(9))
    solved = solve_visit(visits, reference, CONFIG)
    assert all(isinstance(item, BadData) and str(item) == "no match of" for item in solved)


def test_clouds_and_airmass_are_in_the_summary():
    _, visits, reference = simulated(3, loss=lambda i: 0.05 * i)
    solved = solve_visit(visits, reference, CONFIG)
    assert all(item.summary["photometric"] == 0.0 and item.summary["airmass"] == 1.2 for item in solved)
    for i, item in enumerate(solved):
        assert item.photocal.scale == pytest.approx(TRUE_SCALE * 10 ** (0.02 * i), rel=0.02)
        assert item.summary["depth_5sigma_mag"] == pytest.approx(25.0 - 2.5 * np.log10(item.photocal.scale))
    _, visits, reference = simulated(3)
    assert all(item.summary["photometric"] == 1.0 for item in solve_visit(visits, reference, CONFIG))


def test_without_a_catalogue_nothing_changes():
    _, visits, _ = simulated(4)
    assert all(a is b for a, b in zip(solve_visit(visits, None, CONFIG), visits))
