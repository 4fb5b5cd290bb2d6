"""FITS: headers, images and tables in and out. The only importer of fitsio; astropy.io.fits stands in for it.

The structure of a file is read here, card by card, before any library sees it: every size that a header promises is
held against what the file has, so that a truncated or hostile file costs one message, not memory. Plain images are then
only a slice of bytes; tables, tile-compressed images and all writing go through the library.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import stat
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import BadData
from ..products.box import Box
from .atomic import atomic
from .cards import CARD, Cards, cards_of, image_cards, image_shape, storable_cards

__all__ = ["FitsFile", "Hdu", "read_header", "read_image", "read_table", "write_fits"]

BLOCK = 2880
MAX_HEADER = 4000 * BLOCK  # bytes of one header: 144,000 cards
MAX_HDUS = 10_000
MAX_DATA = 1 << 33  # bytes of one HDU
DEFLATE = 1032  # no deflate stream grows by more (zlib's manual)
TILED = 2000  # nor, by much, a tile-compressed image
DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
UNSIGNED = {(8, -128.0): "i1", (16, 2.0**15): "u2", (32, 2.0**31): "u4", (64, 2.0**63): "u8"}
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?)")
_WIDTH = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


class Hdu(NamedTuple):
    """What to write as one HDU: an image (array), a table (name -> array) or nothing, its cards, and units of columns.

    A card's value may be (value, comment).
    """

    data: np.ndarray | Mapping[str, np.ndarray] | None
    cards: Mapping[str, Any] = {}
    units: Mapping[str, str] = {}


class _Unit(NamedTuple):
    """One HDU of a file: its cards, where its data start, how many bytes they have, and these (gz only)."""

    cards: Cards
    number: int
    start: int
    size: int
    data: bytes | None


class FitsFile:
    """A FITS file, plain or gzipped, opened for reading; a context manager.

    Parameters
    ----------
    path : the file
    keep : of which HDUs the data of a gzipped file are kept as they pass by; False where only headers are wanted

    Attributes
    ----------
    headers : cards of each HDU, values as bool, int, float, str (None if undefined); the first of duplicates; no
        commentary. A tile-compressed image has the cards of the image, and the number that it had before compression.
    padded : whether the file is filled up to whole blocks, as the standard asks

    Raises
    ------
    BadData
        The file is missing, is no FITS file, is truncated or damaged.
    """

    def __init__(self, path: str | Path, keep: bool | Collection[int] = True):
        self.path = Path(path)
        self.padded = True
        self._digest = hashlib.blake2b(digest_size=16)
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                raise BadData(f"{path}: cannot be read (it is no file)")
            self._size = status.st_size
            self._file: BinaryIO = open(self.path, "rb")
        except OSError as error:
            raise BadData(f"{path}: cannot be read ({error.strerror})") from None
        try:
            self.gzipped = self._file.read(2) == b"\x1f\x8b"
            self._file.seek(0)
            self._units = self._checked(self._walk, keep)
        except BaseException:
            self._file.close()
            raise
        self.headers = [image_cards(unit.cards) for unit in self._units]

    def __enter__(self) -> FitsFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._units)

    def header(self, hdu: int) -> Cards:
        """The cards of an HDU."""
        self._unit(hdu)
        return self.headers[hdu]

    def image(self, hdu: int = 0, box: Box | None = None) -> np.ndarray:
        """(ny, nx) array of an image or a section of it, as stored, in native byte order.

        Unsigned integers (BZERO) come as such; other scaled integers as float32 (16 bits and fewer) or float64.

        Raises
        ------
        BadData
            There is no such image, or the section leaves it.
        """
        unit, cards = self._unit(hdu), self.headers[hdu]
        shape = image_shape(cards)
        if shape is None:
            raise BadData(f"{self.path}: HDU {hdu} holds no two-dimensional image")
        whole = Box.of_shape(shape)
        box = whole if box is None else box
        if box.intersect(whole) != box:
            raise BadData(f"{self.path}: HDU {hdu} is {whole.nx} x {whole.ny} pixels, {box} is not inside")
        if unit.cards.get("ZIMAGE") is True:
            return self._by_library(self._tiled, unit.number, box)
        dtype = np.dtype(DTYPES[cards["BITPIX"]])
        start, size = box.y0 * whole.nx * dtype.itemsize, box.ny * whole.nx * dtype.itemsize
        raw = np.frombuffer(self._bytes(unit, start, size), dtype).reshape(box.ny, whole.nx)
        return self._scaled(raw[:, box.x0:box.x1], cards)

    def table(self, hdu: int = 1, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Columns of a binary table: name -> array (n,) or (n, ...), native byte order; text as str, blanks stripped.

        Columns of variable length come as object arrays of arrays.

        Raises
        ------
        BadData
            There is no such table, or it lacks one of the columns.
        """
        unit = self._unit(hdu)
        if unit.cards.get("XTENSION", "").strip() != "BINTABLE" or unit.cards.get("ZIMAGE") is True:
            raise BadData(f"{self.path}: HDU {hdu} holds no binary table")
        self._check_table(unit)
        found = self._by_library(self._table_of, unit.number) if unit.cards.get("NAXIS2") else {
            _name_of(unit.cards, number): np.zeros(0) for number in range(1, unit.cards["TFIELDS"] + 1)}
        if missing := [name for name in columns or () if name not in found]:
            raise BadData(f"{self.path}: the table has no column {missing[0]}; it has {', '.join(found):.300}")
        return {name: _plain(found[name]) for name in columns or found}

    def fingerprint(self) -> str:
        """A hash of the content that costs no reading of all pixels, and does not depend on name or date of the file.

        Size, all headers, and of the pixels: gzip's own checksum, or four samples of 16 KiB.
        """
        digest = self._digest.copy()
        digest.update(self._size.to_bytes(8, "big"))
        places = [self._size - 8] if self.gzipped else [self._size * step // 5 for step in range(1, 5)]
        for place in places:
            self._file.seek(max(0, place))
            digest.update(self._file.read(16384))
        return digest.hexdigest()

    # ---- structure -------------------------------------------------------------------------------------------------

    def _checked(self, function, *arguments):
        """What a function returns; errors of the file in the words of this program."""
        try:
            return function(*arguments)
        except EOFError:
            raise BadData(f"{self.path}: truncated: the gzip stream ends early; fetch it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadData(f"{self.path}: damaged gzip stream ({error}); fetch it again") from None
        except OSError as error:
            reason = " ".join(str(error).split())
            raise BadData(f"{self.path}: cannot be read ({reason:.120}); fetch it again") from None

    def _by_library(self, function, *arguments):
        """The same for the libraries, which raise every kind of error on a damaged file."""
        try:
            return self._checked(function, *arguments)
        except (BadData, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadData(f"{self.path}: damaged ({reason:.120}); fetch it again") from None

    def _walk(self, keep: bool | Collection[int]) -> list[_Unit]:
        """Every HDU, its sizes held against the file's."""
        stream = gzip.GzipFile(fileobj=self._file) if self.gzipped else self._file
        units: list[_Unit] = []
        place = 0
        while len(units) < MAX_HDUS:
            header = self._header(stream, place, first=not units)
            if header is None:
                break
            cards, length = header
            start, size = place + length, self._data_size(cards, len(units))
            self._check_size(start, size)
            data = self._pass(stream, start, size, keep if isinstance(keep, bool) else len(units) in keep)
            units.append(_Unit(cards, len(units), start, size, data))
            place = start + -(-size // BLOCK) * BLOCK
        if len(units) > 1 and units[1].cards.get("ZSIMPLE") is True and not units[0].size:
            units = units[1:]  # the image was the primary HDU before it was compressed
        return units

    def _header(self, stream: BinaryIO, place: int, first: bool) -> tuple[Cards, int] | None:
        """(cards, bytes) of the header at a place; None where no further HDU begins."""
        blocks = []
        while len(blocks) * BLOCK < MAX_HEADER:
            block = stream.read(BLOCK)
            if not blocks and not block.startswith(b"SIMPLE  =" if first else b"XTENSION"):
                if first:
                    raise BadData(f"{self.path}: not a FITS file ({'it is empty' if not block else 'no SIMPLE card'})")
                return None
            if len(block) < BLOCK:
                length = place + len(blocks) * BLOCK + len(block)
                raise BadData(f"{self.path}: truncated: a header has no end, file has {length} bytes; fetch it again")
            blocks.append(block)
            ends = [at for at in range(0, BLOCK, CARD) if block[at:at + 8] == b"END     "]
            if ends:
                text = b"".join(blocks)
                self._digest.update(text)
                return cards_of(text[:len(text) - BLOCK + ends[0]]), len(text)
        raise BadData(f"{self.path}: a header of more than {MAX_HEADER} bytes; fetch it again")

    def _data_size(self, cards: Cards, number: int) -> int:
        """Bytes of an HDU's data, as its header promises."""
        bad = f"{self.path}: header of HDU {number}:"
        axes = cards.get("NAXIS")
        if cards.get("BITPIX") not in DTYPES or isinstance(cards["BITPIX"], bool):
            raise BadData(f"{bad} BITPIX is {cards.get('BITPIX')!r:.30}; mend it or fetch the file again")
        if not isinstance(axes, int) or not 0 <= axes <= 999:
            raise BadData(f"{bad} NAXIS is {axes!r:.30}; mend it or fetch the file again")
        values = {**{f"NAXIS{n}": cards.get(f"NAXIS{n}") for n in range(1, axes + 1)},
                  "PCOUNT": cards.get("PCOUNT", 0), "GCOUNT": cards.get("GCOUNT", 1)}
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise BadData(f"{bad} {key} is {value!r:.30}; mend it or fetch the file again")
        pixels = math.prod(values[f"NAXIS{n}"] for n in range(1, axes + 1)) if axes else 0
        if cards.get("ZIMAGE") is True:
            self._check_tiled(cards, pixels + values["PCOUNT"], bad)
        return abs(cards["BITPIX"]) // 8 * values["GCOUNT"] * (values["PCOUNT"] + pixels)

    def _check_tiled(self, cards: Cards, size: int, bad: str) -> None:
        """That a tile-compressed image is not absurdly larger than its tiles."""
        axes = cards.get("ZNAXIS")
        number = axes if isinstance(axes, int) and 0 < axes <= 9 else 0
        lengths = [cards.get(f"ZNAXIS{n}") for n in range(1, number + 1)]
        sizes = bool(lengths) and all(type(length) is int and length >= 0 for length in lengths)
        if not sizes or cards.get("ZBITPIX") not in DTYPES:
            raise BadData(f"{bad} the sizes of its compressed image are not there; fetch the file again")
        promised = math.prod(lengths) * abs(cards["ZBITPIX"]) // 8
        tiles = math.prod(cards[f"ZTILE{n}"] if type(cards.get(f"ZTILE{n}")) is int else 1 for n in range(1, axes + 1))
        if max(promised, tiles) > TILED * size + (1 << 24) or promised > MAX_DATA:
            raise BadData(f"{bad} promises an image of {promised} bytes in {size} compressed ones; fetch it again")

    def _check_size(self, start: int, size: int) -> None:
        """That a file can hold what its header promises; for gzip: could, if perfectly compressed."""
        room = self._size * DEFLATE + BLOCK if self.gzipped else self._size
        if start + size > room or size > MAX_DATA:
            has = f"at most {room} bytes unpacked" if self.gzipped else f"{self._size}"
            raise BadData(f"{self.path}: truncated: header promises {start + size} bytes, file has {has}; fetch it "
                          f"again")

    def _pass(self, stream: BinaryIO, start: int, size: int, keep: bool) -> bytes | None:
        """Move to the next header; the data in between if they are to be kept."""
        gap = -size % BLOCK
        if not self.gzipped:
            self.padded &= start + size + gap <= self._size
            stream.seek(start + size + gap)
            return None
        kept, left = [], size
        while left:
            part = stream.read(min(left, 1 << 20))
            if not part:
                raise BadData(f"{self.path}: truncated: header promises {start + size} bytes, file has "
                              f"{start + size - left}; fetch it again")
            left -= len(part)
            if keep:
                kept.append(part)
        self.padded &= len(stream.read(gap)) == gap
        return b"".join(kept) if keep else None

    def _unit(self, hdu: int) -> _Unit:
        if not 0 <= hdu < len(self._units):
            raise BadData(f"{self.path}: has {len(self._units)} HDUs, there is no HDU {hdu}")
        return self._units[hdu]

    # ---- data ------------------------------------------------------------------------------------------------------

    def _bytes(self, unit: _Unit, start: int, size: int) -> bytes | memoryview:
        """A part of an HDU's data."""
        if unit.data is not None:
            return memoryview(unit.data)[start:start + size]
        if self.gzipped:
            raise ValueError("the data of this HDU were not kept")
        self._file.seek(unit.start + start)
        found = self._file.read(size)
        if len(found) < size:
            raise BadData(f"{self.path}: truncated while it was read; fetch it again")
        return found

    def _scaled(self, raw: np.ndarray, cards: Cards) -> np.ndarray:
        """Stored numbers to values: BSCALE, BZERO."""
        scale, zero = (cards.get(key, default) for key, default in (("BSCALE", 1.0), ("BZERO", 0.0)))
        good = all(type(value) in (int, float) and math.isfinite(value) for value in (scale, zero))
        if not good or scale == 0.0:
            raise BadData(f"{self.path}: BSCALE {scale!r:.30}, BZERO {zero!r:.30} are no scale; mend the header")
        native = raw.astype(raw.dtype.newbyteorder("="))
        if (scale, zero) == (1.0, 0.0):
            return native
        unsigned = UNSIGNED.get((cards["BITPIX"], float(zero)))
        if scale == 1.0 and unsigned:
            high = np.dtype(unsigned).type(1 << (8 * native.itemsize - 1)) if unsigned != "i1" else None
            if high is None:
                return (native ^ np.uint8(128)).view("i1")
            values = native.view(unsigned)
            values ^= high  # in place: it is a copy already
            return values
        wide = np.float32 if cards["BITPIX"] in (8, 16, -32) else np.float64
        value = native.astype(wide) * wide(scale) + wide(zero)
        if raw.dtype.kind != "f" and type(cards.get("BLANK")) is int:
            value[native == cards["BLANK"]] = np.nan
        return value

    def _tiled(self, number: int, box: Box) -> np.ndarray:
        rows, columns = slice(box.y0, box.y1), slice(box.x0, box.x1)
        if fitsio := _fitsio_for(self.path):
            with fitsio.FITS(str(self.path)) as file:
                return _plain(file[number][rows, columns])
        from astropy.io import fits
        with fits.open(self.path, memmap=False, uint=True) as file:
            return _plain(np.asarray(file[number].section[rows, columns]))

    def _check_table(self, unit: _Unit) -> None:
        """That rows are as long as their columns and arrays of variable length lie in the heap."""
        cards, fields = unit.cards, unit.cards.get("TFIELDS")
        if type(fields) is not int or not 0 <= fields <= 999 or cards["NAXIS"] != 2:
            raise BadData(f"{self.path}: HDU {unit.number} is not a proper table; fetch it again")
        width, pointers = 0, []
        for number in range(1, fields + 1):
            form = _FORM.match(str(cards.get(f"TFORM{number}", "")).strip().upper())
            if form is None:
                raise BadData(f"{self.path}: TFORM{number} is {cards.get(f'TFORM{number}')!r:.30}; mend the header")
            repeat, letter = int(form[1] or 1), form[2]
            if letter in "PQ" and repeat:
                pointers.append((width, letter, max(1, _WIDTH.get(form[3], 1))))
            width += -(-repeat // 8) if letter == "X" else repeat * _WIDTH[letter]
        if width != cards["NAXIS1"]:
            raise BadData(f"{self.path}: HDU {unit.number}: its columns have {width} bytes, its rows "
                          f"{cards['NAXIS1']}; fetch it again")
        rows, heap = cards["NAXIS2"], unit.size - cards["NAXIS1"] * cards["NAXIS2"]
        gap = cards.get("THEAP", width * rows)
        if type(gap) is not int or not width * rows <= gap <= unit.size:
            raise BadData(f"{self.path}: HDU {unit.number}: THEAP is {gap!r:.30}; fetch it again")
        if pointers and rows:
            heap = unit.size - gap
            raw = np.frombuffer(self._bytes(unit, 0, width * rows), "u1").reshape(rows, width)
            for at, letter, item in pointers:
                pairs = raw[:, at:at + _WIDTH[letter]].copy().view(">i4" if letter == "P" else ">i8").astype("i8")
                count, offset = pairs[:, 0], pairs[:, 1]
                if np.any((count < 0) | (offset < 0) | (count > heap // item) | (offset > heap - count * item)):
                    raise BadData(f"{self.path}: HDU {unit.number}: an array lies outside the table's heap; fetch it "
                                  f"again")

    def _table_of(self, number: int) -> dict[str, np.ndarray]:
        if fitsio := _fitsio_for(self.path):
            with fitsio.FITS(str(self.path), vstorage="object") as file:
                data = file[number].read()
                return {name: data[name] for name in data.dtype.names}
        from astropy.io import fits
        with fits.open(self.path, memmap=False) as file:
            data = file[number].data
            return {name: np.array(data[name]) for name in data.names}


def _name_of(cards: Cards, number: int) -> str:
    return str(cards.get(f"TTYPE{number}", f"col{number}")).strip()


def _plain(values: np.ndarray) -> np.ndarray:
    """In native byte order; text as str without trailing blanks; masked values filled."""
    values = np.asarray(np.ma.getdata(values))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "latin-1")
    if values.dtype.kind == "U":
        return np.char.rstrip(values)
    if values.dtype.kind == "O":
        plain = np.empty(len(values), object)
        plain[:] = [_plain(np.asarray(value)) for value in values]
        return plain
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _fitsio_for(path: Path):
    """The module fitsio; None if it is missing, or would take a part of the name for an instruction."""
    try:
        import fitsio
    except ImportError:
        return None
    return None if re.search(r"[\[\](){}!+#*@:%?&;|<>]", str(path)) else fitsio


def read_header(path: str | Path, hdu: int = 0) -> Cards:
    """The cards of one HDU; see `FitsFile`."""
    with FitsFile(path, keep=False) as file:
        return file.header(hdu)


def read_image(path: str | Path, hdu: int = 0, box: Box | None = None) -> np.ndarray:
    """An image or a section of it; see `FitsFile.image`."""
    with FitsFile(path) as file:
        return file.image(hdu, box)


def read_table(path: str | Path, hdu: int = 1, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a table; see `FitsFile.table`."""
    with FitsFile(path) as file:
        return file.table(hdu, columns)


def write_fits(path: str | Path, hdus: Sequence[Hdu | tuple]) -> None:
    """Write a FITS file as a whole or not at all; gzipped if the name ends in .gz. The same input gives the same bytes.

    Parameters
    ----------
    hdus : `Hdu`s or tuples (data, cards): images, tables (a mapping of columns) or None. A table cannot come first: an
        empty primary HDU is put before it.
    """
    items = [Hdu(*item) for item in hdus]
    if not items or isinstance(items[0].data, Mapping):
        items.insert(0, Hdu(None))
    with atomic(path) as aside:
        if fitsio := _fitsio_for(aside):
            _write_fitsio(fitsio, aside, items)
        else:
            _write_astropy(aside, items)
        if str(path).endswith(".gz"):
            with open(aside, "rb") as file:
                packed = gzip.compress(file.read(), 4, mtime=0)
            aside.write_bytes(packed)


def _write_fitsio(fitsio, path: Path, items: Sequence[Hdu]) -> None:
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        for item in items:
            records = [{"name": key, "value": value, "comment": comment}
                       for key, value, comment in storable_cards(item.cards)]
            if isinstance(item.data, Mapping):
                columns = {name: _storable(values) for name, values in item.data.items()}
                file.write_table(list(columns.values()), names=list(columns), header=records,
                                 extname=item.cards.get("EXTNAME"),
                                 units=[item.units.get(name, "") for name in columns])
            else:
                file.write(None if item.data is None else _storable(item.data), header=records,
                           extname=item.cards.get("EXTNAME"))


def _write_astropy(path: Path, items: Sequence[Hdu]) -> None:
    from astropy.io import fits
    found = []
    for number, item in enumerate(items):
        header = fits.Header()
        for key, value, comment in storable_cards(item.cards):
            header[key if len(key) <= 8 else f"HIERARCH {key}"] = (value, comment)
        if isinstance(item.data, Mapping):
            columns = {name: _storable(values) for name, values in item.data.items()}
            kinds = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
            rows = np.empty(len(next(iter(columns.values()))), kinds)
            for name, values in columns.items():
                rows[name] = values
            hdu = fits.BinTableHDU(rows, header=header)
            for name, unit in item.units.items():
                hdu.columns[name].unit = unit
        else:
            kind = fits.ImageHDU if number else fits.PrimaryHDU
            hdu = kind(None if item.data is None else _storable(item.data), header=header)
        found.append(hdu)
    fits.HDUList(found).writeto(path, overwrite=True, output_verify="silentfix")


def _storable(values: np.ndarray) -> np.ndarray:
    """As FITS can store it: text as bytes, float16 as float32."""
    values = np.asarray(values)
    if values.dtype.kind == "U":
        return np.char.encode(values, "ascii", "replace")
    return values.astype(np.float32) if values.dtype == np.float16 else values
