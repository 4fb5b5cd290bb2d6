"""The calibration page: verdicts, statistics and pictures of all calibration products, in `calibration.html`."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import BadData, RspError
from ..io.atomic import write_text
from ..io.calibration import ProductFacts, read_calibration_product
from ..io.library import Library
from ..products.exposure import RawDetector
from ..products.kinds import KINDS, CalibrationProduct
from . import plot_calibration as plots
from .config import ReportConfig
from .figure import data_uri, in_order
from .template import printable, table, template

__all__ = ["CalibrationInputs", "collect_calibration", "write_calibration_page"]

MOST_ROWS = 300
MOST_STATISTICS = 14
"""Columns of a table of statistics; the rest is in the files."""


@dataclass
class CalibrationInputs:
    """What the page shows.

    Attributes
    ----------
    folder : of the library
    facts : of all products that can be read
    valid : path -> validity in words
    shown : products whose pictures are drawn
    before_after : (title, raw detector, image after) of science frames
    missing : what could not be read, a line each
    """

    folder: Path
    facts: list[ProductFacts] = field(default_factory=list)
    valid: dict[Path, str] = field(default_factory=dict)
    shown: list[CalibrationProduct] = field(default_factory=list)
    before_after: list[tuple[str, RawDetector, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def collect_calibration(library: Library, config: ReportConfig,
                        cutouts: Callable[[], list[tuple[str, RawDetector, Any]]] = list) -> CalibrationInputs:
    """Read the library: what every product says of itself, and the content of those to be drawn."""
    inputs = CalibrationInputs(library.folder)
    for path in library.products():
        try:
            inputs.facts.append(library.facts(path))
        except BadData as error:
            inputs.missing.append(str(error))
    try:
        for facts in inputs.facts:
            mine = [item for item in library.certificates.get(facts.key, []) if item.label == facts.label]
            inputs.valid[facts.path] = "; ".join(f"{item.validity}{' (forced)' * item.forced}" for item in mine)
    except BadData as error:
        inputs.missing.append(str(error))
    for facts in _to_be_drawn(inputs.facts, config.calibration_detectors):
        try:
            inputs.shown.append(read_calibration_product(facts.path))
        except BadData as error:
            inputs.missing.append(str(error))
    try:
        inputs.before_after = cutouts()
    except RspError as error:
        inputs.missing.append(f"before and after: {error}")
    return inputs


def _to_be_drawn(facts: list[ProductFacts], most: int) -> list[ProductFacts]:
    """Of each kind and band the worst products, then the first by detector, of the newest set."""
    groups: dict[tuple[str, str], list[ProductFacts]] = {}
    for item in facts:
        groups.setdefault((item.kind, item.band), []).append(item)
    rank = {"bad": 0, "suspect": 1, "good": 2}
    found = []
    for group in groups.values():
        newest = max(item.created for item in group)
        label = next(item.label for item in group if item.created == newest)
        found += sorted((item for item in group if item.label == label),
                        key=lambda item: (rank[item.verdict.state], item.detector))[:most]
    return found


def write_calibration_page(inputs: CalibrationInputs, folder: Path, config: ReportConfig, title: str) -> Path | None:
    """Draw and write the page; None where there is no product at all.

    Raises
    ------
    BadData
        The folder is full or cannot be written.
    """
    if not inputs.facts and not inputs.missing:
        return None
    bad_first = {"bad": 0, "suspect": 1, "good": 2}
    order = list(KINDS)
    ordered = sorted(inputs.facts, key=lambda item: (bad_first[item.verdict.state], order.index(item.kind), item.band, item.detector))
    values = {
        "title": title, "version": __version__, "folder": str(inputs.folder), "missing": inputs.missing,
        "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "counts": [(state, sum(item.verdict.state == state for item in inputs.facts)) for state in ("good", "suspect", "bad")],
        "verdicts": [_verdict_row(item, inputs.valid.get(item.path, "")) for item in ordered[:MOST_ROWS]],
        "verdicts_left": max(0, len(ordered) - MOST_ROWS), "parts": _parts(inputs, config)}
    path = folder / "calibration.html"
    write_text(path, template("calibration.html").render(values))
    return path


def _verdict_row(facts: ProductFacts, valid: str) -> dict[str, Any]:
    dates = "–" if not np.isfinite(facts.begin) else f"{facts.begin:.3f} to {facts.end:.3f}"
    return {"kind": f"{facts.kind} {facts.band}".strip(), "detector": facts.detector, "label": facts.label,
            "state": facts.verdict.state, "reasons": list(facts.verdict.reasons), "dates": dates, "inputs": len(facts.inputs),
            "valid": valid or "not certified"}


def _parts(inputs: CalibrationInputs, config: ReportConfig) -> list[dict[str, Any]]:
    """A section per kind, in the order of the kinds, and the cut-outs."""
    parts = []
    for kind, row in KINDS.items():
        products = [item for item in inputs.shown if item.kind == kind]
        facts = [item for item in inputs.facts if item.kind == kind]
        if not facts:
            continue
        figures = []
        for product in sorted(products, key=lambda item: (in_order({p.band for p in products}).index(item.band), item.detector)):
            figures += [{"title": f"{title}: {product.name}", "caption": printable(f"{product.name}: {caption}"),
                         "uri": data_uri(figure, colours=colours)}
                        for title, caption, figure, colours in plots.figures_of(product)]
        parts.append({"id": kind, "title": kind.replace("_", "-"), "doc": row.doc, "figures": figures,
                      "statistics": _statistics(facts)})
    if inputs.before_after:
        figures = [{"title": title, "caption": printable(title), "uri": data_uri(plots.before_after_figure(raw, after), colours=64)}
                   for title, raw, after in inputs.before_after]
        parts.append({"id": "cutouts", "title": "before and after", "figures": figures, "statistics": table((), []),
                      "doc": "Left: overscan and gain only. Right: as the visit holds it, sky subtracted. Same stretch in electrons."})
    return parts


def _statistics(facts: list[ProductFacts]) -> dict:
    """One row per product; columns are the statistics that most have."""
    counts: dict[str, int] = {}
    for item in facts:
        for name in item.verdict.statistics:
            counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=lambda name: -counts[name])[:MOST_STATISTICS]
    rows = [(f"{item.band} {item.detector}".strip(), item.label, *(_number(item.verdict.statistics.get(name)) for name in names))
            for item in sorted(facts, key=lambda item: (item.band, item.detector, item.label))[:MOST_ROWS]]
    return table(("detector", "set", *(f"#{name.replace('_', ' ')}" for name in names)), rows if names else [])


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.4g}"
