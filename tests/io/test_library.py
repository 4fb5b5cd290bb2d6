"""The calibration library: found by date, overlap and gaps, bad verdicts, damaged ledgers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rsp_hpc.errors import BadData, ConfigError, Damaged
from rsp_hpc.io import calibration as io
from rsp_hpc.io.library import Library
from rsp_hpc.io.product import Header
from rsp_hpc.products.electronics import Verdict
from rsp_hpc.products.kinds import Validity
from samples_io import calibration_product

KEY = ("bias", "", "D0")


def put(library: Library, label: str, verdict: Verdict = Verdict(), mode: str = "{}", identity: str = ""):
    product = dataclasses.replace(calibration_product("bias"), label=label, verdict=verdict, mode=mode)
    path = library.path("bias", "", label, "D0")
    with io.CalibrationWriter(path, Header("calibs", identity or label, "", {"1": "2"})) as writer:
        writer.append(io.encode_product(product))
    return path


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path)
    for label in ("jan", "mar", "own"):
        put(library, label)
    return library


def certified(library: Library):
    library.certify([library.path("bias", "", "jan", "D0")], Validity(61000.0, 61031.0))
    library.certify([library.path("bias", "", "mar", "D0")], Validity(61059.0, 61090.0))
    return Library(library.folder)


def test_without_certificates_the_own_label_holds_for_ever(library):
    assert library.choose(KEY, 61010.0, ("own",)).path == library.path("bias", "", "own", "D0")
    assert library.choose(KEY, 0.0, ("other",)) is None and library.choose(("bias", "", "D7"), 0.0, ("own",)) is None


def test_the_date_chooses(library):
    library = certified(library)
    for mjd, label in ((61000.0, "jan"), (61030.99, "jan"), (61059.0, "mar")):
        choice = library.choose(KEY, mjd, ("own",))
        assert (choice.path, choice.identity) == (library.path("bias", "", label, "D0"), label)
    assert library.choose(KEY, 61005.0, ("own",), ("", True)).identity == "own"  # what is built of it takes the same set


@pytest.mark.parametrize("mjd, words", [
    (61031.0, ("jan, valid 61000.00000 (2025-11-21) to 61031.00000 (2025-12-22), ends before", "mar, valid 61059", "begins after")),
    (60000.0, ("there is none before", "jan, valid 61000")), (61090.0, ("mar, valid 61059", "there is none after"))])
def test_a_gap_names_both_neighbours(library, mjd, words):
    with pytest.raises(BadData, match="bias of D0: nothing is certified for MJD") as error:
        certified(library).choose(KEY, mjd, ("own",))
    assert all(word in str(error.value) for word in words) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("begin, end", [(61030.0, 61040.0), (60000.0, 61000.5), (61010.0, 61011.0), (float("-inf"), float("inf"))])
def test_an_overlap_is_refused_and_changes_nothing(library, begin, end):
    library = certified(library)
    before = library.ledger.read_text()
    with pytest.raises(BadData, match=r"jan \(valid .*own \(valid .*overlap|own \(valid .*jan \(valid .*overlap"):
        library.certify([library.path("bias", "", "own", "D0")], Validity(begin, end))
    assert library.ledger.read_text() == before and not list(library.folder.glob(".lock*"))


def test_touching_ranges_do_not_overlap_and_can_be_withdrawn(library):
    library = certified(library)
    library.certify([library.path("bias", "", "own", "D0")], Validity(61031.0, 61059.0))
    assert library.choose(KEY, 61040.0, ("x",)).identity == "own"
    assert [item.label for item in library.withdraw("bias", (), "own")] == ["own"]
    with pytest.raises(BadData, match="nothing is certified"):
        library.choose(KEY, 61040.0, ("own",))
    with pytest.raises(ConfigError, match="is empty"):
        library.certify([library.path("bias", "", "own", "D0")], Validity(5.0, 5.0))


def test_a_bad_verdict_needs_force(library):
    path = put(library, "poor", Verdict("bad", ("light leak",)))
    with pytest.raises(BadData, match=r"is bad \(light leak\); certify it with --force"):
        library.certify([path], Validity(1.0, 2.0))
    with pytest.raises(BadData, match="is bad .light leak.; make a better one, or certify it with --force"):
        library.choose(KEY, 1.5, ("poor",))
    assert library.certify([path], Validity(1.0, 2.0), force=True)[0].forced
    assert library.choose(KEY, 1.5, ("own",)).identity == "poor"


def test_what_changed_since_it_was_certified_is_not_used(library):
    certified(library)
    put(library, "jan", identity="another")
    with pytest.raises(BadData, match="has changed since it was certified on 20"):
        Library(library.folder).choose(KEY, 61010.0, ("own",))


def test_another_read_out_mode_is_named(library):
    put(library, "fast", mode='{"binning": "2x2"}')
    library = Library(library.folder)
    with pytest.raises(BadData, match="another way than the exposure: binning is 2x2 and 1x1; build one of this mode"):
        library.choose(KEY, 0.0, ("fast",), ('{"binning": "1x1"}', False))
    assert library.choose(KEY, 0.0, ("fast",), ('{"binning": "2x2"}', False)) is not None


def test_a_file_in_the_wrong_place(library):
    path = library.path("bias", "", "own", "D5")
    library.path("bias", "", "own", "D0").rename(path)
    with pytest.raises(BadData, match="is the bias of D0, wanted the bias of D5; put the right file there"):
        library.choose(("bias", "", "D5"), 1.0, ("own",))
    with pytest.raises(BadData, match="not its place in the library"):
        library.certify([path], Validity(1.0, 2.0))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": "rsp_hpc ledger"}', "\udcff"])
def test_damaged_ledgers(library, text):
    library.ledger.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Damaged) as error:
        library.choose(KEY, 1.0, ("own",))
    assert len(str(error.value).splitlines()) == 1 and str(library.ledger) in str(error.value)


@pytest.mark.parametrize("change", [{"kind": "bais"}, {"begin": "x"}, {"begin": 7.0, "end": 7.0}, {"identity": None}, {"begin": 61060.0}])
def test_wrong_certificates_in_the_ledger(library, change):
    certified(library)
    document = json.loads(library.ledger.read_text())
    document["certificates"][0] |= change
    library.ledger.write_text(json.dumps(document))
    with pytest.raises(BadData, match="damaged|overlap"):
        Library(library.folder).choose(KEY, 1.0, ("own",))


def test_a_ledger_of_a_newer_version(library):
    library.ledger.write_text(json.dumps({"format": "rsp_hpc ledger", "format_version": 9, "certificates": []}))
    with pytest.raises(BadData, match="has format 9, this program reads up to 1"):
        library.choose(KEY, 1.0, ("own",))
