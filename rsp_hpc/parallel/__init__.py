"""MPI and nothing of ours: communicators, self-scheduling over teams of ranks, and the request to stop."""

from .comm import Communicator, SerialComm, is_shared, on_leader, shared
from .mpi import world
from .schedule import Failure, Outcome, Progress, run_parts, run_units
from .stop import StopRequest

__all__ = ["Communicator", "Failure", "Outcome", "Progress", "SerialComm", "StopRequest", "is_shared", "on_leader",
           "run_parts", "run_units", "shared", "world"]
