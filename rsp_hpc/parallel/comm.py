"""Communicators: few verbs, always there; `SerialComm` of size one where there is no MPI.

Collective verbs (bcast, gather, sum, exchange, barrier, split, duplicate) are called by all ranks in the same order and
stand between units of work, never inside one. Inside a unit ranks talk by messages (send, arrived, receive), each set
of talks on its own duplicate, so that no message meets another's.
"""

from __future__ import annotations

import pickle
import time
from typing import Any, Callable, TypeVar

import numpy as np

__all__ = ["Communicator", "SerialComm", "is_shared", "on_leader", "shared", "pack", "unpack", "wait_for"]

ANY = -1
"""Any source."""

Problem = TypeVar("Problem", bound=BaseException)


class Communicator:
    """A group of ranks. Values are anything that pickle takes; arrays and bytes in them travel as raw buffers."""

    rank: int = 0
    size: int = 1
    threads: bool = True
    """Whether several threads of a rank may talk at once."""

    # -- collective ------------------------------------------------------------------------------------------------
    def split(self, color: int, key: int | None = None) -> Communicator:
        """The ranks of equal color, ordered by key (default: by rank)."""
        raise NotImplementedError

    def duplicate(self) -> Communicator:
        """The same ranks with messages of their own."""
        raise NotImplementedError

    def bcast(self, value: Any = None, root: int = 0) -> Any:
        """The root's value, on all ranks."""
        raise NotImplementedError

    def gather(self, value: Any, root: int = 0) -> list | None:
        """All values in rank order on the root, None elsewhere."""
        raise NotImplementedError

    def exchange(self, values: list) -> list:
        """values[i] goes to rank i; what came from rank i is at i of the result."""
        raise NotImplementedError

    def barrier(self) -> None:
        """Wait for all."""
        raise NotImplementedError

    def allgather(self, value: Any) -> list:
        """All values in rank order, on all ranks."""
        return self.bcast(self.gather(value))

    def sum(self, array) -> np.ndarray:
        """Elementwise sum over ranks, added in rank order: the same bits on all ranks and in every run.

        The order of additions still depends on the number of ranks: sums whose bits must not, run over a fixed
        partition of the data (gather the parts' sums and add them in the parts' order).
        """
        parts = self.gather(np.asarray(array))
        total = None
        if parts is not None:
            total = parts[0].copy()
            for part in parts[1:]:
                total = total + part
        return self.bcast(total)

    # -- messages --------------------------------------------------------------------------------------------------
    def send(self, value: Any, to: int) -> None:
        """Send to another rank; returns when `value` may be changed."""
        raise NotImplementedError

    def arrived(self, source: int = ANY) -> int | None:
        """The rank whose message waits to be received, or None; does not wait."""
        raise NotImplementedError

    def receive(self, source: int) -> Any:
        """The next message of a rank; messages of one rank keep their order."""
        raise NotImplementedError

    # -- end -------------------------------------------------------------------------------------------------------
    def abort(self, code: int = 1) -> None:
        """End all ranks at once."""
        raise SystemExit(code)

    def free(self) -> None:
        """Give back what a split or duplicate holds."""


class SerialComm(Communicator):
    """One rank, no MPI."""

    def split(self, color: int, key: int | None = None) -> Communicator:
        return SerialComm()

    def duplicate(self) -> Communicator:
        return SerialComm()

    def bcast(self, value: Any = None, root: int = 0) -> Any:
        return value

    def gather(self, value: Any, root: int = 0) -> list | None:
        return [value]

    def exchange(self, values: list) -> list:
        return list(values)

    def barrier(self) -> None:
        return None

    def arrived(self, source: int = ANY) -> int | None:
        return None


def wait_for(comm: Communicator, source: int = ANY, broken: Callable[[], bool] = lambda: False) -> int:
    """Wait for a message without burning a core (ranks may share one); the rank that sent it.

    Raises
    ------
    ConnectionAbortedError
        `broken()` became true.
    """
    pause = 5e-5
    while (found := comm.arrived(source)) is None:
        if broken():
            raise ConnectionAbortedError("the other side has failed")
        time.sleep(pause)
        pause = min(2 * pause, 1e-3)
    return found


def on_leader(comm: Communicator, function: Callable[..., Any], *arguments) -> Any:
    """Run on rank 0 only; its result, or its exception, on all ranks (collective).

    So a wrong configuration or an unreadable file that rank 0 sees ends all ranks in the same way, none waits.
    """
    answer: tuple[Any, BaseException | None] = (None, None)
    if comm.rank == 0:
        try:
            answer = (function(*arguments), None)
        except Exception as error:
            answer = (None, error)
            if comm.size > 1:
                answer = (None, _portable(error))
    value, error = comm.bcast(answer)
    if error is not None:
        raise shared(error)
    return value


def shared(error: Problem) -> Problem:
    """Mark an error as one that all ranks raise at the same place."""
    error.shared = True  # type: ignore[attr-defined]
    return error


def is_shared(error: BaseException) -> bool:
    """Whether all ranks have this error (`on_leader` raised it): only then may a rank go on, or end, as if alone."""
    return getattr(error, "shared", False)


def _portable(error: Exception) -> Exception:
    """The error itself if pickle can carry it, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def pack(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value with its large buffers (arrays, PickleBuffer) kept aside, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return head, [buffer.raw() for buffer in buffers]


def unpack(head: bytes, buffers: list) -> Any:
    """The value of `pack`."""
    return pickle.loads(head, buffers=buffers)
