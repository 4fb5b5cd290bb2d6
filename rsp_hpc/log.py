"""Logging: JSON lines, one file per rank; the terminal gets rank 0's progress only.

Modules use `logging.getLogger(__name__)`; rank and unit are put in once, here, by the formatter.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import contextmanager
from pathlib import Path

__all__ = ["set_up", "tell", "unit"]

_terminal = logging.getLogger("rsp_hpc.terminal")
_context = {"rank": 0, "unit": ""}


class _JsonLines(logging.Formatter):
    """One JSON object per line: time, rank, unit, level, module, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        row = {"time": round(record.created, 3), **_context, "level": record.levelname.lower(),
               "module": record.name.removeprefix("rsp_hpc."), "message": record.getMessage()}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


class _QuietFile(logging.FileHandler):
    """A log that cannot be written (a full folder) never stops the work, nor fills the terminal with traces."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            pass

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _OneLine(logging.Formatter):
    """The message only: traces are in the log files."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


def set_up(rank: int, folder: Path | None = None, verbose: bool = False) -> None:
    """Send this rank's records to `folder`/rank-<rank>.jsonl (a folder that exists), rank 0's progress to the terminal."""
    _context["rank"] = rank
    sys.unraisablehook = _note_unraisable
    root = logging.getLogger("rsp_hpc")
    root.handlers.clear()
    root.propagate = False
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    if folder is not None:
        lines = _QuietFile(folder / f"rank-{rank:05d}.jsonl", encoding="utf-8", delay=True)
        lines.setFormatter(_JsonLines())
        root.addHandler(lines)
    if rank == 0:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(_OneLine())
        screen.addFilter(lambda record: not getattr(record, "quiet", False) and (
            record.name == _terminal.name or record.levelno >= logging.WARNING))
        root.addHandler(screen)


def _note_unraisable(info) -> None:
    """What Python cannot raise goes to the log: HDF5 objects of a file that a full disk did not take say so one by one."""
    logging.getLogger(__name__).debug("%s: %s", info.err_msg or "ignored", info.exc_value, extra={"quiet": True})


def tell(message: str, *arguments) -> None:
    """A line of progress for the person at the terminal, and for the log; from rank 0 only."""
    if _context["rank"] == 0:
        _terminal.info(f"{time.strftime('%H:%M:%S')} {message}", *arguments)


@contextmanager
def unit(name: str):
    """Within this block every record carries the name of the unit or part in work."""
    before, _context["unit"] = _context["unit"], name
    try:
        yield
    finally:
        _context["unit"] = before
