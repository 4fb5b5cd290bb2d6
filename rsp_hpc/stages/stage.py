"""A stage: its units of work, their parts, and the driver that runs any stage on any number of ranks.

A unit (a visit, a tract) is taken by a team of ranks and makes one file; its parts (detectors, patches) are spread over the
team. What exists with the right identity is done; the same command again does what is left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from .. import __version__, log
from ..errors import BadData
from ..io.product import identity_of_file
from ..parallel import Communicator, Failure, Outcome, on_leader, run_parts, run_units
from .survey import Run

__all__ = ["Clock", "Part", "Stage", "StageReport", "Unit", "identity", "run_stage"]

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
    """What a team does at a time; `product` is the file it makes, `identity` the hash that file must carry."""

    name: str
    key: Any
    parts: tuple[Part, ...]
    product: Path
    identity: str

    @property
    def cost(self) -> float:
        """Expected seconds, or any number in proportion."""
        return sum(part.cost for part in self.parts)

    def __str__(self) -> str:
        return self.name


class Clock:
    """Seconds of one part by kind of work: 'read', 'compute', 'encode', ..."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
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

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> Any:
        """Do one part on one rank; the result travels to the team's leader."""
        raise NotImplementedError

    def writer(self, run: Run, unit: Unit) -> Any:
        """On the leader: an object with append(part name, result), commit(provenance) and abandon()."""
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


def identity(stage: str, configuration: dict, inputs: list[str]) -> str:
    """The hash that tells a product of other inputs, another configuration or another version."""
    text = json.dumps([stage, __version__, configuration, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
        found = _identity_found(unit.product)
        if found == unit.identity and not run.options.reprocess:
            done += 1
        elif found is None or run.options.reprocess:
            left.append(unit)
        else:
            stale += 1
            logger.warning("%s: made with another configuration or other inputs; kept. Replace it with --reprocess",
                           unit.product)
    return left, StageReport(stage.name, Outcome(), len(units), done, stale)


def _identity_found(path: Path) -> str | None:
    """The identity of the product at this path; None if there is none or it cannot be read (then it is replaced)."""
    if not path.exists():
        return None
    try:
        return identity_of_file(path)
    except BadData as error:
        if "version" in str(error):
            return f"unreadable: {error}"
        logger.warning("%s; it is made anew", error)
        return None


def _do_unit(run: Run, stage: Stage, team: Communicator, unit: Unit, rows: list[dict]) -> Outcome:
    """One unit on one team: parts on all ranks, the file on the leader. The file appears when the last part is in."""
    started = time.time()
    writer = stage.writer(run, unit) if team.rank == 0 else None
    seconds: dict[str, dict[str, float]] = {}

    def work(part: Part):
        clock = Clock()
        began = time.time()
        with log.unit(f"{unit.name} {part.name}"):
            result = stage.work(run, unit, part, clock)
        return result, clock.seconds, began, run.world.rank

    def sink(part: Part, content) -> None:
        result, kinds, began, rank = content
        written = time.perf_counter()
        writer.append(part.name, result)
        seconds[part.name] = {**kinds, "write": time.perf_counter() - written}
        rows.append({"stage": stage.name, "unit": unit.name, "part": part.name, "rank": rank, "began": began,
                     **{f"{kind}_s": round(value, 4) for kind, value in sorted(seconds[part.name].items())}})

    try:
        outcome = run_parts(team, unit.parts, [part.cost for part in unit.parts], work, sink, run.stop)
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    if writer is not None:
        if outcome.stopped or not outcome.done:
            writer.abandon()
        else:
            writer.commit({"host": run.host, "ranks": run.world.size, "started": started, "seconds": seconds,
                           "peak_memory": {str(unit.parts[i]): value for i, value in outcome.peak_memory.items()},
                           "failures": [[row.part, row.error, row.message] for row in outcome.failures]})
    return outcome
