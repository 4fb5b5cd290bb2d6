"""Flat dataclasses (Wcs, PSF, Exposure, ...) as HDF5 groups: numbers and text as attributes, arrays as datasets.

The dataclass says what is expected: a group that lacks a field or holds another type is BadData. Small arrays and
tables use HDF5's own shuffle, deflate and check sums, so that every tool opens them and damage is seen.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from typing import Any, TypeVar

import numpy as np

from ..errors import BadData, Damaged
from ..products.box import Box
from .atomic import make_sure_of_room
from .attributes import get, put, values

__all__ = ["read_array", "read_record", "write_array", "write_record"]

Record = TypeVar("Record")
MAX_RATIO = 1100
"""Deflate never packs tighter (RFC 1951: 1032): a dataset that claims more than its storage can hold is refused."""


def write_array(group, name: str, array: np.ndarray, **attributes) -> None:
    """A small array or a column: shuffle, deflate, Fletcher-32. OSError if the folder is full."""
    array = np.asarray(array)
    make_sure_of_room(os.path.dirname(group.file.filename) or ".", array.nbytes)
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if array.size == 0 or array.ndim == 0 or array.itemsize == 0:
        dataset = group.create_dataset(name, data=array if array.itemsize else array.astype("S1"))
    else:
        rows = max(1, (1 << 20) // max(1, array.nbytes // len(array)))
        dataset = group.create_dataset(name, data=array, chunks=(min(len(array), rows), *array.shape[1:]), shuffle=True,
                                       compression="gzip", compression_opts=1, fletcher32=True)
    put(dataset, **{key: value for key, value in attributes.items() if not (isinstance(value, str) and not value)})


def read_array(dataset, rows: slice | None = None) -> np.ndarray:
    """A dataset of `write_array`, or a slice of its rows.

    Raises
    ------
    BadData
        Damaged: a check sum is wrong, or it claims more than its storage can hold.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    try:
        claimed = float(np.prod(dataset.shape, dtype=float)) * dataset.dtype.itemsize
        if dataset.dtype.hasobject or claimed > max(4096, MAX_RATIO * dataset.id.get_storage_size()):
            raise Damaged(f"{where}: damaged: claims {dataset.shape} of {dataset.dtype}, more than is stored")
        found = dataset[...] if rows is None else dataset[rows]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        if isinstance(error, BadData):
            raise
        raise Damaged(f"{where}: damaged ({' '.join(str(error).split())[:100]}); make the file again") from None
    return np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found


def write_record(parent, name: str, record: Any) -> None:
    """A dataclass as a group; fields that are None are left out."""
    group = parent.create_group(name)
    put(group, **{"class": type(record).__name__})
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if value is None or not item.init:
            continue
        if isinstance(value, Box):
            put(group, **{item.name: [value.x0, value.y0, value.nx, value.ny]})
        elif isinstance(value, np.ndarray):
            write_array(group, item.name, value)
        elif isinstance(value, dict):
            put(group.create_group(item.name), **value)
        else:
            put(group, **{item.name: value})


def read_record(parent, name: str, cls: type[Record]) -> Record:
    """The dataclass `cls` from a group of `write_record`.

    Raises
    ------
    BadData
        The group is missing, damaged, or not of this class.
    """
    where = f"{parent.file.filename}:{parent.name.rstrip('/')}/{name}"
    try:
        group = parent[name]
        if get(group, "class") != cls.__name__:
            raise ValueError(f"holds {get(group, 'class')!r:.40}, wanted {cls.__name__}")
        hints = typing.get_type_hints(cls)
        wanted = [item for item in dataclasses.fields(cls) if item.init and (
            item.name in group or item.name in group.attrs or _has_no_default(item))]
        return cls(**{item.name: _read_field(group, item, hints[item.name]) for item in wanted})
    except BadData:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise Damaged(f"{where}: damaged or missing ({' '.join(str(error).split())[:120]})") from None


def _has_no_default(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _read_field(group, item, hint: Any) -> Any:
    """One field, converted to what the dataclass declares."""
    optional = type(None) in typing.get_args(hint)
    kinds = [kind for kind in (typing.get_args(hint) if optional else (hint,)) if kind is not type(None)]
    kind = kinds[0]
    if item.name not in group.attrs and item.name not in group:
        if optional:
            return None
        raise ValueError(f"{item.name} is missing")
    if kind is np.ndarray:
        return read_array(group[item.name])
    if typing.get_origin(kind) is dict or kind is dict:
        return values(group[item.name])
    value = get(group, item.name)
    if kind is Box:
        return Box(*map(int, value))
    if kind in (int, float, str, bool):
        return kind(value)
    return _tuples(np.asarray(value).tolist())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
