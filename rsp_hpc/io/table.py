"""Catalogues in HDF5: one 1-D dataset per column with its unit and meaning; and FITS tables as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

import numpy as np

from ..errors import BadData
from ..products.catalogue import Catalogue, Column
from .product import guarded
from .records import read_array, write_array

__all__ = ["read_catalogue", "read_fits_table", "write_catalogue"]


def write_catalogue(parent, name: str, catalogue: Catalogue) -> None:
    """A catalogue as a group; the attribute `columns` keeps their order."""
    group = parent.create_group(name)
    group.attrs["rows"] = len(catalogue)
    for column in catalogue.columns.values():
        write_array(group, column.name, catalogue[column.name], unit=column.unit, doc=column.doc)
    write_array(group, "_columns", np.array(list(catalogue.columns), dtype=str))


def read_catalogue(group, columns: Iterable[str] | None = None, rows: slice | None = None) -> Catalogue:
    """A catalogue of `write_catalogue`, or some of its columns and rows.

    Raises
    ------
    BadData
        A column is missing, or damaged.
    """
    known = read_array(group["_columns"]).tolist()
    wanted = known if columns is None else list(columns)
    for name in wanted:
        if name not in known or name not in group:
            raise BadData(f"{group.file.filename}:{group.name}: has no column {name}; it has {', '.join(known)[:300]}")
    arrays = {name: read_array(group[name], rows) for name in wanted}
    if rows is None and any(array.shape != (int(group.attrs["rows"]),) for array in arrays.values()):
        raise BadData(f"{group.file.filename}:{group.name}: damaged: columns differ in length")
    described = [Column(name, arrays[name].dtype.str, str(group[name].attrs.get("unit", "")),
                        str(group[name].attrs.get("doc", ""))) for name in wanted]
    return Catalogue(described, arrays)


def read_fits_table(path: str | Path, columns: Iterable[str] | None = None, hdu: int = 1) -> dict[str, np.ndarray]:
    """The columns of a FITS table as arrays in native byte order; names as in the file, matched without case.

    Raises
    ------
    BadData
        The file is missing, damaged, holds no table there, or lacks a column.
    """
    import fitsio

    with guarded(path):
        if not Path(path).exists():
            raise BadData(f"{path}: is missing")
        with fitsio.FITS(str(path)) as file:
            if hdu >= len(file) or not isinstance(file[hdu], fitsio.hdu.TableHDU):
                raise BadData(f"{path}: HDU {hdu} is no table")
            known = {name.lower(): name for name in file[hdu].get_colnames()}
            wanted = list(columns) if columns is not None else list(known.values())
            lacking = [name for name in wanted if name.lower() not in known]
            if lacking:
                raise BadData(f"{path}: has no column {', '.join(lacking)}; it has {', '.join(known.values())[:300]}")
            table = file[hdu].read(columns=[known[name.lower()] for name in wanted])
    return {name: _native(table[known[name.lower()]]) for name in wanted}


def _native(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "S":
        return np.char.decode(array, "latin-1")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
