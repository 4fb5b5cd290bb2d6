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
from ..config import Config, effective
from ..errors import BadData, NewerFormat, Unwritable
from ..io import product
from ..parallel import Communicator, Failure, Outcome, is_shared, on_leader, run_parts, run_units
from .survey import Run

__all__ = ["Part", "Record", "Stage", "StageReport", "Unit", "configuration_text", "run_stage"]

logger = logging.getLogger(__name__)

FINAL = ("BadData", "KernelError")
"""Errors that the same data will give every time. What failed with another one is tried again by the next start."""

MOST_TOLD = 20
"""Failures that the terminal gets of one stage; the table holds all."""


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
    """What a team does at a time, and the file it makes. All that the parts need comes with it: only rank 0 knows more.

    Attributes
    ----------
    name : for people; key : for the stage
    parts : what the ranks of the team do
    product : the file
    configuration : the sections that the product depends on, YAML text
    inputs : name -> hash of what goes in
    incomplete : something that should go in cannot be read at present
    """

    name: str
    key: Any
    parts: tuple[Part, ...]
    product: Path
    configuration: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    incomplete: bool = False

    @property
    def cost(self) -> float:
        """Expected seconds, or any number in proportion."""
        return sum(part.cost for part in self.parts)

    def __str__(self) -> str:
        return self.name

    def identity(self, stage: str) -> str:
        """What a file that holds this unit's result, all of it, says of itself."""
        inputs = self.inputs | {"parts": ",".join(part.name for part in self.parts)}
        return product.identity_of(stage, self.configuration, inputs, f"rsp_hpc {__version__}")

    @property
    def is_incomplete(self) -> bool:
        """Whether it lacks something that could be had later, or is made of what does."""
        return self.incomplete or any(value.startswith(product.INCOMPLETE) for value in self.inputs.values())


def configuration_text(**sections: Config | None | str | tuple | dict) -> str:
    """The named sections as YAML text: what a product's identity and provenance hold."""
    plain = {name: effective(section) if isinstance(section, Config) else
             list(section) if isinstance(section, tuple) else section for name, section in sections.items()}
    return yaml.safe_dump(plain, sort_keys=True)


class Record:
    """What a part tells besides its result: seconds by kind of work ('read', 'compute', ...), inputs it had to leave out."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.left_out: list[tuple[str, BadData]] = []

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start

    def leave_out(self, name: str, error: BadData) -> None:
        """This input cannot be used; the part goes on without it."""
        self.left_out.append((name, error))

    def failures(self, part: Part) -> list[Failure]:
        """What was left out, as rows of the failure table."""
        return [Failure("", f"{part.name} without {name}", type(error).__name__, str(error)) for name, error in self.left_out]


class Stage:
    """Base of the stages; each says what its units are and what one part does."""

    name = ""
    renews = False
    """Whether a product made of other inputs is replaced unasked: only an index of what is there."""

    def __init__(self):
        self.problems: list[Failure] = []
        """What `units` had to leave out."""

    def units(self, run: Run) -> list[Unit]:
        """All units of the selection, with the identity their products must have. Runs on rank 0."""
        raise NotImplementedError

    def identity(self, path: Path, unit: str) -> str | None:
        """For `units`: the identity of an input; None if there is none, or if it cannot be used: then that is a problem."""
        try:
            return product.identity(path)
        except BadData as error:
            self.problems.append(Failure(unit, "", type(error).__name__, str(error)))
            return None

    def found(self, path: Path) -> product.Made | None:
        """What the product at a path says of itself; None if there is none. BadData if it is damaged or too new."""
        return product.made(path)

    def prepare(self, run: Run) -> None:
        """What all parts share: read by rank 0 and broadcast (collective). Only where something is left to do."""

    def work(self, run: Run, unit: Unit, part: Part, record: Record) -> Any:
        """Do one part on one rank; the result travels to the team's leader."""
        raise NotImplementedError

    def writer(self, run: Run, unit: Unit, header: product.Header) -> contextlib.AbstractContextManager:
        """On the leader: a context whose value has append(result) and note(parts, incomplete); the file appears when it
        ends well.
        """
        raise NotImplementedError

    def complete(self, run: Run, unit: Unit, writer) -> list[Failure]:
        """On the leader, once all parts of a unit are in and before its file appears: what only all of them together can tell.

        It sees what came with the parts, sorted by the writer whatever their order, so the result does not depend on the ranks.
        Returns the parts that turn out to be unusable.
        """
        return []

    def finish(self, run: Run) -> list[Failure]:
        """On rank 0, once all units are done; failures are listed like those of units."""
        return []


@dataclass
class StageReport:
    """What a stage did, on all ranks.

    Attributes
    ----------
    units : names of all units; left : of those that were to be done
    n_stale : kept, though made with another configuration or other inputs
    failures : of this start, and those of earlier ones that its finished products still have
    rows : timings of parts
    """

    stage: str
    units: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    n_stale: int = 0
    failures: list[Failure] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    seconds: float = 0.0

    @property
    def made(self) -> set[str]:
        """Units that were done now, at least in parts."""
        return {self.left[number] for number in self.outcome.done} & {row["unit"] for row in self.rows}

    @property
    def settled(self) -> set[str]:
        """Units whose state is known: done before, or tried now."""
        return set(self.units) - {name for number, name in enumerate(self.left) if number not in self.outcome.seconds}


def run_stage(run: Run, stage: Stage) -> StageReport:
    """Run one stage on all ranks (collective): find what is left, spread it, list what failed.

    Raises
    ------
    ConfigError
        On all ranks, if the configuration or the selection is wrong.
    """
    start = time.perf_counter()
    left: list[Unit] = []
    report = StageReport(stage.name)
    with _kept_in(report):
        left, report = on_leader(run.world, _plan, run, stage)
        _tell_plan(run, report, left)
        if left and not run.options.dry_run:
            with _kept_in(report):
                stage.prepare(run)
                _do_units(run, stage, left, report)
    if run.options.dry_run:
        return report
    if not report.outcome.stopped:
        with _kept_in(report):
            report.failures += on_leader(run.world, stage.finish, run)
    report.seconds = time.perf_counter() - start
    _tell_result(report)
    return report


@contextlib.contextmanager
def _kept_in(report: StageReport) -> Iterator[None]:
    """What rank 0 could not read and all ranks have been told (`on_leader`) is a failure of the stage, not the end."""
    try:
        yield
    except (BadData, OSError) as error:
        if not is_shared(error):
            raise
        report.failures.append(Failure("", "", type(error).__name__, " ".join(str(error).split())))


def _tell_result(report: StageReport) -> None:
    for row in report.failures[:MOST_TOLD]:
        log.tell("  FAILED %s: %s", " ".join(filter(None, (row.unit, row.part))) or report.stage, row.message)
    if len(report.failures) > MOST_TOLD:
        log.tell("  and %d more", len(report.failures) - MOST_TOLD)
    log.tell("%s: %d done, %d failure%s, %.1f s", report.stage, len(report.made), len(report.failures),
             "s" * (len(report.failures) != 1), report.seconds)


def _plan(run: Run, stage: Stage) -> tuple[list[Unit], StageReport]:
    """The units that are left; products that do not fit are said, and redone only where that was asked for."""
    units = stage.units(run)
    report, left = StageReport(stage.name, [unit.name for unit in units], failures=stage.problems), []
    for unit in units:
        try:
            found = stage.found(unit.product)
        except NewerFormat as error:
            if run.options.reprocess:
                left.append(unit)
            else:
                report.failures.append(Failure(unit.name, "", type(error).__name__, str(error)))
            continue
        except BadData as error:
            logger.warning("%s (done now)", error)
            found = None
        if found is None or run.options.reprocess or found.incomplete:
            left.append(unit)
            continue
        if found.identity != unit.identity(stage.name):
            if stage.renews:
                left.append(unit)
                continue
            report.n_stale += 1
            logger.warning("%s: made with another configuration or other inputs; kept. Replace it with --reprocess",
                           unit.product)
        report.failures += [Failure(unit.name, part.name, *part.failure.split(": ", 1)) for part in found.problems]
    report.left = [unit.name for unit in left]
    return left, report


def _tell_plan(run: Run, report: StageReport, left: list[Unit]) -> None:
    done = len(report.units) - len(left) - report.n_stale
    log.tell("%s: %d unit%s, %d done before%s", report.stage, len(report.units), "s" * (len(report.units) != 1), done,
             f", {report.n_stale} stale" if report.n_stale else "")
    if run.options.dry_run:
        for unit in left:
            log.tell("  would do %s: %d part%s -> %s", unit.name, len(unit.parts), "s" * (len(unit.parts) != 1), unit.product)


def _do_units(run: Run, stage: Stage, left: list[Unit], report: StageReport) -> None:
    """Spread the units over teams (collective); what came of it goes into the report."""
    rows: list[dict] = []
    report.outcome = run_units(run.world, left, [unit.cost for unit in left], run.config.mpi.team_size or None,
                               lambda team, unit: _do_unit(run, stage, team, unit, rows), run.stop,
                               progress=lambda state: run.tell_progress(stage.name, state))
    report.failures += report.outcome.failures
    report.rows = [row for part in run.world.allgather(rows) for row in part]


def _do_unit(run: Run, stage: Stage, team: Communicator, unit: Unit, rows: list[dict]) -> Outcome:
    """One unit on one team: parts on all ranks, the file on the leader. It appears when the last part is in."""

    def work(part: Part):
        record, began = Record(), time.time()
        with log.unit(f"{unit.name} {part.name}"):
            result = stage.work(run, unit, part, record)
        return result, record.seconds, record.failures(part), began, run.world.rank

    costs, left_out = [part.cost for part in unit.parts], []
    if team.rank != 0:
        return run_parts(team, unit.parts, costs, work, lambda part, result: None, run.stop)
    header = product.Header(stage.name, unit.identity(stage.name), unit.configuration, unit.inputs, run.world.size)
    try:
        with contextlib.suppress(_NothingWritten), stage.writer(run, unit, header) as writer:

            def sink(part: Part, content) -> None:
                result, kinds, failures, began, rank = content
                start = time.perf_counter()
                writer.append(result)
                kinds["write"] = time.perf_counter() - start
                left_out.extend(failures)
                rows.append({"stage": stage.name, "unit": unit.name, "part": part.name, "rank": rank,
                             "began": round(began, 3), **{f"{kind}_s": round(value, 4) for kind, value in kinds.items()}})

            outcome = run_parts(team, unit.parts, costs, work, sink, run.stop)
            outcome.failures += left_out
            if outcome.stopped or not outcome.done:
                raise _NothingWritten
            lost = stage.complete(run, unit, writer)
            outcome.failures += lost
            names = {row.part for row in lost}
            outcome.done = [i for i in outcome.done if unit.parts[i].name not in names]
            if not outcome.done:
                raise _NothingWritten
            writer.note(_parts(unit, outcome),
                        unit.is_incomplete or any(row.error not in FINAL for row in outcome.failures))
    except Unwritable as error:
        run.stop.request(str(error))
        raise
    return outcome


class _NothingWritten(Exception):
    """Leaves the writer without a file."""


def _parts(unit: Unit, outcome: Outcome) -> list[product.Part]:
    """What each part cost, and what is missing and why: of a part that failed, and of one that left something out."""
    failures = {row.part: f"{row.error}: {row.message}" for row in outcome.failures}
    parts = [product.Part(part.name, outcome.seconds.get(i, 0.0), outcome.peak_memory.get(i, 0), failures.pop(part.name, ""))
             for i, part in enumerate(unit.parts)]
    return parts + [product.Part(name, failure=text) for name, text in sorted(failures.items())]
