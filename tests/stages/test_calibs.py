"""Calibration products from frames to visits: build, list, certify, compare; found by date; what is wrong is refused and named."""

from __future__ import annotations

import json
import os
import re
import shutil

import h5py
import numpy as np
import pytest
from astropy.io import fits

from rsp_hpc.io.calibration import read_calibration_product
from rsp_hpc.io.library import Library
from rsp_hpc.io.product import hash_of
from rsp_hpc.products.kinds import KINDS
from rsp_hpc.simulate.calibration import truth_calibration
from rsp_hpc.stages.survey import find_camera, load_survey
from tiny import ROOT, call, ended

CONFIG = ROOT / "tests" / "configs" / "tinylab-survey.yaml"
BUILT = ("linearity", "ptc", "brighter_fatter", "charge_transfer", "crosstalk", "bias", "dark", "flat-r", "defects")


class Lab:
    """The survey of one small CCD with all effects; its raw files and products."""

    def __init__(self, raw, output):
        self.raw, self.output = raw, output
        self.library = Library(output / "calibs")

    def call(self, command, *more):
        return call(*command.split(), str(CONFIG), "--data", str(self.raw), "--output", str(self.output), *map(str, more))

    def certify(self, kind, *more):
        return call("calibs", "certify", kind, str(self.output / "calibs"), *map(str, more))

    def product(self, kind, label="tinylab"):
        return self.output / "calibs" / kind / label / "D0.h5"

    def found(self):
        return {str(path.relative_to(self.output)): hash_of(path) for path in sorted(self.output.rglob("*.h5"))}

    def copy(self, folder, raw=False):
        shutil.copytree(self.output, folder / "run")
        if raw:
            shutil.copytree(self.raw, folder / "raw", copy_function=os.link)
        return Lab(folder / "raw" if raw else self.raw, folder / "run")

    def change_header(self, visit, **cards):
        (path,) = self.raw.glob(f"tinylab_{visit:06d}_D0.fits")
        with fits.open(path) as hdus:
            hdus[0].header.update(cards)
            content = [hdu.copy() for hdu in hdus]
        path.unlink()  # others have links to it
        fits.HDUList(content).writeto(path)

    def failures(self):
        return [row["message"] for row in json.loads((self.output / "failures.json").read_text())]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder / "raw", folder / "run")
    for command in (("simulate",), ("run", "--until", "visits")):
        result = lab.call(*command)
        assert result.code == 0, result.text
    return lab


def test_every_kind_is_built_and_is_close_to_the_truth(lab):
    assert {path.parent.parent.name for path in lab.library.products()} == set(BUILT)
    config = load_survey(CONFIG)
    camera = find_camera(config.camera, CONFIG.parent)
    truth = truth_calibration(config.simulate, camera, camera.detectors[0], "r")
    found = {kind: read_calibration_product(lab.product(kind), camera.name, "D0", (256, 256)) for kind in BUILT}
    assert all(product.verdict.state == "good" for product in found.values()), [(k, p.verdict) for k, p in found.items()]
    ptc = found["ptc"].content
    assert np.allclose(ptc.gain, truth.ptc.gain, rtol=0.02) and np.all(np.abs(ptc.gain - truth.ptc.gain) < 5.0 * ptc.gain_err)
    assert np.allclose(ptc.read_noise, truth.ptc.read_noise, rtol=0.05)
    cti = found["charge_transfer"].content
    assert np.allclose(cti.inefficiency, truth.charge_transfer.inefficiency, rtol=0.1)
    crosstalk = found["crosstalk"].content
    assert np.allclose(crosstalk.coefficient, truth.crosstalk.coefficient, atol=5e-5) and crosstalk.coefficient.max() > 1.5e-4
    noise = truth.ptc.read_noise.mean() / 2.0  # of four frames
    assert np.std(found["bias"].content.image - truth.bias) < 1.1 * noise
    flat = found["flat-r"].content.image / np.where(truth.defects, np.nan, truth.flat)
    assert np.nanstd(flat / np.nanmedian(flat)) < 0.008  # gains of 3 % are in neither
    assert found["defects"].content.image[truth.defects].mean() > 0.95


def test_inputs_dates_and_configuration_are_told(lab):
    facts = lab.library.facts(lab.product("flat-r"))
    assert {"bias", "dark", "ptc", "crosstalk"} < set(facts.inputs) and sum(name.isdigit() for name in facts.inputs) == 3
    assert 60999.0 < facts.begin < facts.end < 61000.0 and facts.camera == "tinylab"
    assert facts.inputs["bias"] == lab.library.facts(lab.product("bias")).identity
    result = call("show", str(lab.product("ptc")))
    assert "ptc of tinylab D0 (tinylab), frames of MJD 60999" in result.text and "verdict good" in result.text


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_same_bits_on_any_number_of_ranks(lab, tmp_path, ranks):
    import subprocess
    import sys
    from pathlib import Path

    launcher = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks), sys.executable, "-m", "rsp_hpc"]
    kinds = "[linearity,charge-transfer,crosstalk,bias,dark,flat,defects]" if ranks != 3 else "[linearity,ptc,bf,cti,crosstalk,bias,dark,flat,defects]"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    copy = lab.copy(tmp_path)
    again = ("ptc", "brighter_fatter") if ranks != 3 else ()  # the slow ones once
    for path in copy.library.products():
        if path.parent.parent.name not in again:
            path.unlink()
    arguments = ["run", str(CONFIG), "--data", str(lab.raw), "--output", str(copy.output), "--until", "calibs", "--set", f"calibs.kinds={kinds}"]
    process = subprocess.Popen([*launcher, *arguments], env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    result = ended(process, 120.0)
    assert result.code == 0, result.text
    assert copy.found() == lab.found()


def test_what_is_there_is_not_built_again_and_a_dry_run_writes_nothing(lab, tmp_path):
    copy = lab.copy(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copy.output.rglob("*.h5")}
    result = copy.call("calibs")
    assert result.code == 0 and result.lines("calibs ptc: 1 unit, 1 done before"), result.text
    result = copy.call("calibs build bias", "--reprocess", "--dry-run", "--label", "x")
    assert result.lines("would do calibs bias D0: 1 part") and not copy.product("bias", "x").exists()
    assert {path: path.stat().st_mtime_ns for path in copy.output.rglob("*.h5")} == before
    copy.product("bias").unlink()
    result = copy.call("calibs run")
    assert result.code == 0 and hash_of(copy.product("bias")) == hash_of(lab.product("bias"))
    assert not result.lines("stale"), result.text  # the new bias is the old one


def test_visits_take_the_certified_product_of_their_date_and_are_stale_when_it_changes(lab, tmp_path):
    copy = lab.copy(tmp_path)
    assert copy.call("visits").lines("visits: 2 units, 2 done before")
    result = copy.call("calibs build bias", "--label", "two", "--set", "calibs.memory=1")
    assert result.code == 0 and copy.call("visits").lines("visits: 2 units, 2 done before"), result.text
    assert copy.certify("bias", "--label", "tinylab", "--end", "2025-11-21T00:01:00").code == 0
    result = copy.certify("bias", "--label", "two", "--begin", "2025-11-21T00:01:00")
    assert result.code == 0 and "bias of D0 (two): valid 61000.00069 (2025-11-21) to open end, good" in result.text
    # the same frames and configuration give a product of the same identity: visits stay as they are
    assert copy.call("visits").lines("visits: 2 units, 2 done before")
    for label in ("two", "tinylab"):
        copy.certify("bias", "--label", label, "--withdraw")
    assert copy.call("calibs build bias", "--label", "two", "--set", "calibs.kappa=3.5", "--reprocess").code == 0
    assert copy.certify("bias", "--label", "two").code == 0
    assert copy.call("visits").lines("visits: 2 units, 0 done before, 2 stale")
    result = copy.call("visits", "--visit", "1001", "--reprocess")
    assert result.code == 0 and copy.call("visits").lines("visits: 2 units, 1 done before, 1 stale"), result.text
    text = call("calibs", "list", str(copy.output / "calibs"), "--kind", "bias").text
    assert re.search(r"bias +D0 +two +good .* ever to open end", text) and re.search(r"D0 +tinylab .*- \(others are\)", text), text


def test_gaps_and_overlaps_are_named(lab, tmp_path):
    copy = lab.copy(tmp_path)
    for begin, end, label in (("50000", "50100", "tinylab"), ("70000", "70100", "tinylab")):
        assert copy.certify("dark", "--begin", begin, "--end", end, "--label", label).code == 0
    result = copy.certify("dark", "--begin", "50050", "--end", "50060")
    assert result.code == 3 and "overlap; give ranges that do not" in result.text
    result = copy.call("visits", "--reprocess")
    assert result.code == 3, result.text
    message = next(message for message in copy.failures() if "dark of D0" in message)
    assert "nothing is certified for MJD 61000" in message and "valid 50000" in message and "valid 70000" in message
    assert copy.certify("dark", "--withdraw").code == 0 and copy.call("visits").code == 0


@pytest.mark.parametrize("cards, words", [
    ({"READMODE": "fast"}, "read-out mode is unknown and fast (visits 101, 102, 103 and 104)"),
    ({"XBIN": 2, "YBIN": 2}, "binning is unknown and 2x2 (visits 101, 102, 103 and 104)")])
def test_frames_of_different_read_out_are_not_combined(lab, tmp_path, cards, words):
    copy = lab.copy(tmp_path, raw=True)
    copy.change_header(104, **cards)
    result = copy.call("run", "--until", "calibs", "--reprocess", "--set", "calibs.kinds=[bias,dark]")
    assert result.code == 3, result.text
    message = copy.failures()[0]
    assert message.startswith("calibs bias D0: frames of different read-out: ") and words in message and "--visit" in message
    assert copy.call("calibs build bias", "--visit", 101, "--visit", 102, "--visit", 103, "--reprocess").code == 0


def test_an_exposure_of_another_read_out_mode_does_not_get_the_calibration(lab, tmp_path):
    copy = lab.copy(tmp_path, raw=True)
    copy.change_header(1001, READMODE="fast")
    result = copy.call("run", "--until", "visits", "--reprocess", "--set", "calibs.kinds=[]")
    assert result.code == 3 and "read out in another way than the exposure: read-out mode is unknown and fast" in result.text, result.text
    assert not result.lines("1002")


def test_bad_products_are_said(lab, tmp_path):
    copy = lab.copy(tmp_path)
    path = copy.product("crosstalk")
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    result = copy.call("visits", "--reprocess")
    assert result.code == 3 and "damaged" in copy.failures()[0] and len(set(copy.failures())) == 1
    listed = call("calibs", "list", str(copy.output / "calibs"))
    assert listed.code == 3 and len([line for line in listed.text.splitlines() if line.startswith("UNREADABLE")]) == 1
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        values = file["content/coefficient"][...]
        values[1, 0] = np.nan
        del file["content/coefficient"]
        file["content/coefficient"] = values
    result = copy.call("visits", "--reprocess")
    assert result.code == 3 and "coefficient of amplifier C11 is not a number" in result.text, result.text
    assert copy.certify("crosstalk").code == 3
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file.attrs["camera"] = np.bytes_(b"other")
    result = copy.call("visits", "--reprocess")
    assert result.code == 3 and "is of camera other, wanted tinylab" in result.text, result.text


def test_a_bad_verdict_is_not_used_unless_forced(lab, tmp_path):
    copy = lab.copy(tmp_path)
    assert copy.call("calibs build bias", "--reprocess", "--set", "calibs.quality.drift=1e-6").code == 0
    if read_calibration_product(copy.product("bias")).verdict.state != "bad":
        with h5py.File(copy.product("bias"), "r+") as file:
            file["verdict"].attrs["state"] = np.bytes_(b"bad")
    assert copy.certify("bias").code == 3
    result = copy.call("visits", "--reprocess")
    assert result.code == 3 and "is bad (" in result.text and "--force" in result.text, result.text
    result = copy.certify("bias", "--force")
    assert result.code == 0 and "FORCED though it is bad" in result.text
    assert copy.call("visits", "--reprocess").code == 0


def test_compare(lab, tmp_path):
    copy = lab.copy(tmp_path)
    one, two = copy.product("bias"), copy.product("bias", "two")
    assert copy.call("calibs build bias", "--label", "two", "--visit", 101, "--visit", 102, "--visit", 103).code == 0
    result = call("calibs", "compare", str(one), str(one))
    assert result.code == 0 and "good: they agree" in result.text
    result = call("calibs", "compare", str(one), str(two), "--output", str(tmp_path / "d.fits"))
    assert fits.getdata(tmp_path / "d.fits", "DIFFERENCE").shape == (256, 256) and "scatter" in result.text
    result = call("calibs", "compare", str(one), str(copy.product("dark")))
    assert result.code == 3 and "is of kind bias" in result.text
    assert call("calibs", "compare", str(one), str(tmp_path / "none.h5")).code == 3


@pytest.mark.parametrize("arguments, words", [
    (("build", "bais", str(CONFIG)), "bais: unknown kind of calibration product; known are linearity, ptc"),
    (("certify", "bias", "LIBRARY", "--begin", "yesterday"), "'yesterday' is no date; write YYYY-MM-DD or an MJD"),
    (("certify", "bias", "LIBRARY", "--begin", "61000", "--end", "60000"), "is empty"),
    (("certify", "sky", "LIBRARY"), "has no sky of this selection"), (("list", "/nowhere"), "does not exist"),
    (("run", str(CONFIG), "--set", "calibs.kinds=[bias,flut]"), "flut: unknown kind of calibration product")])
def test_wrong_command_lines(lab, arguments, words):
    result = call("calibs", *(str(lab.output / "calibs") if word == "LIBRARY" else word for word in arguments))
    assert result.code == 4 and words in result.text, result.text


def test_a_library_that_two_runs_share(lab, tmp_path):
    shared = ("--set", f"calibration_library={lab.output / 'calibs'}")
    other = Lab(lab.raw, tmp_path / "run")
    result = other.call("run", "--until", "visits", "--visit", 1001, *shared)
    assert result.code == 0 and result.lines("calibs bias: 1 unit, 1 done before"), result.text
    assert not (other.output / "calibs").exists()
    assert hash_of(other.output / "visits" / "1001.h5") == hash_of(lab.output / "visits" / "1001.h5")


def test_the_calibration_page(lab, tmp_path):
    copy = lab.copy(tmp_path)
    result = copy.call("report")
    assert result.code == 0, result.text
    page = (copy.output / "report" / "calibration.html").read_text()
    for kind in {name.partition("-")[0] for name in BUILT}:
        assert f'id="{kind}"' in page
    assert page.count("<img ") == 12 and "9 good" in page and 'id="cutouts"' in page and "http" not in page.split("<body>")[1]
    assert 'href="calibration.html"' in (copy.output / "report" / "index.html").read_text()
    assert set(KINDS) >= {name.partition("-")[0] for name in BUILT}
