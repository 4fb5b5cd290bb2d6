"""tracts/<tract>/objects.h5: the objects of a tract, one dataset per column, ordered by patch.

Columns can be replaced later (which objects are primary is known once the neighbouring tracts are measured): the file is
copied aside with the new columns and renamed, so it is complete at any moment.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Iterable

import numpy as np

from ..errors import BadData
from ..products.catalogue import Catalogue, Column
from .atomic import atomic
from .product import LIBRARY, Header, ProductWriter, open_product
from .records import write_array
from .table import read_catalogue, write_catalogue

__all__ = ["ObjectsWriter", "read_objects", "replace_columns", "row_ranges"]

KIND = "objects"
TABLE = "objects"


class ObjectsWriter(ProductWriter):
    """Writes a tract's objects; `append` takes (patch, Catalogue) in any order."""

    def __init__(self, path: str | Path, header: Header, order: Iterable[int] | None = None):
        super().__init__(path, replace(header, kind=KIND))
        self._catalogues: dict[int, Catalogue] = {}
        self._order = order

    def append(self, part: tuple[int, Catalogue]) -> None:
        """Take one patch's objects."""
        patch, catalogue = part
        self._catalogues[int(patch)] = catalogue

    def finish(self) -> None:
        """All patches' objects, by patch number."""
        patches = sorted(self._catalogues)
        if not patches:
            return
        whole = Catalogue.concatenate([self._catalogues[patch] for patch in patches])
        write_catalogue(self.file, TABLE, whole)
        sizes = [len(self._catalogues[patch]) for patch in patches]
        rows = self.file.create_group("patches")
        write_array(rows, "patch", np.array(patches, np.int64))
        write_array(rows, "end", np.cumsum(sizes, dtype=np.int64), doc="row after the patch's last")


def read_objects(path: str | Path, columns: Iterable[str] | None = None) -> Catalogue:
    """The objects of a tract, all columns or some.

    Raises
    ------
    BadData
        The file is missing or damaged, or lacks a column.
    """
    with open_product(path, KIND) as file:
        return read_catalogue(file[TABLE], columns) if TABLE in file else Catalogue(())


def row_ranges(path: str | Path) -> dict[int, slice]:
    """Patch -> its rows in the table."""
    with open_product(path, KIND) as file:
        if "patches" not in file:
            return {}
        ends = file["patches"]["end"][...].tolist()
        return {int(patch): slice(start, end)
                for patch, start, end in zip(file["patches"]["patch"][...], [0, *ends], ends)}


def replace_columns(path: str | Path, columns: dict[str, np.ndarray], described: Iterable[Column] = ()) -> None:
    """Put new values into columns of a finished file, or add columns that `described` explains.

    Raises
    ------
    BadData
        A new array's length is not the table's, or a column is neither there nor described.
    """
    import h5py

    new = {column.name: column for column in described}
    with open_product(path, KIND) as file:
        rows = int(file[TABLE].attrs["rows"])
        present = set(file[TABLE])
    for name, array in columns.items():
        if len(array) != rows or (name not in present and name not in new):
            raise BadData(f"{path}: column {name}: {len(array)} values for {rows} objects, or not described")
    with atomic(path) as aside:
        shutil.copyfile(path, aside)
        with h5py.File(aside, "r+", libver=LIBRARY, locking=False) as file:
            group = file[TABLE]
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in group["_columns"][...]]
            for name, array in columns.items():
                attributes = dict(group[name].attrs) if name in group else {"unit": new[name].unit, "doc": new[name].doc}
                if name in group:
                    del group[name]
                else:
                    names.append(name)
                write_array(group, name, np.asarray(array), **attributes)
            del group["_columns"]
            write_array(group, "_columns", np.array(names, dtype=str))
