"""Catalogues in HDF5: one 1-D dataset per column with its unit and meaning; and FITS tables as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

import numpy as np

from ..errors import BadData, Damaged
from ..products.catalogue import Catalogue, Column
from .attributes import get, put
from .fits import read_table
from .records import read_array, write_array

__all__ = ["read_catalogue", "read_fits_table", "write_catalogue"]


def write_catalogue(parent, name: str, catalogue: Catalogue) -> None:
    """A catalogue as a group; the attribute `columns` keeps their order."""
    group = parent.create_group(name)
    put(group, rows=len(catalogue))
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
    if rows is None and any(array.shape != (int(get(group, "rows")),) for array in arrays.values()):
        raise Damaged(f"{group.file.filename}:{group.name}: damaged: columns differ in length")
    described = [Column(name, arrays[name].dtype.str, str(get(group[name], "unit", "")),
                        str(get(group[name], "doc", ""))) for name in wanted]
    return Catalogue(described, arrays)


def read_fits_table(path: str | Path, columns: Iterable[str] | None = None, hdu: int = 1) -> dict[str, np.ndarray]:
    """The columns of a FITS table as arrays in native byte order: all, or those asked for under the names asked for.

    Raises
    ------
    BadData
        The file is missing, damaged, holds no table there, or lacks a column.
    """
    return read_table(path, hdu, None if columns is None else list(columns))
