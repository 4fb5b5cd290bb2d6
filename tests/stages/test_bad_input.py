"""Bad input: one line that says what to do, the rest of the run goes on, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from rsp_hpc.io.product import hash_of, identity, made
from tiny import DETECTORS, Tiny, call


def rewrite(path: Path, change) -> None:
    """Change a raw file through astropy; the link to the original is cut."""
    with fits.open(path) as hdus:
        hdus = fits.HDUList([hdu.copy() for hdu in hdus])
    change(hdus)
    path.unlink()
    hdus.writeto(path)


def filled(value, overscan: bool = True):
    """All segments hold one value, in the overscan too or not; the type is kept unless it cannot hold it."""
    def change(hdus):
        for hdu in hdus[1:]:
            hdu.data = hdu.data.astype(hdu.data.dtype if np.isfinite(value) else np.float32)
            hdu.data[:None if overscan else 256, 0 if overscan else 8:None if overscan else 264] = value
    return change


def failures(survey: Tiny) -> dict[tuple[str, str, str], str]:
    """(stage, unit, part) -> message, from the failure table."""
    rows = json.loads((survey.output / "failures.json").read_text())
    return {(row["stage"], row["unit"], row["part"]): row["message"] for row in rows}


def one_line(result, words: str) -> str:
    """The only line of the terminal that holds some words."""
    assert len(result.lines(words)) == 1, result.text
    return result.lines(words)[0]


def nothing_partial(folder: Path) -> bool:
    """No file under a name of its making."""
    return not list(folder.rglob("*.part"))


@pytest.fixture(scope="module")
def battered(tiny, tmp_path_factory):
    """A survey with something wrong in each of its visits, run up to the coadds."""
    folder = tmp_path_factory.mktemp("battered")
    survey = tiny.copy_raw(folder / "raw", folder / "run")
    truncated = survey.raw_file(1001, "D0")
    content = truncated.read_bytes()
    truncated.unlink()
    truncated.write_bytes(content[:len(content) // 3])
    rewrite(survey.raw_file(1002, "D0"), lambda hdus: hdus[0].header.remove("FILTER"))

    def cut(hdus):
        hdus[2].data = hdus[2].data[:-7]
    rewrite(survey.raw_file(1003, "D0"), cut)
    survey.raw_file(1004, "D1").unlink()
    rewrite(survey.raw_file(1005, "D0"), filled(np.nan, overscan=False))
    rewrite(survey.raw_file(1006, "D0"), filled(65535, overscan=False))
    survey.raw_file(1006, "D1").unlink()
    survey.raw_file(1006, "D1").write_bytes(b"")
    rewrite(survey.raw_file(1004, "D0"), filled(np.nan))
    return survey, survey.call("run", "--until", "coadds")


def test_the_rest_of_a_battered_survey_goes_on(battered):
    survey, result = battered
    assert result.code == 3, result.text
    assert "Traceback" not in result.text
    found = {}
    for path in sorted((survey.output / "visits").glob("*.h5")):
        with h5py.File(path) as file:
            found[path.stem] = sorted(file["detectors"])
    assert found == {"1001": ["D1"], "1002": ["D1"], "1003": ["D1"], "1005": ["D1"]}, result.text
    assert sorted(path.name for path in (survey.output / "tracts").iterdir()) == ["9812", "9813"]
    assert nothing_partial(survey.output)


@pytest.mark.parametrize("key, words", [
    (("ingest", "survey", "tinycam_001001_D0.fits"), ("truncated", "fetch it again")),
    (("ingest", "survey", "tinycam_001002_D0.fits"), ("FILTER",)),
    (("ingest", "survey", "tinycam_001003_D0.fits"), ("HDU 2 is 300 x 265 pixels", "300 x 272", "leave it out")),
    (("ingest", "survey", "tinycam_001006_D1.fits"), ("empty",)),
    (("visits", "visit 1004", "D0"), ("overscan", "leave it out")),
    (("visits", "visit 1005", "D0"), ("not a number", "leave the frame out")),
    (("visits", "visit 1006", "D0"), ("saturated",)),
])
def test_each_fault_is_said_once_with_its_cure(battered, key, words):
    survey, result = battered
    message = failures(survey)[key]
    assert all(word in message for word in words), message
    line = one_line(result, message)
    assert key[2] in line and len(line) < 300


def test_a_missing_detector_is_said(battered):
    one_line(battered[1], "visit 1004 detector D1: no usable raw file; fetch it, or go on without this detector")


def test_the_same_failures_are_listed_again(battered):
    survey, _ = battered
    before = failures(survey)
    (survey.output / "failures.json").unlink()  # they are known from the products
    result = survey.call("run", "--until", "coadds")
    assert result.code == 3 and failures(survey) == before
    assert survey.call("visits", "--visit", 1003).code == 0  # nothing is wrong with what was selected


@pytest.fixture(scope="module")
def uncalibrated(tiny, tmp_path_factory):
    """No flat in g; no bias of D1; in r, D0's flats are zero."""
    folder = tmp_path_factory.mktemp("uncalibrated")
    survey = tiny.copy_raw(folder / "raw", folder / "run")
    for path in sorted(survey.raw.glob("tinycam_0003*.fits")):
        if fits.getheader(path)["FILTER"] == "g":
            path.unlink()
        elif "D0" in path.name:
            rewrite(path, filled(0))
    for path in survey.raw.glob("tinycam_0001*_D1.fits"):
        path.unlink()
    return survey, survey.call("run", "--until", "visits")


def test_missing_and_useless_calibrations(uncalibrated):
    survey, result = uncalibrated
    assert result.code == 3, result.text
    found = failures(survey)
    message = found["calibs flat", "calibs flat r D0", "D0"]
    assert "0 flat frames can be used, 3 are needed" in message and "electrons, 500 are needed" in message
    assert "take more and better ones" in one_line(result, "calibs flat r D0 D0: flat: ")
    assert "detector D1 has no bias among its calibrations" in found["calibs dark", "calibs dark D1", ""]
    for visit in range(1001, 1007):
        message = found["visits", f"visit {visit}", "D1"]
        assert "detector D1 has no bias and no dark and no flat" in message, message
        message = found["visits", f"visit {visit}", "D0"]
        assert "flat" in message and "add" in message, message
    assert not list((survey.output / "visits").glob("*")) and nothing_partial(survey.output)
    assert made(survey.output / "calibs" / "bias" / "tiny" / "D0.h5").problems == ()


@pytest.mark.parametrize("what", ["empty", "far", "missing", "no column"])
def test_reference_catalogues_that_do_not_help(tiny, tmp_path, what):
    survey = tiny.copy_raw(tmp_path / "raw", tmp_path / "run").with_calibs_of(tiny)
    path = survey.raw / "reference.fits"

    def change(hdus):
        hdus[1].data = hdus[1].data[:0] if what == "empty" else hdus[1].data
        if what == "far":
            hdus[1].data["ra"] = 10.0
    if what == "missing":
        path.unlink()
    elif what != "no column":
        rewrite(path, change)
    changes = ("--set", "reference.ra=alpha") if what == "no column" else ()
    result = survey.call("visits", "--visit", 1001, *changes)
    words = {"empty": "is empty; give one that covers the survey", "far": "is too far away", "missing": "reference.fits",
             "no column": "reference.ra: the reference catalogue reference.fits has no column alpha"}[what]
    assert result.code == (4 if what == "no column" else 3), result.text
    assert len(result.lines(words)) == (2 if what == "far" else 1) and "Traceback" not in result.text, result.text
    assert not (survey.output / "visits" / "1001.h5").exists() and nothing_partial(survey.output)


def test_a_pointing_that_is_wrong_by_a_degree_is_said(tiny, tmp_path):
    """The header of one visit points a degree south of where the telescope was; the catalogue covers both places."""
    survey = tiny.copy_raw(tmp_path / "raw", tmp_path / "run")
    for detector in DETECTORS:
        rewrite(survey.raw_file(1001, detector), lambda hdus: hdus[0].header.set("DEC", hdus[0].header["DEC"] - 1.0))

    def other_stars(hdus):
        """As many stars a degree further south: the same, mirrored."""
        stars = np.concatenate([hdus[1].data] * 2)
        stars["ra"][len(stars) // 2:] = 2 * 149.504 - hdus[1].data["ra"]
        stars["dec"][len(stars) // 2:] -= 1.0
        hdus[1] = fits.BinTableHDU(stars, header=hdus[1].header)

    rewrite(survey.raw / "reference.fits", other_stars)
    survey.with_calibs_of(tiny)
    result = survey.call("visits", "--visit", 1001)
    assert result.code == 3 and len(result.lines("no match of")) == 2 and "check the pointing" in result.text, result.text
    assert not (survey.output / "visits" / "1001.h5").exists() and nothing_partial(survey.output)


def test_a_catalogue_without_the_band_is_said_before_the_work(tiny, tmp_path):
    survey = tiny.copy_raw(tmp_path / "raw", tmp_path / "run").with_calibs_of(tiny)
    result = survey.call("visits", "--visit", 1001, "--set", "reference.bands={z: flux_g}", "--set", "reference.errors={}")
    assert result.code == 3 and len(result.lines("the reference catalogue has no band")) == 2, result.text


@pytest.mark.parametrize("change, words", [
    ("visits.detect.treshold=5", "visits.detect.treshold: unknown; did you mean threshold?"),
    ("visits.detect.threshold=high", "visits.detect.threshold: "),
    ("skymap.patch_inner=-5", "skymap.patch_inner: "),
    ("visits.background.mesh=-64", "visits.background.mesh: "),
    ("bands=[q]", "band q: camera tinycam has g, r"),
    ("camera=tinycam2", "camera: no file for tinycam2; known are "),
    ("nonsense", "--set nonsense: write section.key=value"),
    ("name.first=5", "--set name.first=5: name is not a section"),
])
def test_wrong_configurations(tiny, tmp_path, change, words):
    result = Tiny(tiny.raw, tmp_path / "run").call("run", "--set", change)
    assert result.code == 4 and len(result.text.splitlines()) == 1, result.text
    assert words in result.text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments, words", [
    (("--visit", 77), "visit 77: there is no such exposure among the "),
    (("--tract", 5), "--tract 5: no visit overlaps it; those with visits are 9812, 9813"),
    (("--detector", "D7"), "D7"),
    (("--band", "z"), "band z: camera tinycam has g, r"),
    (("--visit", "one"), "one"),
])
def test_wrong_selections(tiny, arguments, words):
    result = tiny.call("visits", *arguments)
    assert result.code == 4 and words in result.text, result.text


def test_wrong_files(tmp_path):
    (tmp_path / "a.yaml").write_text("name: [unclosed\n")
    (tmp_path / "b.yaml").write_text("- a list\n")
    for name, words in (("none.yaml", "cannot be read"), ("a.yaml", "line 2 is not valid YAML"), ("b.yaml", "mapping")):
        result = call("run", tmp_path / name)
        assert result.code == 4 and len(result.text.splitlines()) == 1 and words in result.text, result.text


def test_no_raw_files_and_no_data_folder(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    for raw, words in ((tmp_path / "empty", "no raw files match"), (tmp_path / "none", "does not exist")):
        result = Tiny(raw, tmp_path / "run").call("run")
        assert result.code == 4 and words in result.text, result.text
    result = Tiny(tiny.raw, tmp_path / "other").call("visits")
    assert result.code == 4 and "run ingest first" in result.text, result.text


def test_an_output_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/rsp_hpc")):
        result = Tiny(tiny.raw, folder).call("run")
        assert result.code == 4 and len(result.text.splitlines()) == 1, result.text
        assert "output folder cannot be written" in result.text


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int):
    """A tmpfs of so many megabytes; where none may be mounted, no file may be larger than a tenth of it (EFBIG)."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * 100_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("megabytes, stage", [(1, "calibs bias"), (13, "visits")])
def test_a_full_output_folder_ends_the_run_in_good_order(tiny, tmp_path, megabytes, stage):
    with small_disk(tmp_path / "disk", megabytes):
        survey = Tiny(tiny.raw, tmp_path / "disk" / "run")
        result = survey.call("run", "--until", "objects")
        assert result.code == 3 and "Traceback" not in result.text and "Logging error" not in result.text, result.text
        assert result.lines("output folder is full; make room and start the same command again"), result.text
        assert not result.lines("coadds:") and result.lines(f"{stage}: stopped"), result.text
        assert nothing_partial(survey.output)
        assert survey.found().items() <= tiny.hashes.items()


def test_stale_products_are_said_and_replaced_only_with_reprocess(tiny, tmp_path):
    survey = tiny.copy(tmp_path / "run")
    path, other = survey.output / "visits" / "1001.h5", ("--set", "visits.detect.threshold=7")
    before, inode = hash_of(path), path.stat().st_ino
    result = survey.call("visits", "--visit", 1001, *other)
    assert result.code == 0 and "Replace it with --reprocess" in one_line(result, "1001.h5: made with another")
    assert path.stat().st_ino == inode
    dry = survey.call("visits", "--visit", 1001, "--reprocess", "--dry-run", *other)
    assert dry.lines("would do visit 1001: 2 parts") and path.stat().st_ino == inode
    result = survey.call("visits", "--visit", 1001, "--reprocess", *other)
    assert result.code == 0 and hash_of(path) != before
    result = survey.call("coadds")  # made of another visit 1001
    assert len(result.lines("coadds.h5: made with another configuration or other inputs; kept")) == 2


def test_products_of_a_newer_version_are_left_alone(tiny, tmp_path):
    survey = tiny.copy(tmp_path / "run")
    path = survey.output / "visits" / "1001.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    stamp = path.stat().st_mtime_ns
    result = survey.call("run", "--until", "visits")
    assert result.code == 3, result.text
    assert "use the newer program, or replace the file with --reprocess" in one_line(result, "format version 99")
    assert path.stat().st_mtime_ns == stamp
    result = survey.call("coadds", "--reprocess", "--tract", 9812)
    assert result.code == 3 and len(result.lines("format version 99")) == 1, result.text
    assert identity(survey.output / "tracts" / "9812" / "coadds.h5").startswith("incomplete")
    result = survey.call("run", "--until", "visits", "--reprocess", "--visit", 1001)
    assert result.code == 0 and hash_of(path) == tiny.hashes["visits/1001.h5"], result.text


@pytest.mark.parametrize("damage", ["truncated", "header", "empty"])
def test_damaged_products_are_made_anew(tiny, tmp_path, damage):
    survey = tiny.copy(tmp_path / "run")
    path = survey.output / "visits" / "1002.h5"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:len(content) // 2], "header": b"x" * 512 + content[512:], "empty": b""}[damage])
    result = survey.call("coadds")
    assert result.code == 3 and "delete it and start the stage again" in one_line(result, "1002.h5"), result.text
    result = survey.call("run", "--until", "objects")
    assert result.code == 0 and survey.found() == tiny.hashes, result.text


def test_damaged_pixels_are_left_out_and_the_coadd_healed_later(tiny, tmp_path):
    survey = tiny.copy(tmp_path / "run")
    path = survey.output / "visits" / "1003.h5"
    with h5py.File(path) as file:
        place = file["detectors/D1/image"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xff" * 64)
    assert survey.call("run", "--until", "coadds").code == 0  # it is found where it is read
    result = survey.call("coadds", "--reprocess")
    assert result.code == 3 and result.lines("without visit 1003 D1: ") and "Traceback" not in result.text, result.text
    path.unlink()
    result = survey.call("run", "--until", "objects")
    assert result.code == 0 and survey.found() == tiny.hashes, result.text


def test_a_damaged_survey_db_is_made_anew(tiny, tmp_path):
    survey = tiny.copy(tmp_path / "run")
    (survey.output / "survey.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    assert survey.call("visits").code == 3
    result = survey.call("run", "--until", "objects")
    assert result.code == 0 and survey.found() == tiny.hashes, result.text


def test_new_raw_files_are_taken_up(tiny, tmp_path):
    survey = tiny.copy_raw(tmp_path / "raw", tmp_path / "run")
    away = [survey.raw_file(1006, detector) for detector in ("D0", "D1")]
    kept = [(path, path.read_bytes()) for path in away]
    for path in away:
        path.unlink()
    assert survey.call("run", "--until", "visits").code == 0
    assert not (survey.output / "visits" / "1006.h5").exists()
    for path, content in kept:
        path.write_bytes(content)
    result = survey.call("run", "--until", "visits")
    assert result.code == 0 and result.lines("visits: 6 units, 5 done before"), result.text
    assert survey.found().items() <= tiny.hashes.items()


def test_a_raw_file_that_changes_after_ingest(tiny, tmp_path):
    survey = tiny.copy_raw(tmp_path / "raw", tmp_path / "run").with_calibs_of(tiny)
    rewrite(survey.raw_file(1001, "D0"), filled(1000))
    result = survey.call("visits", "--visit", 1001)
    assert result.code == 3 and "has changed since it was ingested; run ingest again" in one_line(result, "1001_D0.fits")
    with h5py.File(survey.output / "visits" / "1001.h5") as file:
        assert list(file["detectors"]) == ["D1"]


def test_a_dry_run_writes_nothing(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    result = survey.call("run", "--dry-run")
    assert result.code == 0 and result.lines("would do survey") and not survey.output.exists(), result.text
    before = {path: path.stat().st_mtime_ns for path in tiny.output.rglob("*")}
    result = tiny.call("run", "--dry-run", "--reprocess")
    assert result.code == 0 and len(result.lines("would do visit")) == 0, result.text  # ingest comes first
    for stage, count in (("visits", 6), ("coadds", 2), ("objects", 2)):
        result = tiny.call(stage, "--dry-run", "--reprocess")
        assert result.code == 0 and len(result.lines("would do")) == count, result.text
    assert {path: path.stat().st_mtime_ns for path in tiny.output.rglob("*")} == before
    result = Tiny(tmp_path / "none", tmp_path / "run").call("simulate", "--dry-run")
    assert result.code == 0 and not (tmp_path / "none").exists(), result.text


def test_leftovers_of_killed_runs_are_removed(tiny, tmp_path):
    survey = tiny.copy(tmp_path / "run")
    for folder in ("", "calibs/bias/tiny", "visits", "tracts/9812"):
        (survey.output / folder / ".1001.h5.4711.part").write_text("x")
    assert survey.call("visits").code == 0 and nothing_partial(survey.output)
