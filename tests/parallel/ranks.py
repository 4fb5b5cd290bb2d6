"""What the tests of `parallel` run on ranks of either kind: threads in pytest, processes under mpirun (as a script)."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np

from rsp_hpc.errors import BadData, NothingToDo
from rsp_hpc.parallel.comm import on_leader
from rsp_hpc.parallel.schedule import run_parts, run_units
from rsp_hpc.parallel.stop import StopRequest


def collectives(comm):
    """All collective verbs; what rank 0 saw."""
    rank, size = comm.rank, comm.size
    total = comm.sum(np.full(3, 0.1 * (rank + 1)))
    swapped = comm.exchange([np.array([rank, to]) for to in range(size)])
    assert all(list(item) == [source, rank] for source, item in enumerate(swapped))
    half = comm.split(rank % 2)
    assert half.allgather(rank) == list(range(rank % 2, size, 2))
    backwards = comm.split(0, size - rank)
    assert backwards.rank == size - 1 - rank
    assert comm.bcast({"a": np.arange(4)} if rank == 0 else None)["a"].sum() == 6
    assert comm.bcast(rank, root=size - 1) == size - 1
    comm.barrier()
    gathered = comm.gather(np.full((rank, 2), rank, np.float32))
    assert (gathered is None) == (rank != 0)
    return {"sum": total.tolist(), "shapes": None if gathered is None else [list(g.shape) for g in gathered]}


def squares(comm, n_parts=5, fail=(), empty=(), slow=0.0):
    """run_parts on numbers; rank 0 returns {part: checksum of the array that travelled} and the failures."""
    found, ranks = {}, set()

    def work(part):
        time.sleep(slow)
        if part in fail:
            raise BadData(f"part {part} is truncated")
        if part in empty:
            raise NothingToDo("no input")
        return {"rank": comm.rank, "data": np.full(1000 * (part + 1), part, np.float64), "text": str(part)}

    def sink(part, result):
        assert comm.rank == 0 and result["text"] == str(part)
        ranks.add(result["rank"])
        found[part] = float(result["data"].sum())

    outcome = run_parts(comm, list(range(n_parts)), [1e-3 * (i + 1) for i in range(n_parts)], work, sink)
    rows = [[f.part, f.error, f.message] for f in outcome.failures]
    return {"found": sorted(found.items()), "failures": sorted(rows), "done": sorted(outcome.done),
            "empty": sorted(outcome.empty), "ranks": sorted(ranks)} if comm.rank == 0 else None


def units(comm, n_units=4, team_size=None, broken="", stop=None):
    """run_units, each unit of three parts; `broken` says who fails where."""
    results = {}

    def do_unit(team, unit):
        if broken == "leader" and team.rank == 0 and unit == 1:
            raise BadData("leader cannot open the file")
        if broken == "member" and team.rank == team.size - 1 and unit == 1:
            raise BadData("member fails before its parts")
        kept = {}

        def sink(part, result):
            if broken == "sink" and unit == 1:
                raise OSError(28, "No space left on device")
            kept[part] = result

        def work(part):
            if broken == "part" and (unit, part) == (1, 2):
                raise MemoryError
            return part * 10 + unit

        outcome = run_parts(team, [0, 1, 2], [1.0, 1.0, 1.0], work, sink, stop)
        results[unit] = dict(kept)
        return outcome

    outcome = run_units(comm, list(range(n_units)), [1.0] * n_units, team_size, do_unit, stop)
    everything = {}
    for part in comm.allgather(results):
        for unit, kept in part.items():
            everything.setdefault(unit, {}).update(kept)
    return {"done": outcome.done, "failures": [[f.unit, f.part, f.error] for f in outcome.failures],
            "stopped": outcome.stopped, "results": sorted((u, sorted(k.items())) for u, k in everything.items())}


def stopping(comm, folder):
    """A stop file written by the third part: the rest is left, all ranks end normally."""
    stop = StopRequest(folder)

    def work(part):
        time.sleep(0.02)
        if part == 2:
            open(os.path.join(folder, "stop"), "w").close()
            time.sleep(1.1)
        return part

    done = []
    outcome = run_parts(comm, list(range(200)), [200.0 - i for i in range(200)], work,
                        lambda part, result: done.append(part), stop)
    return {"stopped": comm.bcast(outcome.stopped), "some": 3 <= len(done) < 200 if comm.rank == 0 else None}


def signalled(comm):
    """The last rank gets SIGUSR1: all stop, normally."""
    done = []

    def work(part):
        if part == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        return part

    outcome = run_parts(comm, list(range(300)), [300.0 - i for i in range(300)], work, lambda p, r: done.append(p),
                        StopRequest())
    return {"stopped": comm.bcast(outcome.stopped), "some": len(done) < 300}


def refused(comm):
    """An error that only rank 0 sees reaches all."""
    def check():
        raise BadData("reference catalogue is empty")
    try:
        on_leader(comm, check)
    except BadData as error:
        return str(error)
    return None


def crash(comm):
    """One rank has a bug: all end, with code 1."""
    if comm.rank == comm.size - 1:
        raise RuntimeError("a bug on the last rank")
    comm.barrier()
    time.sleep(60)


def killed(comm):
    """One rank is killed while others wait for its result."""
    def work(part):
        if comm.rank == comm.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
    run_parts(comm, list(range(20)), [1.0] * 20, work, lambda part, result: None)


def main(name: str, arguments: list) -> None:
    from rsp_hpc.parallel.mpi import world

    comm = world()
    result = globals()[name](comm, *arguments)
    if comm.rank == 0:
        print("RESULT " + json.dumps(result), flush=True)
    if name in ("stopping", "signalled"):
        sys.exit(75)


if __name__ == "__main__":
    main(sys.argv[1], [json.loads(argument) for argument in sys.argv[2:]])
