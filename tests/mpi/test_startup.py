"""Start-up: processor seconds and memory of a rank before its first part; the wall clock is `benchmarks/bench_startup.py`'s."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.bench_startup import ready


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_is_ready_soon_and_small(ranks):
    rows = [ready(ranks) for _ in range(2)]
    assert max(row["memory"] for row in rows) < 80.0
    assert min(row["cpu"] for row in rows) < 1.0


@pytest.mark.parametrize("heavy", ["numpy", "pydantic", "yaml"])
def test_help_imports_nothing_heavy(heavy):
    code = f"import sys; import rsp_hpc.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_rank_imports_no_scipy_and_no_matplotlib():
    code = ("import sys; import rsp_hpc.stages.run, rsp_hpc.stages.visits; "
            "sys.exit(' '.join({name.split('.')[0] for name in sys.modules} & {'scipy', 'matplotlib', 'astropy', 'h5py'}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
