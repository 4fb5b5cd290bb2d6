"""The output folder as the report reads it: the one place that knows which io function opens which product."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from ..errors import BadData
from ..io.coadd import coadd_parts, read_coadd
from ..io.fits import read_table
from ..io.objects import read_objects
from ..io.paths import Store
from ..io.product import open_product
from ..io.records import read_array
from ..io.table import read_catalogue
from ..io.visit import read_visit_detector, read_visit_lean, visit_detector_names
from ..products.catalogue import Catalogue
from ..products.coadd import Coadd
from ..products.visit import VisitDetector

__all__ = ["Folder", "read_columns"]

OBJECT_COLUMNS = ("objectId", "tract", "patch", "coord_ra", "coord_dec", "coord_raErr", "coord_decErr",
                  "detect_isPrimary", "refExtendedness", "refBand")
BAND_COLUMNS = ("psfFlux", "psfFluxErr", "psfFlux_flag", "pixelFlags_inexact_psfCenter", "pixelFlags_saturatedCenter",
                "extendedness", "sizeExtendedness")


class Folder:
    """Products of one run, read one at a time."""

    def __init__(self, store: Store):
        self.store = store

    def visits(self) -> list[int]:
        """Numbers of the finished visits."""
        return self.store.visits()

    def detectors(self, visit: int) -> list[str]:
        """Names of a visit's detectors."""
        return visit_detector_names(self.store.visit(visit))

    def visit(self, visit: int, detector: str, pixels: bool) -> VisitDetector:
        """One detector of a visit, with or without pixels and sources."""
        read = read_visit_detector if pixels else read_visit_lean
        return read(self.store.visit(visit), detector)

    def tracts(self) -> list[int]:
        """Numbers of the tracts that have coadds."""
        return self.store.tracts("coadds")

    def patches(self, tract: int) -> list[tuple[int, str]]:
        """(patch, band) of the coadds of a tract."""
        return sorted(coadd_parts(self.store.coadds(tract)))

    def coadd(self, tract: int, patch: int, band: str) -> Coadd:
        """One coadd."""
        return read_coadd(self.store.coadds(tract), patch=patch, band=band)

    def object_tracts(self) -> list[int]:
        """Numbers of the tracts that have an object catalogue."""
        return self.store.tracts("objects")

    def objects(self, tract: int) -> Catalogue:
        """The columns of a tract's objects that the report needs."""
        path = self.store.objects(tract)
        with open_product(path, "objects") as file:
            names = read_array(file["objects"]["_columns"]).tolist() if "objects" in file else []
        return read_objects(path, wanted(names))

    def text(self, path: Path) -> str:
        """A text file of the folder; '' where it is missing."""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def failures(self) -> list[dict]:
        """Rows of failures.json; none where it is missing or damaged."""
        try:
            rows = json.loads(self.text(self.store.failures) or "[]")
        except ValueError:
            return []
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def timing(self) -> list[dict]:
        """Rows of timing.csv."""
        return list(csv.DictReader(io.StringIO(self.text(self.store.timing))))


def wanted(names) -> list[str]:
    """Of the names of columns, those that the report needs."""
    return [name for name in names if name in OBJECT_COLUMNS or name.split("_", 1)[-1] in BAND_COLUMNS]


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """All columns of a FITS table, or of the first catalogue in an HDF5 file.

    Raises
    ------
    BadData
        The file is missing, damaged, or holds no table.
    """
    if not path.exists():
        raise BadData(f"{path}: is missing; correct report.truth or leave it out")
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return read_table(path)
    with open_product(path) as file:
        for group in file.values():
            if "_columns" in group:
                return dict(read_catalogue(group).arrays)
    raise BadData(f"{path}: holds no table")
