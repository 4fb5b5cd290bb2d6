"""tracts/<tract>/objects.h5: the objects of a tract, one dataset per column, ordered by patch.

Which objects are primary is known once the neighbouring tracts are measured: the file is then copied aside with that
one column replaced and renamed, so it is complete at any moment.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable

import numpy as np

from ..errors import BadData
from ..products.catalogue import Catalogue, Column
from .atomic import atomic
from .attributes import get, put, values
from .product import LIBRARY, Header, ProductWriter, guarded, open_product
from .records import read_array, write_array
from .table import read_catalogue, write_catalogue

__all__ = ["ObjectsWriter", "read_bands", "read_objects", "replace_columns", "replace_primary"]

KIND = "objects"
TABLE = "objects"


class ObjectsWriter(ProductWriter):
    """Writes a tract's objects; the file appears when the `with` block ends well.

    Parameters
    ----------
    settle : the whole tract's catalogue -> the same with what only the whole can tell (who is primary); runs at the end
    bands : of the columns, bluest first
    """

    def __init__(self, path: str | Path, header: Header, settle: Callable[[Catalogue], Catalogue] | None = None,
                 bands: Iterable[str] = ()):
        super().__init__(path, replace(header, kind=KIND))
        self._settle, self._bands = settle, tuple(bands)
        self._catalogues: list[Catalogue] = []

    def append(self, catalogue: Catalogue) -> None:
        """Take one patch's objects, in any order; the column `patch` says which."""
        self._catalogues.append(catalogue)

    def finish(self) -> None:
        """All patches' objects, by patch number, with the same columns."""
        put(self.file, bands=",".join(self._bands))
        if not self._catalogues:
            return
        parts = sorted(self._catalogues, key=lambda part: int(part["patch"][0]) if len(part) else -1)
        columns = _all_columns(parts, self._bands)
        whole = Catalogue.concatenate([_completed(part, columns) for part in parts])
        write_catalogue(self.file, TABLE, self._settle(whole) if self._settle else whole)


def _all_columns(parts: list[Catalogue], bands: tuple[str, ...]) -> dict[str, Column]:
    """Every column of any part, in an order that does not depend on which patch lacks which band.

    First the columns without a band's prefix, in order of appearance; then band by band.
    """
    known = {name: column for part in sorted(parts, key=lambda part: -len(part.columns)) for name, column in
             part.columns.items()}

    def band_of(name: str) -> int:
        return next((number for number, band in enumerate(bands) if name.startswith(f"{band}_")), -1)

    stem_order: dict[str, int] = {}
    for name in known:
        number = band_of(name)
        stem_order.setdefault(name if number < 0 else name[len(bands[number]) + 1:], len(stem_order))
    return {name: known[name] for name in sorted(known, key=lambda name: (
        band_of(name), stem_order[name if band_of(name) < 0 else name[len(bands[band_of(name)]) + 1:]]))}


def _completed(part: Catalogue, columns: dict[str, Column]) -> Catalogue:
    """With every column: what was not measured is NaN, 0 or False, and flagged where a flag is lacking."""
    arrays = {}
    for name, column in columns.items():
        if name in part:
            arrays[name] = part[name]
            continue
        kind = np.dtype(column.dtype)
        missing = np.nan if kind.kind == "f" else kind.kind == "b" and name.endswith("_flag")
        arrays[name] = np.full(len(part), missing, kind)
    return Catalogue(columns.values(), arrays)


def read_objects(path: str | Path, columns: Iterable[str] | None = None) -> Catalogue:
    """The objects of a tract, all columns or some.

    Raises
    ------
    BadData
        The file is missing or damaged, or lacks a column.
    """
    with open_product(path, KIND) as file:
        return read_catalogue(file[TABLE], columns) if TABLE in file else Catalogue(())


def read_bands(path: str | Path) -> tuple[str, ...]:
    """The bands of a tract's objects, bluest first."""
    with open_product(path, KIND) as file:
        return tuple(band for band in str(get(file, "bands")).split(",") if band)


def replace_primary(path: str | Path, object_ids: np.ndarray, primary: np.ndarray) -> bool:
    """Set detect_isPrimary to `primary` for these objects, to False for all others; whether that changed the file."""
    present = read_objects(path, ("objectId", "detect_isPrimary"))
    chosen = np.asarray(object_ids)[np.asarray(primary, bool)]
    wanted = np.isin(present["objectId"], chosen)
    if np.array_equal(wanted, present["detect_isPrimary"]):
        return False
    replace_columns(path, {"detect_isPrimary": wanted})
    return True


def replace_columns(path: str | Path, columns: dict[str, np.ndarray]) -> None:
    """Put new values into columns of a finished file; all else stays as it is.

    Raises
    ------
    BadData
        The file has no such column, or it has another length or type.
    """
    import h5py

    present = read_objects(path, columns)
    for name, array in columns.items():
        old = present[name]
        if np.shape(array) != old.shape or np.asarray(array).dtype != old.dtype:
            raise BadData(f"{path}: column {name}: {np.shape(array)} {np.asarray(array).dtype} given, "
                          f"{old.shape} {old.dtype} wanted")
    with atomic(path) as aside:
        shutil.copyfile(path, aside)
        with guarded(path), h5py.File(aside, "r+", libver=LIBRARY, locking=False) as file:
            group = file[TABLE]
            for name, array in columns.items():
                attributes = values(group[name])
                del group[name]
                write_array(group, name, np.asarray(array), **attributes)
                read_array(group[name])
