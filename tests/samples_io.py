"""Small products with everything filled in, for the tests of `io`."""

from __future__ import annotations

import numpy as np

from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.coadd import Coadd
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits
from rsp_hpc.products.photocal import PhotoCal
from rsp_hpc.products.psf import CellPsf, PolynomialPsf
from rsp_hpc.products.visit import VisitDetector
from rsp_hpc.products.wcs import Wcs


def masked_image(box: Box, seed: int = 1, unit: str = "electron") -> MaskedImage:
    """Noise of sigma 20 with a star, bad pixels, NaN and unknown variance."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, 20.0, box.shape).astype(np.float32)
    image[box.ny // 2, box.nx // 2] = 9e4
    mask = np.zeros(box.shape, np.uint32)
    mask[3:5, 6:9] = bits("CR", "INTRP")
    mask[7, 7] = bits("CR")
    variance = np.maximum(400.0 + image, 1.0).astype(np.float32)
    image[1, 2], variance[1, 2], mask[1, 2] = np.nan, np.inf, bits("NO_DATA")
    return MaskedImage(image, mask, variance, box, unit)


def catalogue(n: int, seed: int = 1) -> Catalogue:
    """n rows of four columns of different types."""
    rng = np.random.default_rng(seed)
    columns = [Column("id", "i8", "", "number"), Column("x", "f8", "pixel", "column"),
               Column("psfFlux", "f4", "electron", "PSF flux"), Column("psfFlux_flag", "bool", "", "failed")]
    return Catalogue(columns, {"id": np.arange(n) + 1000 * seed, "x": rng.uniform(0, 99, n),
                               "psfFlux": rng.normal(1e3, 1e2, n), "psfFlux_flag": rng.random(n) < 0.1})


def visit_detector(name: str = "R22_S11", number: int = 4, shape: tuple[int, int] = (70, 90)) -> VisitDetector:
    """A detector of visit 1234567."""
    box = Box.of_shape(shape)
    rng = np.random.default_rng(number)
    a = np.zeros((4, 4))
    a[2, 0] = 1e-7
    return VisitDetector(
        exposure=Exposure(1234567, "science", "r", 60000.5, 30.0, 31.0, 150.0, 2.2, 12.5, 1.1), detector=name,
        detector_id=number, image=masked_image(box, number), background=Background(
            np.full((2, 3), 800, np.float32), np.full((2, 3), 28, np.float32), 32, box),
        psf=PolynomialPsf(rng.random((3, 21, 21)), 1, box, 50, 1.02),
        wcs=Wcs((150.0, 2.2), (35.0, 45.0), ((-5e-5, 1e-7), (1e-7, 5e-5)), a, a.T.copy()),
        photocal=PhotoCal(12.3, 0.1, 40, 0.02), aperture_correction=1.03, sources=catalogue(17 + number, number),
        summary={"psf_fwhm": 3.4, "n_sources": 17 + number})


def coadd(band: str = "r", box: Box = Box(3000, 6000, 64, 48)) -> Coadd:
    """A coadd of one patch, with cells without input."""
    rng = np.random.default_rng(3)
    cells = rng.random((3, 4, 11, 11)).astype(np.float32)
    cells[0, 0] = np.nan
    return Coadd(band, masked_image(box, 2, "nJy"), rng.integers(0, 9, box.shape).astype(np.uint16),
                 CellPsf(cells, 16, box), np.full((3, 4), 1.3, np.float32), catalogue(5))


def same(first, second) -> bool:
    """Equality of dataclasses with arrays, NaN equal to NaN."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(first, Catalogue):
        columns = [[_plain(column) for column in table.columns.values()] for table in (first, second)]
        return columns[0] == columns[1] and all(same(first[name], second[name]) for name in first.columns)
    if hasattr(first, "__dataclass_fields__"):
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__)
    return first == second or (first != first and second != second)


def _plain(column: Column) -> tuple:
    return column.name, np.dtype(column.dtype), column.unit, column.doc
