"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import Tiny

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def rsp_data():
    """The folder of real data (RSP_DATA, by default ../shared/data); its absence fails in CI and skips elsewhere."""
    folder = Path(os.environ.get("RSP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no real data in {folder}: set RSP_DATA")
    return folder


@pytest.fixture
def mpirun(tmp_path):
    """Start `mpirun -n ranks python args...` as users do; (exit code, output). pytest never runs under mpirun."""

    def run(ranks, *args, timeout=60, env=None):
        command = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks), sys.executable, *map(str, args)]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths,
                       **(env or {})}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # ends the ranks too
            pytest.fail(f"{ranks} ranks: no end after {timeout} s\n{process.communicate()[0][-2000:]}")
        return process.returncode, output

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny survey, simulated and reduced up to the objects on one rank. Products must not be changed: use a copy."""
    folder = tmp_path_factory.mktemp("tiny")
    survey = Tiny(folder / "raw", folder / "run")
    for command in (("simulate",), ("run", "--until", "objects")):
        result = survey.run(*command)
        assert result.code == 0, result.text
    return Tiny(survey.raw, survey.output, survey.found())
