"""`kill -9` of one rank or of the whole job at random moments: nothing partial is ever seen, the same command ends alike.

CI plays a few rounds; `make test-kill` (RSP_KILLS=20) plays as many as it is told to, each from an empty folder.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time

import pytest

from rsp_hpc.io.database import survey_identity
from rsp_hpc.io.product import identity
from tiny import Tiny, ended, processes_of

pytestmark = pytest.mark.mpi

KILLS = int(os.environ.get("RSP_KILLS", "0"))
ROUNDS = [(seed, 1) for seed in range(KILLS)] if KILLS else [(101, 2), (102, 3)]
"""(seed, kills in a row before the run is left alone)."""


@pytest.fixture(scope="module")
def seconds(tiny, tmp_path_factory):
    """How long a run on two ranks takes here and now."""
    start = time.monotonic()
    result = Tiny(tiny.raw, tmp_path_factory.mktemp("undisturbed")).run("run", "--until", "objects", ranks=2)
    assert result.code == 0, result.text
    return time.monotonic() - start


@pytest.mark.parametrize("seed, kills", ROUNDS)
def test_killed_runs_leave_only_whole_products_and_end_as_if_undisturbed(tiny, tmp_path, seconds, seed, kills):
    chance, survey, killed = random.Random(seed), Tiny(tiny.raw, tmp_path / "run"), 0
    for attempt in range(10 * kills):
        killed += kill_a_run(survey, chance, chance.uniform(0.1, 0.9) * seconds / kills * 0.7**attempt)
        check_what_is_there(survey, tiny)
        if killed == kills:
            break
        if not killed:  # it had ended before: from the beginning, and sooner
            shutil.rmtree(survey.output, ignore_errors=True)
    result = survey.run("run", "--until", "objects", ranks=2)
    assert result.code == 0, result.text
    assert survey.found() == tiny.hashes
    assert not list(survey.output.rglob("*.part")) and not (survey.output / ".lock").exists()
    assert killed > 0


def kill_a_run(survey: Tiny, chance: random.Random, after: float) -> bool:
    """Start, and kill one rank or all processes after so many seconds; whether it was still at work."""
    process = survey.start("run", "--until", "objects", ranks=2)
    time.sleep(after)
    victims = processes_of(process)
    if chance.random() < 0.5:  # one rank
        victims = dict([chance.choice([item for item in victims.items() if item[1] >= 0] or list(victims.items()))]) if victims else {}
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return ended(process).code not in (0, 75)


def check_what_is_there(survey: Tiny, tiny: Tiny) -> None:
    """Every product that is seen is whole; which objects are primary is settled last, by replacing the file as a whole."""
    for name, content in survey.found().items():
        assert identity(survey.output / name) == identity(tiny.output / name), name
        assert content == tiny.hashes[name] or name.endswith("objects.h5"), name
    if (survey.output / "survey.db").exists():
        assert survey_identity(survey.output / "survey.db") == survey_identity(tiny.output / "survey.db")
