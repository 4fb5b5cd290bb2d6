"""Start-up: what must not be imported. Seconds and memory are printed by `benchmarks/bench_startup.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("heavy", ["numpy", "pydantic", "yaml"])
def test_help_imports_nothing_heavy(heavy):
    code = f"import sys; import rsp_hpc.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_rank_imports_no_scipy_and_no_matplotlib():
    code = ("import sys; import rsp_hpc.stages.run, rsp_hpc.stages.visits; "
            "sys.exit(' '.join({name.split('.')[0] for name in sys.modules} & {'scipy', 'matplotlib', 'astropy', 'h5py'}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
