"""Products written by teams of ranks: the same content on 1, 2, 3, 7 ranks; nothing half-written where a rank dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from rsp_hpc.errors import BadData
from rsp_hpc.io.atomic import clean
from rsp_hpc.io.product import Header, Part, hash_of, read_header
from rsp_hpc.io.visit import VisitWriter, encode_visit_detector
from rsp_hpc.parallel import run_parts, run_units
from rsp_hpc.parallel.threads import run_ranks
from samples_io import visit_detector

VISITS = (11, 12, 13)


def write_visits(comm, folder, team_size=None, kill_at=None):
    """Each visit has four detectors, one of which cannot be read."""
    def do_unit(team, visit):
        def work(number):
            if (visit, number) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 2:
                raise BadData("raw file is truncated")
            return encode_visit_detector(visit_detector(f"D{number}", number, (60 + number, 80)))

        if team.rank:
            return run_parts(team, range(4), [1.0] * 4, work, lambda *_: None)
        with VisitWriter(Path(folder) / f"{visit}.h5", Header("visits", f"id{visit}", ranks=comm.size)) as writer:
            outcome = run_parts(team, range(4), [1.0] * 4, work, lambda number, part: writer.append(part))
            failures = {row.part: row.message for row in outcome.failures}
            writer.note([Part(f"D{n}", outcome.seconds[n], outcome.peak_memory[n], failures.get(str(n), ""))
                         for n in range(4)])
        return outcome

    return run_units(comm, VISITS, [1.0] * len(VISITS), team_size, do_unit)


def hashes(folder):
    return [hash_of(Path(folder) / f"{visit}.h5") for visit in VISITS]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run_ranks(1, write_visits, folder)
    return hashes(folder)


@pytest.mark.parametrize("n, team_size", [(2, 1), (2, 2), (3, None), (7, None), (7, 3)])
def test_content_does_not_depend_on_the_number_of_ranks(n, team_size, tmp_path, undisturbed):
    outcome = run_ranks(n, write_visits, tmp_path, team_size)[0]
    assert hashes(tmp_path) == undisturbed and outcome.done == [0, 1, 2]
    assert [(row.unit, row.part, row.message) for row in outcome.failures] == [
        (str(visit), "2", "raw file is truncated") for visit in VISITS]
    parts = read_header(tmp_path / "11.h5").parts
    assert [part.failure for part in parts] == ["", "", "raw file is truncated", ""]


@pytest.mark.parametrize("kill_at", [(11, 0), (13, 1)])
def test_a_killed_rank_leaves_whole_files_or_none(kill_at, tmp_path, mpirun, undisturbed):
    code, _ = mpirun(3, __file__, tmp_path, *kill_at, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert code != 0 and len(list(tmp_path.glob("*.h5"))) < 3
    for path in tmp_path.glob("*.h5"):
        assert hash_of(path) == undisturbed[VISITS.index(int(path.stem))]
    code, output = mpirun(3, __file__, tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert code == 0 and hashes(tmp_path) == undisturbed, output
    assert clean(tmp_path) == 0


if __name__ == "__main__":
    from rsp_hpc.parallel import world

    write_visits(world(), sys.argv[1], None, tuple(map(int, sys.argv[2:])) or None)
