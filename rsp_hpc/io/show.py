"""What is inside any product, in words: for `rsp-hpc show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import BadData
from .attributes import get, values
from .calibration import read_facts
from .database import read_survey
from .export import is_pixels
from .product import Header, open_product, read_header
from .records import read_array

__all__ = ["describe"]

MAX_LINES = 400


def describe(path: str | Path) -> str:
    """Several lines of text on a product: header, parts, images, tables with their columns.

    Raises
    ------
    BadData
        The file is missing, damaged, or no product.
    """
    path = Path(path)
    if not path.is_file():
        raise BadData(f"{path}: {'is a folder; name a file in it' if path.is_dir() else 'is missing'}")
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        return _survey(path)
    header = read_header(path)
    lines = _header(path, header)
    lines += _calibration(path) if header.kind == "calibration" else []
    with open_product(path) as file:
        _walk(file, 0, lines)
        sources = [name for name in ("sources", "objects") if name in file]
        hint = [f"  rsp-hpc export {path.name} {sources[0]}.fits --table {sources[0]}"] if sources else []
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... {len(lines) - MAX_LINES} more lines"]
    return "\n".join([*lines, *hint])


def _header(path: Path, header: Header) -> list[str]:
    """The common header in a few lines."""
    seconds = sum(part.seconds for part in header.parts)
    ranks = f"{header.ranks} rank{'s' * (header.ranks != 1)}"
    lines = [f"{path}: {header.kind}, format version {header.format_version}, {_size(path.stat().st_size)}",
             f"  written {header.created} by {header.software} on {header.host}, {ranks}",
             f"  identity {header.identity}, {len(header.inputs)} input{'s' * (len(header.inputs) != 1)}"]
    if header.parts:
        peak = max(part.peak_memory for part in header.parts)
        count = f"{len(header.parts)} part{'s' * (len(header.parts) != 1)}"
        lines.append(f"  {count}, {seconds:.1f} s, at most {_size(peak)} of memory")
    lines += [f"  MISSING {part.name}: {part.failure}" for part in header.parts if part.failure]
    return [_clean(line) for line in lines]


def _calibration(path: Path) -> list[str]:
    """What a calibration product is and what is thought of it."""
    facts = read_facts(path)
    lines = [f"  {facts.kind} {facts.band}{' ' * bool(facts.band)}of {facts.camera} {facts.detector} ({facts.label}), frames of MJD "
             f"{facts.begin:.5f} to {facts.end:.5f}, read-out {facts.mode}",
             f"  verdict {facts.verdict.state}{': ' * bool(facts.verdict.reasons)}{'; '.join(facts.verdict.reasons)}"]
    return [_clean(line) for line in lines]


def _walk(group, depth: int, lines: list[str]) -> None:
    """One line per group and dataset; a table's columns in short."""
    pad = "  " * (depth + 1)
    for name in sorted(group, key=_natural):
        if group.name == "/" and name == "provenance":
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            lines.append(_clean(f"{pad}{name}: {_dataset(item)}"))
        elif "_columns" in item:
            _table(name, item, pad, lines)
        else:
            facts = ", ".join(f"{key} {_value(value)}" for key, value in values(item).items() if key != "class")
            lines.append(_clean(f"{pad}{name}/{'  ' + facts if facts else ''}"))
            if not (set(item) and "class" in item.attrs):
                _walk(item, depth + 1, lines)


def _dataset(item) -> str:
    kind = str(get(item, "kind", ""))
    unit = f" [{get(item, 'unit')}]" if "unit" in item.attrs else ""
    stored, size = item.id.get_storage_size(), item.size * item.dtype.itemsize
    packed = f", {100.0 * stored / size:.0f} % of the size" if is_pixels(item) and size else ""
    noise = f", in steps of {_value(get(item, 'scale', None))} with dither"
    lossy = {"noise": noise, "variance": ", mantissa of 10 bits"}.get(kind, "")
    shape = " x ".join(map(str, item.shape)) or "scalar"
    return f"{shape} {'float32' if kind == 'noise' else item.dtype}{unit}{packed}{lossy}"


def _table(name: str, group, pad: str, lines: list[str]) -> None:
    columns = read_array(group["_columns"]).tolist()
    lines.append(_clean(f"{pad}{name}: table of {int(get(group, 'rows'))} rows, {len(columns)} columns"))
    for column in columns:
        attributes = values(group[column])
        unit = f" [{attributes['unit']}]" if "unit" in attributes else ""
        lines.append(_clean(f"{pad}  {column} {group[column].dtype}{unit}  {attributes.get('doc', '')}".rstrip()))


def _survey(path: Path) -> str:
    """survey.db in words."""
    survey = read_survey(path)
    refused = survey.refused()
    lines = [f"{path}: survey of camera {survey.camera}, {len(survey.all_files)} files, {len(refused)} refused"]
    counts: dict[tuple[str, str], int] = {}
    for exposure in survey.exposures():
        counts[exposure.kind, exposure.band] = counts.get((exposure.kind, exposure.band), 0) + 1
    lines += [f"  {count} {kind} exposure{'s' * (count != 1)}{f' in {band}' if band else ''}"
              for (kind, band), count in sorted(counts.items())]
    lines += [f"  tract {tract}: {len(survey.overlaps(tract))} detectors overlap it" for tract in survey.tracts()]
    fixed = [entry for entry in survey.all_files if entry.verdict == "fixed"]
    lines += [f"  {entry.verdict} {entry.path.name}: {entry.message}" for entry in [*refused, *fixed][:MAX_LINES]]
    return "\n".join(map(_clean, lines))


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"({', '.join(_value(item) for item in value.ravel()[:6])}{', ...' if value.size > 6 else ''})"
    return f"{float(value):.6g}" if isinstance(value, (float, np.floating)) else str(value)[:80]


def _natural(name: str) -> tuple:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def _clean(text: str) -> str:
    """Without control characters: names in a file are not to steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
