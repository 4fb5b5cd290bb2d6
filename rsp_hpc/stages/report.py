"""report: one offline page with the numbers and pictures of what is there. Always made anew."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .. import log
from ..report.collect import collect
from ..report.folder import Folder
from ..report.page import make_report
from .stage import Clock, Part, Stage, Unit
from .survey import Run


class Report(Stage):
    """Unit and part: the page."""

    name = "report"

    def units(self, run: Run) -> list[Unit]:
        return [Unit("report", None, (Part("page"),), run.store.report_page)]

    def found(self, path: Path) -> None:
        return None

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> list[str]:
        with clock("read"):
            inputs = collect(Folder(run.store), run.skymap, run.data, run.config.report, run.config.name)
        with clock("compute"):
            page = make_report(inputs, run.store.report, run.config.report)
        return [f"report: {page}"]

    def writer(self, run: Run, unit: Unit, header):
        return contextlib.nullcontext(_Teller())


class _Teller:
    """The page is written by the rank that made it; the leader tells its numbers."""

    def append(self, lines: list[str]) -> None:
        for line in lines:
            log.tell("%s", line)

    def note(self, parts) -> None:
        """The page keeps no costs."""
