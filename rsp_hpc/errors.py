"""The few errors of rsp_hpc. Each says what to do; the run maps each to an outcome.

NothingToDo   no input overlaps, or nothing passed the selection: not a failure.
BadData       this unit's data will fail every time: recorded in the failure table, the rest of the run goes on.
ConfigError   the configuration is wrong for all data: the run stops with exit code 4.
KernelError   the C core refused its arguments or failed: recorded like BadData; a bug if the data are good.
Stopped       a stop was requested (signal, stop file, --max-time): the run commits what is finished, exit code 75.
"""

from __future__ import annotations

EXIT_DONE, EXIT_BUG, EXIT_FAILURES, EXIT_CONFIG, EXIT_STOPPED = 0, 1, 3, 4, 75


class RspError(Exception):
    """Base of all errors of this package."""


class NothingToDo(RspError):
    """There is no work in this unit."""


class BadData(RspError, ValueError):
    """These data cannot be processed; the message says what is wrong with which file or detector."""


class ConfigError(RspError, ValueError):
    """The configuration or the command line is wrong; the message says what to change."""


class KernelError(RspError, RuntimeError):
    """The C core reported a failure."""

    def __init__(self, message: str, status: int = -1):
        super().__init__(message)
        self.status = status


class Stopped(RspError):
    """A stop was requested; the same command resumes."""
