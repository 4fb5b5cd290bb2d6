"""ingest: look at every raw file, give a verdict, find which tracts and patches it overlaps, write survey.db."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import __version__, log
from ..io.database import survey_identity, survey_of, write_survey
from ..io.product import identity_of
from ..io.raw import RawFile, examine, find_files, settle
from .stage import Clock, Part, Stage, Unit, configuration_text
from .survey import Run

logger = logging.getLogger(__name__)

CHUNK = 32
"""Files whose headers one part reads."""


class Ingest(Stage):
    """Unit: the survey. Parts: files, in chunks."""

    name = "ingest"

    def units(self, run: Run) -> list[Unit]:
        files = find_files([run.data], run.camera)
        stamps = {str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in files}
        parts = tuple(Part(f"files {start}", files[start:start + CHUNK]) for start in range(0, len(files), CHUNK))
        return [Unit("survey", None, parts, run.store.survey_db,
                     configuration_text(camera=run.camera, skymap=run.config.skymap), stamps)]

    def found(self, path: Path) -> str | None:
        return survey_identity(path)

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> list[RawFile]:
        with clock("read"):
            return [entry for path in part.key for entry in examine(path, run.camera)]

    def writer(self, run: Run, unit: Unit, header):
        return _SurveyWriter(run, identity_of(self.name, unit.configuration, unit.inputs, f"rsp_hpc {__version__}"))

    def finish(self, run: Run) -> list:
        run.forget("survey")
        return []


class _SurveyWriter:
    """Collects the verdicts; the data base appears when all files have been looked at."""

    def __init__(self, run: Run, identity: str):
        self.run, self.identity, self.files = run, identity, []

    def __enter__(self) -> _SurveyWriter:
        return self

    def append(self, files: list[RawFile]) -> None:
        """One part's verdicts."""
        self.files += files

    def note(self, parts) -> None:
        """survey.db keeps no costs."""

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            return
        files = settle(self.files)
        for entry in files:
            if not entry.usable:
                logger.warning("refused %s: %s", entry.path.name, entry.message)
        log.tell("ingest: %d files, %d put right, %d refused", len(files), sum(f.verdict == "fixed" for f in files),
                 sum(not f.usable for f in files))
        write_survey(self.run.store.survey_db, survey_of(files, self.run.camera, self.run.skymap, self.identity))
