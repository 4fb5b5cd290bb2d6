"""Self-scheduling: parts over the ranks of a team, units over teams; every rank computes, none is lost to a manager.

Rank 0 of a team (its leader) computes like the others, while a thread of it hands out parts, largest first, and takes
in results; kernels release the interpreter's lock, so an answer takes milliseconds. A part that fails becomes a row of
the failure table, its team goes on. What a unit does with its results is independent of the order in which they come.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

from ..errors import NothingToDo, Stopped
from .comm import Communicator, SerialComm, wait_for
from .stop import StopRequest

__all__ = ["Failure", "Outcome", "Progress", "run_parts", "run_units"]

logger = logging.getLogger(__name__)

ASK, RESULT, PROBLEM, LEAVE = "ask", "result", "problem", "leave"
NO_MORE = -1


@dataclass(frozen=True)
class Failure:
    """One row of the failure table; `part` is '' where the whole unit failed."""

    unit: str
    part: str
    error: str
    message: str


@dataclass
class Outcome:
    """What became of parts or units; complete on rank 0, on other ranks what they did themselves.

    Attributes
    ----------
    done : indices that finished
    empty : indices in which there was nothing to do (NothingToDo)
    failures : list of Failure
    seconds, peak_memory : by index; memory in bytes is the peak of the rank that did it, since its start
    stopped : a stop was requested and something was left
    total : how many there were
    """

    done: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    peak_memory: dict[int, int] = field(default_factory=dict)
    stopped: bool = False
    total: int = 0


@dataclass(frozen=True)
class Progress:
    """How far the units are: for a status file."""

    total: int
    finished: int
    failed: int
    seconds_elapsed: float
    seconds_left: float


class _Dispenser:
    """Hands out indices, largest cost first (ties by index), until none is left or a stop is requested."""

    def __init__(self, costs: Sequence[float], stop: StopRequest):
        self._costs, self._stop = costs, stop
        self._order = sorted(range(len(costs)), key=lambda i: (-costs[i], i), reverse=True)
        self._lock = threading.Lock()
        self._per_cost = 0.0
        self.stopped = False

    def next(self, asked_to_stop: bool = False) -> int:
        """The next index, or NO_MORE."""
        with self._lock:
            if not self._order:
                return NO_MORE
            expected = self._costs[self._order[-1]] * (self._per_cost or 1.0)
            if self.stopped or asked_to_stop or self._stop.requested(expected):
                self.stopped = True
                return NO_MORE
            return self._order.pop()

    def finished(self, index: int, seconds: float) -> None:
        """Learn how many seconds a cost is: costs are expected seconds, corrected by the slowest part so far."""
        with self._lock:
            if self._costs[index] > 0:
                self._per_cost = max(self._per_cost, seconds / self._costs[index])

    def give_up(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self._order.clear()


class _Server:
    """The leader's side: answers requests, takes results, keeps the outcome."""

    def __init__(self, comm: Communicator, costs: Sequence[float], take: Callable[[int, Any], None], stop: StopRequest):
        self.comm, self.dispenser, self.take = comm, _Dispenser(costs, stop), take
        self.outcome = Outcome(total=len(costs))
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self.inside = set(range(1, comm.size)) - _withdrawn(comm)

    def serve(self) -> None:
        """Until every other rank has been told that there is no more."""
        while self.inside:
            try:
                source = wait_for(self.comm)
                self._answer(source, *self.comm.receive(source))
            except BaseException as error:  # the channel itself broke: nobody can be told
                self.fail(error)
                return

    def _answer(self, source: int, kind: str, *content) -> None:
        if kind == ASK:
            index = self.dispenser.next(*content)
            self.comm.send(index, source)
            if index == NO_MORE:
                self.inside.discard(source)
        elif kind == RESULT:
            self.accept(*content)
        elif kind == PROBLEM:
            self.reject(*content)
        else:  # LEAVE: the rank failed outside of its parts
            _withdrawn(self.comm).add(source)
            self.inside.discard(source)

    def accept(self, index: int, result: Any, seconds: float, memory: int) -> None:
        """Give a result to the sink; a sink that fails ends the unit."""
        with self._lock:
            self.dispenser.finished(index, seconds)
            if self.error is not None:
                return
            try:
                self.take(index, result)
            except BaseException as error:
                self.fail(error)
                return
            self.outcome.done.append(index)
            self._note(index, seconds, memory)

    def reject(self, index: int, failure: Failure | None, stopped: bool, seconds: float, memory: int) -> None:
        """A part without result: failed, empty (no failure), or left because of a stop."""
        with self._lock:
            if stopped:
                self.dispenser.stopped = True
                return
            (self.outcome.failures if failure else self.outcome.empty).append(failure or index)
            self._note(index, seconds, memory)

    def _note(self, index: int, seconds: float, memory: int) -> None:
        self.outcome.seconds[index], self.outcome.peak_memory[index] = seconds, memory

    def fail(self, error: BaseException) -> None:
        """Remember the error for the leader's main thread and hand out nothing more."""
        self.error = self.error or error
        self.dispenser.give_up()


def _withdrawn(comm: Communicator) -> set[int]:
    """Ranks that left the present unit early; kept with the channel."""
    if not hasattr(comm, "withdrawn"):
        comm.withdrawn = set()  # type: ignore[attr-defined]
    return comm.withdrawn  # type: ignore[attr-defined]


def _channel(comm: Communicator) -> Communicator:
    """The duplicate of a communicator for the messages of this module, made at first use (collective)."""
    if not hasattr(comm, "channel"):
        comm.channel = comm.duplicate()  # type: ignore[attr-defined]
    return comm.channel  # type: ignore[attr-defined]


def run_parts(comm: Communicator, parts: Sequence[Any], costs: Sequence[float], work: Callable[[Any], Any],
              sink: Callable[[Any, Any], None], stop: StopRequest | None = None) -> Outcome:
    """Spread the parts of one unit over the ranks of its team; called by all ranks of the team with the same parts.

    Parameters
    ----------
    parts : the parts; equal on all ranks
    costs : expected seconds of each part; the largest is handed out first
    work : part -> result; runs on any rank. BadData, KernelError and every other Exception become a Failure;
        NothingToDo leaves the part out; Stopped leaves it for the next run
    sink : (part, result); runs on the leader only, one at a time, in any order. Its exception ends the unit
    stop : asked before each part

    Returns
    -------
    Outcome
        Of all parts on the leader, of the own ones elsewhere. `Failure.unit` is left '' for the caller to fill.

    Raises
    ------
    Exception
        On the leader: what the sink raised.
    """
    stop = stop or StopRequest()
    names = [str(part) for part in parts]
    channel = _channel(comm)
    if comm.rank != 0:
        return _ask_and_work(channel, parts, names, work, stop)
    server = _Server(channel, costs, lambda index, result: sink(parts[index], result), stop)
    alone = comm.size == 1
    if not alone and not comm.threads:
        logger.warning("this MPI has no thread support: rank 0 of each team only hands out work")
        server.serve()
    else:
        thread = threading.Thread(target=server.serve, name="dispenser", daemon=True)
        if not alone:
            thread.start()
        while (index := server.dispenser.next()) != NO_MORE:
            kind, content = _do(parts[index], index, names[index], work)
            (server.accept if kind == RESULT else server.reject)(*content)
        if not alone:
            thread.join()
    if server.error is not None:
        raise server.error
    server.outcome.stopped = server.dispenser.stopped
    return server.outcome


def _ask_and_work(channel: Communicator, parts, names: list[str], work, stop: StopRequest) -> Outcome:
    """The side of all ranks but the leader."""
    outcome = Outcome(total=len(parts))
    while True:
        channel.send((ASK, stop.requested()), 0)
        if (index := channel.receive(0)) == NO_MORE:
            return outcome
        kind, content = _do(parts[index], index, names[index], work)
        channel.send((kind, *content), 0)
        outcome.seconds[index], outcome.peak_memory[index] = content[-2:]
        if kind == RESULT:
            outcome.done.append(index)
        elif content[1]:
            outcome.failures.append(content[1])


def _do(part: Any, index: int, name: str, work: Callable[[Any], Any]) -> tuple[str, tuple]:
    """Work on one part; (RESULT, (index, result, seconds, memory)) or (PROBLEM, (index, failure, stopped, ...))."""
    start = time.perf_counter()
    failure, stopped = None, False
    try:
        result = work(part)
        return RESULT, (index, result, time.perf_counter() - start, peak_memory())
    except NothingToDo as error:
        logger.info("%s: nothing to do: %s", name, error)
    except Stopped:
        stopped = True
    except Exception as error:  # MemoryError among them
        failure = failure_of(error, part=name)
    return PROBLEM, (index, failure, stopped, time.perf_counter() - start, peak_memory())


def failure_of(error: BaseException, unit: str = "", part: str = "") -> Failure:
    """The failure-table row of an exception; the trace goes to the log (`quiet`: the terminal gets the table's row)."""
    text = " ".join(str(error).split()) or "no message"
    logger.error("%s %s: %s: %s", unit, part, type(error).__name__, text, exc_info=error, extra={"quiet": True})
    return Failure(unit, part, type(error).__name__, text[:1000])


def peak_memory() -> int:
    """Bytes: the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_units(world: Communicator, units: Sequence[Any], costs: Sequence[float], team_size: int | None,
              do_unit: Callable[[Communicator, Any], Outcome | None], stop: StopRequest | None = None, *,
              progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Spread units over teams of ranks, largest first; collective over the world.

    Parameters
    ----------
    units, costs : equal on all ranks; costs in expected seconds
    team_size : ranks of a team; None: one rank, or more where there are fewer units than ranks
    do_unit : (team, unit) -> the Outcome of its parts or None; called by all ranks of a team. BadData and other
        exceptions on any rank become a Failure of the unit. No collective of the world inside
    stop : asked before each unit
    progress : called on rank 0 whenever a unit ends

    Returns
    -------
    Outcome
        Of the units, equal on all ranks; failures hold those of units and of parts. A unit with failed parts counts
        as done; one that was stopped half-way does not.
    """
    stop = stop or StopRequest()
    names = [str(unit) for unit in units]
    size = team_size or max(1, world.size // max(1, len(units)))
    n_teams = max(1, world.size // max(1, min(size, world.size)))
    color = world.rank * n_teams // world.size
    team = world.split(color) if world.size > 1 else SerialComm()
    leaders = world.split(0 if team.rank == 0 else 1) if world.size > 1 else SerialComm()
    mine: list[Failure] = []

    def work(index: int) -> Any:
        _tell(team, index)
        return _one_unit(team, units[index], names[index], do_unit)

    outcome = Outcome(total=len(units))
    _channel(team)
    if team.rank == 0:
        tracker = _Tracker(len(units), outcome, progress)
        stopped = run_parts(leaders, range(len(units)), costs, work, tracker.take, stop).stopped
        outcome.stopped |= stopped
        _tell(team, NO_MORE)
    else:
        while (index := _channel(team).receive(0)) != NO_MORE:
            mine += _one_unit(team, units[index], names[index], do_unit).failures
    outcome = _merge(world, outcome, mine)
    for comm in (team, leaders):
        _free(comm)
    return outcome


class _Tracker:
    """Sums up the units on the world's rank 0."""

    def __init__(self, total: int, outcome: Outcome, progress: Callable[[Progress], None] | None):
        self.total, self.outcome, self.progress = total, outcome, progress
        self.start, self.finished, self.failed = time.monotonic(), 0, 0

    def take(self, index: int, unit: _UnitResult) -> None:
        """Enter one unit's result."""
        outcome = self.outcome
        outcome.failures += unit.failures
        outcome.stopped |= unit.stopped
        if unit.empty:
            outcome.empty.append(index)
        elif not unit.failed and not unit.stopped:
            outcome.done.append(index)
        outcome.seconds[index], outcome.peak_memory[index] = unit.seconds, unit.peak_memory
        self.finished += 1
        self.failed += bool(unit.failures)
        if self.progress is not None:
            elapsed = time.monotonic() - self.start
            left = elapsed * (self.total - self.finished) / self.finished
            self.progress(Progress(self.total, self.finished, self.failed, elapsed, left))


@dataclass(frozen=True)
class _UnitResult:
    """What one rank tells of one unit."""

    failures: list[Failure]
    failed: bool
    empty: bool
    stopped: bool
    seconds: float
    peak_memory: int


def _tell(team: Communicator, index: int) -> None:
    """Tell the ranks of a team which unit is next."""
    for rank in range(1, team.size):
        _channel(team).send(index, rank)


def _free(comm: Communicator) -> None:
    """Give a communicator and its channel back: libraries hold only some thousands."""
    if hasattr(comm, "channel"):
        comm.channel.free()
    comm.free()


def _one_unit(team: Communicator, unit: Any, name: str, do_unit) -> _UnitResult:
    """Do one unit on one rank of its team; whatever fails on whichever rank, none waits for ever."""
    start = time.perf_counter()
    failures: list[Failure] = []
    failed = empty = stopped = False
    try:
        inner = do_unit(team, unit)
        if inner is not None and team.rank == 0:
            failures += [Failure(name, row.part, row.error, row.message) for row in inner.failures]
            stopped = inner.stopped
    except NothingToDo as error:
        logger.info("%s: nothing to do: %s", name, error)
        empty = True
    except Stopped:
        stopped = True
    except Exception as error:
        failed = True
        failures.append(failure_of(error, unit=name))
    _leave(_channel(team))
    return _UnitResult(failures, failed, empty, stopped, time.perf_counter() - start, peak_memory())


def _leave(channel: Communicator) -> None:
    """End of a unit: the leader answers the parts that others still ask for, until all have left."""
    if channel.rank != 0:
        channel.send((LEAVE,), 0)
        return
    gone = _withdrawn(channel)
    while len(gone) < channel.size - 1:
        source = wait_for(channel)
        kind = channel.receive(source)[0]
        if kind == ASK:
            channel.send(NO_MORE, source)
        elif kind == LEAVE:
            gone.add(source)
    gone.clear()


def _merge(world: Communicator, outcome: Outcome, mine: list[Failure]) -> Outcome:
    """The complete outcome, with rows in a fixed order, on all ranks."""
    gathered = world.gather((outcome, mine))
    merged = None
    if gathered is not None:
        merged = gathered[0][0]
        rows = set(merged.failures)
        for other, theirs in gathered:
            merged.stopped |= other.stopped
            rows.update(theirs)
        merged.failures = sorted(rows, key=lambda row: (row.unit, row.part, row.error, row.message))
        merged.done.sort()
        merged.empty.sort()
    return world.bcast(merged)
