"""SDSS mask files (fpM): lists of spans per kind of defect, drawn into the mask planes of their frame (fpC).

Format: SDSS data model, fpM: HDU 1..n hold one list of objects each, a row's `s` the spans (y, x1, x2) as big-endian
16-bit numbers, ends included; the last HDU names the lists in order.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import BadData
from ..products.mask import bits
from .fits import FitsFile

__all__ = ["mask_file_of", "read_mask"]

PLANES = {"S_MASK_INTERP": ("INTRP",), "S_MASK_SATUR": ("SAT",), "S_MASK_CR": ("CR", "INTRP"),
          "S_MASK_GHOST": ("SUSPECT",)}
"""What SDSS's defects are called here. Its cosmic rays are interpolated in the frame. NOTCHECKED (not searched by its
pipeline) and its lists of objects say nothing of the pixels."""


def mask_file_of(frame: Path) -> Path:
    """The fpM file beside an fpC frame.

    Raises
    ------
    BadData
        There is none.
    """
    stem = re.sub(r"\.fit(\.gz)?$", "", frame.name)
    names = [f"fpM{stem.removeprefix('fpC')}{end}" for end in (".fit", ".fit.gz")]
    for name in names:
        if (path := frame.with_name(name)).is_file():
            return path
    raise BadData(f"{frame}: its mask file {names[0]} is missing; fetch it, or set layout.masks of the camera to ''")


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(ny, nx) uint32 mask planes.

    Raises
    ------
    BadData
        The file is damaged, or not of a frame of this shape.
    """
    mask = np.zeros(shape, np.uint32)
    with FitsFile(path) as file:
        size = (file.header(0).get("MASKROWS"), file.header(0).get("MASKCOLS"))
        if size != shape:
            raise BadData(f"{path}: mask of {size[1]} x {size[0]} pixels, the frame has {shape[1]} x {shape[0]}")
        names = file.table(len(file) - 1, ("attributeName",))["attributeName"]
        for number, name in enumerate(names.tolist(), 1):
            if name in PLANES and number < len(file) - 1:
                _draw(mask, file.table(number, ("s",))["s"], bits(*PLANES[name]), path)
    return mask


def _draw(mask: np.ndarray, lists: np.ndarray, value: int, path: Path) -> None:
    """Set the bits on all spans of a list of objects."""
    if any(len(item) % 6 for item in lists):
        raise BadData(f"{path}: a list of spans is cut off; fetch it again")
    numbers = [np.asarray(item, np.uint8).view(">i2") for item in lists]
    spans = np.concatenate(numbers or [[]]).astype(int).reshape(-1, 3)
    y, x1, x2 = spans.T
    if np.any((y < 0) | (y >= mask.shape[0]) | (x1 < 0) | (x2 >= mask.shape[1]) | (x1 > x2)):
        raise BadData(f"{path}: a span lies outside the frame; fetch it again")
    for row, first, last in spans.tolist():
        mask[row, first:last + 1] |= np.uint32(value)
