"""The few errors of rsp_hpc. Each says what to do; the run maps each to an outcome.

NothingToDo   no input overlaps, or nothing passed the selection: not a failure.
BadData       this unit's data will fail every time: recorded in the failure table, the rest of the run goes on.
  Damaged     a product is damaged: it, and what is made of it, can be made anew.
  NewerFormat a newer version of the program wrote a product: it is neither read nor replaced unasked.
  Unwritable  the output folder is full or cannot be written: the run ends in good order.
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


class Damaged(BadData):
    """A product file is damaged; made anew it is whole again."""


class NewerFormat(BadData):
    """A newer version of the program wrote this product."""


class Unwritable(BadData):
    """The output folder is full or cannot be written."""


class ConfigError(RspError, ValueError):
    """The configuration or the command line is wrong; the message says what to change."""


class KernelError(RspError, RuntimeError):
    """The C core reported a failure."""

    def __init__(self, message: str, status: int = -1):
        super().__init__(message)
        self.status = status


class Stopped(RspError):
    """A stop was requested; the same command resumes."""
