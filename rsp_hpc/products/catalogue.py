"""Catalogues: a struct of arrays whose columns carry dtype, unit and meaning."""

from __future__ import annotations

from typing import Iterable, NamedTuple

import numpy as np

__all__ = ["Catalogue", "Column"]


class Column(NamedTuple):
    """One column: name, dtype, unit ('' if none), and one line of meaning."""

    name: str
    dtype: str
    unit: str
    doc: str


class Catalogue:
    """Named 1-D arrays of one length. `c["psfFlux"]` is the array; `c.columns` describes them.

    Columns are given once, when the catalogue is made; `with_columns` and `rows` give new catalogues.
    """

    def __init__(self, columns: Iterable[Column], arrays: dict[str, np.ndarray] | None = None, size: int = 0):
        self.columns: dict[str, Column] = {column.name: column for column in columns}
        if arrays is None:
            arrays = {name: _missing(column.dtype, size) for name, column in self.columns.items()}
        if set(arrays) != set(self.columns):
            raise ValueError(f"arrays and columns differ: {sorted(set(arrays) ^ set(self.columns))}")
        self.arrays = {name: np.asarray(arrays[name], column.dtype) for name, column in self.columns.items()}
        lengths = {len(array) for array in self.arrays.values()}
        if len(lengths) > 1 or any(array.ndim != 1 for array in self.arrays.values()):
            raise ValueError(f"columns are 1-D and of one length, got lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def rows(self, index) -> Catalogue:
        """The rows of an index array, slice or boolean mask, as a new catalogue."""
        return Catalogue(self.columns.values(), {name: array[index] for name, array in self.arrays.items()})

    def with_columns(self, columns: Iterable[Column], arrays: dict[str, np.ndarray]) -> Catalogue:
        """A new catalogue with columns added or replaced."""
        merged = {**self.columns, **{column.name: column for column in columns}}
        return Catalogue(merged.values(), {**self.arrays, **arrays})

    @classmethod
    def concatenate(cls, parts: list[Catalogue]) -> Catalogue:
        """One catalogue of all rows; the parts have the same columns."""
        return cls(parts[0].columns.values(), {name: np.concatenate([part[name] for part in parts])
                                               for name in parts[0].columns})


def _missing(dtype: str, size: int) -> np.ndarray:
    """NaN for floats, zero or False otherwise: there are no magic numbers."""
    kind = np.dtype(dtype)
    return np.full(size, np.nan, kind) if kind.kind == "f" else np.zeros(size, kind)
