"""FITS in and out: values, sections, tables; what a header promises is checked before anything is read."""

from __future__ import annotations

import gzip
import os
import sys
import time
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits as oracle

from rsp_hpc.errors import BadData
from rsp_hpc.io.fits import FitsFile, Hdu, read_header, read_image, read_table, write_fits
from rsp_hpc.products.box import Box

TYPES = ("u1", "u2", "i2", "u4", "i4", "f4", "f8")


@pytest.fixture(params=("fitsio", "astropy"))
def library(request, monkeypatch):
    """With fitsio, and where it is missing."""
    if request.param == "astropy":
        monkeypatch.setitem(sys.modules, "fitsio", None)
    return request.param


def random_image(dtype: str, shape=(13, 17)) -> np.ndarray:
    bits = np.random.default_rng(3).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    image = bits.view(dtype)[..., 0]
    return np.nan_to_num(image, posinf=0, neginf=0) if image.dtype.kind == "f" else image


@pytest.mark.parametrize("end", ("", ".gz"))
def test_images_come_back(tmp_path, library, end):
    path = tmp_path / f"images.fits{end}"
    images = [random_image(dtype) for dtype in TYPES]
    hdus = [(image, {"EXTNAME": dtype}) for image, dtype in zip(images, TYPES)]
    write_fits(path, [(None, {"TELESCOP": "none"}), *hdus])
    box = Box(2, 5, 7, 4)
    with FitsFile(path) as file, oracle.open(path) as theirs:
        assert len(file) == len(images) + 1 and file.gzipped == bool(end) and file.padded
        for number, image in enumerate(images, 1):
            found = file.image(number)
            assert found.dtype == image.dtype and np.array_equal(found, image)
            assert np.array_equal(theirs[number].data, image)
            assert np.array_equal(file.image(number, box), image[5:9, 2:9])


def test_cards_come_back(tmp_path, library):
    written = {"ANINT": 7, "AFLOAT": -1.5e-7, "ATEXT": "it's / here", "YES": True, "NO": False, "MISSING": float("nan"),
               "LONG": "x" * 150 + "'quoted'" + "y" * 20, "EMPTY": "", "BIG": 2**40, "NOTED": (3, "with a comment")}
    path = tmp_path / "cards.fits"
    write_fits(path, [(np.zeros((2, 2), "f4"), written)])
    found = read_header(path)
    assert {key: found[key] for key in written} == {**written, "MISSING": None, "NOTED": 3}
    assert type(found["ANINT"]) is int and type(found["AFLOAT"]) is float and type(found["YES"]) is bool


def test_duplicates_and_commentary_are_left_out(tmp_path):
    header = oracle.Header([("KEY", 1), ("COMMENT", "words"), ("HISTORY", "more"), ("KEY", 2),
                            ("HIERARCH long name", 3)])
    oracle.PrimaryHDU(np.zeros((2, 2), "f4"), header).writeto(tmp_path / "a.fits")
    found = read_header(tmp_path / "a.fits")
    assert found["KEY"] == 1 and found["LONG NAME"] == 3 and not {"COMMENT", "HISTORY", ""} & set(found)


def test_scaled_integers(tmp_path):
    raw = np.arange(12, dtype=np.int16).reshape(3, 4)
    hdu = oracle.PrimaryHDU(raw)
    hdu.header.update({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": 3})
    hdu.writeto(tmp_path / "a.fits", output_verify="ignore")
    found = read_image(tmp_path / "a.fits")
    assert found.dtype == np.float32 and np.isnan(found[0, 3]) and np.nansum(found) == np.sum(10 + 0.5 * raw) - 11.5


def test_tables_come_back(tmp_path, library):
    columns = {"id": np.array([1, 2**40, -3]), "ra": np.array([0.1, np.nan, 3.0]), "mag": np.ones((3, 2), "f4"),
               "good": np.array([True, False, True]), "name": np.array(["a", "long name", ""]),
               "n": np.array([1, 2, 3], "i2")}
    write_fits(tmp_path / "t.fits", [Hdu(columns, {"EXTNAME": "CAT"}, {"ra": "deg"})])
    found = read_table(tmp_path / "t.fits")
    assert list(found) == list(columns) and read_header(tmp_path / "t.fits", 1)["TUNIT2"] == "deg"
    for name, values in columns.items():
        assert np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f") and found[name].dtype.isnative
        assert found[name].dtype.kind == values.dtype.kind
    assert list(read_table(tmp_path / "t.fits", columns=("mag",))) == ["mag"]
    with pytest.raises(BadData, match="no column flux; it has id, ra"):
        read_table(tmp_path / "t.fits", columns=("flux",))


@pytest.mark.parametrize("compression", ("RICE_1", "GZIP_2"))
def test_tile_compressed_images(tmp_path, library, compression):
    """Such a file is read as if it were not compressed: the same HDU number, the cards of the image."""
    image = np.random.default_rng(5).integers(900, 1100, (40, 50)).astype(np.uint16)
    path = tmp_path / "a.fits.fz"
    header = oracle.Header([("VISIT", 7)])
    packed = oracle.CompImageHDU(image, header, compression_type=compression)
    oracle.HDUList([oracle.PrimaryHDU(), packed]).writeto(path)
    with FitsFile(path) as file:
        number = len(file) - 1
        assert file.header(number)["NAXIS1"] == 50 and file.header(number)["VISIT"] == 7
        assert "TTYPE1" not in file.header(number)
        assert np.array_equal(file.image(number), image)
        assert np.array_equal(file.image(number, Box(3, 4, 11, 7)), image[4:11, 3:14])


def test_a_primary_image_that_was_compressed(tmp_path):
    """It keeps its number, 0, though it sits in the first extension of the compressed file."""
    fitsio = pytest.importorskip("fitsio")
    image = np.random.default_rng(5).integers(900, 1100, (40, 50)).astype(np.uint16)
    fitsio.write(tmp_path / "a.fits.fz", image, compress="rice")
    with FitsFile(tmp_path / "a.fits.fz") as file:
        assert len(file) == 1 and file.header(0)["NAXIS2"] == 40 and np.array_equal(file.image(0), image)


def test_the_same_input_gives_the_same_bytes(tmp_path, library):
    contents = []
    for name in ("a.fits.gz", "b.fits.gz"):
        write_fits(tmp_path / name, [(random_image("u2"), {"A": 1}), Hdu({"x": np.arange(3)})])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_odd_names(tmp_path):
    """Brackets, plus signs and quotes in a path are no instructions to any library."""
    folder = tmp_path / "run [1] (new)+2 'x'"
    image = random_image("u2")
    write_fits(folder / "a+1.fits", [(image, {}), Hdu({"x": np.arange(3)})])
    assert [path.name for path in folder.iterdir()] == ["a+1.fits"]
    assert np.array_equal(read_image(folder / "a+1.fits"), image)
    assert read_table(folder / "a+1.fits")["x"].tolist() == [0, 1, 2]


def test_fingerprint(tmp_path):
    """Of the content: not of name and date; another pixel block or header is another fingerprint."""
    prints = {}
    for name, image, visit in (("a", random_image("u2", (300, 300)), 1), ("b", random_image("u2", (300, 300)), 1),
                               ("c", random_image("u2", (300, 300)) + 1, 1), ("d", random_image("u2", (300, 300)), 2)):
        for end in ("", ".gz"):
            write_fits(tmp_path / f"{name}.fits{end}", [(image, {"VISIT": visit})])
            with FitsFile(tmp_path / f"{name}.fits{end}", keep=False) as file:
                prints[name + end] = file.fingerprint()
    for end in ("", ".gz"):
        assert prints["a" + end] == prints["b" + end]
        assert len({prints[name + end] for name in "acd"}) == 3


# ---- files that are not what they should be ------------------------------------------------------------------------

def damaged(path, **changes) -> None:
    """Overwrite cards of the first header in place."""
    content = bytearray(path.read_bytes())
    for key, value in changes.items():
        at = content.index(f"{key:8}=".encode())
        content[at:at + 80] = f"{key:8}= {value:>20}".ljust(80).encode()
    path.write_bytes(content)


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "image.fits"
    write_fits(path, [(random_image("u2", (100, 100)), {"BLANKCRD": 1})])
    return path


@pytest.mark.parametrize("end", ("", ".gz"))
@pytest.mark.parametrize("part", (0.2, 0.5, 0.95))
def test_truncated(tmp_path, end, part):
    path = tmp_path / f"image.fits{end}"
    write_fits(path, [(random_image("f4", (200, 100)), {})])
    content = path.read_bytes()
    path.write_bytes(content[:int(part * len(content)) - 2000 * (not end and part > 0.9)])
    with pytest.raises(BadData, match="truncated.*fetch it again") as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_message(image_file):
    size = len(image_file.read_bytes())
    image_file.write_bytes(image_file.read_bytes()[:10_000])
    promised = size - (-20_000 % 2880)
    with pytest.raises(BadData) as caught:
        read_header(image_file)
    assert str(caught.value) == (f"{image_file}: truncated: header promises {promised} bytes, file has 10000; "
                                 "fetch it again")


def test_only_the_filling_is_missing(image_file):
    """Some writers do not fill up the last block: nothing is lost."""
    expected = read_image(image_file)
    image_file.write_bytes(image_file.read_bytes()[:-(-20_000 % 2880)])
    with FitsFile(image_file) as file:
        assert not file.padded and np.array_equal(file.image(0), expected)


@pytest.mark.parametrize("changes, words", [
    ({"NAXIS1": 2_000_000_000}, "truncated: header promises 400000"),
    ({"NAXIS1": 2_000_000_000, "NAXIS2": 2_000_000_000}, "truncated"),
    ({"NAXIS1": -5}, "NAXIS1 is -5"), ({"NAXIS2": "'many'"}, "NAXIS2 is 'many'"), ({"NAXIS": 2000}, "NAXIS is 2000"),
    ({"BITPIX": 17}, "BITPIX is 17"), ({"BITPIX": "T"}, "BITPIX is True"), ({"NAXIS2": "1.5"}, "NAXIS2 is 1.5"),
    ({"BSCALE": 0.0}, "BSCALE 0.0"), ({"BZERO": "'x'"}, "BZERO 'x'"),
])
@pytest.mark.parametrize("packed", (False, True))
def test_hostile_headers(image_file, changes, words, packed):
    """Refused in no time, and before anything of the promised size is allocated."""
    damaged(image_file, **changes)
    if packed:
        image_file.write_bytes(gzip.compress(image_file.read_bytes()))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(BadData, match=words):
        read_image(image_file)
    assert time.perf_counter() - start < 5.0
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_hostile_compressed_image(tmp_path):
    path = tmp_path / "a.fits.fz"
    oracle.HDUList([oracle.PrimaryHDU(), oracle.CompImageHDU(np.zeros((40, 50), "i2"))]).writeto(path)
    damaged(path, ZNAXIS1=2_000_000_000, ZTILE1=2_000_000_000)
    with pytest.raises(BadData, match="promises an image of"):
        read_image(path, 1)


def test_hostile_table(tmp_path):
    """Rows of another length than the columns; an array that points out of the heap."""
    path = tmp_path / "t.fits"
    column = oracle.Column("s", "PI()", array=np.array([np.arange(3, dtype="i2"), np.arange(2, dtype="i2")], object))
    oracle.BinTableHDU.from_columns([column]).writeto(path)
    good = path.read_bytes()
    assert [list(item) for item in read_table(path)["s"]] == [[0, 1, 2], [0, 1]]
    at = good.index(np.array([3, 0], ">i4").tobytes())
    path.write_bytes(good[:at] + np.array([2**30, 0], ">i4").tobytes() + good[at + 8:])
    with pytest.raises(BadData, match="outside the table's heap"):
        read_table(path)
    path.write_bytes(good.replace(b"'PI(3)   '", b"'7PI(3)  '").replace(b"'PI()    '", b"'7PI()   '"))
    with pytest.raises(BadData, match="its columns have"):
        read_table(path)


@pytest.mark.parametrize("content, words", [
    (b"", "not a FITS file .it is empty"), (b"hello world" * 999, "not a FITS file"),
    (b"SIMPLE  =                    T", "truncated: a header has no end"),
    (b"\x1f\x8b" + b"\x00" * 100, "gzip"), (gzip.compress(b"no image at all" * 999), "not a FITS file"),
    (b"SIMPLE  =                    T".ljust(80) + b" " * 80 * 71, "truncated: a header has no end"),
])
def test_not_fits(tmp_path, content, words):
    path = tmp_path / "x.fits"
    path.write_bytes(content)
    with pytest.raises(BadData, match=words):
        read_header(path)


def test_damaged_gzip(tmp_path):
    """gzip's checksum finds a flipped bit in the pixels."""
    path = tmp_path / "a.fits.gz"
    write_fits(path, [(random_image("u2", (100, 100)), {})])
    content = bytearray(path.read_bytes())
    content[-4000] ^= 16
    path.write_bytes(content)
    with pytest.raises(BadData, match="damaged gzip|truncated"):
        read_image(path)


def test_what_is_not_there(tmp_path, image_file):
    with pytest.raises(BadData, match="cannot be read .No such file"):
        read_header(tmp_path / "none.fits")
    os.mkfifo(tmp_path / "pipe.fits")
    for path in (tmp_path, tmp_path / "pipe.fits"):
        with pytest.raises(BadData, match="cannot be read .it is no file"):
            read_header(path)
    with pytest.raises(BadData, match="has 1 HDUs, there is no HDU 3"):
        read_image(image_file, 3)
    with pytest.raises(BadData, match="is 100 x 100 pixels, Box"):
        read_image(image_file, 0, Box(90, 0, 20, 5))
    with pytest.raises(BadData, match="holds no binary table"):
        read_table(image_file, 0)


def test_nothing_is_left_of_a_failed_write(tmp_path, library):
    with pytest.raises(Exception):
        write_fits(tmp_path / "a.fits", [(np.array([object()]), {})])
    assert list(tmp_path.iterdir()) == []
