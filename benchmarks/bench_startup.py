"""Start-up: `rsp-hpc --help`, and a rank of `visits` up to its first part: seconds (best of five) and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"rsp-hpc --help": (0.3, None), "a rank ready, alone": (1.0, 80.0), "a rank ready, of two": (1.0, 80.0)}
"""What is measured -> most seconds, most megabytes."""

READY = """
import json, os, resource, time
from rsp_hpc.parallel import world
comm = world(None)
from rsp_hpc.stages import run, stage, survey, visits
comm.barrier()
ticks = float(open("/proc/self/stat").read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
wall = float(open("/proc/uptime").read().split()[0]) - ticks
used = resource.getrusage(resource.RUSAGE_SELF)
if comm.rank == 0:
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}))
"""


def ready(ranks: int) -> dict[str, float]:
    """Seconds since the process began (wall, cpu) and peak memory (MB) of a rank that could take its first part."""
    launcher = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run([*launcher, sys.executable, "-c", READY], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def help_seconds() -> float:
    """Wall seconds of `rsp-hpc --help`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rsp_hpc", "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print seconds and megabytes beside their limits."""
    found = {"rsp-hpc --help": (min(help_seconds() for _ in range(5)), None)}
    for name, ranks in (("a rank ready, alone", 1), ("a rank ready, of two", 2)):
        rows = [ready(ranks) for _ in range(5)]
        found[name] = (min(row["wall"] for row in rows), max(row["memory"] for row in rows))
    for name, (seconds, memory) in found.items():
        most, room = LIMITS[name]
        text = "" if memory is None else f"   {memory:5.1f} MB (bound {room:.0f})"
        print(f"{name:24s} {seconds:6.2f} s (bound {most:g}){text}")


if __name__ == "__main__":
    main()
