"""Measured values against truth: bias and pulls over S/N, galaxies, neighbours, flags."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.sources import flux_of, grid, psf_of, pull_width, star_image
from scipy.spatial import cKDTree

from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.algorithms.measure import MeasureConfig, measure, measure_forced
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import CellPsf

CONFIG = MeasureConfig(radii=(3.0, 12.0))


@pytest.fixture(scope="module")
def stars():
    """676 isolated stars of S/N 5 to 500, measured at their true and at fitted positions."""
    x, y = grid(26, 36.0)
    psf = psf_of(3.3, Box(0, 0, 950, 950))
    snr = np.exp(np.random.default_rng(1).uniform(np.log(5), np.log(500), len(x)))
    flux = flux_of(snr, psf)
    image = star_image((950, 950), x, y, flux, fwhm=3.3, seed=4)
    detections = detect(image, psf, DetectConfig())
    fitted = measure(image, detections, None, psf, CONFIG)
    distance, match = cKDTree(np.stack([x, y], axis=1)).query(np.stack([fitted["x"], fitted["y"]], axis=1))
    good = distance < 3.0
    forced = measure_forced(image, None, None, x, y, psf, CONFIG)
    return {"x": x, "y": y, "flux": flux, "snr": snr, "fitted": fitted.rows(good), "match": match[good], "forced": forced}


@pytest.mark.parametrize("low,high", [(5, 15), (15, 60), (60, 500)])
def test_pulls_are_of_unit_width(stars, low, high):
    rows = (stars["snr"] > low) & (stars["snr"] < high)
    pull = (stars["forced"]["psfFlux"] - stars["flux"]) / stars["forced"]["psfFluxErr"]
    sampling = 1.3 / np.sqrt(rows.sum())
    assert pull_width(pull[rows]) == pytest.approx(1.0, abs=0.06 + 2 * sampling)
    assert abs(np.median(pull[rows])) < 0.1 + 2 * sampling
    fitted, match = stars["fitted"], stars["match"]
    rows = (stars["snr"][match] > max(low, 8)) & (stars["snr"][match] < high)
    for axis in "xy":
        pull = (fitted[axis] - stars[axis][match]) / fitted[axis + "Err"]
        assert pull_width(pull[rows]) == pytest.approx(1.0, abs=0.06 + 2 * sampling)
        assert abs(np.median(pull[rows])) < 0.1 + 2 * sampling


def test_bright_stars_have_no_bias(stars):
    fitted, match = stars["fitted"], stars["match"]
    bright = stars["snr"][match] > 50
    ratio = fitted["psfFlux"][bright] / stars["flux"][match][bright]
    assert abs(np.median(ratio) - 1.0) < 0.003
    assert abs(np.mean((fitted["x"] - stars["x"][match])[bright])) < 0.01
    assert not fitted["psfFlux_flag"].any() and not fitted["centroid_flag"][bright].any()
    assert (fitted["ixxErr"][bright] > 0).all()
    assert pull_width(((fitted["ixx"] - fitted["ixxPSF"]) / fitted["ixxErr"])[bright]) == pytest.approx(1.0, abs=0.25)
    assert fitted["sizeExtendedness"][bright].mean() < 0.2


def test_columns_carry_units_and_flags(stars):
    columns = stars["fitted"].columns
    for name, unit in (("psfFlux", "electron"), ("ap03Flux", "electron"), ("ap12FluxErr", "electron"), ("x", "pixel"),
                       ("ixx", "pixel**2"), ("kronRad", "pixel")):
        assert columns[name].unit == unit
    for flag in ("psfFlux_flag", "ap03Flux_flag", "kronFlux_flag", "i_flag", "extendedness_flag", "pixelFlags_saturatedCenter",
                 "pixelFlags_edge", "centroid_flag", "pixelFlags_crCenter", "pixelFlags_interpolatedCenter"):
        assert columns[flag].dtype == "?"
    assert all(column.doc for column in columns.values())


def test_galaxies_are_extended_and_kron_holds_their_light():
    x, y = grid(6, 60.0)
    image = star_image((380, 380), x, y, np.full(36, 40000.0), fwhm=5.5)  # broader than the PSF
    psf = psf_of(3.5, image.box)
    table = measure(image, detect(image, psf, DetectConfig()), None, psf, CONFIG)
    assert len(table) == 36 and (table["extendedness"] == 1.0).all()
    assert np.median(table["kronFlux"]) == pytest.approx(40000.0, rel=0.06)
    assert np.median(table["psfFlux"]) < 0.85 * 40000.0


def test_masked_pixels_show_in_flags():
    x, y = np.array([30.0, 80.0, 130.0, 180.0, 0.4]), np.full(5, 40.0)
    image = star_image((80, 210), x, y, np.full(5, 20000.0))
    psf = psf_of(3.5, image.box)
    image.mask[40, 30] |= bits("SAT", "INTRP")
    image.mask[38:43, 84] = bits("CR", "INTRP")
    image.mask[30:50, 130:] |= bits("NO_DATA") * (np.arange(210)[130:] < 140).astype(np.uint32)
    table = measure_forced(image, None, None, x, y, psf, CONFIG)
    assert table["pixelFlags_saturatedCenter"].tolist() == [True, False, False, False, False]
    assert table["pixelFlags_interpolatedCenter"][0] and not table["pixelFlags_crCenter"].any()
    assert table["psfFlux_flag"].tolist() == [False, False, True, False, True]
    assert table["ap12Flux_flag"].tolist() == [False, False, True, False, True]
    assert table["ap03Flux_flag"].tolist() == [False, False, True, False, True]


def test_missing_psf_and_positions_off_the_image():
    image = star_image((60, 60), [30.0], [30.0], [20000.0])
    nothing = CellPsf(np.full((1, 1, 21, 21), np.nan, np.float32), 60, image.box)
    table = measure_forced(image, None, None, [30.0, -20.0], [30.0, 30.0], nothing, CONFIG)
    assert table["invalidPsfFlag"][0] and np.isnan(table["psfFlux"]).all() and table["psfFlux_flag"].all()
    assert np.isfinite(table["ap03Flux"][0]) and np.isnan(table["ap03Flux"][1]) and table["ap03Flux_flag"][1]
    assert table["pixelFlags_offimage"].tolist() == [False, True]


def test_nothing_to_measure_gives_an_empty_table():
    image = star_image((60, 60), [], [], [])
    table = measure(image, detect(image, psf_of(3.5, image.box), DetectConfig(threshold=50.0)), None,
                    psf_of(3.5, image.box), CONFIG)
    assert len(table) == 0 and "psfFlux" in table


def test_detections_of_another_image_are_refused():
    image = star_image((60, 60), [30.0], [30.0], [20000.0])
    detections = detect(image, psf_of(3.5, image.box), DetectConfig())
    with pytest.raises(BadData, match="do not belong"):
        measure(star_image((70, 60), [], [], []), detections, None, psf_of(3.5, image.box), CONFIG)


def test_local_background_is_that_about_the_source():
    x, y = grid(6, 60.0)
    image = star_image((380, 380), x, y, np.full(36, 20000.0))
    image.image += 3.0
    psf = psf_of(3.5, image.box)
    table = measure(image, detect(image, psf, DetectConfig()), None, psf, CONFIG)
    pull = (table["localBackground"] - 3.0) / table["localBackgroundErr"]
    assert len(table) == 36 and abs(np.mean(pull)) < 0.7 and 0.7 < np.std(pull) < 1.4  # faint wings count as sky
    assert not table["localBackground_flag"].any()
    image.mask[:, 100:] |= bits("NO_DATA")
    lost = measure_forced(image, None, None, [50.0, 130.0], [50.0, 50.0], psf, CONFIG)
    assert lost["localBackground_flag"].tolist() == [False, True] and np.isnan(lost["localBackground"][1])
