"""ARCSAT's raw M13 with its own bias, dark and flats: the noise of blank sky, in frames and in coadds; what agrees between visits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from blanksky import blank, room, with_sources
from rsp_hpc.algorithms.coadd import CoaddConfig, coadd
from rsp_hpc.algorithms.photometry import RelativeConfig, relative_scales
from rsp_hpc.algorithms.warp import WarpConfig, warp
from rsp_hpc.io.library import Library
from rsp_hpc.io.coadd import coadd_parts, read_coadd, read_tract
from rsp_hpc.io.objects import read_objects
from rsp_hpc.io.visit import read_visit_detector
from rsp_hpc.report.robust import match_sky, offsets, width

pytestmark = pytest.mark.data

CENTER, CORE = (250.4235, 36.4613), 400.0  # deg; pixels about M13 that are never blank


@pytest.fixture(scope="module")
def store(reduced):
    return reduced("arcsat-m13")


@pytest.fixture(scope="module")
def visits(store):
    return [read_visit_detector(store.visit(visit), "CCD") for visit in store.visits()]


@pytest.fixture(scope="module")
def matched(visits):
    """band -> its visits with the relative zero points that the coadds use."""
    bands = {}
    for band in "griz":
        mine = [visit for visit in visits if visit.exposure.band == band]
        scales = relative_scales([visit.sources for visit in mine], RelativeConfig())
        bands[band] = [(replace(visit, photocal=replace(visit.photocal, scale=visit.photocal.scale * scale)), float(scale))
                       for visit, scale in zip(mine, scales)]
    return bands


def outside(image, wcs, margin: int) -> np.ndarray:
    """Blank pixels, the cluster left out."""
    x, y = wcs.sky_to_pixel(*CENTER)
    rows, columns = np.ogrid[image.box.y0:image.box.y1, image.box.x0:image.box.x1]
    return blank(image, margin) & (np.hypot(columns - x, rows - y) > CORE)


def test_all_frames_are_used(store, visits, figure):
    found = {path.parent.parent.name for path in Library(store.calibs).products()}
    assert found == {"bias", "dark", "defects", *(f"flat-{band}" for band in "griz")}
    figure("arcsat_visits", float(len(visits)), low=12, high=12)
    for band, number in zip("griz", (2, 3, 3, 4)):
        assert sum(visit.exposure.band == band for visit in visits) == number


def test_noise_of_frames_is_the_variance_plane(visits, figure):
    """Pull of the difference of neighbouring blank pixels: faint stars of the cluster, which are smooth, are not noise."""
    for visit in visits:
        good = outside(visit.image, visit.wcs, 5)
        good = good[:, 1:] & good[:, :-1]
        value, variance = visit.image.image, visit.image.variance
        pull = (value[:, 1:] - value[:, :-1])[good] / np.sqrt((variance[:, 1:] + variance[:, :-1])[good])
        estimate = width(pull)
        name = f"arcsat_{visit.exposure.band}_{visit.exposure.visit % 10**6}"
        figure(f"{name}_noise_over_variance_plane", estimate.value, low=0.95, high=1.05, error=estimate.error)
        figure(f"{name}_with_faint_stars", width((value / np.sqrt(variance))[outside(visit.image, visit.wcs, 5)]).value, high=1.1)


@pytest.mark.parametrize("band", "griz")
def test_noise_of_coadds_is_the_variance_plane(store, matched, figure, band):
    """The coadd of half of the visits less that of the other half, where the coadd of all is blank: no faint stars are left.

    Pull of single pixels by the variance planes. Pull of sums of 5 x 5 pixels, less those 8 pixels aside (fringes of the sky,
    which are no noise, differ little there), by these planes and the coadds' noise correlation.
    """
    number, wcs = read_tract(store.coadds(store.tracts()[0]))
    mine = [visit for visit, _ in matched[band]]
    pixel, sums = [], []
    for patch, found in coadd_parts(store.coadds(number)):
        if found != band:
            continue
        whole = with_sources(read_coadd(store.coadds(number), band, patch))
        box = whole.image.box
        warps = [warp(visit, wcs, box, WarpConfig(cell=whole.psf.cell)) for visit in mine]
        if None in warps:
            continue
        halves = [coadd(band, warps[start::2], box, CoaddConfig()) for start in (0, 1)]
        good = outside(whole.image, wcs, 4) & (whole.n_inputs == len(mine))
        good &= np.all([np.isfinite(half.image.variance) & np.isfinite(half.image.image) for half in halves], axis=0)
        difference = np.where(good, halves[0].image.image - halves[1].image.image, 0.0).astype(float)
        plain, smooth = _variances(halves, good)
        pixel.append((difference / np.sqrt(plain))[good])
        at, total, variance = room(good, 2), 25.0 * uniform_filter(difference, 5), 25.0 * uniform_filter(smooth, 5)
        for aside in (lambda plane: (plane[::3, 8::3], plane[::3, :-8:3]), lambda plane: (plane[8::3, ::3], plane[:-8:3, ::3])):
            (one, other), (known, there) = aside(total), aside(at)
            sums.append(((one - other) / np.sqrt(sum(aside(variance))))[known & there])
    for name, values, neighbours in (("pixel", pixel, 1.0), ("correlated", sums, 2.0)):
        value, error, _ = width(np.concatenate(values))
        error *= neighbours  # windows overlap
        figure(f"arcsat_{band}_coadd_{name}_noise_over_variance_plane", value, low=0.95 - error, high=1.05 + error, error=error)


def _variances(halves, good) -> tuple[np.ndarray, np.ndarray]:
    """Variance of a pixel of the halves' difference, and the same times the noise correlation of its cell; one elsewhere."""
    rows, columns = (np.arange(side) // halves[0].psf.cell for side in good.shape)
    plain = sum(half.image.variance.astype(float) for half in halves)
    smooth = sum(half.image.variance * half.noise_correlation[np.ix_(rows, columns)].astype(float) for half in halves)
    return np.where(good, plain, 1.0), np.where(good, smooth, 1.0)


@pytest.mark.parametrize("band", "griz")
def test_visits_agree_without_a_catalogue(matched, figure, band):
    """Relative zero points come from PSF fluxes; here the fluxes in 6 pixels, which they do not know, and the header's WCS."""
    (first, scale), *others = matched[band]
    figure(f"arcsat_{band}_0_lost", 1.0857 * np.log(scale), "mag", high=1.0)
    for number, (other, scale) in enumerate(others, 1):
        name = f"arcsat_{band}_{number}"
        a, b = (visit.sources.rows(_bright(visit.sources)) for visit in (first, other))
        i, j, _ = match_sky(a["ra"], a["dec"], b["ra"], b["dec"], 1.0)
        ratio = b["ap06Flux"][j] / a["ap06Flux"][i] * scale / matched[band][0][1]
        figure(f"{name}_stars", float(len(i)), low=50)
        figure(f"{name}_lost", 1.0857 * np.log(scale), "mag", high=1.0)
        figure(f"{name}_zero_point_difference", 1.0857 * float(np.log(np.median(ratio))), "mag", low=-0.03, high=0.03)
        for axis, values in zip(("ra", "dec"), offsets(b["ra"][j], b["dec"][j], a["ra"][i], a["dec"][i])):
            figure(f"{name}_offset_{axis}", float(np.median(values)), "arcsec", low=-0.2, high=0.2)


def _bright(sources) -> np.ndarray:
    bad = sources["psfFlux_flag"] | sources["pixelFlags_saturated"] | sources["pixelFlags_edge"]
    return ~bad & (sources["psfFlux"] > 100.0 * sources["psfFluxErr"])


def test_objects_in_four_bands(store, figure):
    objects = read_objects(store.objects(store.tracts()[0]))
    objects = objects.rows(objects["detect_isPrimary"])
    figure("arcsat_objects", float(len(objects)), low=3000)
    good = np.all([objects[f"{band}_psfFlux"] > 20.0 * objects[f"{band}_psfFluxErr"] for band in "griz"], axis=0)
    figure("arcsat_objects_with_four_bands", float(good.sum()), low=500)
