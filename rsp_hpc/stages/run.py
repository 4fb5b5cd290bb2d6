"""The loop that runs some or all stages in order in one MPI job; the lock, the failure table and the timing table."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module

import yaml

from .. import log
from ..errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED
from ..io.atomic import RunLock, clean, make_folder, write_text
from ..parallel import on_leader
from . import STAGES
from .stage import Stage, StageReport, run_stage
from .survey import Run

__all__ = ["run_stages"]


def run_stages(run: Run, names: tuple[str, ...]) -> int:
    """Run the named stages in order on all ranks (collective); the exit code.

    Returns
    -------
    0 all done, 3 done with failures listed in failures.json, 75 stopped on request: the same command resumes.

    Raises
    ------
    ConfigError
        The configuration is wrong, or another job works on this output.
    """
    if run.options.dry_run:
        return _run_in_order(run, names)
    with ExitStack() as held:
        on_leader(run.world, _open_output, run, names, held)
        log.set_up(run.world.rank, run.store.logs, run.options.verbose)
        code = _run_in_order(run, names)
        if run.world.rank == 0:
            run.write_status({EXIT_DONE: "done", EXIT_FAILURES: "done with failures"}.get(code, "stopped"))
        return code


def _open_output(run: Run, names: tuple[str, ...], held: ExitStack) -> None:
    """Rank 0: take the lock, remove what killed runs left aside, write the effective configuration beside the products."""
    held.enter_context(RunLock(run.store.root))
    for folder in [*run.store.folders(), *run.library.folders()]:
        clean(folder)
    make_folder(run.store.logs)
    write_text(run.store.config, yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))
    run.store.stop.unlink(missing_ok=True)
    run.write_status("started", stage=names[0])
    log.tell("%s: %s on %d rank%s, products in %s", run.config.name, ", ".join(names), run.world.size,
             "s" * (run.world.size > 1), run.store.root)


def _stage(name: str) -> Stage:
    """The stage of this name: class Coadds of module coadds, 'calibs bias': Calibs("bias"); imported here, so that a rank loads
    no more than it runs.
    """
    module, *arguments = name.split()
    module = "starflat" if name == "calibs illumination" else module  # it is made of visits, not of frames
    return getattr(import_module(f".{module}", __package__), module.capitalize())(*arguments)


def _expanded(run: Run, names: tuple[str, ...]) -> list[str]:
    """In order; calibs is a stage for each kind of product, for a kind is made of others."""
    found = [name for stage in STAGES for name in names if name.split()[0] == stage]
    return [item for name in found for item in ([f"calibs {kind}" for kind in run.config.calibs.kinds] if name == "calibs" else [name])]


def _run_in_order(run: Run, names: tuple[str, ...]) -> int:
    code = EXIT_DONE
    for name in _expanded(run, names):
        report = run_stage(run, _stage(name))
        if run.options.dry_run:
            if name == "ingest" and report.left:
                log.tell("the other stages can be planned once ingest is done")
                return code
            continue
        on_leader(run.world, _keep_tables, run, report)
        run.expected[name] = len(report.units) - len(report.outcome.empty)
        if report.failures:
            code = EXIT_FAILURES
            log.tell("%s: all failures are listed in %s", name, run.store.failures)
        if report.outcome.stopped or any(row.error == "Unwritable" for row in report.failures):
            full = next((row.message for row in report.failures if row.error == "Unwritable"), "")
            log.tell("%s: stopped (%s); the same command resumes", name, full or run.stop.reason or "asked on another rank")
            return EXIT_FAILURES if full else EXIT_STOPPED
        if name == "ingest" and any(not row.part for row in report.failures):
            return code  # there is nothing to go on with
    return code


def _keep_tables(run: Run, report: StageReport) -> None:
    """Rank 0: bring the failure table and the timing table up to date, each one file for all stages."""
    settled = report.settled

    def stays(row: dict) -> bool:
        """Other stages' rows, and those of units that this start left alone because of its selection or a stop."""
        left_alone = run.options.selects or report.outcome.stopped
        return row.get("stage") != report.stage or (bool(left_alone) and row.get("unit") not in settled)

    table = [row for row in _read_failures(run) if stays(row)]
    table += [{"stage": report.stage, **asdict(failure)} for failure in report.failures]
    write_text(run.store.failures, json.dumps(table, indent=1))
    redone = {row["unit"] for row in report.rows}
    timing = [row for row in _read_timing(run) if row.get("stage") != report.stage or row.get("unit") not in redone]
    write_text(run.store.timing, _csv(timing + report.rows))


def _read_failures(run: Run) -> list[dict]:
    try:
        table = json.loads(run.store.failures.read_text())
    except (OSError, ValueError):
        return []
    return [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []


def _read_timing(run: Run) -> list[dict]:
    try:
        return list(csv.DictReader(io.StringIO(run.store.timing.read_text())))
    except (OSError, ValueError):
        return []


def _csv(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(["stage", "unit", "part", "rank", "began", *(key for row in rows for key in row)]))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
