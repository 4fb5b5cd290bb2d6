"""LSST's photon simulator: 16 raw amplifiers, two snaps, against the simulator's own input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blanksky import blank
from rsp_hpc.algorithms.background import evaluate_background
from rsp_hpc.algorithms.gains import borders
from rsp_hpc.config import load_yaml
from rsp_hpc.io.coadd import coadd_parts, read_coadd, read_tract
from rsp_hpc.io.fits import FitsFile, read_table
from rsp_hpc.io.objects import read_objects
from rsp_hpc.io.visit import read_visit_detector
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.mask import bits
from rsp_hpc.products.photocal import magnitude_of, nanojansky_of
from rsp_hpc.report.robust import match_sky, neighbours, offsets, width

pytestmark = pytest.mark.data

VISITS, NAME, DEPTH = (886894610, 886894611), "R23_S11", 16


@pytest.fixture(scope="module")
def store(reduced):
    return reduced("lsst-phosim")


@pytest.fixture(scope="module")
def snaps(store):
    return [read_visit_detector(store.visit(visit), NAME) for visit in VISITS]


@pytest.fixture(scope="module")
def stars(rsp_data):
    return read_table(rsp_data / "lsst-phosim" / "stars.fits")


@pytest.fixture(scope="module")
def detector():
    return load_camera(load_yaml("configs/cameras/lsst-phosim.yaml")).detector(NAME)


@pytest.fixture(scope="module")
def skies(snaps):
    """Of each snap: the detrended image with its sky, where it is blank, the noise of the sky."""
    found = []
    for snap in snaps:
        good = blank(snap.image, 4)
        noise = float(np.median(np.sqrt(snap.image.variance[good])))
        found.append((np.clip(snap.image.image, -4 * noise, 4 * noise) + evaluate_background(snap.background), good, noise))
    return found


def test_sky_of_all_amplifiers(skies, detector, figure):
    """Mean blank sky per amplifier after gains; no flat exists, so the vignetting over the detector is in it."""
    for number, (sky, good, _) in enumerate(skies):
        levels = []
        for amplifier in detector.amplifiers:
            at = amplifier.assembled_box.slices(detector.box)
            levels.append(sky[at][good[at]].mean(dtype=float))
        figure(f"phosim_{number}_amplifiers", float(len(levels)), low=16, high=16)
        figure(f"phosim_{number}_sky_largest_deviation", np.abs(np.array(levels) / np.mean(levels) - 1.0).max(), high=0.01)


def test_noise_is_the_variance_plane(snaps, figure):
    for number, snap in enumerate(snaps):
        good = blank(snap.image, 4)
        figure(f"phosim_{number}_pixel_pull_width", width((snap.image.image / np.sqrt(snap.image.variance))[good]).value,
               low=0.98, high=1.02)


def test_no_object_is_cut_at_a_border(skies, snaps, detector, figure):
    """Three ways to see a cut: a step of the sky, sources that end at the border, sources that sit on it."""
    for number, ((sky, good, noise), snap) in enumerate(zip(skies, snaps)):
        steps = []
        for border in borders(detector, DEPTH):
            near, far = (sky[at][good[at]].mean(dtype=float) for at in
                         (border.near.slices(detector.box), border.far.slices(detector.box)))
            steps.append((far - near) / noise)
        figure(f"phosim_{number}_largest_sky_step", float(np.abs(steps).max()), "sigma", high=0.06)
        detected = snap.image.mask & np.uint32(bits("DETECTED")) != 0
        ends = (detected[:, 1:] != detected[:, :-1]).sum(axis=0)
        columns = np.arange(1, 8) * 509 - 1
        expected = 7 * np.delete(ends, columns).mean()
        figure(f"phosim_{number}_source_ends_at_column_borders", (ends[columns].sum() - expected) / (np.sqrt(7) * ends.std()),
               "sigma", high=4.0)
        rows = (detected[1:] != detected[:-1]).sum(axis=1)
        figure(f"phosim_{number}_source_ends_at_the_row_border", (rows[1999] - rows.mean()) / rows.std(), "sigma", high=4.0)
        x, y = snap.sources["x"], snap.sources["y"]
        near = (np.abs(x[:, None] - (columns + 0.5)).min(axis=1) < 3.0) | (np.abs(y - 1999.5) < 3.0)
        expected = len(x) * (1.0 - (1.0 - 42.0 / 4072) * (1.0 - 6.0 / 4000))
        figure(f"phosim_{number}_sources_on_borders", (near.sum() - expected) / np.sqrt(expected), "sigma", low=-4.0, high=4.0)


def test_bright_stars_against_the_input(snaps, stars, figure):
    """Stars of r 17 to 20.5 (unsaturated, S/N > 50); without the one in a hundred that has a brighter neighbour within 3"."""
    crowded = np.zeros(len(stars["r"]), bool)
    i, j, _ = neighbours(stars["ra"], stars["dec"], stars["ra"], stars["dec"], 3.0)
    crowded[i[(i != j) & (stars["r"][j] < stars["r"][i] + 2.5)]] = True
    for number, snap in enumerate(snaps):
        sources = snap.sources.rows(~snap.sources["psfFlux_flag"] & ~snap.sources["pixelFlags_saturatedCenter"])
        i, j, _ = match_sky(sources["ra"], sources["dec"], stars["ra"], stars["dec"], 0.5)
        bright = (stars["r"][j] > 17.0) & (stars["r"][j] < 20.5) & ~crowded[j]
        i, j = i[bright], j[bright]
        figure(f"phosim_{number}_n_bright", float(len(i)), low=60)
        for axis, values in zip(("ra", "dec"), offsets(sources["ra"][i], sources["dec"][i], stars["ra"][j], stars["dec"][j])):
            figure(f"phosim_{number}_rms_{axis}", float(np.sqrt(np.mean(values**2))), "arcsec", high=0.06)
        difference = magnitude_of(sources["psfFlux"][i]) - stars["r"][j]
        figure(f"phosim_{number}_rms_magnitude", float(np.sqrt(np.mean(difference**2))), "mag", high=0.03)


def test_completeness_of_stars(store, stars, figure):
    """Input stars of expected S/N 7 to 14 and of 10 and more on the coadd: the share with an object within 0.6"."""
    expected, found = np.full(len(stars["r"]), np.nan), np.zeros(len(stars["r"]), bool)
    for tract in store.tracts():
        objects = read_objects(store.objects(tract))
        objects = objects.rows(objects["detect_isPrimary"])
        found[match_sky(stars["ra"], stars["dec"], objects["coord_ra"], objects["coord_dec"], 0.6)[0]] = True
        _, wcs = read_tract(store.coadds(tract))
        for patch, band in coadd_parts(store.coadds(tract)):
            _expect(expected, stars, read_coadd(store.coadds(tract), band, patch), wcs)
    for name, chosen in (("7_to_14", (expected > 7.0) & (expected < 14.0)), ("from_10", expected >= 10.0)):
        figure(f"phosim_stars_snr_{name}", float(chosen.sum()), low=25)
        figure(f"phosim_completeness_snr_{name}", float(found[chosen].mean()), low=0.95)


def _expect(expected: np.ndarray, stars, combined, wcs) -> None:
    """S/N of a PSF fit of each star on a coadd of both snaps, by its input magnitude and the variance plane."""
    box, variance = combined.image.box, combined.image.variance
    x, y = wcs.sky_to_pixel(stars["ra"], stars["dec"])
    inside = np.flatnonzero(np.isfinite(x + y) & box.grow(-20).contains(x, y))
    column, row = (np.rint(q[inside]).astype(int) - start for q, start in ((x, box.x0), (y, box.y0)))
    both = ndimage.minimum_filter(combined.n_inputs, 15)[row, column] == 2
    inside, row, column = inside[both], row[both], column[both]
    stamps = combined.psf.stamps(x[inside], y[inside]).astype(float)
    cells = combined.noise_correlation[combined.psf.index(x[inside], y[inside])]
    noise = np.sqrt(variance[row, column] * cells / (stamps**2).sum(axis=(1, 2)))
    expected[inside] = nanojansky_of(stars["r"][inside]) / noise


def test_snaps_agree(snaps, figure):
    """Fluxes in 12 pixels (the seeing differs by 14 %) of isolated sources of S/N 5 to 100; the brightest in magnitudes."""
    first, second = (snap.sources.rows(_clean(snap.sources)) for snap in snaps)
    i, j, _ = match_sky(first["ra"], first["dec"], second["ra"], second["dec"], 0.6)
    fluxes = first["ap12Flux"][i], second["ap12Flux"][j]
    errors = first["ap12FluxErr"][i], second["ap12FluxErr"][j]
    snr = fluxes[0] / errors[0]
    faint, pull = (snr > 5.0) & (snr < 100.0), (fluxes[0] - fluxes[1]) / np.hypot(*errors)
    estimate = width(pull[faint])
    figure("phosim_snaps_n", float(faint.sum()), low=500)
    figure("phosim_snaps_pull_width", estimate.value, low=0.95, high=1.05, error=estimate.error)
    figure("phosim_snaps_pull_median", float(np.median(pull[faint])), low=-0.2, high=0.2)
    bright = snr > 100.0
    figure("phosim_snaps_bright_difference", 1.0857 * float(np.median(fluxes[0][bright] / fluxes[1][bright] - 1.0)), "mag",
           low=-0.01, high=0.01)


def _clean(sources) -> np.ndarray:
    bad = sources["psfFlux_flag"] | sources["ap12Flux_flag"] | (sources["deblend_parentNPeaks"] > 1)
    for name in ("saturated", "cr", "edge", "interpolated", "bad"):
        bad |= sources[f"pixelFlags_{name}"]
    return ~bad


def test_listed_cosmic_rays_are_masked(snaps, rsp_data, figure):
    """CRXn and CRYn count rows and columns of the detector from one; a hit begins near there and is 1 to 30 pixels long."""
    masked = listed = 0
    for snap, number in zip(snaps, "01"):
        with FitsFile(rsp_data / "lsst-phosim" / "raw" / f"imsim_88689461_{NAME}_C04_E00{number}.fits.gz") as file:
            cards = file.header(0)
        hits = snap.image.mask & np.uint32(bits("CR")) != 0
        count = 1
        while f"CRX{count}" in cards:
            y, x = int(cards[f"CRX{count}"]), int(cards[f"CRY{count}"])
            masked += hits[max(y - 5, 0):y + 25, max(x - 5, 0):x + 25].any()
            listed, count = listed + 1, count + 1
    figure("phosim_cosmic_rays_listed", float(listed), low=24)
    figure("phosim_cosmic_rays_masked", masked / listed, low=0.95)
    chance = np.mean([ndimage.maximum_filter(snap.image.mask & np.uint32(bits("CR")) != 0, 30).mean() for snap in snaps])
    figure("phosim_cosmic_rays_masked_by_chance", float(chance), high=0.02)
