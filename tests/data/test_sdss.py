"""SDSS Stripe 82, two epochs in five bands: positions and zero points against the catalogue, depth of the two-epoch coadd."""

from __future__ import annotations

import numpy as np
import pytest

from blanksky import blank, psf_fluxes, room, stamp_of, with_sources
from rsp_hpc.io.coadd import read_coadd, read_tract
from rsp_hpc.io.fits import read_table
from rsp_hpc.io.objects import read_objects
from rsp_hpc.io.visit import read_visit_detector
from rsp_hpc.products.photocal import magnitude_of
from rsp_hpc.products.psf import stamp_moments
from rsp_hpc.report.robust import match_sky, offsets, width

pytestmark = pytest.mark.data

TRACT, PATCH, HALF = 9706, 1, 6
EPOCHS = {"u": (4192340304, 6377340403), "g": (4192540308, 6377540407), "r": (4192140300, 6377140399),
          "i": (4192240302, 6377240401), "z": (4192440306, 6377440405)}


@pytest.fixture(scope="module")
def store(reduced):
    return reduced("sdss-stripe82")


@pytest.fixture(scope="module")
def stars(rsp_data):
    table = read_table(rsp_data / "sdss-stripe82" / "ref_stars.fits")
    return {name: values[table["starnotgal"] == 1] for name, values in table.items()}


@pytest.mark.parametrize("band", EPOCHS)
@pytest.mark.parametrize("epoch", (0, 1))
def test_positions_and_zero_points(store, stars, figure, band, epoch):
    """Stars with S/N > 20 within 1" of a reference star; 4-sigma outliers (motion, blends) left out and counted."""
    sources = read_visit_detector(store.visit(EPOCHS[band][epoch]), "4").sources
    good = ~sources["psfFlux_flag"] & ~sources["centroid_flag"] & ~sources["pixelFlags_saturated"]
    sources = sources.rows(good & (sources["psfFlux"] > 20.0 * sources["psfFluxErr"]))
    i, j, _ = match_sky(sources["ra"], sources["dec"], stars["ra"], stars["dec"], 1.0)
    name = f"sdss_{band}_{EPOCHS[band][epoch] // 10**6}"
    for axis, values in zip(("ra", "dec"), offsets(sources["ra"][i], sources["dec"][i], stars["ra"][j], stars["dec"][j])):
        figure(f"{name}_rms_{axis}", clipped_rms(values), "arcsec", high=0.05)
    bright = (sources["psfFlux"][i] > 50.0 * sources["psfFluxErr"][i]) & (stars[f"{band}_err"][j] < 0.03)
    difference = magnitude_of(sources["psfFlux"][i[bright]]) - stars[band][j[bright]]
    figure(f"{name}_n_bright", float(bright.sum()), low=8)
    figure(f"{name}_zero_point_scatter", clipped_rms(difference - np.median(difference)), "mag",
           high=0.03 if band in "gri" else 0.06)
    figure(f"{name}_zero_point_error", abs(float(np.median(difference))), "mag", high=0.03 if band == "u" else 0.01)


@pytest.mark.parametrize("band", "gri")
@pytest.mark.parametrize("epoch", (0, 1))
def test_bright_magnitudes(store, stars, figure, band, epoch):
    """Aperture-corrected PSF magnitudes of bright stars against the catalogue, whose own errors are up to 0.02 mag."""
    sources = read_visit_detector(store.visit(EPOCHS[band][epoch]), "4").sources
    good = ~sources["psfFlux_flag"] & ~sources["centroid_flag"] & ~sources["pixelFlags_saturated"]
    sources = sources.rows(good & (sources["psfFlux"] > 50.0 * sources["psfFluxErr"]))
    i, j, _ = match_sky(sources["ra"], sources["dec"], stars["ra"], stars["dec"], 1.0)
    known = stars[f"{band}_err"][j] < 0.02
    difference = magnitude_of(sources["psfFlux"][i[known]]) - stars[band][j[known]]
    name = f"sdss_{band}_{EPOCHS[band][epoch] // 10**6}_bright_magnitudes"
    figure(name, clipped_rms(difference - np.median(difference)), "mag", high=0.02)


@pytest.mark.parametrize("band", EPOCHS)
@pytest.mark.parametrize("epoch", (0, 1))
def test_psf_against_psfield(rsp_data, store, figure, band, epoch):
    """The size of our PSF against the eigenimages of SDSS's own, fitted to several frames, over the frame."""
    visit = EPOCHS[band][epoch]
    psf = read_visit_detector(store.visit(visit), "4", sources=False).psf
    run = visit // 10**6
    path = next((rsp_data / "sdss-stripe82" / str(run)).glob(f"psField-{run:06d}-4-*.fit"))
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(150, 1900, 5), np.linspace(100, 1390, 5)))
    theirs = stamp_moments(psfield_stamps(path, "ugriz".index(band) + 1, x, y))
    size = np.sqrt(psf.moments(x, y)[:, :2].sum(axis=1) / theirs[:, :2].sum(axis=1)) - 1.0
    figure(f"sdss_{band}_{run}_psf_size_difference", abs(float(size.mean())), high=0.03 if band == "u" else 0.02)  # u: 20 stars
    figure(f"sdss_{band}_{run}_psf_size_scatter", float(size.std()), high=0.04)


def psfield_stamps(path, hdu: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, 51, 51): SDSS's PSF at pixels: eigenimages times polynomials of row and column (Lupton et al. 2001)."""
    fits = pytest.importorskip("astropy.io.fits")
    total = np.zeros((len(x), 51, 51))
    with fits.open(path) as file:
        for row in file[hdu].data:
            powers = row["C"].reshape(5, 5)
            weight = sum(powers[i, j] * (1e-3 * y) ** i * (1e-3 * x) ** j
                         for i in range(row["nrow_b"]) for j in range(row["ncol_b"]))
            total += weight[:, None, None] * np.asarray(row["RROWS"], float).reshape(51, 51)
    return total / total.sum(axis=(1, 2))[:, None, None]


def clipped_rms(values: np.ndarray) -> float:
    """Rms without what is beyond four robust sigma, at most a twentieth."""
    kept = np.abs(values - np.median(values)) <= 4.0 * max(width(values).value, 1e-9)
    assert kept.mean() > 0.9
    return float(np.sqrt(np.mean(values[kept] ** 2)))


@pytest.mark.parametrize("band", EPOCHS)
def test_two_epochs_are_deeper_than_one_as_expected(store, figure, band):
    """Noise of PSF fluxes on blank sky of the coadd (no source in it), in the coadd and in the better epoch.

    Expected: each epoch by its variance plane and PSF, the coadd by the epochs' variances (of sums over many pixels, which
    resampling does not change), its weights and its PSF. Both measured numbers contain the same faint unresolved sources; their
    variance is what the two epochs have in common, and is taken off.
    """
    combined, (_, tract) = with_sources(read_coadd(store.coadds(TRACT), band, PATCH)), read_tract(store.coadds(TRACT))
    stamp = stamp_of(np.nanmedian(combined.psf.cells.reshape(-1, *combined.psf.cells.shape[2:]), axis=0), HALF)
    y, x = np.nonzero(room(blank(combined.image, 6) & (combined.n_inputs == 2), HALF))
    x, y = x[::7], y[::7]
    deep, epochs = psf_fluxes(combined.image, stamp)[y, x], []
    sky = tract.pixel_to_sky(x + combined.image.box.x0, y + combined.image.box.y0)
    weights, variances, expected = combined.inputs["weight"], [], []
    for visit in combined.inputs["visit"]:
        epoch = read_visit_detector(store.visit(int(visit)), "4")
        own = stamp_of(epoch.psf.stamps(1024, 744)[0], HALF)
        epochs.append(_at(psf_fluxes(epoch.image, own) * epoch.photocal.scale, epoch.wcs.sky_to_pixel(*sky)))
        variance = np.median(epoch.image.variance[np.isfinite(epoch.image.variance)]) * epoch.photocal.scale**2
        variances.append(variance * (tract.pixel_scale / epoch.wcs.pixel_scale) ** 2)
        expected.append(np.sqrt(variance / (own**2).sum()))
    expected_deep = np.sqrt(np.sum(weights**2 * variances) / weights.sum() ** 2 / (stamp**2).sum())
    known = np.isfinite(epochs[0] + epochs[1] + deep)
    first, second, deep = epochs[0][known], epochs[1][known], deep[known]
    common = 0.25 * (width(first + second).value ** 2 - width(first - second).value ** 2)
    best = int(np.argmin(expected))
    measured = np.sqrt((width((first, second)[best]).value ** 2 - common) / (width(deep).value ** 2 - common))
    factor = expected[best] / expected_deep
    figure(f"sdss_{band}_depth_factor_expected", factor)
    figure(f"sdss_{band}_depth_factor_measured", measured)
    figure(f"sdss_{band}_depth_factor_ratio", measured / factor, low=0.97, high=1.03)


def _at(plane: np.ndarray, position) -> np.ndarray:
    """Values at the nearest pixels; NaN near the border and outside."""
    x, y = (np.rint(values).astype(int) for values in position)
    inside = (x >= HALF) & (y >= HALF) & (x < plane.shape[1] - HALF) & (y < plane.shape[0] - HALF)
    values = plane[np.clip(y, 0, plane.shape[0] - 1), np.clip(x, 0, plane.shape[1] - 1)]
    return np.where(inside, values, np.nan)


def test_colours_of_objects(store, stars, figure):
    """Objects of the coadds against the catalogue: PSF magnitudes of stars in all bands."""
    objects = read_objects(store.objects(TRACT))
    objects = objects.rows(objects["detect_isPrimary"] & (objects["deblend_nPeaks"] == 1))
    i, j, _ = match_sky(objects["coord_ra"], objects["coord_dec"], stars["ra"], stars["dec"], 0.7)
    for band in "gri":
        bright = (objects[f"{band}_psfFlux"][i] > 50.0 * objects[f"{band}_psfFluxErr"][i]) & (stars[f"{band}_err"][j] < 0.03)
        bright &= ~objects[f"{band}_pixelFlags_saturatedCenter"][i] & ~objects[f"{band}_psfFlux_flag"][i]
        difference = magnitude_of(objects[f"{band}_psfFlux"][i[bright]]) - stars[band][j[bright]]
        figure(f"sdss_{band}_objects_n", float(bright.sum()), low=20)
        figure(f"sdss_{band}_objects_scatter", clipped_rms(difference - np.median(difference)), "mag", high=0.03)
        figure(f"sdss_{band}_objects_offset", float(np.median(difference)), "mag", low=-0.01, high=0.01)
