"""Templates and tables that the pages share. jinja2 is imported on first use."""

from __future__ import annotations

import unicodedata
from pathlib import Path

__all__ = ["printable", "table", "template"]


def template(name: str):
    """A template of this folder; every string that it is given is escaped."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=printable)
    return environment.get_template(name)


def printable(value):
    """Text without control characters and without those that turn the direction of writing; anything else as it is."""
    if type(value) is not str:
        return value
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t" else c for c in value)


def table(heads, rows) -> dict:
    """Heads and rows for the template; a head that starts with '#' is a column of numbers."""
    return {"heads": [{"text": head.lstrip("#"), "number": head.startswith("#")} for head in heads], "rows": list(rows)}
