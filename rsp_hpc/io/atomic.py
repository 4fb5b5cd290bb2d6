"""A file is complete or absent: written aside, synced, renamed. And a lock, so that one run at a time writes an output.

Files being written are named `.<name>.<pid>.part` beside their final place. Readers never look at them, a new run that
writes the same product deletes them. Locks of the file system are not used: Lustre and NFS often have none.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator

from ..errors import ConfigError, Unwritable

__all__ = ["RunLock", "atomic", "clean", "make_folder", "make_sure_of_room", "write_text"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOM = 1 << 19
"""Bytes that HDF5's metadata and small arrays may need besides the pixels."""
HEARTBEAT, STALE_AFTER = 20.0, 150.0
"""Seconds between signs of life of a lock's owner, and without one after which an owner elsewhere counts as dead."""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """The name to write to; when the block ends without an exception, it is synced and takes its final name.

    Raises
    ------
    Unwritable
        The folder is full or cannot be written. Nothing is left under the final name then, nor aside.
    """
    path = Path(path)
    try:
        make_folder(path.parent)
        clean(path.parent, path.name)
        aside = path.parent / f".{path.name}.{os.getpid()}.part"
        try:
            yield aside
            _sync(aside)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        worded = _worded(error, path)
        if worded is error:
            raise
        raise worded from None


def _worded(error: OSError | RuntimeError, path: Path) -> Exception:
    """The one-line error of a failed write; HDF5's carry the number in their text only, and may be RuntimeErrors."""
    text = str(error)
    told = "No space left" in text or any(f"errno = {number}" in text for number in FULL)
    if told or getattr(error, "errno", None) in FULL:
        return Unwritable(f"{path.parent}: output folder is full; make room and start the same command again")
    if not isinstance(error, OSError):
        return error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unwritable(f"{path.parent}: output folder cannot be written ({error.strerror}); give one that can")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return Unwritable(f"{path.parent}: is not a folder; give another output")
    return error


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    path.mkdir(parents=True, exist_ok=True)


def make_sure_of_room(folder: str | Path, size: int, surely: bool = False) -> None:
    """OSError unless a folder has room for so many bytes and some more: HDF5 does not bear the lack of it.

    Without `surely` the file system is asked, which knows of no quota; with it they are reserved for a moment.
    """
    size += ROOM
    if not surely:
        state = os.statvfs(folder)
        if state.f_bavail * state.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)


def clean(folder: str | Path, name: str = "*") -> int:
    """Delete what unfinished runs left aside in a folder, of one final name or of all; how many."""
    pattern = name if name == "*" else glob.escape(name)
    found = list(Path(folder).glob(f".{pattern}.*.part"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file as a whole."""
    with atomic(path) as aside:
        aside.write_text(text, encoding="utf-8")


class RunLock:
    """Held by rank 0 while a run writes to an output folder; a second run stops with a ConfigError that says who it is.

    The lock is a file `.lock` made with O_EXCL, whose owner refreshes its time. It is taken over when its owner is
    dead: a process of this host that no longer runs, an earlier life of the same Slurm job, or no sign of life for
    150 s.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / ".lock"
        self._done = threading.Event()

    def __enter__(self) -> RunLock:
        me = json.dumps(_myself())
        try:
            make_folder(self.path.parent)
            while not self._made(me):
                self._take_over()
        except OSError as error:
            raise ConfigError(f"{self.path.parent}: output folder cannot be written ({error.strerror})") from None
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _made(self, me: str) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(me)
        return True

    def _take_over(self) -> None:
        """Remove a dead owner's lock, ConfigError if the owner lives; `.lock.guard` is held meanwhile."""
        guard = self.path.with_name(".lock.guard")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if self._age(guard) > STALE_AFTER:  # its maker died within these few lines
                    guard.unlink()
            time.sleep(0.05)
            return
        try:
            owner, age = _parsed(self.path.read_text()), self._age(self.path)
            if not _is_dead(owner, age):
                raise ConfigError(f"{self.path.parent}: another run writes here: {owner.get('host', '?')}, process "
                                  f"{owner.get('pid', '?')}, since {owner.get('start', '?')}; wait for its end "
                                  f"(if it is dead: {STALE_AFTER:.0f} s, or delete {self.path})")
            self.path.unlink()
        except FileNotFoundError:  # it has just ended
            return
        finally:
            guard.unlink(missing_ok=True)

    def _age(self, path: Path) -> float:
        """Seconds since a file was last touched, by the file system's own clock."""
        probe = self.path.with_name(f".lock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.clock")
        probe.touch()
        try:
            return probe.stat().st_mtime - path.stat().st_mtime
        finally:
            probe.unlink()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _myself() -> dict:
    return {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "born": _birth(os.getpid()),
            "start": time.strftime("%Y-%m-%d %H:%M:%S"), "job": os.environ.get("SLURM_JOB_ID", ""),
            "life": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}


def _parsed(text: str) -> dict:
    try:
        owner = json.loads(text)
    except ValueError:  # being written, or damaged: only its age counts
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_dead(owner: dict, age: float) -> bool:
    me = _myself()
    if owner.get("job") and owner["job"] == me["job"] and owner.get("life", 0) < me["life"]:
        return True  # the requeued job is its own successor
    if (owner.get("host"), owner.get("space")) == (me["host"], me["space"]) and isinstance(owner.get("pid"), int):
        born = _birth(owner["pid"])
        return not born or born != owner.get("born")
    return age > STALE_AFTER


def _space() -> str:
    """The process-number space: two containers of one host name do not see each other's processes."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """When a process of this host started (clock ticks), '' if there is none: numbers are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)  # no /proc here
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "?"
    return "" if fields[0] == "Z" else fields[19]
