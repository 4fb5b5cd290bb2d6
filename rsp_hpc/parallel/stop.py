"""The request to stop: SIGTERM or SIGUSR1, a file named `stop` in the output folder, or --max-time.

A requested stop is a normal end: no new part is started, what is finished is committed, all ranks end with code 75.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

__all__ = ["StopRequest", "catch_signals"]

_received: list[int] = []
_started = time.monotonic()


def _note(number, frame) -> None:
    if number not in _received:  # the same signal may come several times: from Slurm, mpirun and the script
        _received.append(number)


def catch_signals() -> None:
    """Install the handlers, before MPI starts; only the main thread can, elsewhere nothing happens."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _note)


class StopRequest:
    """Whether to go on.

    Parameters
    ----------
    folder : output folder, in which a file `stop` asks for the end; None: no file is looked for
    max_time : seconds from the program's start; None: no limit
    """

    def __init__(self, folder: str | Path | None = None, max_time: float | None = None):
        self._file = Path(folder) / "stop" if folder is not None else None
        self._max_time = max_time
        self._asked = False
        self._why = ""
        self._looked = -1.0

    def request(self, why: str = "") -> None:
        """Ask for the stop from inside the program."""
        self._asked, self._why = True, self._why or why

    @property
    def seconds_left(self) -> float:
        """Until max_time; inf without a limit."""
        return float("inf") if self._max_time is None else self._max_time - (time.monotonic() - _started)

    def requested(self, expected_seconds: float = 0.0) -> bool:
        """Whether work that takes so many seconds must not be started any more."""
        if not self._asked and (_received or self._file_is_there()):
            self._asked = True
        return self._asked or self.seconds_left < max(expected_seconds, 0.0) or self.seconds_left <= 0.0

    @property
    def reason(self) -> str:
        """Why, in words; '' where no stop is requested."""
        if _received:
            return f"signal {signal.Signals(_received[0]).name}"
        if self._file is not None and self._file.exists():
            return f"file {self._file}"
        if self._why or self._asked:
            return self._why or "request"
        return f"--max-time {self._max_time:g} s" if self._max_time is not None else ""

    def _file_is_there(self) -> bool:
        """Looked at once a second at most: a shared file system serves thousands of ranks."""
        if self._file is None or time.monotonic() - self._looked < 1.0:
            return False
        self._looked = time.monotonic()
        return self._file.exists()
