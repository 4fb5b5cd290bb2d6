"""Small products with everything filled in, for the tests of `io`."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from rsp_hpc.products.background import Background
from rsp_hpc.products.box import Box
from rsp_hpc.products.calibration import CombinedFrames
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.coadd import Coadd
from rsp_hpc.products.electronics import BrighterFatter, Verdict
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.kinds import FIELDS, KINDS, CalibrationProduct
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


def calibration_content(kind: str, shape=(30, 40), n: int = 4):
    """The content of a calibration product, every field filled in."""
    rng = np.random.default_rng(5)
    cls, sizes = KINDS[kind].content, {"y": shape[0], "x": shape[1], "n": n, "m": n, "r": n}
    names = tuple(f"A{number}" for number in range(n))
    values = {}
    for item in fields(cls):
        if item.name in FIELDS[cls]:
            letters = FIELDS[cls][item.name].shape.split()
            array = rng.random([sizes.get(letter, 5) for letter in letters])
            wanted = {"used": bool if kind == "ptc" else np.int64, "variance": np.float32}.get(item.name, float)
            values[item.name] = (array > 0.9) if wanted is bool or kind == "defects" else array.astype(wanted)
        elif item.name in ("amplifiers", "sources"):
            values[item.name] = names
    if cls is CombinedFrames:
        values |= {"kind": kind, "image": values["image"].astype(np.float32), "noise": 5.5, "dark_time": 30.0, "inputs": ("a", "b"),
                   "band": "r" * KINDS[kind].per_band}
        values["image"][1, 2] = np.nan
    if cls is BrighterFatter:
        values["method"] = "electrostatic"
    return cls(**values)


def calibration_product(kind: str, shape=(30, 40)) -> CalibrationProduct:
    """A calibration product of a kind."""
    return CalibrationProduct(kind, "testcam", "D0", "one", calibration_content(kind, shape), "r" * KINDS[kind].per_band,
                              Verdict("suspect", ("few frames", "one is odd"), {"frames": 3.0, "noise [electron]": 5.5}),
                              60000.25, 60000.5, '{"binning": "1x1"}')
