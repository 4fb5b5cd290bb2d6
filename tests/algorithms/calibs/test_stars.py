"""Detections of stars become one table: the visit's own scale is undone, faint, saturated and doubtful ones are left out."""

import numpy as np

from rsp_hpc.algorithms.calibs.stars import COLUMNS, star_table, stars_of
from rsp_hpc.products.camera import Amplifier, Camera, Detector
from rsp_hpc.products.catalogue import Catalogue, Column

DETECTOR = Detector(name="A", id=0, size=(100, 100), amplifiers=(Amplifier(name="A", section=(0, 0, 100, 100), data=(0, 0, 100, 100)),))
CAMERA = Camera.model_construct(name="c", pixel_size=10.0, detectors=(DETECTOR,))


def visit(ra, flux, scale, number):
    n = len(ra)
    values = {"ra": ra, "dec": np.zeros(n), "x": np.arange(n, dtype=float), "y": np.zeros(n), "psfFlux": flux, "psfFluxErr": np.full(n, 1.0),
              "psfFlux_flag": np.zeros(n, bool), "extendedness": np.zeros(n), "pixelFlags_saturatedCenter": np.zeros(n, bool)}
    kinds = {name: "?" if values[name].dtype == bool else "f8" for name in COLUMNS}
    return stars_of(Catalogue([Column(name, kinds[name], "", "") for name in COLUMNS], values), scale, (number, CAMERA, DETECTOR, 0))


def test_stars_of_two_visits():
    ra = np.array([10.0, 10.001, 10.002, 10.002 + 0.3 / 3600.0])
    first = visit(ra, np.array([1000.0, 2000.0, 500.0, 500.0]), 2.0, 0)
    second = visit(ra[:3], np.array([500.0, 10.0, 500.0]), 1.0, 1)  # the second star is too faint here
    table = star_table([first, second])
    assert len(first["ra"]) == 4 and len(second["ra"]) == 2
    assert table.visit.tolist() == [0, 0, 1] and table.star[0] == table.star[2] != table.star[1]  # the pair is no star
    assert np.allclose(table.magnitude, -2.5 * np.log10([500.0, 1000.0, 500.0]))
    assert np.allclose(table.error, 1.0857 * np.array([1e-3, 5e-4, 2e-3]), rtol=1e-3)
    assert np.allclose(table.x[0], -0.01 * 49.5)


def test_no_star_at_all():
    empty = visit(np.empty(0), np.empty(0), 1.0, 0)
    assert len(star_table([empty]).star) == 0
