"""MpiComm: the one file that imports mpi4py."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any

import numpy as np

from ..errors import ConfigError
from . import stop
from .comm import ANY, Communicator, SerialComm, pack, shared, unpack, wait_for

__all__ = ["MpiComm", "launched_copies", "world"]

HEAD, BODY = 11, 12
"""Tags of a message's pickle and of its raw buffers."""

PIECE = 1 << 28
"""Longest single MPI message, bytes: older libraries count in 32 bits."""

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PALS_SIZE")
"""Variables in which launchers tell each copy how many there are."""

TRACES = ("PMI_RANK", "PMI_ID", "PMIX_RANK", "PMIX_NAMESPACE", "PALS_RANKID", "ALPS_APP_PE", "MPI_LOCALRANKID",
          "FLUX_TASK_RANK", "JSM_NAMESPACE_RANK")
"""Variables that only a process started by an MPI launcher has."""


def launched_copies(environment=os.environ) -> int | None:
    """How many copies of this process its launcher says it started; None where no launcher is seen."""
    for name in LAUNCHERS:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    if any(name in environment for name in TRACES):
        steps = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", ""))
        return int(steps) if steps.isdigit() else 0
    steps = environment.get("SLURM_STEP_NUM_TASKS", "")
    if steps.isdigit() and int(steps) > 1:  # plain srun without PMI: that many copies, each alone
        return int(steps)
    return None


def world(ranks: int | None = None, environment=os.environ) -> Communicator:
    """All ranks of this run; SerialComm where no launcher is seen or no MPI library is found.

    Installs the handlers of `stop` first (a signal during MPI's start must not kill), and a hook by which an uncaught
    exception on one rank ends all.

    Parameters
    ----------
    ranks : the number of ranks that the user or the job script asked for, if known (`--ranks`)

    Raises
    ------
    ConfigError
        The communicator's size is not what was asked for: a launcher of another MPI has started copies of size one that
        would all write the same files.
    """
    stop.catch_signals()
    copies = launched_copies(environment)
    comm: Communicator = SerialComm()
    reason = ""
    if copies is not None or (ranks or 1) > 1:
        try:
            comm = MpiComm()
        except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
            reason = f" ({str(error).splitlines()[0]})"
    _check_size(comm, ranks, copies, reason)
    if comm.size > 1:
        _abort_all_when_one_fails(comm)
    return comm


def _check_size(comm: Communicator, ranks: int | None, copies: int | None, reason: str) -> None:
    wanted = ranks or copies or 1
    if comm.size == wanted or (not ranks and not copies):
        return
    if comm.size == 1 and (copies or 1) > 1:
        text = f"the launcher started {copies} copies of size 1{reason}"
    else:
        text = f"MPI has {comm.size} rank{'s' * (comm.size > 1)}{reason}, {wanted} were asked for"
    raise shared(ConfigError(f"{text}: start with the mpirun (or srun --mpi=...) of the MPI library that mpi4py loads"))


def _abort_all_when_one_fails(comm: Communicator) -> None:
    def hook(kind, value, trace):
        if sys._getframe().f_back is not None:  # Cython shows here what a destructor raised, in the midst of other work
            return
        try:
            text = "".join(traceback.format_exception(kind, value, trace))
            sys.stderr.write(f"rank {comm.rank} of {comm.size} failed, ending all:\n{text}")
            sys.stderr.flush()
        finally:
            comm.abort(1)

    sys.excepthook = hook


class MpiComm(Communicator):
    """Ranks of MPI; `MPI.COMM_WORLD` unless a communicator is given. mpi4py finalizes at exit."""

    def __init__(self, comm=None):
        if comm is None:
            from mpi4py import MPI

            comm = MPI.COMM_WORLD.Dup()
        else:
            MPI = sys.modules["mpi4py.MPI"]
        self._mpi, self._comm = MPI, comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.threads = MPI.Query_thread() >= MPI.THREAD_MULTIPLE

    def split(self, color: int, key: int | None = None) -> Communicator:
        return MpiComm(self._comm.Split(color, self.rank if key is None else key))

    def duplicate(self) -> Communicator:
        return MpiComm(self._comm.Dup())

    def bcast(self, value: Any = None, root: int = 0) -> Any:
        return self._comm.bcast(value, root)

    def gather(self, value: Any, root: int = 0) -> list | None:
        """By messages, so that large arrays are neither copied nor counted in 32 bits."""
        self._comm.Barrier()  # ranks that are early do not fill the root's memory with messages of a later gather
        if self.rank != root:
            self._send(value, root)
            return None
        return [value if rank == root else self.receive(rank) for rank in range(self.size)]

    def exchange(self, values: list) -> list:
        if len(values) != self.size:
            raise ValueError(f"exchange takes one value per rank: {len(values)} given, {self.size} ranks")
        return self._comm.alltoall(values)

    def barrier(self) -> None:
        self._comm.Barrier()

    def send(self, value: Any, to: int) -> None:
        self._send(value, to)

    def _send(self, value: Any, to: int) -> None:
        head, buffers = pack(value)
        sizes = [buffer.nbytes for buffer in buffers]
        self._comm.Send([pickle.dumps((head, sizes)), self._mpi.BYTE], to, HEAD)
        for buffer in buffers:
            for start in range(0, buffer.nbytes, PIECE):
                self._comm.Send([buffer[start:start + PIECE], self._mpi.BYTE], to, BODY)

    def arrived(self, source: int = ANY) -> int | None:
        status = self._mpi.Status()
        found = self._comm.Iprobe(self._mpi.ANY_SOURCE if source == ANY else source, HEAD, status)
        return status.Get_source() if found else None

    def receive(self, source: int) -> Any:
        wait_for(self, source)
        status = self._mpi.Status()
        message = self._comm.Mprobe(source, HEAD, status)
        raw = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        message.Recv([raw, self._mpi.BYTE])
        head, sizes = pickle.loads(raw.data)
        buffers = []
        for size in sizes:
            buffer = np.empty(size, np.uint8)
            for start in range(0, size, PIECE):
                self._comm.Recv([buffer[start:start + PIECE], self._mpi.BYTE], source, BODY)
            buffers.append(buffer)
        return unpack(head, buffers)

    def abort(self, code: int = 1) -> None:
        self._comm.Abort(code)

    def free(self) -> None:
        self._comm.Free()
