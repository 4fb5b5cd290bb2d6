"""The order of the stages, and the loop that runs some or all of them in one MPI job."""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import asdict

import yaml

from .. import log
from ..errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED
from ..io.atomic import RunLock, write_text
from ..parallel import Failure, on_leader
from .calibs import Calibs
from .coadds import Coadds
from .ingest import Ingest
from .objects import Objects
from .report import Report
from .stage import StageReport, run_stage
from .survey import Run
from .visits import Visits

__all__ = ["STAGES", "run_stages"]

logger = logging.getLogger(__name__)

STAGES = (Ingest, Calibs, Visits, Coadds, Objects, Report)
"""All stages, in the order in which light goes through them."""


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
    on_leader(run.world, _open_output, run, names)
    try:
        return _run_in_order(run, names)
    finally:
        if run.lock is not None:
            run.lock.__exit__(None, None, None)


def _open_output(run: Run, names: tuple[str, ...]) -> None:
    """Rank 0: take the lock and write the effective configuration beside the products."""
    run.lock = RunLock(run.store.root)
    run.lock.__enter__()
    write_text(run.store.config, yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))
    run.store.stop.unlink(missing_ok=True)
    log.tell("%s: %s on %d rank%s, products in %s", run.config.name, ", ".join(names), run.world.size,
             "s" * (run.world.size > 1), run.store.root)


def _run_in_order(run: Run, names: tuple[str, ...]) -> int:
    code = EXIT_DONE
    for kind in STAGES:
        if kind.name not in names:
            continue
        report = run_stage(run, kind())
        if run.options.dry_run:
            continue
        failures = on_leader(run.world, _keep_tables, run, report)
        if failures:
            log.tell("%s: %d failures in all, listed in %s", report.stage, len(failures), run.store.failures)
        if failures:
            code = EXIT_FAILURES
        if report.outcome.stopped:
            log.tell("%s: stopped (%s); the same command resumes", report.stage, run.stop.reason)
            return EXIT_STOPPED
    return code


def _keep_tables(run: Run, report: StageReport) -> list[Failure]:
    """Rank 0: the failure table and the timing table, each one file for all stages; the failures of this stage.

    Failures of units that this start did not touch stay in the table: their products say the same.
    """
    table = _read_json(run.store.failures, [])
    redone = {(report.stage, row["unit"]) for row in report.rows} | {(report.stage, f.unit) for f in report.outcome.failures}
    kept = [row for row in table if (row["stage"], row["unit"]) not in redone]
    new = [{"stage": report.stage, **asdict(failure)} for failure in report.outcome.failures]
    write_text(run.store.failures, json.dumps(kept + new, indent=1))
    write_text(run.store.timing, _csv(_read_csv(run.store.timing, report) + report.rows))
    return [Failure(row["unit"], row["part"], row["error"], row["message"])
            for row in kept + new if row["stage"] == report.stage]


def _read_json(path, default):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return default


def _read_csv(path, report: StageReport) -> list[dict]:
    """Earlier rows, less those of the units that were done again."""
    redone = {(report.stage, row["unit"]) for row in report.rows}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
    except OSError:
        return []
    return [row for row in rows if (row["stage"], row["unit"]) not in redone]


def _csv(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(["stage", "unit", "part", "rank", "began", *(key for row in rows for key in row)]))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
