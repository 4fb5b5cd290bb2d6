"""ingest: look at every raw file, give a verdict, find which tracts and patches it overlaps, write survey.db."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import log
from ..io.database import survey_identity, survey_of, write_survey
from ..io.product import Made
from ..io.raw import RawFile, examine, find_files, settle
from ..parallel import Failure
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run

logger = logging.getLogger(__name__)

CHUNK = 32
"""Files whose headers one part reads."""

MOST_TOLD = 10
"""Missing detectors that the terminal gets."""


class Ingest(Stage):
    """Unit: the survey. Parts: files, in chunks. Made anew whenever files come, go or change."""

    name = "ingest"
    renews = True

    def units(self, run: Run) -> list[Unit]:
        files = find_files([run.data], run.camera)
        stamps = {str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in files}
        parts = tuple(Part(f"files {start}", files[start:start + CHUNK]) for start in range(0, len(files), CHUNK))
        return [Unit("survey", None, parts, run.store.survey_db,
                     configuration_text(camera=run.camera, skymap=run.config.skymap), stamps)]

    def found(self, path: Path) -> Made | None:
        identity = survey_identity(path)
        return None if identity is None else Made(identity)

    def work(self, run: Run, unit: Unit, part: Part, record: Record) -> list[RawFile]:
        with record("read"):
            return [entry for path in part.key for entry in examine(path, run.camera)]

    def writer(self, run: Run, unit: Unit, header):
        return _SurveyWriter(run, header.identity)

    def finish(self, run: Run) -> list[Failure]:
        """The files that cannot be used are failures, whenever they were looked at."""
        run.forget("survey")
        return [Failure("survey", entry.path.name, "BadData", entry.message) for entry in run.survey.refused()]


class _SurveyWriter:
    """Collects the verdicts; the data base appears when all files have been looked at."""

    def __init__(self, run: Run, identity: str):
        self.run, self.identity, self.files = run, identity, []

    def __enter__(self) -> _SurveyWriter:
        return self

    def append(self, files: list[RawFile]) -> None:
        """One part's verdicts."""
        self.files += files

    def note(self, parts, incomplete: bool = False) -> None:
        """survey.db keeps no costs."""

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            return
        files = settle(self.files)
        survey = survey_of(files, self.run.camera, self.run.skymap, self.identity)
        log.tell("ingest: %d files, %d put right, %d refused", len(files), sum(f.verdict == "fixed" for f in files),
                 sum(not f.usable for f in files))
        missing = survey.missing(self.run.camera)
        for line in missing[:MOST_TOLD]:
            logger.warning("  %s", line)
        if len(missing) > MOST_TOLD:
            logger.warning("  and %d more detectors of visits are missing", len(missing) - MOST_TOLD)
        write_survey(self.run.store.survey_db, survey)
