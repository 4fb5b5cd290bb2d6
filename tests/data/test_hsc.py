"""HSC visit 1180, 102 CCDs: one solution of the focal plane from the raw headers' rough WCS, against Gaia at the epoch."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rsp_hpc.algorithms.astrometry import AstrometryConfig, fit_wcs, pair_by_wcs
from rsp_hpc.algorithms.focalplane import DetectorStars, FocalPlaneConfig, fit_focal_plane
from rsp_hpc.algorithms.statistics import robust_sigma
from rsp_hpc.errors import BadData
from rsp_hpc.io.fits import FitsFile
from rsp_hpc.io.refcat import read_columns
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.geometry import project
from rsp_hpc.products.reference import ReferenceCatalogue
from rsp_hpc.products.wcs import Wcs

pytestmark = pytest.mark.data

MJD, BOX = 56744.2909, Box(0, 0, 2048, 4176)
COLUMNS = [Column(name, "f8", "", "") for name in ("x", "y", "xErr", "yErr", "psfFlux", "psfFluxErr")]
PLACES = ("x", "y", "x_err", "y_err", "ra", "dec", "ra_err", "dec_err")


@pytest.fixture(scope="module")
def gaia(rsp_data):
    """Gaia at the epoch of the visit; the table has radians, and stars without motion are left out."""
    table = read_columns(rsp_data / "hsc-focal-plane" / "gaia_refCat.parquet")
    good = np.isfinite(table["coord_ra"] + table["pm_ra"] + table["parallax"])
    mas = {name: np.degrees(np.asarray(table[name], float)[good]) * 3.6e6 for name in (
        "coord_raErr", "coord_decErr", "pm_ra", "pm_dec", "pm_raErr", "pm_decErr", "parallax", "parallaxErr")}
    stars = ReferenceCatalogue(*(np.degrees(table[name][good]) for name in ("coord_ra", "coord_dec")),
                               *(mas[name] for name in list(mas)[:6]), float(table["epoch"][0]), np.ones(good.sum(), bool),
                               {"z": table["phot_g_mean_flux"][good]}, {"z": table["phot_g_mean_fluxErr"][good]},
                               mas["parallax"], mas["parallaxErr"])
    return stars.at_epoch(MJD)


@pytest.fixture(scope="module")
def visit(rsp_data, gaia):
    """(guess, sources, own matches) of each CCD. The files have no fluxes: the inverse of the position's variance stands in."""
    found = []
    for path in sorted((rsp_data / "hsc-focal-plane").glob("1180_*.fits"), key=lambda path: int(path.stem.split("_")[1])):
        with FitsFile(path) as file:
            guess, table = Wcs.from_header({**file.header(0), "RADESYS": "ICRS"}), file.table(1)
        x, y, x_err, y_err = (np.asarray(table[name], float) for name in ("x", "y", "xErr", "yErr"))
        sources = Catalogue(COLUMNS, dict(zip((c.name for c in COLUMNS), (x, y, x_err, y_err, x_err**-2, 1.0 / x_err))))
        try:
            fit = fit_wcs(sources, gaia, guess, BOX, AstrometryConfig(), "z")
            rows = fit.sources, fit.reference
        except BadData:
            rows = np.zeros(0, int), np.zeros(0, int)
        found.append((guess, sources, rows))
    return found


def stars_of(guess, sources, gaia, rows) -> DetectorStars:
    s, r = rows
    return DetectorStars(guess, BOX, *(sources[name][s] for name in ("x", "y", "xErr", "yErr")), gaia.ra[r], gaia.dec[r],
                         gaia.ra_err[r] / 1e3, gaia.dec_err[r] / 1e3)


@pytest.fixture(scope="module")
def detectors(visit, gaia):
    """The stars of each CCD that a first solution of all finds."""
    first = fit_focal_plane([stars_of(guess, sources, gaia, rows) for guess, sources, rows in visit], FocalPlaneConfig())
    assert first.strangers() == []
    near = [gaia.around(first.wcs(i), BOX, 2.0) for i in range(len(visit))]
    return [stars_of(guess, sources, near[i], pair_by_wcs(sources, near[i], first.wcs(i), 0.15, AstrometryConfig()))
            for i, (guess, sources, _) in enumerate(visit)]


def test_one_solution_of_the_focal_plane(visit, detectors, figure):
    figure("hsc_detectors_matched_alone", float(sum(len(rows[0]) > 0 for *_, rows in visit)), low=100)
    start = time.process_time()
    fit = fit_focal_plane(detectors, FocalPlaneConfig())
    figure("hsc_seconds", time.process_time() - start, "s", high=30.0)
    figure("hsc_stars", float(fit.n_stars), low=1500)
    figure("hsc_stars_left_out", 1.0 - fit.n_stars / sum(map(len, detectors)), high=0.05)
    for axis, left, errors in (("ra", fit.east, fit.east_err), ("dec", fit.north, fit.north_err)):
        left, errors, kept = np.concatenate(left), np.concatenate(errors), np.concatenate(fit.kept)
        bright = kept & (errors < 0.004)
        figure(f"hsc_rms_{axis}_bright", 1e3 * float(np.sqrt(np.mean(left[bright] ** 2))), "mas", high=8.0)
        figure(f"hsc_pull_{axis}", float(np.std(left[kept] / np.hypot(errors[kept], fit.scatter / 1e3))), low=0.6, high=1.1)
    figure("hsc_scatter", fit.scatter, "mas", low=3.0, high=12.0)
    for i in (0, 50, 101):  # what is stored is the solution
        x, y = np.random.default_rng(i).uniform((0, 0), (2048, 4176), (300, 2)).T
        xi, eta = project(*fit.wcs(i).pixel_to_sky(x, y), *fit.sky(i, x, y))
        assert 3.6e6 * np.hypot(xi, eta).max() < 0.2


def test_stars_that_were_not_fitted_are_where_the_errors_say(detectors, figure):
    """A fifth of the stars is predicted by the others: offsets, and their pull with centroid, Gaia, atmosphere and solution."""
    rng = np.random.default_rng(1180)
    reserve = [rng.random(len(d)) < 0.2 for d in detectors]
    fit = fit_focal_plane([subset(d, ~out) for d, out in zip(detectors, reserve)], FocalPlaneConfig())
    offsets, pulls = [], []
    for i, (d, out) in enumerate(zip(detectors, reserve)):
        d = subset(d, out)
        xi, eta = project(d.ra, d.dec, *fit.sky(i, d.x, d.y))
        for side, err, pixel, share in zip((xi, eta), (d.ra_err, d.dec_err), (d.y_err, d.x_err), fit.error(i, d.x, d.y)):
            offsets.append(3.6e6 * side)
            pulls.append(3600.0 * side / np.sqrt(err**2 + (0.168 * pixel) ** 2 + share**2 + (fit.scatter / 1e3) ** 2))
    offsets, pulls = np.concatenate(offsets), np.concatenate(pulls)
    figure("hsc_reserve_offsets", robust_sigma(offsets), "mas", high=13.0)
    figure("hsc_reserve_pull", robust_sigma(pulls), low=0.85, high=1.15)


def subset(d: DetectorStars, rows) -> DetectorStars:
    return DetectorStars(d.guess, d.box, *(getattr(d, name)[rows] for name in PLACES))
