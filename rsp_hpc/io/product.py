"""What every product file has in common: its header, its identity, its version; opening and writing it safely.

FORMAT_VERSION policy: a reader opens every version up to its own; a change that old readers would misread raises
the number; added groups, columns or attributes do not. Bytes are HDF5 of library version 1.10 or newer, whose
metadata carry check sums; datasets carry their own (`pixels`, `records`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from ..errors import BadData, Damaged, NewerFormat
from ..products.mask import PLANES
from .atomic import atomic, make_sure_of_room
from .attributes import get, put, values
from .pixels import FILTER, read_pixels
from .records import read_array, write_array

__all__ = ["FORMAT_VERSION", "INCOMPLETE", "Header", "Made", "Part", "ProductWriter", "create", "guarded", "hash_of",
           "identity", "identity_of", "made", "mask_planes", "open_product", "read_header", "with_planes", "write_parts"]

FORMAT_VERSION = 1
LIBRARY = ("v110", "v110")
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
          MemoryError)
"""What HDF5 and h5py raise at damaged files (UnicodeError is a ValueError)."""
INCOMPLETE = "incomplete"
SKIPPED = {"provenance"}
SKIPPED_ATTRIBUTES = {"crc32", "identity"}


@dataclass(frozen=True)
class Part:
    """What one part of a unit cost, and what of it is missing and why (`failure`)."""

    name: str
    seconds: float = 0.0
    peak_memory: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Header:
    """The common header of product files.

    Attributes
    ----------
    kind : 'visit', 'coadds', 'objects', 'calibration', ...
    identity : hash of configuration, inputs and software: `identity_of`
    configuration : effective configuration, YAML text
    inputs : name -> hash of each input
    ranks : of the job that wrote it
    format_version, software, host, created : filled in when the file is written
    parts : Part of each part, filled in when the file is closed
    incomplete : made without something that could be had later: not final
    """

    kind: str
    identity: str
    configuration: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    format_version: int = FORMAT_VERSION
    software: str = ""
    host: str = ""
    created: str = ""
    parts: tuple[Part, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True)
class Made:
    """What a finished product says of itself: was it made of the right things, is it final, which parts had problems."""

    identity: str
    incomplete: bool = False
    problems: tuple[Part, ...] = ()


def identity_of(stage: str, configuration: str, inputs: dict[str, str], software: str) -> str:
    """32 hexadecimal digits that change when the stage's configuration, an input, or the software's version does."""
    text = json.dumps([stage, configuration, sorted(inputs.items()), software])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def create(path: str | Path, header: Header) -> Iterator[Any]:
    """A new product file (h5py.File) that appears under its name when the block ends well.

    Raises
    ------
    BadData
        The output folder is full or cannot be written; nothing is left.
    """
    import h5py

    with atomic(path) as aside:
        aside.touch()  # an honest OSError, before HDF5 words it
        with h5py.File(aside, "w", libver=LIBRARY, locking=False) as file:
            put(file, format=f"rsp_hpc {header.kind}", format_version=header.format_version, identity=header.identity,
                mask_planes=json.dumps({name: list(plane) for name, plane in PLANES.items()}))
            _write_provenance(file.create_group("provenance"), header)
            try:
                yield file
                make_sure_of_room(aside.parent, file.id.get_mdc_size()[2], surely=True)
                file.flush()
            except BaseException:
                os.truncate(aside, 0)  # given up; HDF5 does not survive it if there is no room to close a file
                raise


def _write_provenance(group, header: Header) -> None:
    from .. import __version__

    put(group, software=header.software or f"rsp_hpc {__version__}", host=header.host or socket.gethostname(),
        ranks=header.ranks, created=header.created or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    write_array(group, "configuration", np.array(header.configuration.split("\n")))
    write_array(group, "input_name", np.array(list(header.inputs) or [], dtype=str))
    write_array(group, "input_hash", np.array(list(header.inputs.values()) or [], dtype=str))
    if header.parts:
        write_parts(group.parent, header.parts, header.incomplete)


def write_parts(file, parts: Sequence[Part], incomplete: bool = False) -> None:
    """Enter what the parts cost, which are missing and why, and whether the product is not final because of that."""
    put(file["provenance"], problems=sum(bool(part.failure) for part in parts), incomplete=int(incomplete))
    group = file["provenance"].create_group("parts")
    write_array(group, "name", np.array([part.name for part in parts], dtype=str))
    write_array(group, "seconds", np.array([part.seconds for part in parts], float), unit="s")
    write_array(group, "peak_memory", np.array([part.peak_memory for part in parts], np.int64), unit="byte")
    write_array(group, "failure", np.array([part.failure for part in parts], dtype=str))


class ProductWriter:
    """Base of the leader's writers: a context; the file appears when the block ends well, with its parts' costs."""

    def __init__(self, path: str | Path, header: Header):
        self._context = create(path, header)
        self._parts: list[Part] = []
        self._incomplete = False
        self.file: Any = None

    def __enter__(self):
        self.file = self._context.__enter__()
        return self

    def note(self, parts: Sequence[Part], incomplete: bool = False) -> None:
        """Enter what the parts cost, and which are missing and why; before the end of the block."""
        self._parts += parts
        self._incomplete |= incomplete

    def finish(self) -> None:
        """What is written once all parts are in."""

    def __exit__(self, kind, error, trace) -> Any:
        if kind is None:
            try:
                self.finish()
                write_parts(self.file, self._parts, self._incomplete)
            except BaseException as failed:
                if not self._context.__exit__(type(failed), failed, failed.__traceback__):
                    raise
        return self._context.__exit__(kind, error, trace)


@contextlib.contextmanager
def guarded(path: str | Path) -> Iterator[None]:
    """Whatever HDF5 says of a damaged file becomes one line of Damaged."""
    try:
        yield
    except BadData:
        raise
    except FileNotFoundError:
        raise BadData(f"{path}: is missing; run the stage that makes it") from None
    except DAMAGE as error:
        text = " ".join(str(error).split())[:120]
        raise Damaged(f"{path}: damaged ({text}); delete it and start the stage again") from None


@contextlib.contextmanager
def open_product(path: str | Path, kind: str | None = None) -> Iterator[Any]:
    """Open a product for reading (h5py.File).

    Raises
    ------
    BadData
        Missing, damaged, no product, of another kind, or of a newer format version.
    """
    import h5py

    with guarded(path):
        with h5py.File(path, "r", locking=False) as file:
            _check(file, path, kind)
            yield file


def _check(file, path: str | Path, kind: str | None) -> None:
    found = get(file, "format", "")
    if not isinstance(found, str) or not found.startswith("rsp_hpc "):
        raise BadData(f"{path}: is no product of this program")
    version = int(get(file, "format_version"))
    if version > FORMAT_VERSION:
        raise NewerFormat(f"{path}: written by format version {version}, this program reads up to {FORMAT_VERSION}; use the "
                          "newer program, or replace the file with --reprocess")
    if kind is not None and found != f"rsp_hpc {kind}":
        raise BadData(f"{path}: holds {found.removeprefix('rsp_hpc ')}, wanted {kind}")


def identity(path: str | Path) -> str | None:
    """The identity of a product as an input of others, None where there is no file; it says so if it is incomplete.

    Raises
    ------
    BadData
        The file is damaged or of a newer version.
    """
    found = made(path)
    return None if found is None else f"{INCOMPLETE} {found.identity}" if found.incomplete else found.identity


def made(path: str | Path) -> Made | None:
    """What a product says of itself, None where there is no file. Raises as `identity`."""
    if not Path(path).exists():
        return None
    with open_product(path) as file:
        group = file["provenance"]
        problems = tuple(part for part in _read_parts(group) if part.failure) if get(group, "problems", 1) else ()
        return Made(str(get(file, "identity")), bool(get(group, "incomplete", 0)), problems)


def _read_parts(group) -> tuple[Part, ...]:
    if "parts" not in group:
        return ()
    names = ("name", "seconds", "peak_memory", "failure")
    return tuple(Part(*row) for row in zip(*(read_array(group["parts"][name]).tolist() for name in names)))


def read_header(path: str | Path) -> Header:
    """The common header of a product."""
    with open_product(path) as file:
        group, attributes = file["provenance"], values(file["provenance"])
        inputs = dict(zip(read_array(group["input_name"]).tolist(), read_array(group["input_hash"]).tolist()))
        return Header(str(get(file, "format")).removeprefix("rsp_hpc "), str(get(file, "identity")),
                      "\n".join(read_array(group["configuration"]).tolist()), inputs, int(attributes["ranks"]),
                      int(get(file, "format_version")), str(attributes["software"]), str(attributes["host"]),
                      str(attributes["created"]), _read_parts(group), bool(attributes.get("incomplete", 0)))


def mask_planes(file) -> dict[str, int]:
    """Name -> bit of the planes that an open product was written with."""
    planes = json.loads(get(file, "mask_planes"))
    return {str(name): int(entry[0]) for name, entry in planes.items() if 0 <= int(entry[0]) < 32}


def with_planes(mask: np.ndarray, planes: dict[str, int]) -> np.ndarray:
    """A mask as this program numbers its planes: files are read by name, never by bit."""
    moves = {bit: PLANES[name].bit for name, bit in planes.items() if name in PLANES}
    if all(old == new for old, new in moves.items()) and len(moves) == len(planes):
        return mask
    out = np.zeros_like(mask)
    for old, new in moves.items():
        out |= (mask >> np.uint32(old) & np.uint32(1)) << np.uint32(new)
    return out


def hash_of(path: str | Path) -> str:
    """Hash of all science content: decoded datasets, attributes, names; without provenance, compression, storage."""
    import h5py

    digest = hashlib.blake2b(digest_size=16)

    def add_attributes(item) -> None:
        for key in sorted(set(item.attrs) - SKIPPED_ATTRIBUTES):
            value = get(item, key)
            digest.update(f"{key}={value if isinstance(value, str) else np.asarray(value).tolist()!r};".encode())

    def add(name: str, item) -> None:
        digest.update(f"\n{name}:".encode())
        add_attributes(item)
        if isinstance(item, h5py.Dataset):
            filters = item.id.get_create_plist()
            pixels = any(filters.get_filter(i)[0] == FILTER for i in range(filters.get_nfilters()))
            values = read_pixels(item) if pixels else read_array(item)
            digest.update(f"{values.dtype.str}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())

    def walk(group) -> None:
        for name in sorted(group):
            if group.name == "/" and name in SKIPPED:
                continue
            add(f"{group.name}/{name}", group[name])
            if isinstance(group[name], h5py.Group):
                walk(group[name])

    with open_product(path) as file:
        add_attributes(file)
        walk(file)
    return digest.hexdigest()
