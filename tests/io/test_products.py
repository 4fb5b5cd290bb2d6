"""Coadds, objects, calibrations, paths: round trips and what is said when something is missing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io import calibration, coadd, objects
from rsp_hpc.io.product import Header, hash_of, identity
from rsp_hpc.products.catalogue import Catalogue, Column
from samples_io import catalogue, same, visit_detector
from samples_io import coadd as sample_coadd


def test_coadds(tmp_path):
    path, one, two = tmp_path / "coadds.h5", sample_coadd("r"), sample_coadd("g")
    tract = SimpleNamespace(number=9813, wcs=visit_detector().wcs)
    with coadd.CoaddWriter(path, Header("coadds", "id"), tract) as writer:
        writer.append(coadd.encode_coadd(12, one))
        writer.append(coadd.encode_coadd(7, two))
    assert same(coadd.read_coadd(path, 12, "r"), one) and same(coadd.read_coadd(path, 7, "g"), two)
    lean = coadd.read_coadd(path, 12, "r", pixels=False)
    assert lean.image.image.size == 0 and same(lean.psf, one.psf) and same(lean.inputs, one.inputs)
    assert coadd.coadd_contents(path) == {"g": [7], "r": [12]} and coadd.coadd_patches(path) == {7: ["g"], 12: ["r"]}
    number, wcs = coadd.read_tract(path)
    assert number == 9813 and same(wcs, tract.wcs)
    with pytest.raises(BadData, match="has no patch 7 in band r"):
        coadd.read_coadd(path, 7, "r")


def test_objects_are_ordered_by_patch_and_columns_can_be_replaced(tmp_path):
    path, other = tmp_path / "objects.h5", tmp_path / "other.h5"
    parts = [(44, catalogue(6, 4)), (3, catalogue(4, 3)), (5, catalogue(0, 5))]
    for target, order in ((path, parts), (other, parts[::-1])):
        with objects.ObjectsWriter(target, Header("objects", "id")) as writer:
            for part in order:
                writer.append(part)
    assert hash_of(path) == hash_of(other)
    table = objects.read_objects(path)
    assert same(table, Catalogue.concatenate([parts[1][1], parts[0][1]]))
    assert objects.row_ranges(path) == {3: slice(0, 4), 5: slice(4, 4), 44: slice(4, 10)}
    primary = np.arange(10) % 2 == 0
    objects.replace_columns(path, {"isPrimary": primary, "x": np.arange(10.0)},
                            [Column("isPrimary", "bool", "", "appears here and nowhere else")])
    changed = objects.read_objects(path, ["x", "isPrimary", "id"])
    assert np.array_equal(changed["isPrimary"], primary) and np.array_equal(changed["x"], np.arange(10.0))
    assert np.array_equal(changed["id"], table["id"]) and changed.columns["isPrimary"].doc.startswith("appears")
    assert changed.columns["x"].unit == "pixel" and list(objects.read_objects(path).columns)[-1] == "isPrimary"
    assert hash_of(path) != hash_of(other) and identity(path) == "id"
    with pytest.raises(BadData, match="3 values for 10 objects"):
        objects.replace_columns(path, {"x": np.arange(3.0)})
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_empty_tract_is_a_valid_file(tmp_path):
    with objects.ObjectsWriter(tmp_path / "o.h5", Header("objects", "id")):
        pass
    assert len(objects.read_objects(tmp_path / "o.h5")) == 0


def test_calibration(tmp_path):
    rng = np.random.default_rng(1)
    bias, dark, flat = (rng.random((40, 30)).astype(np.float32) for _ in range(3))
    flat[3, 3] = np.nan
    frames = calibration.CalibrationSet(bias, dark, {"r": flat, "g": bias}, bias > 0.9,
                                        {"bias": ("b1", "b2"), "flat r": ("f1",), "flat g": ("f9",)})
    path = tmp_path / "S00.h5"
    with calibration.CalibrationWriter(path, Header("calibs", "id")) as writer:
        writer.append(calibration.encode_calibration(frames))
    back = calibration.read_calibration(path, "r")
    assert np.array_equal(back.flat, flat, equal_nan=True) and np.array_equal(back.bias, bias)
    assert back.defects.dtype == bool and np.array_equal(back.defects, bias > 0.9) and back.inputs == ("b1", "b2", "f1")
    assert calibration.calibration_contents(path) == ["bias", "dark", "defects", "flats/g", "flats/r"]
    assert np.array_equal(calibration.read_calibration_rows(path, "dark", 7, 19), dark[7:19])
    with pytest.raises(BadData, match="has no flat in band z, only g, r; add flat frames of z"):
        calibration.read_calibration(path, "z")
    with pytest.raises(BadData, match="is missing; run the stage"):
        calibration.read_calibration(tmp_path / "S01.h5", "r")


def test_a_camera_without_bias(tmp_path):
    with calibration.CalibrationWriter(tmp_path / "a.h5", Header("calibs", "id")) as writer:
        writer.append(calibration.encode_calibration(calibration.CalibrationSet(dark=np.ones((3, 4), np.float32))))
    back = calibration.read_calibration(tmp_path / "a.h5", "r")
    assert back.bias is None and back.flat is None and back.defects is None and back.dark.sum() == 12
