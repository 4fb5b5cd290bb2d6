"""What the benchmarks share: pin to one core, time several ways interleaved, compile a plain-C bound, print one line each.

Speeds on a shared machine drift, so only ratios within one interleaved run mean anything.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["bound_library", "interleave", "line", "pin"]


def pin(core: int | None = None) -> None:
    """Stay on one core (the last that we may use) and keep BLAS to one thread."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[-1] if core is None else core})
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def interleave(ways: dict[str, Callable[[], object]], repeats: int = 7,
               clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Best seconds of each way, run in turn so that all see the same minutes; one turn warms up.

    clock : `time.process_time` where nothing waits and all is one thread: the time that others take from the core is left out
    """
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(repeats + 1):
        for name, function in ways.items():
            start = clock()
            function()
            seconds = clock() - start
            if turn:
                best[name] = min(best[name], seconds)
    return best


def bound_library(source: str, flags: str = "-O3 -march=x86-64-v3 -ffast-math") -> ctypes.CDLL:
    """Compile plain C and load it: what the machine can do at best, without masks, flags and care."""
    folder = Path(tempfile.mkdtemp(prefix="rsp-bound-"))
    (folder / "bound.c").write_text(source)
    subprocess.run(["gcc", *flags.split(), "-shared", "-fPIC", "-o", "bound.so", "bound.c", "-lm"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "bound.so"))


def line(name: str, ours: float, bound: float | None = None, peer: float | None = None, unit: str = "Mpix/s",
         peer_name: str = "peer") -> None:
    """Print `name ours bound peer ratio` with speeds in `unit`."""
    bound_text = "bound -" if bound is None else f"bound {bound:9.1f}  ours/bound {ours / bound:5.2f}"
    peer_text = f"{peer_name} missing" if peer is None else f"{peer_name} {peer:9.1f}  ours/peer {ours / peer:6.2f}"
    print(f"{name:34s} ours {ours:9.1f} {unit}  {bound_text}  {peer_text}", flush=True)
