"""A small made-up survey as the report's plain inputs: Gaussian PSFs, known noise, objects drawn about the truth."""

from __future__ import annotations

import numpy as np

from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.photocal import PhotoCal
from rsp_hpc.products.psf import PolynomialPsf
from rsp_hpc.products.visit import VisitDetector
from rsp_hpc.products.wcs import Wcs
from rsp_hpc.report.images import psf_sample
from rsp_hpc.report.inputs import Failure, Inputs, PatchArea, Picture, Span, StageState, Timing
from rsp_hpc.report.metrics import Truth
from rsp_hpc.report.visits import VisitRow

SCALE, CENTER, SIZE, PATCH = 0.5, (56.65, -36.45), 800, 400
BANDS = ("g", "r", "i")
NOISE = {"g": 60.0, "r": 80.0, "i": 120.0}


def tangent(ra=CENTER[0], dec=CENTER[1], size=SIZE) -> Wcs:
    step = SCALE / 3600.0
    return Wcs((ra, dec), (0.5 * (size - 1), 0.5 * (size - 1)), ((-step, 0.0), (0.0, step)))


def gaussian(size: int, sigma: float, dx: float = 0.0, dy: float = 0.0, shear: float = 0.0) -> np.ndarray:
    half = size // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(float)
    stamp = np.exp(-0.5 * (((x - dx) / (sigma * (1 + shear))) ** 2 + ((y - dy) / (sigma * (1 - shear))) ** 2))
    return stamp / stamp.sum()


def make_truth(rng, n: int = 900) -> Truth:
    x, y = rng.uniform(5, SIZE - 5, (2, n))
    ra, dec = tangent().pixel_to_sky(x, y)
    star = rng.random(n) < 0.5
    base = NOISE["r"] * 10 ** rng.uniform(0.0, 2.8, n)
    colour = rng.normal(0.0, 0.3, n)
    flux = {band: base * np.exp(slope * colour + 0.1 * slope) for band, slope in zip(BANDS, (-1.0, 0.0, 1.0))}
    return Truth(ra, dec, star, np.where(star, 0.0, rng.uniform(0.3, 0.9, n)), flux,
                 {band: np.full(n, NOISE[band]) for band in BANDS}, dict.fromkeys(BANDS, 0.45), np.ones(n, bool))


def make_objects(rng, truth: Truth) -> Catalogue:
    best, _ = truth.best()
    seen = np.nonzero(rng.random(len(truth)) < 1.0 / (1.0 + np.exp(-3.0 * (best - 5.0))))[0]
    x, y = tangent().sky_to_pixel(truth.ra[seen], truth.dec[seen])
    error = 0.5 / best[seen]
    east = error * rng.normal(size=len(seen)) / 3600
    arrays = {"coord_ra": truth.ra[seen] + east / np.cos(np.radians(truth.dec[seen])),
              "coord_dec": truth.dec[seen] + error * rng.normal(size=len(seen)) / 3600,
              "coord_raErr": error / 3600, "coord_decErr": error / 3600,
              "tract": np.where(x < PATCH, 1181, 1182), "patch": 2 * (y >= PATCH).astype(int) + (x >= PATCH)}
    kinds = {"tract": "i8", "patch": "i8"}
    for band in BANDS:
        arrays[f"{band}_psfFlux"] = truth.flux[band][seen] + NOISE[band] * rng.normal(size=len(seen))
        arrays[f"{band}_psfFluxErr"] = np.full(len(seen), NOISE[band])
        arrays[f"{band}_sizeExtendedness"] = np.clip(
            np.where(truth.is_star[seen], 0.0, 1.0) + rng.normal(size=len(seen)) * 4.0 / best[seen], 0.0, 1.0)
    arrays["refExtendedness"] = arrays["r_sizeExtendedness"]
    return Catalogue([Column(name, kinds.get(name, "f8"), "", "") for name in arrays], arrays)


def make_visit_detector(rng, visit=1, band="r", fwhm=3.2, n_stars=40, model_fwhm=None) -> VisitDetector:
    """A detector with Gaussian stars at any sub-pixel place and a PSF model of `model_fwhm` (default: the true one)."""
    ny = nx = 300
    box, sigma = Box(0, 0, nx, ny), fwhm / 2.3548
    image = rng.normal(0.0, 10.0, (ny, nx))
    side = int(np.ceil(np.sqrt(n_stars)))
    k = np.arange(n_stars)
    step = (nx - 50) / max(side - 1, 1)
    x, y = (25 + step * axis + rng.uniform(-2, 2, n_stars) for axis in (k % side, k // side))
    flux = rng.uniform(2e4, 2e5, n_stars)
    for x0, y0, f in zip(x, y, flux):
        column, row = round(x0), round(y0)
        image[row - 15:row + 16, column - 15:column + 16] += f * gaussian(31, sigma, x0 - column, y0 - row)
    planes = MaskedImage(image.astype(np.float32), np.zeros((ny, nx), np.uint32), np.full((ny, nx), 100.0, np.float32),
                         box)
    psf = PolynomialPsf(gaussian(21, (model_fwhm or fwhm) / 2.3548)[None], 0, box, n_stars, 1.0)
    sources = {"x": x, "y": y, "psfFlux": flux, "psfFluxErr": np.full(n_stars, 60.0),
               "calib_psf_used": np.ones(n_stars, bool)}
    catalogue = Catalogue([Column(name, "?" if name.startswith("calib") else "f8", "", "") for name in sources],
                          sources)
    background = Background(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32), 300, box)
    return VisitDetector(Exposure(visit, "science", band, 60000.0 + 0.01 * visit, 30.0, 30.0), "S00", 0, planes,
                         background, psf,
                         tangent(size=nx), PhotoCal(60.0, 0.1), 1.0, catalogue)


def make_visits(rng) -> list[VisitRow]:
    rows = []
    for visit in range(12):
        band = BANDS[visit % 3]
        seeing = rng.uniform(0.9, 1.5)
        dx, dy = rng.uniform(-40, 40, 2)
        for k, detector in enumerate(("S00", "S01", "S10", "S11")):
            box = Box(int(20 + dx + 390 * (k % 2)), int(20 + dy + 390 * (k // 2)), 380, 380)
            corners = np.stack(tangent().pixel_to_sky(*box.corners().T), axis=-1)
            psf = psf_sample(make_visit_detector(rng, visit, band, seeing / SCALE + 0.05 * k, 12))
            values = {"seeing": seeing + 0.02 * k, "sky": rng.uniform(500, 700),
                      "zero_point": 27.0 + 0.02 * rng.normal(),
                      "zero_point_err": 0.004, "zero_point_scatter": rng.uniform(0.01, 0.02),
                      "depth": rng.uniform(23.1, 23.4),
                      "astrometric_rms_east": rng.uniform(8, 12), "astrometric_rms_north": rng.uniform(8, 12),
                      "n_sources": 400.0 + k, "n_stars": 60.0}
            values["true_zero_point"] = values["zero_point"] - 0.004 * rng.normal()
            rows.append(VisitRow(1000 + visit, detector, band, 60000.0 + 0.01 * visit, corners,
                                 (4.0 * (k % 2), 4.0 * (k // 2)),
                                 values, psf))
    return rows


def make_picture(rng, truth: Truth) -> Picture:
    box, images = Box(0, 0, SIZE, SIZE), {}
    x, y = tangent().sky_to_pixel(truth.ra, truth.dec)
    for band in BANDS:
        image = rng.normal(0.0, NOISE[band] / 6.0, (SIZE + 40, SIZE + 40))
        for k in range(len(truth)):
            column, row = round(float(x[k])) + 20, round(float(y[k])) + 20
            sigma = np.hypot(0.45, truth.sigma[k]) / SCALE
            image[row - 15:row + 16, column - 15:column + 16] += truth.flux[band][k] * gaussian(
                31, sigma, float(x[k]) - round(float(x[k])), float(y[k]) - round(float(y[k])))
        images[band] = image[20:-20, 20:-20].astype(np.float32)
    images["g"][:, 780:] = np.nan
    inner = [(f"patch {p}", Box(PATCH * (p % 2), PATCH * (p // 2), PATCH, PATCH)) for p in range(4)]
    return Picture("Tract 1181", images, box, 1, tangent(), inner, [np.array([[400.0, 0.0], [400.0, 800.0]])])


def make_inputs(seed: int = 3, pictures: bool = True) -> Inputs:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng)
    stages = ("ingest", "calibs", "visits", "coadds", "objects")
    timings = [Timing(stage, rank, {"compute": rng.uniform(5, 9) * (k + 1), "read": rng.uniform(0.5, 2),
                                    "write": rng.uniform(0, 2),
                                    "wait": rng.uniform(0, 2)}) for k, stage in enumerate(stages) for rank in range(4)]
    spans, clock = [], np.zeros(4)
    for stage in stages:
        for part in range(12):
            rank, length = int(np.argmin(clock)), rng.uniform(1, 4)
            spans.append(Span(stage, rank, str(part), clock[rank], clock[rank] + length))
            clock[rank] += length
        clock[:] = clock.max()
    corners = [(p, Box(PATCH * (p % 2), PATCH * (p // 2), PATCH, PATCH).corners()) for p in range(4)]
    patches = [PatchArea(1181 + p % 2, p, np.stack(tangent().pixel_to_sky(*c.T), axis=-1)) for p, c in corners]
    return Inputs("synthetic", BANDS, make_objects(rng, truth), truth, make_visits(rng), [],
                  [make_picture(rng, truth)] if pictures else [], patches, [StageState(s, 12, 12) for s in stages],
                  [Failure("visits", "1003", "S11", "BadData", "all pixels are saturated; leave this detector out")],
                  timings, spans, [], "survey: synthetic\nvisits:\n  seed: 3\n",
                  {"numpy": np.__version__, "rsp_hpc": "0"})
