"""Calibration products of every kind: round trip with units and docs; sizes, camera, detector and NaN are checked."""

from __future__ import annotations

import dataclasses
import typing

import h5py
import numpy as np
import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io import calibration as io
from rsp_hpc.io.library import Choice, assemble
from rsp_hpc.io.product import Header
from rsp_hpc.products.kinds import FIELDS, KINDS, check_content, docs_of
from samples_io import calibration_content, calibration_product, same


def write(path, product, inputs=None):
    with io.CalibrationWriter(path, Header("calibs", "id", "", inputs or {"1001": "00ff"})) as writer:
        writer.append(io.encode_product(product))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, tmp_path):
    product = calibration_product(kind, (300, 320))
    path = write(tmp_path / "a.h5", product)
    back = io.read_calibration_product(path, "testcam", "D0", (300, 320))
    assert dataclasses.replace(back, content=None) == dataclasses.replace(product, content=None)
    if kind in ("bias", "dark", "flat", "fringe", "sky", "illumination"):  # variances keep ten bits
        assert np.allclose(back.content.variance, product.content.variance, rtol=2e-3)
        back = dataclasses.replace(back, content=dataclasses.replace(back.content, variance=product.content.variance))
    assert same(back.content, product.content)
    facts = io.read_facts(path)
    assert (facts.key, facts.verdict, facts.inputs) == ((kind, product.band, "D0"), product.verdict, {"1001": "00ff"})
    with h5py.File(path) as file:
        for name, item in file["content"].items():
            assert item.attrs["doc"], name
            unit = FIELDS[KINDS[kind].content].get(name)
            assert not unit or not unit.unit or item.attrs["unit"].decode() == unit.unit


@pytest.mark.parametrize("cls", FIELDS)
def test_every_array_has_shape_unit_and_doc(cls):
    hints = typing.get_type_hints(cls)
    arrays = {item.name for item in dataclasses.fields(cls) if np.ndarray in (hints[item.name], *typing.get_args(hints[item.name]))}
    assert arrays == set(FIELDS[cls])
    assert all(docs_of(cls)[name] for name in arrays)


def test_planes_are_read_without_their_variance_and_by_rows(tmp_path):
    product = calibration_product("dark", (300, 320))
    path = write(tmp_path / "a.h5", product)
    image, plain = io.read_plane(path, (300, 320))
    assert np.array_equal(image, product.content.image, equal_nan=True) and plain["dark_time"] == 30.0
    assert plain["typical_variance"] == pytest.approx(product.content.typical_variance)
    assert np.array_equal(io.read_calibration_rows(path, 7, 19), image[7:19])


def test_the_wrong_product_is_named(tmp_path):
    path = write(tmp_path / "a.h5", calibration_product("ptc"))
    for words, wanted in (("is of camera testcam, wanted other", ("other",)), ("is of detector D0, wanted D1", ("testcam", "D1"))):
        with pytest.raises(BadData, match=words):
            io.read_calibration_product(path, *wanted)
    plane = write(tmp_path / "b.h5", calibration_product("bias"))
    with pytest.raises(BadData, match="image is 30 x 40, must be 31 x 40; build it again"):
        io.read_calibration_product(plane, shape=(31, 40))
    with pytest.raises(BadData, match="image is 30 x 40, must be 40 x 30"):
        io.read_plane(plane, (40, 30))
    for wanted, words in ((("other", "D0"), "is of camera testcam"), (("testcam", "D1"), "detector D0, wanted testcam, D1")):
        with pytest.raises(BadData, match=words):
            assemble({"bias": Choice(plane, "id")}, *wanted, (30, 40))
    with pytest.raises(BadData, match="is missing; run the stage"):
        io.read_facts(tmp_path / "none.h5")


def test_sizes_that_do_not_fit_are_refused_when_written_and_when_read(tmp_path):
    product = calibration_product("ptc")
    short = dataclasses.replace(product.content, gain=np.ones(3))
    with pytest.raises(BadData, match=r"ptc of D0 \(one\): gain is 3, must be 4; build it again for this camera"):
        io.encode_product(dataclasses.replace(product, content=short))
    path = write(tmp_path / "a.h5", product)
    with h5py.File(path, "a") as file:
        del file["content/a"]
        file["content/a"] = np.ones((4, 5, 6))
    with pytest.raises(BadData, match="a.h5: a(_err)? is 4 x 5 x"):
        io.read_calibration_product(path)


@pytest.mark.parametrize("kind, field, words", [
    ("ptc", "gain", "gain of amplifier A1 is not a number"), ("crosstalk", "coefficient", "coefficient of amplifier A1"),
    ("linearity", "correction", "of amplifier A1"), ("charge_transfer", "inefficiency", "of amplifier A1"),
    ("brighter_fatter", "north", "not a number")])
def test_nan_in_electronics_is_refused_where_it_is_used(kind, field, words, tmp_path):
    product = calibration_product(kind)
    getattr(product.content, field)[1] = np.nan
    path = write(tmp_path / "a.h5", product)
    io.read_calibration_product(path)  # the report shows it
    with pytest.raises(BadData, match=words) as error:
        assemble({kind: Choice(path, "id")}, "testcam", "D0", (30, 40))
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_plane_of_nan_is_refused(tmp_path):
    product = calibration_product("flat")
    product.content.image[:20] = np.nan
    with pytest.raises(BadData, match="more than half of its pixels are not numbers"):
        assemble({"flat": Choice(write(tmp_path / "a.h5", product), "id")}, "testcam", "D0", (30, 40))
    with pytest.raises(BadData, match="only 3. % of its pixels are numbers"):
        check_content(product.content, "flat", finite=True)


def test_all_kinds_make_a_calibration(tmp_path):
    choices = {}
    for kind in KINDS:
        choices[kind] = Choice(write(tmp_path / f"{kind}.h5", calibration_product(kind)), "id", calibration_product(kind).verdict, kind)
    made = assemble(choices, "testcam", "D0", (30, 40))
    for kind in ("ptc", "crosstalk", "charge_transfer", "brighter_fatter"):
        assert same(getattr(made, kind), calibration_content(kind))
    told, ratio = calibration_content("linearity"), calibration_content("ptc").gain / calibration_content("linearity").gain
    assert np.allclose(made.linearity.level, told.level * ratio[:, None])  # electrons of the photon transfer's gain
    assert np.allclose(made.linearity.correction, told.correction * ratio[:, None])
    assert made.bias.shape == made.sky.shape == (30, 40) and made.defects.dtype == bool and made.dark_time == 30.0
    assert made.bias_variance == pytest.approx(calibration_content("bias").typical_variance)
    assert made.verdicts["ptc"].state == "suspect" and "ptc id" in made.inputs
