"""What people do with the calibration library: list, certify, compare. Plain commands on one process; `calibs` builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..algorithms.calibs.compare import compare
from ..errors import BadData, ConfigError
from ..io.calibration import ProductFacts, read_calibration_product
from ..io.fits import Hdu, write_fits
from ..io.library import Certificate, Library
from ..products.calibration import Defects
from ..products.kinds import KINDS, Validity, kind_named
from .survey import load_survey

__all__ = ["certify", "compare_products", "kind_named", "library_at", "list_products", "mjd_of", "validity_of", "withdraw"]


def library_at(where: str, output: str | None = None, label: str = "") -> tuple[Library, str]:
    """The library that a configuration names, or of a folder; and the label asked for, or that the configuration builds.

    Raises
    ------
    ConfigError
        There is no such file or folder, or the configuration is wrong.
    """
    path = Path(where)
    if path.is_dir():
        return Library(path), label
    config = load_survey(path)
    folder = Path(config.calibration_library) if config.calibration_library else Path(output or config.output) / "calibs"
    return Library(folder.resolve()), label or config.calibs.label or config.name


def mjd_of(text: str) -> float:
    """A date as MJD: a number, or YYYY-MM-DD[THH:MM:SS]; ConfigError otherwise."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float((np.datetime64(text, "s") - np.datetime64("1858-11-17", "s")) / np.timedelta64(1, "D"))
    except ValueError:
        raise ConfigError(f"{text!r:.40} is no date; write YYYY-MM-DD or an MJD") from None


def validity_of(begin: str, end: str) -> Validity:
    """The range between two dates as people write them."""
    return Validity(mjd_of(begin), mjd_of(end))


def list_products(library: Library, kind: str = "") -> tuple[list[str], bool]:
    """One line per product, and whether all could be read."""
    wanted = kind_named(kind) if kind else ""
    rows, wrong = [("kind", "detector", "label", "verdict", "frames from", "to", "inputs", "certified", "")], []
    for path in library.products():
        try:
            facts = library.facts(path)
        except BadData as error:
            wrong.append(str(error))
            continue
        if not wanted or facts.kind == wanted:
            rows.append(_row(facts, library.certificates.get(facts.key, [])))
    if len(rows) == 1 and not wrong:
        return [f"{library.folder}: no {wanted or 'calibration'} products; `rsp-hpc calibs CONFIG` builds them"], True
    order = list(KINDS)
    rows[1:] = sorted(rows[1:], key=lambda row: (order.index(row[0].split()[0]), row))
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes)).rstrip() for row in rows]
    return lines + [f"UNREADABLE {line}" for line in wrong], not wrong


def _row(facts: ProductFacts, certificates: list[Certificate]) -> tuple[str, ...]:
    mine = [item for item in certificates if item.label == facts.label]
    stale = any(item.identity != facts.identity for item in mine)
    valid = "; ".join(f"{item.validity}{' (forced)' * item.forced}" for item in mine)
    notes = [*facts.verdict.reasons, *["CHANGED since it was certified"] * stale,
             *["incomplete"] * facts.identity.startswith("incomplete")]
    dates = [f"{value:.5f}" if np.isfinite(value) else "-" for value in (facts.begin, facts.end)]
    shown = valid or ("- (others are)" if certificates else "-")
    return (f"{facts.kind} {facts.band}".strip(), facts.detector, facts.label, facts.verdict.state, *dates,
            str(len(facts.inputs)), shown, "; ".join(notes))


def _selected(library: Library, kind: str, label: str, bands: tuple[str, ...], detectors: tuple[str, ...]) -> list[Path]:
    wanted = "" if kind == "all" else kind_named(kind)
    readable = [library.facts(path) for path in library.products()]
    found = [facts for facts in readable if wanted in ("", facts.kind) and (not bands or facts.band in bands)
             and (not detectors or facts.detector in detectors)]
    labels = sorted({facts.label for facts in found})
    if not label and len(labels) > 1:
        raise ConfigError(f"{library.folder}: has the labels {', '.join(labels)}; say which with --label")
    chosen = [facts.path for facts in found if label in ("", facts.label)]
    if not chosen:
        raise ConfigError(f"{library.folder}: has no {wanted or 'product'}{f' {label}' if label else ''} of this selection; labels "
                          f"are {', '.join(labels) or 'none'}; `rsp-hpc calibs list` shows what there is")
    return chosen


def certify(library: Library, kind: str, label: str, validity: Validity, force: bool = False,
            selection: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())) -> list[str]:
    """Certify the products of a kind ('all': of all kinds) and label; lines that say what was done.

    Parameters
    ----------
    selection : bands and detectors; () for all

    Raises
    ------
    BadData
        One is bad or damaged, or its range overlaps a certified one; nothing is changed then.
    ConfigError
        Nothing is selected, or the range is empty.
    """
    done = library.certify(_selected(library, kind, label, *selection), validity, force)
    return [f"{' '.join(filter(None, (item.kind, item.band)))} of {item.detector} ({item.label}): valid {item.validity}"
            f"{', FORCED though it is bad' if item.forced else f', {item.verdict}'}" for item in done]


def withdraw(library: Library, kind: str, label: str, selection: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())) -> list[str]:
    """Take certificates back; lines that say which."""
    bands, detectors = selection
    gone = library.withdraw("" if kind == "all" else kind_named(kind), bands, label, detectors)
    return [f"{' '.join(filter(None, (item.kind, item.band)))} of {item.detector} ({item.label}): no longer valid "
            f"{item.validity}" for item in gone] or ["nothing was certified of this selection"]


def compare_products(first: Path, second: Path, target: Path | None = None) -> tuple[list[str], bool]:
    """How two products of one kind differ: lines of statistics and the verdict; whether they may stand for each other.

    Parameters
    ----------
    target : FITS file for the difference, first less second; the fields of electronics as one HDU each

    Raises
    ------
    BadData
        One is missing or damaged, or they are of different kinds, cameras or sizes.
    """
    one, two = read_calibration_product(first), read_calibration_product(second)
    for what in ("kind", "camera"):
        if getattr(one, what) != getattr(two, what):
            raise BadData(f"{first} is of {what} {getattr(one, what)}, {second} of {getattr(two, what)}; give two of one {what}")
    contents = [product.content.image if isinstance(product.content, Defects) else product.content for product in (one, two)]
    found = compare(*contents)
    lines = [f"first less second: {one.name} and {two.name}"]
    lines += [f"  {name:<40s} {value:.6g}" for name, value in found.statistics.items()]
    lines += [f"  {reason}" for reason in found.verdict.reasons]
    words = {"good": "they agree", "suspect": "they differ", "bad": "they differ much"}
    if target is not None:
        maps = {"DIFFERENCE": found.difference} if found.difference is not None else \
            {name.upper(): np.atleast_1d(values) for name, values in found.fields.items()}
        hdus = [Hdu(values.astype(np.float32), {"EXTNAME": name}) for name, values in maps.items() if np.size(values)]
        write_fits(target, [Hdu(None), *hdus])
        lines.append(f"  difference written to {target}")
    return [*lines, f"{found.verdict.state}: {words[found.verdict.state]}"], found.verdict.state == "good"
