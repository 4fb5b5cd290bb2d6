"""Coadds, objects: round trips and what is said when something is missing."""

from __future__ import annotations

import numpy as np
import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io import coadd, objects
from rsp_hpc.io.product import Header, hash_of, identity, read_header
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from samples_io import coadd as sample_coadd
from samples_io import same


def test_coadds(tmp_path):
    path, one, two = tmp_path / "coadds.h5", sample_coadd("r"), sample_coadd("g")
    tract = RingsSkyMap(SkyMapConfig()).tract(9813)
    with coadd.CoaddWriter(path, Header("coadds", "id"), tract) as writer:
        writer.append(coadd.encode_coadd(12, one))
        writer.append(coadd.encode_coadd(7, two))
    assert same(coadd.read_coadd(path, "r", 12), one) and same(coadd.read_coadd(path, "g", 7), two)
    lean = coadd.read_coadd(path, "r", 12, pixels=False)
    assert lean.image.image.size == 0 and same(lean.psf, one.psf) and same(lean.inputs, one.inputs)
    assert coadd.coadd_parts(path) == [(7, "g"), (12, "r")]
    number, wcs = coadd.read_tract(path)
    assert number == 9813 and same(wcs, tract.wcs)
    with pytest.raises(BadData, match="has no patch 7 in band r"):
        coadd.read_coadd(path, "r", 7)


def patch_objects(patch: int, n: int, bands: str = "gr") -> Catalogue:
    """n objects of a patch, some columns per band."""
    rng = np.random.default_rng(patch)
    columns = [Column("objectId", "i8", "", "number"), Column("patch", "i8", "", "patch"),
               Column("detect_isPrimary", "bool", "", "appears here and nowhere else")]
    arrays = {"objectId": patch * 1000 + np.arange(n), "patch": np.full(n, patch),
              "detect_isPrimary": rng.random(n) < 0.5}
    for band in bands:
        columns += [Column(f"{band}_psfFlux", "f4", "nJy", "PSF flux"),
                    Column(f"{band}_psfFlux_flag", "bool", "", "failed"), Column(f"{band}_n", "i4", "", "inputs")]
        arrays |= {f"{band}_psfFlux": rng.random(n), f"{band}_psfFlux_flag": np.zeros(n, bool)}
        arrays |= {f"{band}_n": np.full(n, 3)}
    return Catalogue(columns, arrays)


def write_objects(path, parts, settle=None):
    with objects.ObjectsWriter(path, Header("objects", "id", "objects: {}"), settle, ("g", "r")) as writer:
        for part in parts:
            writer.append(part)
    return path


def test_objects_are_ordered_by_patch_and_have_the_same_columns(tmp_path):
    parts = [patch_objects(44, 6), patch_objects(3, 4, "r"), patch_objects(5, 0)]
    path, other = (write_objects(tmp_path / name, order) for name, order in (("a.h5", parts), ("b.h5", parts[::-1])))
    assert hash_of(path) == hash_of(other)
    table = objects.read_objects(path)
    assert table["patch"].tolist() == [3] * 4 + [44] * 6
    assert list(table.columns) == ["objectId", "patch", "detect_isPrimary", "g_psfFlux", "g_psfFlux_flag", "g_n",
                                   "r_psfFlux", "r_psfFlux_flag", "r_n"]
    assert np.isnan(table["g_psfFlux"][:4]).all() and table["g_psfFlux_flag"][:4].all() and not table["g_n"][:4].any()
    assert np.array_equal(table["g_psfFlux"][4:], parts[0]["g_psfFlux"]) and not table["r_psfFlux_flag"].any()
    assert objects.read_bands(path) == ("g", "r") and table.columns["g_psfFlux"].unit == "nJy"


def test_the_whole_tract_is_settled_before_it_is_written(tmp_path):
    def settle(rows):
        assert len(rows) == 10
        return rows.with_columns([rows.columns["detect_isPrimary"]], {"detect_isPrimary": rows["patch"] == 3})
    path = write_objects(tmp_path / "a.h5", [patch_objects(44, 6), patch_objects(3, 4)], settle)
    assert objects.read_objects(path, ["detect_isPrimary"])["detect_isPrimary"].sum() == 4


def test_primary_flags_can_be_replaced_and_nothing_else_changes(tmp_path):
    path = write_objects(tmp_path / "a.h5", [patch_objects(44, 6), patch_objects(3, 4)])
    before, header = objects.read_objects(path), read_header(path)
    chosen, flags = np.array([44002, 3001, 3000]), np.array([True, True, False])
    assert objects.replace_primary(path, chosen, flags)
    after = objects.read_objects(path)
    assert after["objectId"][after["detect_isPrimary"]].tolist() == [3001, 44002]
    assert list(after.columns) == list(before.columns) and after.columns == before.columns
    assert all(np.array_equal(before[name], after[name]) for name in before.columns if name != "detect_isPrimary")
    assert read_header(path) == header and identity(path) == "id"
    stamp, content = path.stat().st_mtime_ns, hash_of(path)
    assert not objects.replace_primary(path, chosen, flags) and path.stat().st_mtime_ns == stamp
    with pytest.raises(BadData, match="column patch"):
        objects.replace_columns(path, {"patch": np.arange(3)})
    assert hash_of(path) == content and [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    def settle(rows):
        return rows.with_columns([rows.columns["detect_isPrimary"]],
                                 {"detect_isPrimary": np.isin(rows["objectId"], [44002, 3001])})
    direct = write_objects(tmp_path / "b.h5", [patch_objects(44, 6), patch_objects(3, 4)], settle)
    assert hash_of(direct) == content


def test_an_empty_tract_is_a_valid_file(tmp_path):
    assert len(objects.read_objects(write_objects(tmp_path / "a.h5", []))) == 0
    empty = objects.read_objects(write_objects(tmp_path / "b.h5", [patch_objects(1, 0)]))
    assert len(empty) == 0 and "g_psfFlux" in empty
