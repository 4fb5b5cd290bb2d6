"""survey.db: what goes in comes out; damaged, foreign and newer files are told apart."""

from __future__ import annotations

import math
import os
import pickle
import random
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from samples_raw import camera, write_amplifiers, write_detector

from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.io.database import FORMAT_VERSION, read_survey, survey_identity, survey_of, write_survey
from rsp_hpc.io.raw import scan
from rsp_hpc.products.skymap import RingsSkyMap

SKYMAP = RingsSkyMap()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_detector(folder, 3)
    write_detector(folder, 3, "D1")
    write_detector(folder, 1, FILTER="g", CRVAL1=150.5)
    write_detector(folder, 2, kind="BIAS", RA=None, DEC=None)
    write_detector(folder, 4, CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-6)
    write_detector(folder, 5, FILTER="none")
    write_detector(folder, 6, "D1", EXPTIME=None)
    return scan(folder, camera())


@pytest.fixture
def survey(files):
    return survey_of(files, camera(), SKYMAP, "an identity")


def without_wcs(survey):
    return replace(survey, all_files=tuple(replace(entry, wcs=None) for entry in survey.all_files))


@pytest.fixture
def path(tmp_path, survey):
    write_survey(tmp_path / "survey.db", survey)
    return tmp_path / "survey.db"


def test_comes_back(path, survey):
    found = read_survey(path)
    assert repr(found) == repr(without_wcs(survey))  # NaN and all
    assert survey_identity(path) == "an identity"
    assert [file.name for file in path.parent.iterdir()] == ["survey.db"]
    assert repr(pickle.loads(pickle.dumps(found))) == repr(found)


def test_the_same_input_gives_the_same_bytes(path, survey):
    before = path.read_bytes()
    write_survey(path, survey)
    assert path.read_bytes() == before


def test_questions(path):
    survey = read_survey(path)
    assert [exposure.visit for exposure in survey.exposures()] == [1, 2, 3, 4]
    assert [exposure.visit for exposure in survey.exposures("science", "r")] == [3, 4]
    assert [exposure.visit for exposure in survey.exposures("bias")] == [2] and survey.has_calibrations
    assert survey.detectors(3) == ["D0", "D1"] and survey.detectors(1) == ["D0"] and survey.detectors(9) == []
    assert [entry.path.name for entry in survey.files(3, "D1")] == ["raw_3_D1.fits"] and survey.files(9, "D0") == []
    assert {entry.path.name: entry.message.split(" for")[0] for entry in survey.refused()} == {
        "raw_5_D0.fits": "band 'none' is not one of the camera's g, r; see header.band",
        "raw_6_D1.fits": "no key EXPTIME"}
    assert survey.exposure(2).kind == "bias" and math.isnan(survey.exposure(2).ra)
    with pytest.raises(ConfigError, match="visit 77"):
        survey.exposure(77)


def test_overlaps(path):
    """Exactly the patches that the sky map finds for the corners, with a margin; none for calibrations."""
    survey = read_survey(path)
    tract = int(SKYMAP.find_tract(150.0, 2.2))
    assert tract in survey.tracts()
    found = {(visit, detector): set(patches) for visit, detector, patches in survey.overlaps(tract)}
    assert {(3, "D0"), (3, "D1"), (4, "D0")} <= set(found) and not any(visit == 2 for visit, _ in found)
    for pointing in survey.pointings:
        if (pointing.visit, pointing.detector) in found:
            bare = SKYMAP.patches_overlapping(tract, pointing.ra, pointing.dec)
            assert set(bare) <= found[pointing.visit, pointing.detector]
    home = SKYMAP.tract(tract)
    assert int(home.find_patch(*home.wcs.sky_to_pixel(150.0, 2.2))) in found[3, "D0"]
    assert survey.touches(3, [tract]) and not survey.touches(2, survey.tracts()) and not survey.touches(3, [0])
    assert survey.overlaps(0) == []


def test_amplifiers_make_one_detector(tmp_path):
    write_amplifiers(tmp_path)
    survey = survey_of(scan(tmp_path, camera("amplifier")), camera("amplifier"), SKYMAP)
    assert survey.detectors(7) == ["D0"] and [entry.amplifier for entry in survey.files(7, "D0")] == ["A", "B"]


def test_missing_parts(tmp_path, files):
    """Detectors and amplifiers that a visit lacks are named, one line each."""
    lines = survey_of(files, camera(), SKYMAP).missing(camera())
    assert lines == [f"visit {visit} detector D1: no usable raw file; fetch it, or go on without this detector"
                     for visit in (1, 2, 4)]
    write_amplifiers(tmp_path)[1].unlink()
    lines = survey_of(scan(tmp_path, camera("amplifier")), camera("amplifier"), SKYMAP).missing(camera("amplifier"))
    assert lines[0].startswith("visit 7 detector D0: amplifier B: no usable raw file") and len(lines) == 2


def test_hash_of_inputs(tmp_path):
    """Changes with content and members, not with folders and dates."""
    def hashes(folder):
        survey = survey_of(scan(folder, camera()), camera(), SKYMAP)
        return survey.hash_of_inputs(3), survey.hash_of_inputs(3, "D0"), survey.hash_of_inputs(3, "D1")
    found = []
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
        first = write_detector(tmp_path / name, 3)
        os.utime(first, (1, 1))
        if name != "c":
            write_detector(tmp_path / name, 3, "D1", MJD=60000.2501 if name == "d" else 60000.25)
        found.append(hashes(tmp_path / name))
    a, b, c, d = found
    assert a == b and len({a[0], c[0], d[0]}) == 3 and a[1] == c[1] == d[1] and a[2] != d[2]


# ---- files that are not what they should be ------------------------------------------------------------------------

def test_missing(tmp_path):
    with pytest.raises(ConfigError, match="survey.db: is missing; run ingest first"):
        read_survey(tmp_path / "survey.db")
    assert survey_identity(tmp_path / "survey.db") is None


def test_newer_version(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    for function in (read_survey, survey_identity):
        with pytest.raises(ConfigError, match=f"has format {FORMAT_VERSION + 1}, this program reads up to"):
            function(path)


@pytest.mark.parametrize("content", (b"", b"SQLite format 3\x00", b"not a data base" * 999))
def test_no_database(tmp_path, content):
    (tmp_path / "survey.db").write_bytes(content)
    for function in (read_survey, survey_identity):
        with pytest.raises(BadData, match="damaged .*; delete it and run ingest again"):
            function(tmp_path / "survey.db")


def test_flipped_bytes(path, survey):
    """Damage is found or does no harm: what is read is never of another shape."""
    good = path.read_bytes()
    refused = 0
    for seed in range(60):
        rng = random.Random(seed)
        content = bytearray(good)
        for _ in range(rng.choice((1, 5, 50))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[:rng.randrange(len(content))] if rng.random() < 0.3 else content)
        try:
            assert len(read_survey(path).all_files) <= len(survey.all_files)
        except (BadData, ConfigError) as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 20


def test_unwritable_folder(tmp_path, survey):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="is not a folder|cannot be written"):
        write_survey(tmp_path / "file" / "survey.db", survey)
