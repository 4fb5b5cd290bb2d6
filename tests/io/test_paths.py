"""Names of an output folder, and what is listed as present in it."""

from __future__ import annotations

from pathlib import Path

from rsp_hpc.io.library import Library
from rsp_hpc.io.paths import Store


def test_names():
    store = Store("out")
    assert store.visit(42) == Path("out/visits/42.h5") and store.coadds(9813) == Path("out/tracts/9813/coadds.h5")
    assert store.objects(9813) == Path("out/tracts/9813/objects.h5") and store.survey_db == Path("out/survey.db")
    assert Library(store.calibs).path("flat", "r", "demo", "R22_S11") == Path("out/calibs/flat-r/demo/R22_S11.h5")
    assert Library(store.calibs).path("bias", "", "demo", "D0") == Path("out/calibs/bias/demo/D0.h5")
    assert store.report_page == Path("out/report/index.html")
    names = {"status": "status.json", "failures": "failures.json", "timing": "timing.csv", "costs": "costs.json",
             "config": "config.yaml", "stop": "stop", "lock": ".lock"}
    assert {name: getattr(store, name) for name in names} == {name: Path("out", file) for name, file in names.items()}


def test_detector_names_stay_in_the_folder():
    """A camera may call its detectors what it likes."""
    names = ["../x", "a/b", ".h", "a b", "a%20b", "ä", "CCD-1"]
    paths = {Library("out").path("bias", "", "..", name) for name in names}
    assert len(paths) == len(names) and all(path.parent == Path("out/bias/%2e.") and path.name[0] != "." for path in paths)


def test_listings(tmp_path):
    store = Store(tmp_path)
    assert store.visits() == [] and store.tracts() == []
    for path in (store.visit(10), store.visit(9), store.coadds(3), store.coadds(12), store.objects(12),
                 tmp_path / "visits/.11.h5.123.part", tmp_path / "visits/notes.txt", tmp_path / "tracts/x/coadds.h5"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert store.visits() == [9, 10] and store.tracts() == [3, 12] and store.tracts("objects") == [12]
