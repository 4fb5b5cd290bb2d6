"""visits/<visit>.h5: calibrated detector images and their sources; written by a team's leader from what ranks encoded.

    /exposure                                   attributes of the Exposure
    /detectors/<name>/{image, variance, mask}   pixels (`io.pixels`)
    /detectors/<name>/{psf, wcs, photocal, background, summary}
    /detectors/<name>/{sky_bins, sky}           its sky in super-bins, and what the model of the focal plane says of it (on its mesh)
    /sky                                        that model
    /summary                                    one row per detector
    /sources                                    all detectors, ordered by detector number; one dataset per column
    /matches                                    stars of the reference catalogue that were found, the same way

    with VisitWriter(path, header) as writer:       # leader
        writer.append(encode_visit_detector(...))   # from any rank, in any order
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from ..errors import BadData
from ..products.background import Background
from ..products.catalogue import Catalogue
from ..products.exposure import Exposure
from ..products.photocal import PhotoCal
from ..products.psf import PolynomialPsf
from ..products.sky import SkyBins, VisitSky
from ..products.summary import summary_table
from ..products.visit import VisitDetector
from ..products.wcs import Wcs
from .attributes import get, put, values
from .images import EncodedImage, append_image, encode_image, read_image, without_pixels
from .product import Header, Part, ProductWriter, open_product
from .records import read_record, write_record
from .table import read_catalogue, write_catalogue

__all__ = ["EncodedVisitDetector", "VisitWriter", "encode_visit_detector", "read_exposure", "read_sources",
           "read_summary",
           "read_visit_detector", "read_visit_lean", "read_visit_sky", "visit_detector_names"]

KIND = "visit"
RECORDS = (("psf", PolynomialPsf), ("wcs", Wcs), ("photocal", PhotoCal), ("background", Background),
           ("sky_bins", SkyBins), ("sky", Background))


@dataclass(frozen=True)
class EncodedVisitDetector:
    """A VisitDetector whose pixels are compressed: what travels from a rank to the leader."""

    lean: VisitDetector
    pixels: EncodedImage


def encode_visit_detector(visit: VisitDetector, *, q: float = 4.0, exact: bool = False) -> EncodedVisitDetector:
    """Compress a detector's image, variance and mask; runs on any rank.

    Parameters
    ----------
    q : quantisation steps per sigma of the noise (4: noise grows by 0.26 %)
    exact : store image and variance without loss
    """
    seed = (visit.exposure.visit * 4096 + visit.detector_id) % 2**63
    return EncodedVisitDetector(replace(visit, image=without_pixels(visit.image)),
                                encode_image(visit.image, exact=exact, seed=seed, q=q))


class VisitWriter(ProductWriter):
    """Writes one visit's file; it appears when the `with` block ends well."""

    def __init__(self, path: str | Path, header: Header):
        super().__init__(path, replace(header, kind=KIND))
        self._lean: dict[tuple[int, str], VisitDetector] = {}
        self.sky: VisitSky | None = None

    def append(self, part: EncodedVisitDetector) -> None:
        """Write one detector."""
        visit = part.lean
        if "exposure" not in self.file:
            write_record(self.file, "exposure", visit.exposure)
        group = self.file.require_group("detectors").create_group(visit.detector)
        append_image(group, visit.image, part.pixels)
        self._lean[visit.detector_id, visit.detector] = visit

    def detectors(self) -> list[VisitDetector]:
        """What has been appended, by number, whoever came first; without pixels."""
        return [self._lean[key] for key in sorted(self._lean)]

    def replace(self, visit: VisitDetector) -> None:
        """Another solution of a detector whose pixels are written."""
        self._lean[visit.detector_id, visit.detector] = visit

    def remove(self, visit: VisitDetector) -> None:
        """Take a detector out again."""
        del self._lean[visit.detector_id, visit.detector]
        del self.file["detectors"][visit.detector]

    def finish(self) -> None:
        """All that is known of the detectors, and their sources and matches in the order of their numbers."""
        visits, start = self.detectors(), 0
        for visit in visits:
            group = self.file["detectors"][visit.detector]
            for name, _ in RECORDS:
                if getattr(visit, name) is not None:
                    write_record(group, name, getattr(visit, name))
            put(group, detector_id=visit.detector_id, aperture_correction=float(visit.aperture_correction),
                sources=[start, start + len(visit.sources)])
            put(group.create_group("summary"), **{key: visit.summary[key] for key in sorted(visit.summary)})
            start += len(visit.sources)
        if self.sky is not None:
            write_record(self.file, "sky", self.sky)
        if visits:
            write_catalogue(self.file, "summary", summary_table([(v.detector, v.detector_id, v.summary) for v in visits]))
            write_catalogue(self.file, "sources", Catalogue.concatenate([visit.sources for visit in visits]))
        if matches := [visit.matches for visit in visits if visit.matches.columns]:
            write_catalogue(self.file, "matches", Catalogue.concatenate(matches))


def visit_detector_names(path: str | Path) -> list[str]:
    """Names of the detectors in a visit's file, by their number."""
    with open_product(path, KIND) as file:
        return [name for _, name in sorted((int(get(group, "detector_id")), name)
                                           for name, group in file["detectors"].items())]


def read_exposure(path: str | Path) -> Exposure:
    """The exposure of a visit's file."""
    with open_product(path, KIND) as file:
        return read_record(file, "exposure", Exposure)


def read_visit_detector(path: str | Path, name: str, *, sources: bool = True) -> VisitDetector:
    """One detector with its pixels, and its sources unless they are not wanted (a third of the time).

    Raises
    ------
    BadData
        The file or the detector is missing or damaged.
    """
    return _read(path, name, pixels=True, sources=sources)


def read_visit_lean(path: str | Path, name: str) -> VisitDetector:
    """One detector without pixels and sources (image and sources are empty): WCS, PSF, calibration, summary."""
    return _read(path, name, pixels=False, sources=False)


def _read(path: str | Path, name: str, pixels: bool, sources: bool) -> VisitDetector:
    with open_product(path, KIND) as file:
        group = _detector(file, path, name)
        attributes = values(group)
        records = {key: read_record(group, key, cls) if key in group else None for key, cls in RECORDS}
        start, end = (int(row) for row in attributes["sources"])
        table = read_catalogue(file["sources"], None if sources else (), slice(start, end)) if "sources" in file \
            else Catalogue(())
        return VisitDetector(exposure=read_record(file, "exposure", Exposure), detector=name,
                             detector_id=int(attributes["detector_id"]), image=read_image(group, pixels),
                             aperture_correction=float(attributes["aperture_correction"]), sources=table,
                             summary=values(group["summary"]),
                             **records)  # type: ignore[arg-type]


def read_summary(path: str | Path) -> Catalogue:
    """One row per detector; columns with units and meaning."""
    with open_product(path, KIND) as file:
        return read_catalogue(file["summary"]) if "summary" in file else Catalogue(())


def read_visit_sky(path: str | Path) -> VisitSky | None:
    """The model of the visit's sky; None if there is none."""
    with open_product(path, KIND) as file:
        return read_record(file, "sky", VisitSky) if "sky" in file else None


def _detector(file, path: str | Path, name: str):
    if name not in file["detectors"]:
        raise BadData(f"{path}: has no detector {name}; it has {', '.join(list(file['detectors'])[:8])}")
    return file["detectors"][name]


def read_sources(path: str | Path, columns: Sequence[str] | None = None, detector: str | None = None) -> Catalogue:
    """The sources of a visit, or of one detector; all columns or some."""
    with open_product(path, KIND) as file:
        if "sources" not in file:
            return Catalogue(())
        rows = None
        if detector is not None:
            rows = slice(*(int(row) for row in get(_detector(file, path, detector), "sources")))
        return read_catalogue(file["sources"], columns, rows)
