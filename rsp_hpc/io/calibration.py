"""calibs/<detector>.h5: combined bias, dark, flats by band, and defects of one detector, exact.

    /bias, /dark, /flats/<band>, /defects    pixels (`io.pixels`)
    /inputs/<band>                           names of the files that went in (without flats: `all`)
    /noise                                   attributes: bias_variance, dark_variance, dark_time
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BadData, Damaged
from ..products.calibration import Calibration
from .attributes import get, put
from .pixels import EncodedDataset, append, encode, read_pixels
from .product import Header, ProductWriter, open_product
from .records import read_array, write_array

__all__ = ["CalibrationWriter", "EncodedCalibration", "calibration_contents", "encode_calibration", "read_calibration",
           "read_calibration_rows"]

KIND = "calibs"
NOISE = ("bias_variance", "dark_variance", "dark_time")
UNITS = {"bias": "electron", "dark": "electron/s", "flat": "", "defects": ""}


@dataclass(frozen=True)
class EncodedCalibration:
    """Compressed frames on their way to the writer."""

    frames: dict[str, EncodedDataset]
    inputs: dict[str, tuple[str, ...]]
    noise: dict[str, float]


def encode_calibration(bands: dict[str, Calibration]) -> EncodedCalibration:
    """Compress one detector's frames without loss; runs on any rank.

    Parameters
    ----------
    bands : band -> Calibration, whose bias, dark and defects are the same in every band; band '' where there is no flat
    """
    frames: dict[str, np.ndarray] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    noise: dict[str, float] = {}
    for band, calibration in bands.items():
        for name in ("bias", "dark", "defects"):
            if getattr(calibration, name) is not None:
                frames.setdefault(name, getattr(calibration, name))
        if calibration.flat is not None:
            frames[f"flats/{band}"] = calibration.flat
        inputs[band] = tuple(calibration.inputs)
        noise = {name: float(getattr(calibration, name)) for name in NOISE}
    encoded = {name: encode(frame.astype(np.uint8) if frame.dtype == bool else frame, unit=UNITS.get(name, ""))
               for name, frame in frames.items()}
    return EncodedCalibration(encoded, inputs, noise)


class CalibrationWriter(ProductWriter):
    """Writes one detector's calibration; `append` may come once per frame or once for all."""

    def __init__(self, path: str | Path, header: Header):
        super().__init__(path, replace(header, kind=KIND))

    def append(self, part: EncodedCalibration) -> None:
        """Write frames and the names of their inputs."""
        for name in sorted(part.frames):
            folder, _, leaf = name.rpartition("/")
            append(self.file.require_group(folder) if folder else self.file, leaf, part.frames[name])
        put(self.file.require_group("noise"), **part.noise)
        group = self.file.require_group("inputs")
        for band, names in sorted(part.inputs.items()):
            write_array(group, band or "all", np.array(names, dtype=str))


def calibration_contents(path: str | Path) -> list[str]:
    """The frames in a file: 'bias', 'dark', 'defects', 'flats/r', ..."""
    with open_product(path, KIND) as file:
        return [*(name for name in ("bias", "dark", "defects") if name in file),
                *(f"flats/{band}" for band in sorted(file.get("flats", ())))]


def read_calibration(path: str | Path, band: str = "") -> Calibration:
    """The calibration for one band.

    Raises
    ------
    BadData
        The file is missing or damaged; or it has flats, but none of this band.
    """
    with open_product(path, KIND) as file:
        flats = list(file.get("flats", ()))
        if band and flats and band not in flats:
            raise BadData(f"detector {Path(path).stem} has no flat in band {band}: "
                          f"its flats are {', '.join(sorted(flats))}; add flat frames of {band} and run calibs, "
                          "or leave the band out")
        planes = {name: read_pixels(file[name]) if name in file else None for name in ("bias", "dark", "defects")}
        if planes["defects"] is not None:
            planes["defects"] = planes["defects"].astype(bool)
        planes["flat"] = read_pixels(file["flats"][band]) if band in flats else None
        shapes = {plane.shape for plane in planes.values() if plane is not None}
        if len(shapes) > 1:
            raise Damaged(f"{path}: damaged: frames differ in shape: {sorted(shapes)}")
        known = list(file.get("inputs", ()))
        listed = next((name for name in (band, "all", *known) if name in known), None)
        names = tuple(read_array(file["inputs"][listed]).tolist()) if listed else ()
        noise = {name: float(get(file["noise"], name, 0.0)) for name in NOISE} if "noise" in file else {}
        return Calibration(inputs=names, **planes, **noise)


def read_calibration_rows(path: str | Path, frame: str, y0: int, y1: int) -> np.ndarray:
    """Rows y0 <= y < y1 of one frame ('bias', 'flats/r', ...): for work in bands of rows."""
    with open_product(path, KIND) as file:
        if frame not in file:
            raise BadData(f"{path}: has no {frame}")
        return read_pixels(file[frame], (y0, y1))
