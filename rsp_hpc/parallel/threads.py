"""ThreadComm: ranks as threads of one process, for tests. Messages are pickled, as between processes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable

from .comm import ANY, Communicator, pack, unpack, wait_for

__all__ = ["ThreadComm", "run_ranks"]


class _Group:
    """What the ranks of one communicator share."""

    def __init__(self, size: int, broken: threading.Event):
        self.size, self.broken = size, broken
        self.boxes: list[dict[int, deque]] = [{source: deque() for source in range(size)} for _ in range(size)]
        self.slots: list[Any] = [None] * size
        self.barrier = threading.Barrier(size)

    def wait(self) -> None:
        """Meet all ranks; raises BrokenBarrierError when one has failed."""
        while True:
            if self.broken.is_set():
                self.barrier.abort()
            self.barrier.wait()
            return


class ThreadComm(Communicator):
    """One rank of a group of threads."""

    def __init__(self, group: _Group, rank: int, groups: list[_Group]):
        self._group, self.rank, self.size, self._groups = group, rank, group.size, groups

    def _all(self, value: Any) -> list:
        """Every rank's value (its pickle's copy), on every rank."""
        self._group.slots[self.rank] = pack(value)
        self._group.wait()
        values = [_copy(packed) for packed in self._group.slots]
        self._group.wait()
        return values

    def split(self, color: int, key: int | None = None) -> Communicator:
        entries = self._all((color, self.rank if key is None else key))
        members = sorted((entry[1], rank) for rank, entry in enumerate(entries) if entry[0] == color)
        ranks = [rank for _, rank in members]
        group = None
        if self.rank == ranks[0]:
            group = _Group(len(ranks), self._group.broken)
            self._groups.append(group)
        self._group.slots[self.rank] = group  # by reference: the members share it
        self._group.wait()
        group = self._group.slots[ranks[0]]
        self._group.wait()
        return ThreadComm(group, ranks.index(self.rank), self._groups)

    def duplicate(self) -> Communicator:
        return self.split(0)

    def bcast(self, value: Any = None, root: int = 0) -> Any:
        return self._all(value if self.rank == root else None)[root]

    def gather(self, value: Any, root: int = 0) -> list | None:
        values = self._all(value)
        return values if self.rank == root else None

    def exchange(self, values: list) -> list:
        return [sent[self.rank] for sent in self._all(list(values))]

    def barrier(self) -> None:
        self._group.wait()

    def send(self, value: Any, to: int) -> None:
        head, buffers = pack(value)
        self._group.boxes[to][self.rank].append((head, [bytes(buffer) for buffer in buffers]))

    def arrived(self, source: int = ANY) -> int | None:
        if self._group.broken.is_set():
            raise ConnectionAbortedError("another rank has failed")
        box = self._group.boxes[self.rank]
        return next((rank for rank in (box if source == ANY else (source,)) if box[rank]), None)

    def receive(self, source: int) -> Any:
        wait_for(self, source)
        return _copy(self._group.boxes[self.rank][source].popleft())

    def abort(self, code: int = 1) -> None:
        self._group.broken.set()
        for group in list(self._groups):
            group.barrier.abort()


def _copy(packed: tuple[bytes, list]) -> Any:
    head, buffers = packed
    return unpack(head, [bytearray(buffer) for buffer in buffers])


def run_ranks(n: int, function: Callable[..., Any], *arguments) -> list:
    """Run function(comm, *arguments) on n ranks; the results in rank order.

    Raises
    ------
    Exception
        The first exception of any rank; the others are ended.
    """
    broken = threading.Event()
    first = _Group(n, broken)
    groups = [first]
    results: list[Any] = [None] * n
    errors: list[BaseException] = []

    def body(rank: int) -> None:
        comm = ThreadComm(first, rank, groups)
        try:
            results[rank] = function(comm, *arguments)
        except BaseException as error:
            errors.append(error)
            comm.abort()

    ranks = [threading.Thread(target=body, args=(rank,), daemon=True) for rank in range(n)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if errors:
        raise next((error for error in errors
                    if not isinstance(error, (threading.BrokenBarrierError, ConnectionAbortedError))), errors[0])
    return results
