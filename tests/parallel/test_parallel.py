"""Communicators and scheduling: the same on 1, 2, 3, 7 ranks, as threads and under mpirun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallel import ranks
from rsp_hpc.errors import ConfigError
from rsp_hpc.parallel.comm import SerialComm
from rsp_hpc.parallel.mpi import launched_copies, world
from rsp_hpc.parallel.schedule import _Dispenser
from rsp_hpc.parallel.stop import StopRequest
from rsp_hpc.parallel.threads import run_ranks

SCRIPT = Path(ranks.__file__)
SIZES = (1, 2, 3, 7)


@pytest.fixture(params=("threads", "mpirun"))
def on_ranks(request, mpirun):
    """Run a function of ranks.py on n ranks; rank 0's result as JSON has it."""
    def run(n, name, *arguments):
        if request.param == "threads":
            return json.loads(json.dumps(run_ranks(n, getattr(ranks, name), *arguments)[0]))
        code, output = mpirun(n, SCRIPT, name, *map(json.dumps, arguments))
        lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
        assert lines and code in (0, 75), output
        return json.loads(lines[0][7:])
    return run


@pytest.mark.parametrize("n", SIZES)
def test_collectives(n, on_ranks):
    result = on_ranks(n, "collectives")
    assert result["sum"] == pytest.approx([0.1 * n * (n + 1) / 2] * 3)
    assert result["shapes"] == [[rank, 2] for rank in range(n)]


@pytest.mark.parametrize("n", SIZES)
def test_parts_arrive_once_whole_and_failures_are_rows(n, on_ranks):
    result = on_ranks(n, "squares", 5, [2], [4])
    assert result["found"] == [[i, 1000.0 * (i + 1) * i] for i in (0, 1, 3)]
    assert result["failures"] == [["2", "BadData", "part 2 is truncated"]]
    assert (result["done"], result["empty"]) == ([0, 1, 3], [4])


def test_every_rank_computes_the_leader_too(on_ranks):
    assert on_ranks(3, "squares", 30, [], [], 0.01)["ranks"] == [0, 1, 2]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("broken", ("", "leader", "member", "sink", "part"))
def test_units_in_teams(n, broken):
    serial = ranks.units(SerialComm(), 4, None, broken)
    for team_size in (None, 2, 3):
        for result in run_ranks(n, ranks.units, 4, team_size, broken):
            assert set(map(tuple, serial["failures"])) <= set(map(tuple, result["failures"]))
            assert result["failures"] == serial["failures"]
            assert [r for r in result["results"] if r[0] != 1] == [r for r in serial["results"] if r[0] != 1]
            if broken in ("", "part"):
                assert result == serial
            else:
                assert result["failures"] and not result["stopped"]


@pytest.mark.parametrize("broken", ("", "leader", "member"))
def test_units_in_teams_under_mpirun(mpirun, broken):
    code, output = mpirun(7, SCRIPT, "units", 3, 3, json.dumps(broken))
    result = json.loads(output[output.index("RESULT ") + 7:].splitlines()[0])
    assert code == 0 and [[u, k] for u, k in result["results"] if u != 1] == [
        [u, [[p, 10 * p + u] for p in range(3)]] for u in (0, 2)]
    assert result["failures"] == ([["1", "", "BadData"]] if broken else [])


@pytest.mark.parametrize("n", (1, 3))
def test_stop_file(n, on_ranks, tmp_path):
    assert on_ranks(n, "stopping", str(tmp_path)) == {"stopped": True, "some": True}


@pytest.mark.parametrize("n", (1, 3))
def test_a_signal_to_one_rank_stops_all_with_75(n, mpirun):
    code, output = mpirun(n, SCRIPT, "signalled")
    assert code == 75 and '"stopped": true, "some": true' in output, output


def test_an_error_of_rank_0_reaches_all():
    assert run_ranks(3, ranks.refused) == ["reference catalogue is empty"] * 3


def test_a_bug_on_one_rank_ends_all(mpirun):
    code, output = mpirun(3, SCRIPT, "crash", timeout=30)
    assert code == 1 and "a bug on the last rank" in output


def test_a_killed_rank_hangs_nothing(mpirun):
    code, _ = mpirun(3, SCRIPT, "killed", timeout=30)
    assert code != 0


def test_a_bug_in_a_thread_rank_surfaces():
    with pytest.raises(RuntimeError, match="a bug"):
        run_ranks(3, _crash)


def _crash(comm):
    if comm.rank == 1:
        raise RuntimeError("a bug")
    comm.barrier()


def test_largest_first_ties_by_index():
    dispenser = _Dispenser([1.0, 3.0, 2.0, 3.0], StopRequest())
    assert [dispenser.next() for _ in range(5)] == [1, 3, 2, 0, -1]
    assert not dispenser.stopped


def test_a_part_longer_than_the_time_left_is_not_started():
    dispenser = _Dispenser([10.0, 10.0], StopRequest(max_time=1e9))
    assert dispenser.next() == 0
    dispenser.finished(0, 1e10)  # a hundred thousand times slower than thought
    assert dispenser.next() == -1 and dispenser.stopped


@pytest.mark.parametrize("environment, copies", [
    ({}, None), ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None), ({"PMI_SIZE": "4", "PMI_RANK": "0"}, 4),
    ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, 4), ({"PMIX_RANK": "0", "SLURM_NTASKS": "6"}, 6)])
def test_launchers_are_seen(environment, copies):
    assert launched_copies(environment) == copies


def test_copies_of_size_one_are_refused():
    with pytest.raises(ConfigError, match="the launcher started 4 copies of size 1"):
        world(environment={"SLURM_STEP_NUM_TASKS": "4"})
    with pytest.raises(ConfigError, match="1 rank, 3 were asked for"):
        world(ranks=3, environment={})


def test_without_a_launcher_there_is_one_rank():
    assert isinstance(world(environment={}), SerialComm)
