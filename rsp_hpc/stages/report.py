"""report: one offline page with the numbers and pictures of what is there. Always made anew."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .. import log
from ..errors import RspError
from ..io.fits import read_table
from ..products.reference import ReferenceCatalogue
from ..report.collect import collect
from ..report.folder import Folder
from ..report.page import make_report
from .stage import Part, Record, Stage, Unit
from .survey import Run


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
        lines: list[str] = []
        with record("compute"):
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
        return ReferenceCatalogue.from_columns(read_table(run.data / config.file), config)
    except RspError as error:
        missing.append(f"reference: {error}")
        return None


class _Teller:
    """The page is written by the rank that made it; the leader tells its numbers."""

    def append(self, lines: list[str]) -> None:
        for line in lines:
            log.tell("%s", line)

    def note(self, parts, incomplete: bool = False) -> None:
        """The page keeps no costs."""
