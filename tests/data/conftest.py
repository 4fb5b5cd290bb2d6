"""Surveys of real data, reduced once per session by the commands that users type, on two ranks.

RSP_REDUCED names a folder that keeps the products for the next session, for work on the tests themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_hpc.io.paths import Store

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("ingest", "calibs", "visits", "coadds", "objects")


@pytest.fixture(scope="session")
def reduced(rsp_data, tmp_path_factory):
    """reduced(name, stages): the Store of configs/<name>.yaml, reduced from RSP_DATA/<name> up to the last of the stages."""
    stores: dict[str, Store] = {}

    def reduce(name: str, stages: tuple[str, ...] = STAGES) -> Store:
        if name not in stores:
            kept = os.environ.get("RSP_REDUCED")
            output = Path(kept) / name if kept else tmp_path_factory.mktemp(name)
            for stage in stages:
                _command(stage, f"configs/{name}.yaml", "--data", str(rsp_data / name), "--output", str(output))
            stores[name] = Store(output)
        return stores[name]

    return reduce


def _command(*arguments: str) -> None:
    """mpirun -n 2 python -m rsp_hpc ARGUMENTS; fails with its output unless all went well."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [str(Path(sys.executable).with_name("mpirun")), "-n", "2", sys.executable, "-m", "rsp_hpc", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    if done.returncode != 0:
        pytest.fail(f"rsp-hpc {' '.join(arguments)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")


@pytest.fixture
def figure():
    """figure(name, value, unit, low, high): print `name value unit target` and check it; use -s to see all."""
    def check(name: str, value: float, unit: str = "", low: float | None = None, high: float | None = None, error=None) -> None:
        target = " and ".join(([] if low is None else [f">= {low:g}"]) + ([] if high is None else [f"<= {high:g}"])) or "-"
        text = f"{name} {value:.4g}{'' if error is None else f' +- {error:.2g}'} {unit or '-'} {target}"
        print(text)
        assert (low is None or value >= low) and (high is None or value <= high), text

    return check
