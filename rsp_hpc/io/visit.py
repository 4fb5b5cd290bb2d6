"""visits/<visit>.h5: calibrated detector images and their sources; written by a team's leader from what ranks encoded.

    /exposure                                   attributes of the Exposure
    /detectors/<name>/{image, variance, mask}   pixels (`io.pixels`)
    /detectors/<name>/{psf, wcs, photocal, background, summary}
    /sources                                    all detectors, ordered by detector number; one dataset per column

    with VisitWriter(path, header) as writer:       # leader
        writer.append(encode_visit_detector(...))   # from any rank, in any order
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Sequence

import numpy as np

from ..errors import BadData
from ..products.background import Background
from ..products.box import Box
from ..products.catalogue import Catalogue
from ..products.exposure import Exposure
from ..products.image import MaskedImage
from ..products.photocal import PhotoCal
from ..products.psf import PolynomialPsf
from ..products.visit import VisitDetector
from ..products.wcs import Wcs
from .pixels import EncodedDataset, append, encode, read_pixels
from .product import Header, Part, create, mask_planes, open_product, with_planes, write_parts
from .records import read_record, write_record
from .table import read_catalogue, write_catalogue

__all__ = ["EncodedVisitDetector", "VisitWriter", "encode_visit_detector", "read_exposure", "read_sources",
           "read_visit_detector", "read_visit_lean", "visit_detector_names"]

KIND = "visit"
RECORDS = (("psf", PolynomialPsf), ("wcs", Wcs), ("photocal", PhotoCal), ("background", Background))


@dataclass(frozen=True)
class EncodedVisitDetector:
    """A VisitDetector whose pixels are compressed: what travels from a rank to the leader."""

    lean: VisitDetector
    pixels: tuple[EncodedDataset, EncodedDataset, EncodedDataset]


def encode_visit_detector(visit: VisitDetector, *, q: float = 4.0, exact: bool = False) -> EncodedVisitDetector:
    """Compress a detector's image, variance and mask; runs on any rank.

    Parameters
    ----------
    q : quantisation steps per sigma of the noise (4: noise grows by 0.26 %)
    exact : store image and variance without loss
    """
    image = visit.image
    seed = (visit.exposure.visit * 4096 + visit.detector_id) % 2**63
    pixels = (encode(image.image, "exact" if exact else "noise", seed=seed, q=q, unit=image.unit,
                     doc="background-subtracted image"),
              encode(image.variance, "exact" if exact else "variance", unit=f"{image.unit}^2", doc="variance; inf is unknown"),
              encode(image.mask, doc="mask planes, see the attribute mask_planes of the file"))
    return EncodedVisitDetector(_without_pixels(visit), pixels)


def _without_pixels(visit: VisitDetector) -> VisitDetector:
    """The same without its planes; the empty image keeps unit and origin."""
    box = visit.image.box
    empty = MaskedImage.empty(Box(box.x0, box.y0, 0, 0), visit.image.unit)
    return VisitDetector(visit.exposure, visit.detector, visit.detector_id, empty, visit.background, visit.psf, visit.wcs,
                         visit.photocal, visit.aperture_correction, visit.sources, visit.summary)


class VisitWriter:
    """Writes one visit's file; it appears when the `with` block ends well."""

    def __init__(self, path: str | Path, header: Header):
        self._context = create(path, header)
        self._sources: dict[tuple[int, str], Catalogue] = {}
        self._parts: list[Part] = []

    def __enter__(self) -> VisitWriter:
        self._file = self._context.__enter__()
        self._file.create_group("detectors")
        return self

    def append(self, part: EncodedVisitDetector) -> None:
        """Write one detector."""
        visit = part.lean
        if "exposure" not in self._file:
            write_record(self._file, "exposure", visit.exposure)
        group = self._file["detectors"].create_group(visit.detector)
        for name, pixels in zip(("image", "variance", "mask"), part.pixels):
            append(group, name, pixels)
        for name, _ in RECORDS:
            if getattr(visit, name) is not None:
                write_record(group, name, getattr(visit, name))
        group.attrs.update({"detector_id": visit.detector_id, "unit": visit.image.unit, "x0": visit.image.box.x0,
                            "y0": visit.image.box.y0, "aperture_correction": visit.aperture_correction})
        summary = group.create_group("summary")
        for key in sorted(visit.summary):
            summary.attrs[key] = visit.summary[key]
        self._sources[visit.detector_id, visit.detector] = visit.sources

    def note(self, parts: Iterable[Part]) -> None:
        """Enter what the parts cost, and which detectors are missing and why; before the end of the block."""
        self._parts += parts

    def __exit__(self, kind, error, trace) -> Any:
        if kind is not None:
            return self._context.__exit__(kind, error, trace)
        try:
            self._write_sources()
            write_parts(self._file, self._parts)
        except BaseException as failed:
            if not self._context.__exit__(type(failed), failed, failed.__traceback__):
                raise
        return self._context.__exit__(None, None, None)

    def _write_sources(self) -> None:
        """All detectors' sources in the order of their numbers, whoever came first."""
        start = 0
        ordered = [self._sources[key] for key in sorted(self._sources)]
        for (_, name), catalogue in sorted(self._sources.items()):
            self._file["detectors"][name].attrs["sources"] = [start, start + len(catalogue)]
            start += len(catalogue)
        if ordered:
            write_catalogue(self._file, "sources", Catalogue.concatenate(ordered))


def visit_detector_names(path: str | Path) -> list[str]:
    """Names of the detectors in a visit's file, by their number."""
    with open_product(path, KIND) as file:
        return [name for _, name in sorted((int(group.attrs["detector_id"]), name)
                                           for name, group in file["detectors"].items())]


def read_exposure(path: str | Path) -> Exposure:
    """The exposure of a visit's file."""
    with open_product(path, KIND) as file:
        return read_record(file, "exposure", Exposure)


def read_visit_detector(path: str | Path, name: str) -> VisitDetector:
    """One detector with its pixels and sources.

    Raises
    ------
    BadData
        The file or the detector is missing or damaged.
    """
    return _read(path, name, pixels=True, sources=True)


def read_visit_lean(path: str | Path, name: str) -> VisitDetector:
    """One detector without pixels and sources (image and sources are empty): WCS, PSF, calibration, summary."""
    return _read(path, name, pixels=False, sources=False)


def _read(path: str | Path, name: str, pixels: bool, sources: bool) -> VisitDetector:
    with open_product(path, KIND) as file:
        group = _detector(file, path, name)
        attributes = group.attrs
        planes = [read_pixels(group[plane]) for plane in ("image", "variance", "mask")] if pixels else None
        origin, unit = (int(attributes["x0"]), int(attributes["y0"])), str(attributes["unit"])
        if planes is None:
            image = MaskedImage.empty(Box(*origin, 0, 0), unit)
        else:
            mask = with_planes(planes[2], mask_planes(file))
            image = MaskedImage(planes[0], mask, planes[1], Box.of_shape(planes[0].shape, origin), unit)
        records = {key: read_record(group, key, cls) if key in group else None for key, cls in RECORDS}
        start, end = (int(row) for row in attributes["sources"])
        table = read_catalogue(file["sources"], None if sources else (), slice(start, end)) if "sources" in file \
            else Catalogue(())
        return VisitDetector(exposure=read_record(file, "exposure", Exposure), detector=name,
                             detector_id=int(attributes["detector_id"]), image=image,
                             aperture_correction=float(attributes["aperture_correction"]), sources=table,
                             summary={key: _number(value) for key, value in group["summary"].attrs.items()},
                             **records)  # type: ignore[arg-type]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


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
            rows = slice(*(int(row) for row in _detector(file, path, detector).attrs["sources"]))
        return read_catalogue(file["sources"], columns, rows)
