"""A stage: its units of work, their parts, and the driver that runs any stage on any number of ranks.

A unit (a visit, a tract) is taken by a team of ranks and makes one file; its parts (detectors, patches) are spread over the
team. What exists with the right identity is done; the same command again does what is left.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import yaml

from .. import __version__, log
from ..config import Config
from ..errors import BadData, ConfigError
from ..io import product
from ..parallel import Communicator, Failure, Outcome, on_leader, run_parts, run_units
from .survey import Run

__all__ = ["Clock", "Part", "Stage", "StageReport", "Unit", "run_stage"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What one rank does at a time: a detector of a visit, a patch of a tract."""

    name: str
    key: Any = None
    cost: float = 1.0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Unit:
    """What a team does at a time, and the file it makes.

    Attributes
    ----------
    name : for people; key : for the stage
    parts : what the ranks of the team do
    product : the file
    configuration : the sections that the product depends on, YAML text
    inputs : name -> hash of what goes in
    """

    name: str
    key: Any
    parts: tuple[Part, ...]
    product: Path
    configuration: str = ""
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """Expected seconds, or any number in proportion."""
        return sum(part.cost for part in self.parts)

    def __str__(self) -> str:
        return self.name


def configuration_text(**sections: Config | None | str | tuple) -> str:
    """The named sections as YAML text: what a product's identity and provenance hold."""
    plain = {name: section.model_dump(mode="json") if isinstance(section, Config) else
             list(section) if isinstance(section, tuple) else section for name, section in sections.items()}
    return yaml.safe_dump(plain, sort_keys=True)


class Clock:
    """Seconds of one part by kind of work: 'read', 'compute', 'encode', ..."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start


class Stage:
    """Base of the stages; each says what its units are and what one part does."""

    name = ""

    def units(self, run: Run) -> list[Unit]:
        """All units of the selection, with the identity their products must have. Runs on rank 0."""
        raise NotImplementedError

    def found(self, path: Path) -> str | None:
        """The identity of the product at a path; None if there is none. BadData if it is damaged or too new."""
        return product.identity(path)

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> Any:
        """Do one part on one rank; the result travels to the team's leader."""
        raise NotImplementedError

    def writer(self, run: Run, unit: Unit, header: product.Header) -> contextlib.AbstractContextManager:
        """On the leader: a context whose value has append(result) and note(parts); the file appears when it ends well."""
        raise NotImplementedError

    def finish(self, run: Run) -> list[Failure]:
        """On rank 0, once all units are done; failures are listed like those of units."""
        return []


@dataclass
class StageReport:
    """What a stage did, on all ranks."""

    stage: str
    outcome: Outcome
    n_units: int = 0
    n_done_before: int = 0
    n_stale: int = 0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)


def run_stage(run: Run, stage: Stage) -> StageReport:
    """Run one stage on all ranks (collective): find what is left, spread it, list what failed.

    Raises
    ------
    ConfigError
        On all ranks, if the configuration or the selection is wrong.
    """
    start = time.perf_counter()
    left, report = on_leader(run.world, _plan, run, stage)
    log.tell("%s: %d unit%s, %d done before%s", stage.name, report.n_units, "s" * (report.n_units != 1),
             report.n_done_before, f", {report.n_stale} stale" if report.n_stale else "")
    if run.options.dry_run:
        for unit in left:
            log.tell("  would do %s: %d parts -> %s", unit.name, len(unit.parts), unit.product)
        return report
    rows: list[dict] = []
    outcome = run_units(run.world, left, [unit.cost for unit in left], run.config.mpi.team_size or None,
                        lambda team, unit: _do_unit(run, stage, team, unit, rows), run.stop,
                        progress=lambda state: run.tell_progress(stage.name, state))
    if not outcome.stopped:
        outcome.failures += on_leader(run.world, stage.finish, run)
    report.rows = [row for part in run.world.allgather(rows) for row in part]
    report.outcome, report.seconds = outcome, time.perf_counter() - start
    log.tell("%s: %d done, %d failure%s, %.1f s", stage.name, len(outcome.done), len(outcome.failures),
             "s" * (len(outcome.failures) != 1), report.seconds)
    return report


def _plan(run: Run, stage: Stage) -> tuple[list[Unit], StageReport]:
    """The units that are left; products that do not fit are said, and redone only where that was asked for."""
    units = stage.units(run)
    left, stale, done = [], 0, 0
    for unit in units:
        found = _identity_found(stage, unit.product)
        if found == _identity(stage, unit) and not run.options.reprocess:
            done += 1
        elif found is None or run.options.reprocess:
            left.append(unit)
        else:
            stale += 1
            logger.warning("%s: made with another configuration or other inputs; kept. Replace it with --reprocess",
                           unit.product)
    return left, StageReport(stage.name, Outcome(), len(units), done, stale)


def _identity(stage: Stage, unit: Unit) -> str:
    return product.identity_of(stage.name, unit.configuration, unit.inputs, f"rsp_hpc {__version__}")


def _identity_found(stage: Stage, path: Path) -> str | None:
    """The identity of the product at this path; None if there is none or it is damaged (then it is made anew).

    Raises
    ------
    ConfigError
        A newer version of the program wrote it: it must not be replaced.
    """
    try:
        return stage.found(path)
    except BadData as error:
        if "version" in str(error):
            raise ConfigError(str(error)) from None
        logger.warning("%s; it is made anew", error)
        return None


def _do_unit(run: Run, stage: Stage, team: Communicator, unit: Unit, rows: list[dict]) -> Outcome:
    """One unit on one team: parts on all ranks, the file on the leader. It appears when the last part is in."""

    def work(part: Part):
        clock, began = Clock(), time.time()
        with log.unit(f"{unit.name} {part.name}"):
            result = stage.work(run, unit, part, clock)
        return result, clock.seconds, began, run.world.rank

    if team.rank != 0:
        return run_parts(team, unit.parts, [part.cost for part in unit.parts], work, lambda part, result: None, run.stop)
    header = product.Header(stage.name, _identity(stage, unit), unit.configuration, unit.inputs, run.world.size)
    with contextlib.suppress(_NothingWritten), stage.writer(run, unit, header) as writer:

        def sink(part: Part, content) -> None:
            result, kinds, began, rank = content
            start = time.perf_counter()
            writer.append(result)
            kinds["write"] = time.perf_counter() - start
            rows.append({"stage": stage.name, "unit": unit.name, "part": part.name, "rank": rank, "began": round(began, 3),
                         **{kind: round(value, 4) for kind, value in kinds.items()}})

        outcome = run_parts(team, unit.parts, [part.cost for part in unit.parts], work, sink, run.stop)
        if outcome.stopped or not outcome.done:
            raise _NothingWritten
        writer.note(_parts(unit, outcome))
    return outcome


class _NothingWritten(Exception):
    """Leaves the writer without a file."""


def _parts(unit: Unit, outcome: Outcome) -> list[product.Part]:
    """What each part cost, or why it is missing."""
    failures = {row.part: f"{row.error}: {row.message}" for row in outcome.failures}
    return [product.Part(part.name, outcome.seconds.get(i, 0.0), outcome.peak_memory.get(i, 0), failures.get(part.name, ""))
            for i, part in enumerate(unit.parts)]
