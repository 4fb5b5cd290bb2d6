"""The tiny survey (configs/tiny.yaml): started as users start it, or inside pytest where many short runs are wanted."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rsp_hpc.io.product import hash_of

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "tests" / "configs" / "tiny.yaml"
VISITS, BANDS, DETECTORS = tuple(range(1001, 1007)), ("g", "r"), ("D0", "D1")


@dataclass(frozen=True)
class Result:
    """How a start of the program ended, and what it said."""

    code: int
    text: str

    def lines(self, words: str) -> list[str]:
        """The lines that hold some words."""
        return [line for line in self.text.splitlines() if words in line]


@dataclass(frozen=True)
class Tiny:
    """A simulated tiny survey and where its products go.

    Attributes
    ----------
    raw, output : folders
    hashes : of the products of an undisturbed run on one rank, by their path in the output folder
    """

    raw: Path
    output: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def arguments(self, command: str, *more) -> list[str]:
        """The command line after `rsp-hpc`."""
        return [command, str(CONFIG), "--data", str(self.raw), "--output", str(self.output), *map(str, more)]

    def start(self, command: str, *more, ranks: int = 1) -> subprocess.Popen:
        """Start it in a process group of its own, under mpirun if there are several ranks."""
        launcher = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks)] if ranks > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([*launcher, sys.executable, "-m", "rsp_hpc", *self.arguments(command, *more)],
                                env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, command: str, *more, ranks: int = 1, timeout: float = 240.0) -> Result:
        """Start it and wait for its end."""
        return ended(self.start(command, *more, ranks=ranks), timeout)

    def call(self, command: str, *more) -> Result:
        """The same on one rank inside this process, without the second that a start takes."""
        return call(*self.arguments(command, *more))

    def found(self) -> dict[str, str]:
        """Path -> hash of every product that is there under its final name; fails if one does not open."""
        return {str(path.relative_to(self.output)): hash_of(path) for path in sorted(self.output.rglob("*.h5"))
                if not path.name.startswith(".")}

    def copy(self, folder: Path) -> Tiny:
        """The same survey with a copy of the products."""
        shutil.copytree(self.output, folder)
        return Tiny(self.raw, folder, self.hashes)

    def copy_raw(self, folder: Path, output: Path) -> Tiny:
        """A survey of its own whose raw files may be removed or replaced (not changed in place: they are links)."""
        shutil.copytree(self.raw, folder, copy_function=os.link)
        return Tiny(folder, output, self.hashes)

    def with_calibs_of(self, other: Tiny) -> Tiny:
        """Take over what another survey's ingest and calibs made; the raw files are believed to be the same."""
        assert self.call("ingest").code == 0
        shutil.copytree(other.output / "calibs", self.output / "calibs")
        return self

    def raw_file(self, visit: int, detector: str) -> Path:
        """A raw file."""
        return self.raw / f"tinycam_{visit:06d}_{detector}.fits"


def ended(process: subprocess.Popen, timeout: float = 240.0) -> Result:
    """Wait for the end; after the time limit all its processes are ended and the test fails."""
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"no end after {timeout} s:\n{process.communicate()[0][-3000:]}") from None
    return Result(process.returncode, text)


def call(*arguments: str) -> Result:
    """Run a command line inside this process; its signal handlers and logs are undone."""
    from rsp_hpc.cli import main
    from rsp_hpc.parallel import stop

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    handlers, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            main([str(argument) for argument in arguments], prog_name="rsp-hpc")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        for number, handler in zip(numbers, handlers):
            signal.signal(number, handler)
        stop._received.clear()
        sys.unraisablehook = hook
        logger = logging.getLogger("rsp_hpc")
        for handler in logger.handlers:
            handler.close()
        logger.handlers.clear()
        logger.propagate = True
    return Result(code, text.getvalue())


def wait_until(condition, process: subprocess.Popen, timeout: float = 120.0) -> None:
    """Wait for a condition; the test fails if it does not come, or if the process ends before."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def processes_of(process: subprocess.Popen) -> dict[int, int]:
    """Process id -> rank (-1: a launcher) of a start of the program and all its descendants."""
    parents, ranks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = dict(word.split(b"=", 1) for word in (folder / "environ").read_bytes().split(b"\0") if b"=" in word)
            is_rank = b"rsp_hpc" in (folder / "cmdline").read_bytes() and b"PMI_RANK" in words
            ranks[pid] = int(words[b"PMI_RANK"]) if is_rank else -1
    found = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: ranks.get(pid, -1) for pid in found}


def rank_of(process: subprocess.Popen, rank: int) -> int:
    """The process id of a rank; 0 if there is none."""
    return next((pid for pid, number in processes_of(process).items() if number == rank), 0)
