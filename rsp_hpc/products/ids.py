"""64-bit ids: a source is (visit, detector, counter), an object (tract, patch, counter), packed and unpackable."""

from __future__ import annotations

import datetime

import numpy as np

from ..errors import BadData

__all__ = ["object_ids", "source_ids", "unpack_object", "unpack_source"]

COUNTER_BITS = 18
"""262,144 sources in a detector or objects in a patch."""
DETECTOR_BITS = 9
PATCH_BITS = 14
PLAIN = 1 << 35
"""Visits below stand as they are; above, they are read as day and number, YYYYMMDDNNNNN, or as day and time, YYYYMMDDhhmmss,
and stand as days and number or seconds."""
STAMP = 1 << 34
"""Added to those of day and time."""
SEQUENCE_BITS = 17
_DAY_ONE = datetime.date(2000, 1, 1)


def _pack(outer: int, inner: int, bits: int, n: int, what: str) -> np.ndarray:
    if n > 1 << COUNTER_BITS or not 0 <= inner < 1 << bits or not 0 <= outer < 1 << 63 - bits - COUNTER_BITS:
        raise BadData(f"{what}: {n} rows of ({outer}, {inner}) do not fit a 64-bit id")
    return ((int(outer) << bits | int(inner)) << COUNTER_BITS) + np.arange(n, dtype=np.int64)


def source_ids(visit: int, detector: int, n: int) -> np.ndarray:
    """(n,) int64 ids of a detector's sources: visit << 27 | detector << 18 | counter, long visit numbers shortened."""
    return _pack(_short(visit), detector, DETECTOR_BITS, n, "source id")


def unpack_source(ids) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(visit, detector, counter) of source ids."""
    visit, detector, counter = _unpack(ids, DETECTOR_BITS)
    return np.array([_long(int(value)) for value in np.ravel(visit)], np.int64).reshape(np.shape(visit)), detector, counter


def _short(visit: int) -> int:
    """A visit number in 36 bits."""
    if visit < PLAIN:
        return visit
    has_time = visit >= 10**13
    day, number = divmod(int(visit), 1_000_000 if has_time else 100_000)
    try:
        date = datetime.date(day // 10_000, day // 100 % 100, day % 100)
        if has_time:
            time = datetime.time(number // 10_000, number // 100 % 100, number % 100)
            number = 3600 * time.hour + 60 * time.minute + time.second
        days = (date - _DAY_ONE).days
        if not 0 <= days < STAMP >> SEQUENCE_BITS:
            raise ValueError(date)
    except ValueError:
        raise BadData(f"visit {visit}: numbers of {PLAIN} and more must be YYYYMMDDNNNNN or YYYYMMDDhhmmss, from 2000 on") from None
    return PLAIN + STAMP * has_time + (days << SEQUENCE_BITS) + number


def _long(short: int) -> int:
    """The inverse of `_short`."""
    if short < PLAIN:
        return short
    has_time, rest = divmod(short - PLAIN, STAMP)
    days, number = divmod(rest, 1 << SEQUENCE_BITS)
    date = _DAY_ONE + datetime.timedelta(days)
    day = date.year * 10_000 + date.month * 100 + date.day
    if not has_time:
        return day * 100_000 + number
    return day * 1_000_000 + number // 3600 * 10_000 + number // 60 % 60 * 100 + number % 60


def object_ids(tract: int, patch: int, n: int) -> np.ndarray:
    """(n,) int64 ids of a patch's objects: tract << 32 | patch << 18 | counter."""
    return _pack(tract, patch, PATCH_BITS, n, "object id")


def unpack_object(ids) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tract, patch, counter) of object ids."""
    return _unpack(ids, PATCH_BITS)


def _unpack(ids, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.asarray(ids, np.int64)
    return ids >> (bits + COUNTER_BITS), ids >> COUNTER_BITS & (1 << bits) - 1, ids & (1 << COUNTER_BITS) - 1
