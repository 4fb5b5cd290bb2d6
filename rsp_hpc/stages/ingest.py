"""ingest: look at every raw file, give a verdict, find which tracts and patches it overlaps, write survey.db."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import log
from ..errors import ConfigError
from ..io.database import write_survey
from ..io.raw import RawFile, find_files, scan, rough_corners
from .stage import Clock, Part, Stage, Unit, identity
from .survey import Run

logger = logging.getLogger(__name__)

CHUNK = 64
"""Files whose headers one part reads."""


class Ingest(Stage):
    """Unit: the survey. Parts: files, in chunks."""

    name = "ingest"

    def units(self, run: Run) -> list[Unit]:
        files = find_files(run.data, run.config.files)
        if not files:
            raise ConfigError(f"no raw files match {', '.join(run.config.files)} in {run.data}; give the folder with --data")
        stamps = [f"{path.relative_to(run.data)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
        parts = tuple(Part(f"files {start}", files[start:start + CHUNK]) for start in range(0, len(files), CHUNK))
        key = {"camera": run.camera.model_dump(mode="json"), "skymap": run.config.skymap.model_dump(mode="json")}
        return [Unit("survey", None, parts, run.store.survey_db, identity(self.name, key, stamps))]

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> list[RawFile]:
        with clock("read"):
            return scan(part.key, run.camera)

    def writer(self, run: Run, unit: Unit):
        return _SurveyWriter(run, unit)


class _SurveyWriter:
    """Collects the verdicts; the database appears when all files have been looked at."""

    def __init__(self, run: Run, unit: Unit):
        self.run, self.unit, self.files = run, unit, []

    def append(self, name: str, files: list[RawFile]) -> None:
        self.files += files

    def commit(self, provenance: dict) -> None:
        """Tell the verdicts, find the overlaps, write the database."""
        files = sorted(self.files, key=lambda file: str(file.path))
        refused = [file for file in files if file.verdict == "refused"]
        for file in refused:
            logger.warning("refused %s: %s", Path(file.path).name, file.message)
        log.tell("ingest: %d files, %d fixed, %d refused", len(files), sum(f.verdict == "fixed" for f in files), len(refused))
        write_survey(self.run.store.survey_db, files, self._overlaps(files), self.unit.identity)
        self.run.forget("survey")

    def _overlaps(self, files: list[RawFile]) -> list[tuple[int, str, int, int]]:
        """(visit, detector, tract, patch) of every science detector, from its rough WCS with a margin for its error."""
        rows = []
        for visit, detector, ra, dec in rough_corners(files, self.run.camera):
            for tract in self.run.skymap.tracts_overlapping(ra, dec, margin=MARGIN):
                rows += [(visit, detector, tract, patch)
                         for patch in self.run.skymap.patches_overlapping(tract, ra, dec, margin=MARGIN)]
        return rows

    def abandon(self) -> None:
        """Nothing was written."""


MARGIN = 30.0 / 3600.0
"""Degrees by which raw pointings may be off: overlaps are looked for so much further out."""
