"""Pixels in HDF5: any rank compresses chunks, the leader appends them as they are; and the way back.

Chunks are bands of rows, blosc2 frames (HDF5 filter 32026; bitshuffle, integers by zstd level 1, floats by lz4, which
is three times as fast at the same size), so that any HDF5 tool with that filter (`import hdf5plugin`) reads the
dataset; this module decodes them with blosc2 alone. Each dataset carries the CRC-32 of each chunk. Three kinds:

exact     the array as it is (coadds, masks, flats)
noise     float32 -> int32 in steps of noise/q with subtractive dither; noise grows by 1/(24 q^2): 0.26 % at q = 4
variance  float32 with the mantissa rounded to 10 bits, relative error <= 2^-11
(The dither of pixel i of row y is u[s + i], u = 65,536 numbers of splitmix64(seed), s a start per row from the same
generator: value = (stored - u + 0.5) * scale; -2^31 is NaN, +-(2^31 - 1) are infinities.)
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..errors import BadData, Damaged
from .atomic import make_sure_of_room
from .attributes import get, put

__all__ = ["EncodedDataset", "append", "encode", "noise_of", "read_pixels"]

FILTER = 32026
CHUNK_BYTES = 1 << 22
BLOCK_BYTES = 1 << 16
MAX_BYTES = 1 << 34
"""A dataset that claims more is refused before anything is allocated."""
CODECS = {False: (5, 1), True: (1, 3)}
"""blosc2's number and level of the codec for integers (zstd) and floats (lz4)."""
TABLE = 1 << 16
NAN_MARK, INF_MARK = -(2**31), 2**31 - 1
KINDS = ("exact", "noise", "variance")


@dataclass(frozen=True)
class EncodedDataset:
    """A compressed dataset on its way to the writer; `data` travels between ranks as one raw buffer.

    Attributes
    ----------
    dtype : str, of the stored numbers
    shape, chunks : of the dataset
    data : (bytes,) uint8, the chunks one after the other
    ends : (n_chunks,) int64, where each chunk ends in data
    attributes : of the dataset
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    data: np.ndarray = field(repr=False)
    ends: np.ndarray = field(repr=False)
    attributes: dict


def encode(array: np.ndarray, kind: str = "exact", *, step: float = float("nan"), seed: int = 0, unit: str = "",
           doc: str = "") -> EncodedDataset:
    """Compress an array of 1 to 4 dimensions.

    Parameters
    ----------
    array : any fixed-size number type; kinds noise and variance take float32 (ny, nx)
    kind : one of KINDS. An image without a valid step, or with values beyond 2^31 steps, is stored exactly
    step : of the kind noise, in the unit of the image: its noise by q; NaN: a quarter of `noise_of` the image
    seed : of the dither; the same seed gives the same bits
    """
    array = np.ascontiguousarray(array)
    attributes: dict = {"unit": unit, "doc": doc, "kind": "exact"}
    if kind == "noise" and array.dtype == np.float32 and array.ndim == 2:
        step = noise_of(array) / 4.0 if np.isnan(step) else float(step)
        if np.isfinite(step) and step > 0:
            marks = {"kind": "noise", "scale": step, "seed": np.uint64(seed), "dither": "splitmix64"}
            try:
                transform = _Quantiser(step, seed, array.shape[1]).forward
                return _in_chunks(array, np.dtype(np.int32), transform, attributes | marks)
            except _TooWide:
                pass
    elif kind == "variance":
        return _in_chunks(array, array.dtype, _rounded, attributes | {"kind": "variance", "mantissa_bits": 10})
    elif kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {KINDS}")
    return _in_chunks(array, array.dtype, None, attributes)


def _in_chunks(array: np.ndarray, dtype: np.dtype, transform, attributes: dict) -> EncodedDataset:
    """Transform (band, first row) -> band, and compress, one band of rows at a time."""
    rows = _rows_per_chunk(array)
    frames = []
    shape = array.shape or (1,)
    chunks = (rows, *shape[1:])
    for y in range(0, shape[0], rows):
        band = array[y:y + rows] if transform is None else transform(array[y:y + rows], y)
        if len(band) < rows:
            padded = np.zeros(chunks, dtype)
            padded[:len(band)] = band
            band = padded
        frames.append(np.frombuffer(_frame(band), np.uint8))
    attributes["crc32"] = np.array([zlib.crc32(frame) for frame in frames], np.uint32)
    data = np.concatenate(frames) if frames else np.zeros(0, np.uint8)
    ends = np.cumsum([len(frame) for frame in frames], dtype=np.int64)
    return EncodedDataset(dtype.str, shape, chunks, data, ends, attributes)


def _rows_per_chunk(array: np.ndarray) -> int:
    row = max(1, int(np.prod(array.shape[1:], dtype=np.int64)) * array.itemsize)
    return int(max(1, min(len(array) if array.ndim else 1, CHUNK_BYTES // row)))


def _frame(band: np.ndarray) -> bytes:
    """One chunk as a contiguous blosc2 frame."""
    import blosc2

    size = band.itemsize
    codec, level = CODECS[band.dtype.kind == "f"]
    parameters = {"codec": blosc2.Codec(codec), "clevel": level, "typesize": size, "nthreads": 1,
                  "blocksize": BLOCK_BYTES, "filters": [blosc2.Filter.BITSHUFFLE]}
    raw = band.reshape(-1).view(np.uint8)
    chunk = blosc2.SChunk(chunksize=band.nbytes, data=raw, cparams=parameters, contiguous=True)
    return chunk.to_cframe()


# -- kinds -------------------------------------------------------------------------------------------------------------
def noise_of(image: np.ndarray) -> float:
    """Standard deviation of the pixel noise from second differences along rows (Stoehr et al. 2007, ASPC 394, 505).

    sigma = 1.482602 / sqrt(6) * median |2 x_i - x_(i-2) - x_(i+2)|, of at most 64 rows; NaN where no pixels are finite.
    """
    rows = image[::max(1, len(image) // 64)].astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] < 5:
        return float("nan")
    with np.errstate(invalid="ignore"):
        difference = np.abs(2.0 * rows[:, 2:-2] - rows[:, :-4] - rows[:, 4:])
    difference = difference[np.isfinite(difference)]
    return float(1.482602 / np.sqrt(6.0) * np.median(difference)) if difference.size else float("nan")


@lru_cache(maxsize=8)
def _dither(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, starts): 65,536 float32 in [0, 1) and 65,536 starts of rows, by splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, 2 * TABLE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state[:TABLE] >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24), state[TABLE:] % np.uint64(TABLE)


class _TooWide(ValueError):
    """A value does not fit in 31 bits."""


class _Quantiser:
    """float32 to int32 steps with subtractive dither, and back (Pence et al. 2010, PASP 122, 1065).

    Works on blocks of rows that stay in the core's cache; memory is passed once.
    """

    def __init__(self, step: float, seed: int, width: int):
        self.step = step
        table, self.starts = _dither(int(seed))
        around = np.resize(table, TABLE + width) - np.float32(0.5)
        self.windows = np.lib.stride_tricks.sliding_window_view(around, width)
        self.rows = max(1, BLOCK_BYTES // max(1, 2 * width))

    def _blocks(self, band: np.ndarray, y0: int):
        """(slice, dither) of each block of rows."""
        for start in range(0, len(band), self.rows):
            part = slice(start, min(start + self.rows, len(band)))
            yield part, self.windows[self.starts[np.arange(y0 + part.start, y0 + part.stop) % TABLE]]

    def forward(self, band: np.ndarray, y0: int) -> np.ndarray:
        """int32 of a band of rows that starts at row y0; _TooWide if a value needs more than 31 bits."""
        out = np.empty(band.shape, np.int32)
        scratch = np.empty((self.rows, band.shape[1]), np.float32)
        for part, dither in self._blocks(band, y0):
            block = band[part]
            largest = max(-float(block.min()), float(block.max()))  # NaN and infinities show
            if largest < self.step * 2**20:
                wide = np.multiply(block, np.float32(1.0 / self.step), out=scratch[:len(block)])
                wide += dither
                out[part] = np.rint(wide, out=wide)
            else:
                out[part] = self._carefully(block, dither)
        return out

    def _carefully(self, block: np.ndarray, dither: np.ndarray) -> np.ndarray:
        """The same with values that are not finite, or that would lose the dither in float32."""
        good = np.isfinite(block)
        wide = np.rint(np.where(good, block, 0.0) / np.float64(self.step) + dither)
        if wide.size and np.abs(wide).max() > 2**31 - 256:
            raise _TooWide
        out = wide.astype(np.int32)
        out[np.isnan(block)] = NAN_MARK
        out[block == np.inf] = INF_MARK
        out[block == -np.inf] = -INF_MARK
        return out

    def backward(self, band: np.ndarray, y0: int, out: np.ndarray) -> None:
        """float32 of stored numbers, into out."""
        for part, dither in self._blocks(band, y0):
            block, place = band[part], out[part]
            low, high = int(block.min(initial=0)), int(block.max(initial=0))
            if -(2**20) < low and high < 2**20:
                np.copyto(place, block, casting="unsafe")
                place -= dither
                place *= np.float32(self.step)
                continue
            place[...] = (block - dither.astype(np.float64)) * self.step
            for mark, value in ((NAN_MARK, np.nan), (INF_MARK, np.inf), (-INF_MARK, -np.inf)):
                place[block == mark] = value


def _rounded(band: np.ndarray, y0: int) -> np.ndarray:
    """Mantissa rounded to 10 bits; infinities and NaN stay, values that would round to infinity are cut."""
    bits = band.astype(np.float32, copy=False).view(np.uint32)
    rounded = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    if np.max(band, initial=0.0) < 3e38:  # false for NaN and infinities
        return rounded.view(np.float32)
    special = (bits & np.uint32(0x7F800000)) == 0x7F800000
    overflow = ((rounded & np.uint32(0x7F800000)) == 0x7F800000) & ~special
    if special.any() or overflow.any():
        rounded = np.where(special | overflow, bits & np.uint32(0xFFFFE000), rounded)
        rounded[np.isnan(band)] = np.float32(np.nan).view(np.uint32)
    return rounded.view(np.float32)


# -- HDF5 --------------------------------------------------------------------------------------------------------------
def append(group, name: str, encoded: EncodedDataset):
    """Write a compressed dataset into an h5py group, chunk by chunk, as it is. OSError if the folder is full."""
    import h5py

    make_sure_of_room(os.path.dirname(group.file.filename) or ".", encoded.data.nbytes)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(encoded.chunks)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    dtype = np.dtype(encoded.dtype)
    chunk_bytes = int(np.prod(encoded.chunks, dtype=np.int64)) * dtype.itemsize
    # blosc2's filter parameters: two reserved, type size, chunk bytes, level, shuffle (2: bits), codec
    codec, level = CODECS[dtype.kind == "f"]
    properties.set_filter(FILTER, h5py.h5z.FLAG_OPTIONAL, (0, 0, dtype.itemsize, chunk_bytes, level, 2, codec))
    space = h5py.h5s.create_simple(encoded.shape)
    low = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, properties)
    tail = (0,) * (len(encoded.shape) - 1)
    start = 0
    for i, end in enumerate(encoded.ends.tolist()):
        low.write_direct_chunk((i * encoded.chunks[0], *tail), encoded.data[start:end])
        start = end
    dataset = h5py.Dataset(low)
    put(dataset, **{key: value for key, value in encoded.attributes.items() if not isinstance(value, str) or value})
    return dataset


def read_pixels(dataset, rows: tuple[int, int] | None = None) -> np.ndarray:
    """The array of a dataset of `append`, or its rows y0 <= y < y1.

    Raises
    ------
    BadData
        The dataset is damaged, or is none of ours.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    shape, chunks, dtype = dataset.shape, dataset.chunks, dataset.dtype
    _check_layout(dataset, where)
    y0, y1 = (0, shape[0]) if rows is None else (max(0, rows[0]), min(shape[0], rows[1]))
    attributes = {key: get(dataset, key, None) for key in ("kind", "scale", "seed", "crc32")}
    quantised = attributes["kind"] == "noise"
    out = np.empty((max(0, y1 - y0), *shape[1:]), np.float32 if quantised else dtype)
    quantiser = _quantiser_of(attributes, shape, dtype, where) if quantised else None
    step = chunks[0]
    sums = np.atleast_1d(attributes["crc32"]) if attributes["crc32"] is not None else np.zeros(0)
    if len(sums) != -(-shape[0] // step):
        raise Damaged(f"{where}: damaged: {len(sums)} check sums do not fit its chunks; make the file again")
    for index in range(y0 // step, -(-y1 // step) if y1 > y0 else y0 // step):
        first, last = max(y0, index * step), min(y1, (index + 1) * step, shape[0])
        place = out[first - y0:last - y0]
        if quantiser is None and last - first == step:
            _decode(dataset, index, int(sums[index]), where, place)
            continue
        band = np.empty(chunks, dtype)
        _decode(dataset, index, int(sums[index]), where, band)
        part = band[first - index * step:last - index * step]
        if quantiser is not None:
            quantiser.backward(part, first, place)
        else:
            place[...] = part
    return out


def _check_layout(dataset, where: str) -> None:
    """Refuse before allocating: other filters, absurd sizes, missing chunks."""
    shape, chunks, dtype = dataset.shape, dataset.chunks, dataset.dtype
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters != [FILTER] or not chunks or dtype.hasobject or dtype.kind not in "fiub" or not 1 <= len(shape) <= 4:
        raise BadData(f"{where}: is no pixel dataset of this program (filters {filters}, type {dtype})")
    if tuple(chunks[1:]) != tuple(shape[1:]) or not 0 < chunks[0] <= max(1, shape[0]):
        raise Damaged(f"{where}: damaged: chunks {chunks} do not fit shape {shape}; make the file again")
    if float(np.prod(shape, dtype=float)) * dtype.itemsize > MAX_BYTES:
        raise Damaged(f"{where}: damaged: claims {shape} pixels, more than this program ever writes")
    if dataset.id.get_num_chunks() != -(-shape[0] // chunks[0]):
        raise Damaged(f"{where}: damaged: chunks are missing; make the file again")


def _quantiser_of(attributes: dict, shape, dtype, where: str) -> _Quantiser:
    try:
        scale, seed = float(attributes["scale"]), int(attributes["seed"])
    except (TypeError, ValueError):
        scale, seed = float("nan"), -1
    if not (np.isfinite(scale) and scale > 0 and 0 <= seed < 2**64 and dtype == np.int32 and len(shape) == 2):
        raise Damaged(f"{where}: damaged: no valid scale or seed; make the file again")
    return _Quantiser(scale, seed, shape[1])


def _decode(dataset, index: int, check_sum: int, where: str, out: np.ndarray) -> None:
    """One chunk into a contiguous array of its size, checked before and after the decoder."""
    import blosc2

    chunks, dtype = dataset.chunks, dataset.dtype
    size = int(np.prod(chunks, dtype=np.int64)) * dtype.itemsize
    offset = (index * chunks[0],) + (0,) * (len(chunks) - 1)
    try:
        stored = dataset.id.get_chunk_info_by_coord(offset).size
        if not 0 < stored <= size + size // 8 + (1 << 16):
            raise ValueError(f"a chunk of {stored} bytes")
        _, frame = dataset.id.read_direct_chunk(offset)
        if zlib.crc32(frame) != check_sum:
            raise ValueError("a check sum is wrong")
        _check_frame(frame, size)
        chunk = blosc2.schunk_from_cframe(frame, copy=True)
        chunk.dparams = blosc2.DParams(nthreads=1)
        if chunk.nbytes != size or chunk.nchunks != 1:
            raise ValueError(f"a chunk holds {chunk.nbytes} bytes, wanted {size}")
        chunk.decompress_chunk(0, out.reshape(-1).view(np.uint8))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:120]
        raise Damaged(f"{where}: damaged: {text}; make the file again") from None


def _check_frame(frame: bytes, size: int) -> None:
    """The header of a blosc2 contiguous frame: magic, lengths (big endian, msgpack; format version 2)."""
    if len(frame) < 64 or bytes(frame[2:10]) != b"b2frame\0":
        raise ValueError("a chunk is no blosc2 frame")
    header, length = struct.unpack_from(">i", frame, 11)[0], struct.unpack_from(">q", frame, 16)[0]
    unpacked, packed = struct.unpack_from(">q", frame, 30)[0], struct.unpack_from(">q", frame, 39)[0]
    if length != len(frame) or not 0 < header < length or unpacked != size or not 0 <= packed <= length:
        raise ValueError("a chunk's header is wrong")
