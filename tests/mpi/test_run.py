"""`rsp-hpc run` under mpirun: the same bits on any number of ranks; how it ends, stops, resumes, and what it writes."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tiny import DETECTORS, VISITS, Tiny, ended, rank_of, wait_until

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("ranks, settings", [
    (2, ("mpi.team_size=1", "calibs.memory=1", "coadds.coadd.block_rows=200")),  # bands of rows, a scratch file, blocks
    (3, ("mpi.team_size=3",)),
    (7, ("mpi.team_size=2",)),  # more ranks than visits, teams of two and three
])
def test_products_do_not_depend_on_ranks_teams_and_memory(tiny, tmp_path, ranks, settings):
    other = Tiny(tiny.raw, tmp_path / "run")
    changes = [word for setting in settings for word in ("--set", setting)]
    result = other.run("run", "--until", "objects", *changes, ranks=ranks)
    assert result.code == 0, result.text
    assert other.found() == tiny.hashes
    assert len(tiny.hashes) == 5 * len(DETECTORS) + len(VISITS) + 4  # bias, dark, two flats, defects; visits; coadds and objects of two tracts
    again = other.run("run", "--until", "objects", ranks=1)  # neither makes them stale
    assert again.code == 0 and not again.lines("stale") and again.lines("visits: 6 units, 6 done before")


def test_the_whole_run_with_its_report_status_and_logs(tiny, tmp_path):
    whole = tiny.copy(tmp_path / "run")
    result = whole.run("run", ranks=2)
    assert result.code == 0, result.text
    assert result.lines("completeness") and result.lines(f"report: {whole.output}/report/index.html")
    assert (whole.output / "report" / "index.html").stat().st_size > 100_000
    status = json.loads((whole.output / "status.json").read_text())
    assert status["state"] == "done" and status["ranks"] == 2
    logs = sorted((whole.output / "logs").glob("rank-*.jsonl"))
    assert [path.name for path in logs][:1] == ["rank-00000.jsonl"]
    rows = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    assert rows and all(row.keys() >= {"time", "rank", "unit", "level", "module", "message"} for row in rows)
    assert json.loads((whole.output / "failures.json").read_text()) == []
    assert not list(whole.output.rglob("*.part")) and not (whole.output / ".lock").exists()
    assert whole.found() == tiny.hashes


def log_says(survey: Tiny, words: str):
    """Whether rank 0's log holds some words yet."""
    path = survey.output / "logs" / "rank-00000.jsonl"
    return lambda: path.exists() and words in path.read_text()


def test_every_requested_stop_ends_all_ranks_with_75_and_the_same_command_resumes(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    for way, moment in (("SIGUSR1", "calibs flat 1/4"), ("SIGTERM", "visits 2/"), ("file", "coadds: 2 units")):
        process = survey.start("run", "--until", "objects", ranks=2)
        wait_until(log_says(survey, moment), process)
        if way == "file":
            (survey.output / "stop").touch()
        else:
            os.kill(rank_of(process, 1), getattr(signal, way))  # one rank is enough
        result = ended(process)
        assert result.code == 75 and result.lines("the same command resumes"), result.text
        assert json.loads((survey.output / "status.json").read_text())["state"] == "stopped"
        assert 0 < len(survey.found()) < len(tiny.hashes) and not list(survey.output.rglob("*.part"))
    result = survey.run("run", "--until", "objects", ranks=2)
    assert result.code == 0, result.text
    assert survey.found() == tiny.hashes


def test_max_time(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    result = survey.run("run", "--until", "objects", "--max-time", "0.5", ranks=2)
    assert result.code == 75 and result.lines("--max-time 0.5 s"), result.text
    wrong = survey.run("run", "--max-time", "-1")
    assert wrong.code == 4


def test_a_wrong_number_of_ranks_is_a_configuration_error(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    result = survey.run("run", "--ranks", "3", ranks=2)
    assert result.code == 4 and len(result.lines("MPI has 2 ranks, 3 were asked for")) == 1, result.text
    assert not survey.output.exists()


def test_a_bug_ends_all_ranks_with_1(tiny, tmp_path, mpirun):
    script = tmp_path / "bug.py"
    script.write_text("import sys\nfrom rsp_hpc.cli import main\nfrom rsp_hpc.stages import run\n"
                      "def broken(*_):\n    raise ZeroDivisionError('planted')\n"
                      "from rsp_hpc.parallel import world\n"
                      "if world().rank == 1:\n    run._stage = broken\n"
                      "main(sys.argv[1:])\n")
    code, text = mpirun(2, script, *Tiny(tiny.raw, tmp_path / "run").arguments("run"))
    assert code == 1 and "ZeroDivisionError: planted" in text and "rank 1 of 2 failed, ending all" in text, text


def test_an_error_that_only_one_rank_sees_ends_all(tiny, tmp_path, mpirun):
    script = tmp_path / "alone.py"
    script.write_text("import sys\nfrom rsp_hpc.cli import main\nfrom rsp_hpc.errors import BadData\n"
                      "from rsp_hpc.stages import run\nfrom rsp_hpc.parallel import world\n"
                      "def broken(*_):\n    raise BadData('planted')\n"
                      "if world().rank == 1:\n    run._stage = broken\n"
                      "main(sys.argv[1:])\n")
    code, text = mpirun(2, script, *Tiny(tiny.raw, tmp_path / "run").arguments("run"))
    assert code == 3 and "rsp-hpc: planted" in text, text


def test_two_jobs_on_the_same_output(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    first = survey.start("run", "--until", "objects", ranks=2)
    wait_until(log_says(survey, "calibs"), first)
    second = survey.run("run", ranks=2)
    assert second.code == 4 and len(second.lines("another run writes here")) == 1, second.text
    assert len(second.text.splitlines()) <= 2, second.text
    first = ended(first)
    assert first.code == 0, first.text
    assert survey.found() == tiny.hashes


def test_status_is_valid_json_at_any_time(tiny, tmp_path):
    survey = Tiny(tiny.raw, tmp_path / "run")
    process = survey.start("run", "--until", "visits", ranks=2)
    states = set()
    while process.poll() is None:
        try:
            states.add(json.loads((survey.output / "status.json").read_text())["state"])
        except FileNotFoundError:
            assert not states
    result = ended(process)
    assert result.code == 0, result.text
    assert "running" in states
