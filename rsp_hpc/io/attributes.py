"""HDF5 attributes: numbers as they are, text of fixed length, so that it lies under the object header's check sum.

(Text of variable length goes to HDF5's global heap, which has no check sum: a changed byte there is not seen.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["get", "put", "values"]


def put(item, **named) -> None:
    """Set attributes of an h5py group or dataset."""
    import h5py

    for key, value in named.items():
        if isinstance(value, str):
            text = value.encode("utf-8")
            item.attrs.create(key, np.bytes_(text), dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            item.attrs[key] = value


def get(item, key: str, *default) -> Any:
    """One attribute as str, int, float, bool or array; KeyError without a default."""
    value = item.attrs.get(key, *default) if default else item.attrs[key]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value


def values(item) -> dict[str, Any]:
    """All attributes by name."""
    return {key: get(item, key) for key in item.attrs}
