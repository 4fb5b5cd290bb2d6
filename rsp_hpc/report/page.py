"""The page: metrics, figures and tables in one offline HTML file, and the same numbers in metrics.json."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .. import __version__
from ..io.atomic import write_text
from . import plot_focal, plot_objects, plot_run, plot_sky, plot_visits
from .config import ReportConfig
from .figure import data_uri
from .inputs import Inputs
from .metrics import Comparison, Metric, compare, object_metrics, primary
from .reference import ReferenceMatch, match_reference, reference_figure, reference_metrics
from .template import table, template
from .visits import column, depth_metrics, psf_metrics, visit_metrics

__all__ = ["all_metrics", "make_report", "metric_lines", "render", "verdict_of", "write_report"]

MOST_FAILURES = 200
CONTENTS = (("summary", "Summary"), ("pictures", "Pictures"), ("objects", "Objects"), ("counts", "Tracts and patches"),
            ("visits", "Visits"), ("failures", "Failures"), ("run", "Stages and timings"),
            ("configuration", "Configuration"),
            ("versions", "Software"))


def make_report(inputs: Inputs, folder: str | Path, config: ReportConfig | None = None,
                tell: Callable[[str], Any] = lambda line: None) -> Path:
    """Measure, draw and write `index.html` and `metrics.json` in a folder; returns the path of the page.

    `tell` gets the metrics that have a target, a line each.

    Raises
    ------
    BadData
        The folder is full or cannot be written; an older report stays.
    """
    config = config or ReportConfig()
    comparison = None
    if inputs.objects is not None and inputs.truth is not None:
        comparison = compare(inputs.objects, inputs.truth, config)
    metrics = all_metrics(inputs, comparison, config)
    for line in metric_lines(metrics):
        tell(line)
    return write_report(render(inputs, metrics, figures_of(inputs, comparison, config), config), metrics, inputs,
                        Path(folder))


def all_metrics(inputs: Inputs, comparison: Comparison | None, config: ReportConfig) -> list[Metric]:
    """Every metric that these inputs allow, the most looked at first."""
    result, errors = [], {}
    if inputs.objects is not None:
        result += object_metrics(inputs.objects, comparison, config)
        for band in inputs.bands:
            if f"{band}_psfFluxErr" in inputs.objects:
                flux, error = (inputs.objects[f"{band}_{name}"].astype(float) for name in ("psfFlux", "psfFluxErr"))
                faint = np.isfinite(error) & (error > 0) & (flux < 20.0 * error)
                errors[band] = error[faint]
        match = _reference_match(inputs, config)
        result += [] if match is None else reference_metrics(match, config)
    result += depth_metrics(errors, inputs.skies, config)
    return result + visit_metrics(inputs.visits, config) + psf_metrics(inputs.visits, config) + list(inputs.extra)


def _reference_match(inputs: Inputs, config: ReportConfig) -> ReferenceMatch | None:
    """The objects on the reference catalogue; None without the one or the other, or without a match."""
    if inputs.objects is None or inputs.reference is None or not len(inputs.objects):
        return None
    match = match_reference(inputs.objects, inputs.reference, inputs.bands, config)
    return match if len(match.east) else None


def verdict_of(metrics: list[Metric], inputs: Inputs) -> dict[str, str]:
    """One word, its colour (good, bad, open) and a sentence. Only what was measured and met counts as met."""
    failed = [item for item in metrics if item.ok is False]
    unknown = [item for item in metrics if item.ok is None and item.target]
    met = sum(item.ok is True for item in metrics)
    judged = met + len(failed) + len(unknown)
    parts = [f"{met} of {judged} targets met" if judged else "no targets to judge"]
    if unknown:
        parts.append(f"{len(unknown)} not measured")
    if inputs.failures:
        parts.append(f"{len(inputs.failures)} failed parts")
    waiting = [state for state in inputs.states if state.total is not None and state.done + state.failed < state.total]
    if waiting:
        parts.append("unfinished: " + ", ".join(f"{state.stage} {state.done}/{state.total}" for state in waiting))
    text = "; ".join(parts) + "."
    if failed:
        return {"kind": "bad", "word": "targets missed", "text": text}
    if waiting or inputs.missing:
        return {"kind": "open", "word": "incomplete", "text": text}
    if unknown or inputs.failures or not met:
        return {"kind": "open", "word": "with reservations", "text": text}
    return {"kind": "good", "word": "all targets met", "text": text}


def number(value: float, error: float = float("nan")) -> str:
    """A value with its error, rounded to two digits of the error; four digits without one; a dash for NaN."""
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(error) and error > 0):
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
    digits = min(max(0, 1 - math.floor(math.log10(error))), 9)
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def metric_lines(metrics: list[Metric]) -> list[str]:
    """The metrics that have a target as lines for the terminal."""
    marks = {True: "ok", False: "MISSED", None: "not measured"}
    rows = [(item.label, item.band, number(item.value, item.error), item.unit, item.target, marks[item.ok])
            for item in metrics if item.target]
    sizes = [max(map(len, cells)) for cells in zip(*rows)]
    return ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes)).rstrip() for row in rows]


def figures_of(inputs: Inputs, comparison: Comparison | None, config: ReportConfig) -> dict[str, list[dict[str, str]]]:
    """All figures that the inputs allow: section -> [{title, caption, uri}]."""
    result: dict[str, list[dict[str, str]]] = {name: [] for name in ("pictures", "objects", "visits", "run")}

    def add(section, title, caption, figure, **more):
        result[section].append({"title": title, "caption": caption, "uri": data_uri(figure, **more)})

    for k, picture in enumerate(inputs.pictures[:config.pictures]):
        add("pictures", picture.title,
            "White: inner boxes of patches. Dashed: border of the tract. Circles: stars, squares: galaxies.",
            plot_sky.picture_figure(picture, None if inputs.objects is None else primary(inputs.objects), config.color),
            colours=128)
    if comparison is not None and len(comparison.objects):
        add("objects", "Completeness", "By true S/N of the best band; errors: Wilson's one-sigma interval.",
            plot_objects.completeness_figure(comparison, config))
        add("objects", "Fluxes", "Black: medians in bins of equal count. Positive: measured too faint.",
            plot_objects.flux_figure(comparison))
        add("objects", "Star/galaxy separation", "Above the dashed line an object is called a galaxy.",
            plot_objects.separation_figure(comparison))
        add("objects", "Pulls", "Values beyond 5 are counted in the outermost bins.",
            plot_objects.pull_figure(comparison, config))
        add("objects", "Positions", "Offsets of isolated stars from the truth.",
            plot_objects.position_figure(comparison, config))
    match = _reference_match(inputs, config)
    if match is not None:
        add("objects", "Reference", "Objects on the coadds less the reference catalogue.", reference_figure(match))
    if inputs.visits:
        add("visits", "Footprints",
            "Outlines of the detectors; black: inner boxes of the patches, with tract and patch numbers.",
            plot_sky.footprint_figure(inputs.visits, inputs.patches))
        add("visits", "Visits", "Points: median over the detectors; bars: least and greatest.",
            plot_visits.visit_figure(inputs.visits))
        for number in plot_focal.shown_visits(inputs.visits):
            add("visits", f"Focal plane of visit {number}", "Each detector by its summary; hatched: not known.",
                plot_focal.focal_plane_figure([row for row in inputs.visits if row.visit == number]))
        if any(row.psf is not None for row in inputs.visits):
            add("visits", "PSF over the focal plane",
                "All visits together. Lines: direction and size of the ellipticity.",
                plot_visits.psf_map_figure(inputs.visits))
            add("visits", "PSF residuals", "Stars less model, each over its flux, weighted mean over the stars.",
                plot_visits.psf_stamp_figure(inputs.visits))
    if inputs.timings:
        add("run", "Timings", "Rank-seconds by kind.", plot_run.timing_figure(inputs.timings))
    if inputs.spans:
        add("run", "Parts by rank", "Gaps are waiting.", plot_run.gantt_figure(inputs.spans))
    return result


def render(inputs: Inputs, metrics: list[Metric], figures: dict, config: ReportConfig) -> str:
    """The page as text. Every string of the inputs is escaped."""
    shown = [_shown(item) for item in metrics]
    values = {
        "title": config.title or inputs.name,
        "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__, "bands": inputs.bands, "pages": inputs.pages, "verdict": verdict_of(metrics, inputs),
        "missing": inputs.missing,
        "tiles": _tiles(inputs), "judged": [item for item in shown if item["target"]],
        "others": [item for item in shown if not item["target"]],
        "notes": list(dict.fromkeys((item.label, item.note) for item in metrics if item.note)), "figures": figures,
        "counts": _counts(inputs), "visits": _visits(inputs),
        "failures": table(("stage", "unit", "part", "error", "message"), [
            (item.stage, item.unit, item.part, item.error, item.message) for item in inputs.failures[:MOST_FAILURES]]),
        "failures_left": max(0, len(inputs.failures) - MOST_FAILURES),
        "states": table(("stage", "#done", "#failed", "#of"), [
            (item.stage, item.done, item.failed, "?" if item.total is None else item.total) for item in inputs.states]),
        "timings": table(("stage", "kind", "#ranks", "#least [s]", "#mean [s]", "#most [s]", "#on rank", "#share [%]"),
                          [
            (row["stage"], row["kind"], row["ranks"], *(f"{row[name]:.2f}" for name in ("least", "mean", "most")),
             row["most_rank"],
             f"{100 * row['share']:.1f}") for row in plot_run.timing_rows(inputs.timings)]),
        "configuration": inputs.configuration,
        "versions": table(("software", "version"), sorted(inputs.versions.items()))}
    there = {"pictures": figures["pictures"], "objects": figures["objects"], "counts": values["counts"]["rows"],
             "visits": figures["visits"] or values["visits"]["rows"], "configuration": inputs.configuration,
             "versions": inputs.versions}
    values["contents"] = [item for item in CONTENTS if there.get(item[0], True)]
    return template("page.html").render(values)


def _shown(item: Metric) -> dict:
    kind, mark = {True: ("good", "met"), False: ("bad", "missed"), None: ("open", "not measured")}[item.ok]
    return {"label": item.label, "band": item.band, "text": number(item.value, item.error), "unit": item.unit,
            "n": f"{item.n:,}",
            "target": item.target, "note": item.note, "kind": kind, "mark": mark if item.target else ""}


def _tiles(inputs: Inputs) -> list[dict[str, str]]:
    tiles = [("visits", len({row.visit for row in inputs.visits})), ("detector images", len(inputs.visits)),
             ("bands", len(inputs.bands))]
    if inputs.objects is not None:
        objects = primary(inputs.objects)
        tiles += [("objects", len(objects))]
        tiles += [("tracts", len(np.unique(objects["tract"])))] if "tract" in objects else []
    tiles += [("true objects", len(inputs.truth))] if inputs.truth is not None else []
    tiles += [("failed parts", len(inputs.failures))]
    return [{"label": label, "value": f"{value:,}"} for label, value in tiles]


def _counts(inputs: Inputs) -> dict:
    """Objects per tract and patch, with the median 5 sigma depth per band."""
    heads = ["#tract", "#patch", "#objects", *(f"#{band} depth [mag]" for band in inputs.bands)]
    if inputs.objects is None or "tract" not in inputs.objects or not len(inputs.objects):
        return table(heads, [])
    objects, rows = primary(inputs.objects), []
    for tract, patch in sorted(set(zip(objects["tract"].tolist(), objects["patch"].tolist()))):
        inside = (objects["tract"] == tract) & (objects["patch"] == patch)
        depths = []
        for band in inputs.bands:
            name = f"{band}_psfFluxErr"
            errors = objects[name][inside].astype(float) if name in objects else np.empty(0)
            errors = errors[np.isfinite(errors) & (errors > 0)]
            depths.append(f"{31.4 - 2.5 * np.log10(5.0 * np.percentile(errors, 25)):.2f}" if len(errors) else "–")
        rows.append((tract, patch, f"{int(inside.sum()):,}", *depths))
    return table(heads, rows)


def _visits(inputs: Inputs) -> dict:
    names = (("seeing", "seeing [arcsec]", 2), ("sky", "sky [electron]", 1), ("zero_point", "zero point [mag]", 3),
             ("zero_point_scatter", "scatter [mag]", 3), ("depth", "5 sigma depth [mag]", 2),
             ("astrometric_rms_east", "east rms [mas]", 1),
             ("astrometric_rms_north", "north rms [mas]", 1), ("n_sources", "sources", 0), ("n_stars", "stars", 0))
    rows = []
    for _, visit, band in sorted({(np.nan_to_num(row.mjd), row.visit, row.band) for row in inputs.visits}):
        some = [row for row in inputs.visits if row.visit == visit]
        cells = []
        for name, _, digits in names:
            values = column(some, name)
            values = values[np.isfinite(values)]
            total = float(values.sum() if digits == 0 else np.median(values)) if len(values) else float("nan")
            cells.append(f"{total:,.{digits}f}" if math.isfinite(total) else "–")
        rows.append((visit, band, f"{some[0].mjd:.5f}" if math.isfinite(some[0].mjd) else "–", len(some), *cells))
    return table(("#visit", "band", "#MJD", "#detectors", *(f"#{label}" for _, label, _ in names)), rows)


def write_report(page: str, metrics: list[Metric], inputs: Inputs, folder: Path) -> Path:
    """Write both files; each appears as a whole or not at all."""
    document = {"name": inputs.name, "version": __version__, "verdict": verdict_of(metrics, inputs)["word"],
                "metrics": [item.as_row() for item in metrics], "missing": list(inputs.missing),
                "failures": [vars(item) for item in inputs.failures]}
    write_text(folder / "metrics.json", json.dumps(document, indent=1, allow_nan=False))
    write_text(folder / "index.html", page)
    return folder / "index.html"
