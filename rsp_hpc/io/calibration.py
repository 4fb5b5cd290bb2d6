"""One calibration product of one detector per file; every kind in the same way, as its dataclass says.

    attributes           kind, band, camera, detector, label, mode, begin, end [MJD], and those of all products
    /content             arrays with unit and doc, large ones as pixels (`io.pixels`), small ones as tables (`io.records`)
    /verdict             state; reasons; statistics/
    /provenance          inputs with their hashes, configuration, software, costs
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadData, Damaged
from ..products.electronics import Verdict
from ..products.kinds import FIELDS, KINDS, CalibrationProduct, check_content, docs_of
from .attributes import get, put, values
from .pixels import EncodedDataset, append, encode, read_pixels
from .product import Header, ProductWriter, open_product
from .records import read_array, write_array

__all__ = ["CalibrationWriter", "EncodedProduct", "ProductFacts", "encode_product", "read_calibration_product",
           "read_calibration_rows", "read_facts"]

FORMAT = "calibration"
LARGE = 1 << 16
"""Elements from which an array is stored like an image."""
UNITS = {"bias": "electron", "dark": "electron/s"}
"""Of the images of combined frames; the others are ratios."""
LABELS = ("kind", "band", "camera", "detector", "label", "mode", "begin", "end")


@dataclass(frozen=True)
class EncodedProduct:
    """A product on its way to the writer: its arrays compressed, the rest as it is."""

    labels: dict[str, Any]
    verdict: Verdict
    arrays: dict[str, EncodedDataset | np.ndarray]
    plain: dict[str, Any]


def encode_product(product: CalibrationProduct) -> EncodedProduct:
    """Compress a product without loss (variances to ten bits); runs on any rank.

    Raises
    ------
    BadData
        The arrays of the content do not fit each other.
    """
    content = product.content
    check_content(content, product.name)
    arrays: dict[str, EncodedDataset | np.ndarray] = {}
    plain: dict[str, Any] = {"class": type(content).__name__}
    docs = docs_of(type(content))
    for item in dataclasses.fields(content):
        value = getattr(content, item.name)
        if value is None:
            continue
        if isinstance(value, np.ndarray) and value.size >= LARGE:
            large = value.astype(np.uint8) if value.dtype == bool else value
            lossy = "variance" if item.name == "variance" and value.dtype == np.float32 else "exact"
            arrays[item.name] = encode(large, lossy, unit=_unit(product, item.name), doc=docs[item.name])
        elif isinstance(value, np.ndarray):
            arrays[item.name] = value.astype(np.uint8) if value.dtype == bool else value
        elif isinstance(value, tuple):
            arrays[item.name] = np.array(value, dtype=str)
        else:
            plain[item.name] = value
    if hasattr(content, "typical_variance"):
        plain["typical_variance"] = content.typical_variance
    return EncodedProduct({name: getattr(product, name) for name in LABELS}, product.verdict, arrays, plain)


def _unit(product: CalibrationProduct, name: str) -> str:
    if name in ("image", "variance"):
        unit = UNITS.get(product.kind, "")
        return f"({unit})2" if name == "variance" and unit else unit
    return FIELDS[type(product.content)][name].unit if name in FIELDS[type(product.content)] else ""


class CalibrationWriter(ProductWriter):
    """Writes one product."""

    def __init__(self, path: str | Path, header: Header):
        super().__init__(path, replace(header, kind=FORMAT))

    def append(self, part: EncodedProduct) -> None:
        """Write the product."""
        put(self.file, **part.labels)
        group = self.file.create_group("content")
        put(group, **part.plain)
        cls = KINDS[part.labels["kind"]].content
        docs = docs_of(cls)
        for name, array in part.arrays.items():
            if isinstance(array, EncodedDataset):
                append(group, name, array)
            else:
                quantity = FIELDS[cls].get(name)
                write_array(group, name, array, unit=quantity.unit if quantity else "", doc=docs[name])
        verdict = self.file.create_group("verdict")
        put(verdict, state=part.verdict.state)
        write_array(verdict, "reasons", np.array(part.verdict.reasons, dtype=str))
        put(verdict.create_group("statistics"), **{name: float(value) for name, value in part.verdict.statistics.items()})


@dataclass(frozen=True)
class ProductFacts:
    """What can be known of a product without its arrays.

    Attributes
    ----------
    path : of the file; identity : hash of what it was made of, 'incomplete ...' if something lacked
    labels : kind, band, camera, detector, label, mode, begin, end
    verdict : with statistics
    inputs : name -> hash
    created : date of the file
    """

    path: Path
    identity: str
    labels: dict[str, Any]
    verdict: Verdict
    inputs: dict[str, str]
    created: str

    def __getattr__(self, name: str) -> Any:
        if name in LABELS:
            return self.labels[name]
        raise AttributeError(name)

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, band, detector)."""
        return self.labels["kind"], self.labels["band"], self.labels["detector"]


def read_facts(path: str | Path) -> ProductFacts:
    """What a calibration product says of itself.

    Raises
    ------
    BadData
        Missing, damaged, or no calibration product.
    """
    with open_product(path, FORMAT) as file:
        group = file["provenance"]
        inputs = dict(zip(read_array(group["input_name"]).tolist(), read_array(group["input_hash"]).tolist()))
        known = str(get(file, "identity"))
        return ProductFacts(Path(path), f"incomplete {known}" if get(group, "incomplete", 0) else known, _labels(file, path),
                            _verdict(file), inputs, str(get(group, "created")))


def read_calibration_product(path: str | Path, camera: str = "", detector: str = "",
                             shape: tuple[int, int] | None = None) -> CalibrationProduct:
    """One product as it was built.

    Parameters
    ----------
    camera, detector, shape : that it must be of, where given

    Raises
    ------
    BadData
        Missing, damaged, of another camera, detector or size, or its arrays do not fit each other.
    """
    with open_product(path, FORMAT) as file:
        labels = _labels(file, path)
        for what, wanted in (("camera", camera), ("detector", detector)):
            if wanted and labels[what] != wanted:
                raise BadData(f"{path}: is of {what} {labels[what]}, wanted {wanted}; put the right file there or build it")
        content = _content(file["content"], KINDS[labels["kind"]].content, ())
        check_content(content, str(path), shape)
        return CalibrationProduct(content=content, verdict=_verdict(file), **labels)


def read_plane(path: str | Path, shape: tuple[int, int]) -> tuple[np.ndarray, dict[str, Any]]:
    """The image of combined frames or defects without its variance plane, and the plain values beside it."""
    with open_product(path, FORMAT) as file:
        group = file["content"]
        image = _array(group["image"])
        if image.shape != shape:
            raise BadData(f"{path}: image is {image.shape[0]} x {image.shape[1]}, must be {shape[0]} x {shape[1]}; build it again "
                          "for this camera")
        return image, values(group)


def read_calibration_rows(path: str | Path, y0: int, y1: int, name: str = "image") -> np.ndarray:
    """Rows y0 <= y < y1 of one plane: for work in bands of rows."""
    with open_product(path, FORMAT) as file:
        if name not in file["content"]:
            raise BadData(f"{path}: has no {name}")
        dataset = file["content"][name]
        return read_pixels(dataset, (y0, y1)) if "kind" in dataset.attrs else read_array(dataset, slice(y0, y1))


def _labels(file, path) -> dict[str, Any]:
    found = {name: str(get(file, name)) for name in LABELS[:-2]} | {name: float(get(file, name)) for name in LABELS[-2:]}
    if found["kind"] not in KINDS:
        raise BadData(f"{path}: holds a {found['kind']!r:.40}, this program knows {', '.join(KINDS)}; use the newer one")
    return found


def _verdict(file) -> Verdict:
    group = file["verdict"]
    state = str(get(group, "state"))
    if state not in Verdict.STATES:
        raise ValueError(f"verdict {state!r:.20}")
    return Verdict(state, tuple(read_array(group["reasons"]).tolist()), values(group["statistics"]))


def _content(group, cls: type, leave_out: tuple[str, ...]) -> Any:
    """The dataclass from its group; what the file lacks takes its default."""
    if get(group, "class") != cls.__name__:
        raise ValueError(f"content is {get(group, 'class')!r:.40}, wanted {cls.__name__}")
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.name in leave_out:
            continue
        if item.name in group:
            array = _array(group[item.name])
            found[item.name] = tuple(array.tolist()) if typing.get_origin(hints[item.name]) is tuple else array
        elif item.name in group.attrs:
            value = get(group, item.name)
            kind = hints[item.name]
            found[item.name] = kind(value) if kind in (int, float, str, bool) else value
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ValueError(f"{item.name} is missing")
    return cls(**found)


def _array(dataset) -> np.ndarray:
    array = read_pixels(dataset) if "kind" in dataset.attrs else read_array(dataset)
    if array.dtype == np.uint8:  # only truth values are so short
        if array.size and array.max() > 1:
            raise Damaged(f"{dataset.file.filename}:{dataset.name}: damaged: truth values beyond 0 and 1; build it again")
        return array.astype(bool)
    return array
