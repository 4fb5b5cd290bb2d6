"""The optimal S/N and the isolation against direct sums over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.simulate.render import convolve, galaxy_mixture, psf_mixture, render, shear_matrix
from rsp_hpc.simulate.truth import neighbour_bias, overlap, point_source_snr, survey_truth

COLUMNS = [Column("id", "i8", "", ""), Column("ra", "f8", "deg", ""), Column("dec", "f8", "deg", ""),
           Column("is_star", "?", "", ""), Column("radius", "f8", "arcsec", ""), Column("is_dev", "?", "", ""),
           Column("g1", "f8", "", ""), Column("g2", "f8", "", ""), Column("flux_r", "f8", "nJy", "")]


def make_sky(offset_arcsec: float, flux: tuple[float, float]) -> Catalogue:
    """Two stars, the second so far to the east."""
    return Catalogue(COLUMNS, {"id": [4, 9], "ra": [10.0, 10.0 + offset_arcsec / 3600.0], "dec": [0.0, 0.0],
                               "is_star": [True, True], "radius": [0.0, 0.0], "is_dev": [False, False], "g1": [0.0, 0.0],
                               "g2": [0.0, 0.0], "flux_r": flux})


def stamp(profile, x, y):
    image = np.zeros((91, 91), np.float32)
    render(image, [45.0 + x], [45.0 + y], [1e6], profile)
    return image.astype(float) / 1e6


def test_overlap_is_the_sum_over_pixels():
    psf = psf_mixture([3.5], 0.05, -0.02)
    galaxy = convolve(galaxy_mixture([3.0], [False], shear_matrix([0.2], [0.1])), psf)
    for first, second, dx, dy in ((psf, psf, 0.0, 0.0), (psf, galaxy, 2.5, -4.0), (galaxy, galaxy, 6.0, 1.0)):
        direct = (stamp(first, 0, 0) * stamp(second, dx, dy)).sum()
        assert overlap(first, second, [dx], [dy])[0] == pytest.approx(direct, rel=0.005)


def test_snr_is_that_of_the_optimal_filter():
    psf = psf_mixture([3.5], 0.0, 0.0)
    p, flux, variance = stamp(psf, 0.2, 0.4), 2000.0, 1500.0
    assert point_source_snr([10.0], psf, variance)[0] == pytest.approx(10.0 * np.sqrt((p**2).sum() / variance), rel=0.01)
    exact = flux * np.sqrt((p**2 / (variance + flux * p)).sum())
    assert point_source_snr([flux], psf, variance)[0] == pytest.approx(exact, rel=0.03)


def test_neighbour_bias_against_a_direct_filter():
    fwhm = 0.8
    for separation in (1.5, 3.0, 6.0):
        sky = make_sky(separation, (1000.0, 5000.0))
        psf = psf_mixture([fwhm / 0.2], 0.0, 0.0)
        p, q = stamp(psf, 0.0, 0.0), stamp(psf, separation / 0.2, 0.0)
        direct = 5.0 * (p * q).sum() / (p * p).sum()
        assert neighbour_bias(sky, "flux_r", fwhm)[0] == pytest.approx(direct, rel=0.02)
    assert neighbour_bias(make_sky(30.0, (1.0, 1.0)), "flux_r", fwhm).max() == 0.0


def test_survey_truth_adds_visits_in_squares_and_flags_neighbours():
    columns = [Column("id", "i8", "", ""), Column("visit", "i8", "", ""), Column("snr", "f8", "", "")]
    truths = [Catalogue(columns, {"id": [4, 9], "visit": [1, 1], "snr": [30.0, 3.0]}),
              Catalogue(columns, {"id": [4], "visit": [2], "snr": [40.0]}),
              Catalogue(columns, {"id": [4], "visit": [3], "snr": [99.0]})]
    for separation, alone in ((1.0, [False, False]), (8.0, [True, False])):
        result = survey_truth(make_sky(separation, (1000.0, 100.0)), truths, {1: "r", 2: "r", 3: "g"}, {"r": 0.8})
        np.testing.assert_allclose(result["r_snr"], [50.0, 3.0])
        assert list(result["r_n"]) == [2, 1]
        assert list(result["r_isolated"]) == [alone[0], separation > 5.0]
