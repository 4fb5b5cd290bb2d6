"""visits/<visit>.h5: what is written is read back, by our reader and by plain HDF5 with the filter."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io import visit as format
from rsp_hpc.io.coadd import read_coadd
from rsp_hpc.io.product import Header, Part, hash_of, identity, read_header
from samples_io import same, visit_detector

HEADER = Header("visit", "abc123", "detrend:\n  overscan: row", {"raw.fits": "00ff"}, 3)


def write(path, parts, header=HEADER, exact=False):
    with format.VisitWriter(path, header) as writer:
        for part in parts:
            writer.append(format.encode_visit_detector(part, exact=exact))
        writer.note([Part(part.detector, 1.5, 10**8) for part in parts])
    return path


@pytest.fixture(scope="module")
def parts():
    return [visit_detector(f"R22_S1{i}", i) for i in (1, 2, 0)]


@pytest.fixture(scope="module")
def file(tmp_path_factory, parts):
    return write(tmp_path_factory.mktemp("visit") / "1234567.h5", parts)


def test_round_trip_exact(tmp_path, parts):
    path = write(tmp_path / "v.h5", parts, exact=True)
    for part in parts:
        assert same(format.read_visit_detector(path, part.detector), part)


def test_round_trip_of_all_but_the_noise(file, parts):
    assert format.visit_detector_names(file) == ["R22_S10", "R22_S11", "R22_S12"]
    for part in parts:
        back = format.read_visit_detector(file, part.detector)
        for name in ("exposure", "psf", "wcs", "photocal", "background", "sources", "summary", "aperture_correction"):
            assert same(getattr(back, name), getattr(part, name)), name
        assert np.array_equal(back.image.mask, part.image.mask)
        good = np.isfinite(part.image.image)
        assert np.array_equal(np.isfinite(back.image.image), good)
        added = (back.image.image - part.image.image)[good]
        assert np.abs(added).max() < 0.6 * 20 / 4 and added.std() < 0.08 * 20
        assert np.abs(back.image.variance[good] / part.image.variance[good] - 1).max() < 2**-10
        assert np.isinf(back.image.variance[1, 2])


def test_lean_and_sources(file, parts):
    lean = format.read_visit_lean(file, "R22_S12")
    assert lean.image.image.size == 0 and same(lean.wcs, parts[1].wcs) and lean.summary == parts[1].summary
    table = format.read_sources(file, ["id", "x"])
    assert list(table.columns) == ["id", "x"] and len(table) == 17 * 3 + 3
    assert table.columns["x"].unit == "pixel"
    assert same(format.read_sources(file, detector="R22_S12"), parts[1].sources)
    assert format.read_exposure(file).band == "r"


def test_order_of_arrival_changes_nothing(tmp_path, file, parts):
    other = write(tmp_path / "other.h5", parts[::-1], Header("visit", "abc123", ranks=7))
    assert hash_of(other) == hash_of(file)
    different = write(tmp_path / "different.h5", parts[:2], HEADER)
    assert hash_of(different) != hash_of(file)


def test_header(file):
    header = read_header(file)
    assert (header.kind, header.identity, header.ranks) == ("visit", "abc123", 3)
    assert header.configuration == HEADER.configuration and header.inputs == HEADER.inputs
    assert header.parts[0] == Part("R22_S11", 1.5, 10**8) and header.host and header.software.startswith("rsp_hpc ")
    assert identity(file) == "abc123" and identity(file.with_name("none.h5")) is None


def test_other_tools_read_the_pixels(file):
    import hdf5plugin  # registers the filter

    with h5py.File(file) as opened:
        group = opened["detectors/R22_S11"]
        mask, stored = group["mask"][:], group["image"][:]
        assert hdf5plugin and stored.dtype == np.int32 and group["image"].attrs["scale"] > 0
    assert np.array_equal(mask, format.read_visit_detector(file, "R22_S11").image.mask)


def test_planes_are_read_by_name(tmp_path, parts):
    path = write(tmp_path / "v.h5", parts[:1])
    with h5py.File(path, "a") as opened:  # CR and INTRP numbered the other way round, and a plane that we lack
        opened.attrs["mask_planes"] = '{"CR": [2, ""], "INTRP": [3, ""], "NO_DATA": [8, ""], "OTHER": [30, ""]}'
    mask = format.read_visit_detector(path, "R22_S11").image.mask
    assert mask[3, 6] == 0b1100 and mask[7, 7] == 0b0100 and mask[1, 2] == 1 << 8


def test_what_is_missing_is_said(file, tmp_path):
    with pytest.raises(BadData, match="has no detector R99; it has R22_S10"):
        format.read_visit_detector(file, "R99")
    with pytest.raises(BadData, match="is missing"):
        format.read_visit_detector(tmp_path / "no.h5", "a")
    with pytest.raises(BadData, match="has no column y"):
        format.read_sources(file, ["y"])


def test_nothing_is_left_of_a_visit_that_fails(tmp_path, parts):
    with pytest.raises(RuntimeError):
        with format.VisitWriter(tmp_path / "v.h5", HEADER) as writer:
            writer.append(format.encode_visit_detector(parts[0]))
            raise RuntimeError("half-way")
    assert list(tmp_path.iterdir()) == []


def test_newer_versions_and_other_kinds_are_refused(tmp_path, parts):
    path = write(tmp_path / "v.h5", parts[:1], Header("visit", "x", format_version=99))
    with pytest.raises(BadData, match="written by format version 99"):
        format.read_exposure(path)
    other = write(tmp_path / "c.h5", parts[:1], Header("visits", "x"))
    with pytest.raises(BadData, match="holds visit, wanted coadds"):
        read_coadd(other, "r", 1)
