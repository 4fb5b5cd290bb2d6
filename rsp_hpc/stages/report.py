"""report: one offline page with the numbers and pictures of what is there. Always made anew."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from .. import log
from ..errors import RspError
from ..io.refcat import read_reference
from ..products.geometry import angular_separation, sky_of_vectors, unit_vectors
from ..io.raw import read_raw_detector
from ..io.visit import read_visit_detector, visit_detector_names
from ..products.exposure import RawDetector
from ..products.image import MaskedImage
from ..products.reference import ReferenceCatalogue
from ..report.calibration import collect_calibration, write_calibration_page
from ..report.collect import collect
from ..report.folder import Folder
from ..report.page import make_report
from .stage import Part, Record, Stage, Unit
from .survey import Run


MOST_REFERENCE = 6.0
"""Degrees: a wider survey is not compared with a reference catalogue that is in shards."""


class Report(Stage):
    """Unit and part: the page."""

    name = "report"

    def units(self, run: Run) -> list[Unit]:
        expected = dict(run.expected)
        if run.store.survey_db.exists():
            expected.setdefault("visits", sum(e.band in run.bands for e in run.survey.exposures("science")))
        return [Unit("report", expected, (Part("page"),), run.store.report_page)]

    def found(self, path: Path) -> None:
        return None

    def work(self, run: Run, unit: Unit, part: Part, record: Record) -> list[str]:
        with record("read"):
            inputs = collect(Folder(run.store), run.skymap, run.data, run.config.report, run.config.name, unit.key)
            inputs.reference = _reference(run, inputs.missing)
            calibration = collect_calibration(run.library, run.config.report, lambda: _before_and_after(run))
        lines: list[str] = []
        with record("compute"):
            written = write_calibration_page(calibration, run.store.report, run.config.report, inputs.name)
            inputs.pages += [(written.name, "Calibration")] if written else []
            page = make_report(inputs, run.store.report, run.config.report, lines.append)
        return [*lines, f"report: {page}"]

    def writer(self, run: Run, unit: Unit, header):
        return contextlib.nullcontext(_Teller())


def _reference(run: Run, missing: list[str]) -> ReferenceCatalogue | None:
    """The reference catalogue, which objects are compared with where there is no truth."""
    config = run.config.reference
    if config is None or run.config.report.truth:
        return None
    try:
        found = read_reference(run.data / config.file, config)
        if isinstance(found, ReferenceCatalogue):
            return found
        exposures = [e for e in run.survey.exposures("science") if np.isfinite(e.ra + e.dec)]
        places = np.array([[e.ra, e.dec] for e in exposures]).reshape(-1, 2)
        ra, dec = sky_of_vectors(unit_vectors(*places.T).sum(axis=0))
        radius = float(np.max(angular_separation(*places.T, ra, dec), initial=0.0)) + 1.5
        if not exposures or radius > MOST_REFERENCE:
            missing.append("reference: the survey is too wide to compare it with a reference catalogue on this page")
            return None
        return found.cone(float(ra), float(dec), radius)
    except RspError as error:
        missing.append(f"reference: {error}")
        return None


def _before_and_after(run: Run) -> list[tuple[str, RawDetector, MaskedImage]]:
    """A detector of the first visit of some bands, raw and as the visit has it; none where there is no survey or no visit."""
    if run.camera.detrended or not run.store.survey_db.exists():
        return []
    found, bands = [], set()
    for number in run.store.visits():
        exposure = run.survey.exposure(number)
        if len(found) >= run.config.report.cutouts or exposure.band in bands:
            continue
        name = visit_detector_names(run.store.visit(number))[0]
        raw = read_raw_detector(run.survey.files(number, name), run.camera, name)
        found.append((f"visit {number}, {exposure.band}, {name}", raw, read_visit_detector(run.store.visit(number), name).image))
        bands.add(exposure.band)
    return found


class _Teller:
    """The page is written by the rank that made it; the leader tells its numbers."""

    def append(self, lines: list[str]) -> None:
        for line in lines:
            log.tell("%s", line)

    def note(self, parts, incomplete: bool = False) -> None:
        """The page keeps no costs."""
