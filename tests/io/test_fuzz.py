"""Damaged products: whatever byte changes and wherever a file ends, readers say BadData in one line or answer right.

Never a crash, a hang, gigabytes of memory, or a wrong number. RSP_FUZZ sets the number of damaged files per format.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io import calibration, coadd, objects
from rsp_hpc.io import visit as format
from rsp_hpc.io.pixels import append, encode, read_pixels
from rsp_hpc.io.product import Header, Part
from rsp_hpc.io.records import read_array
from rsp_hpc.products.catalogue import Column
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from samples_io import calibration_product, catalogue, visit_detector
from samples_io import coadd as sample_coadd

CALIBRATION_KINDS = ("bias", "defects", "ptc", "brighter_fatter")
COUNT = int(os.environ.get("RSP_FUZZ", "25"))
KINDS = ("visit", "coadds", "objects", *CALIBRATION_KINDS)


def write_sample(kind: str, path: Path) -> bytes:
    """A small valid product of a kind; its bytes."""
    header = Header(kind, "0123456789abcdef", "a: 1\nb: two", {"raw.fits": "00ff"})
    if kind == "visit":
        with format.VisitWriter(path, header) as writer:
            for number in (0, 1):
                writer.append(format.encode_visit_detector(visit_detector(f"D{number}", number, (40, 50))))
            writer.note([Part("D0", 1.0, 10**8)])
    elif kind == "coadds":
        with coadd.CoaddWriter(path, header, RingsSkyMap(SkyMapConfig()).tract(9813)) as writer:
            writer.append(coadd.encode_coadd(12, sample_coadd()))
    elif kind == "objects":
        with objects.ObjectsWriter(path, header, None, ("r",)) as writer:
            rows = catalogue(30)
            writer.append(rows.with_columns([Column("patch", "i8", "", "patch")], {"patch": np.full(30, 7)}))
    else:
        with calibration.CalibrationWriter(path, header) as writer:
            writer.append(calibration.encode_product(calibration_product(kind)))
    return path.read_bytes()


def damage(content: bytes, seed: int) -> bytes:
    """One of: some bytes changed, one bit flipped, cut short, a stretch of zeros, a stretch copied elsewhere."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    way = seed % 5
    if way == 0:
        for where in rng.integers(len(data), size=4):
            data[where] ^= int(rng.integers(1, 256))
    elif way == 1:
        data[place] ^= 1 << int(rng.integers(8))
    elif way == 2:
        del data[place:]
    elif way == 3:
        data[place:place + 64] = bytes(min(64, len(data) - place))
    else:
        other = int(rng.integers(len(data)))
        stretch = data[other:other + 32]
        data[place:place + len(stretch)] = stretch[:len(data) - place]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_products(kind, tmp_path):
    good = write_sample(kind, tmp_path / "good.h5")
    names = [tmp_path / "good.h5"]
    for seed in range(COUNT):
        names.append(tmp_path / f"{seed}.h5")
        names[-1].write_bytes(damage(good, seed))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, Path(__file__).with_name("fuzz_reader.py")], text=True, capture_output=True,
                          env=environment, timeout=60 + COUNT, input="".join(f"{kind} {name}\n" for name in names))
    answers = done.stdout.splitlines()
    assert done.returncode == 0 and len(answers) == len(names), (
        f"ended with {done.returncode} at {names[len(answers):][:1]}: {done.stderr[-1500:]}")
    right = answers[0]
    assert not right.startswith(("BadData", "OTHER")), right
    wrong = [(name.name, answer) for name, answer in zip(names, answers)
             if answer != right and not answer.startswith("BadData ")]
    assert not wrong, wrong[:5]
    assert sum(answer.startswith("BadData") for answer in answers) > COUNT // 4  # the damage was seen at all


def _with_frame(path: Path, change) -> None:
    """Store an encoded image whose chunk was changed on purpose, with a check sum that fits."""
    encoded = encode(np.arange(2000, dtype=np.float32).reshape(40, 50))
    frame = np.frombuffer(change(bytearray(encoded.data.tobytes())), np.uint8)
    encoded.attributes["crc32"] = np.array([zlib.crc32(frame.tobytes())], np.uint32)
    made = replace(encoded, data=frame, ends=np.array([len(frame)]))
    with h5py.File(path, "w") as file:
        append(file, "a", made)


@pytest.mark.parametrize("offset, layout, value", [
    (11, ">i", 2**31 - 1), (11, ">i", -5), (16, ">q", 2**62), (30, ">q", 2**40), (30, ">q", 8), (39, ">q", 2**50),
    (48, ">i", 255), (53, ">i", 2**30), (58, ">i", 2**31 - 1), (2, ">q", 0)])
def test_hostile_frames_with_a_right_check_sum(tmp_path, offset, layout, value):
    def change(frame):
        struct.pack_into(layout, frame, offset, value)
        return bytes(frame)
    _with_frame(tmp_path / "a.h5", change)
    with h5py.File(tmp_path / "a.h5") as file:
        try:
            assert np.array_equal(read_pixels(file["a"]), np.arange(2000, dtype=np.float32).reshape(40, 50))
        except BadData:
            pass


def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        small = encode(np.zeros((10, 10), np.float32))
        append(file, "a", replace(small, shape=(1 << 40, 10)))
        file.create_dataset("b", shape=(1 << 40,), dtype="f8", chunks=(1 << 20,), compression="gzip")
        file.create_dataset("c", shape=(1 << 24, 1 << 24), dtype="f4", chunks=(1, 1 << 20))
    with h5py.File(tmp_path / "a.h5") as file:
        with pytest.raises(BadData, match="claims"):
            read_pixels(file["a"])
        with pytest.raises(BadData, match="claims"):
            read_array(file["b"])
        with pytest.raises(BadData, match="is no pixel dataset"):
            read_pixels(file["c"])
