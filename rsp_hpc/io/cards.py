"""FITS cards: the text of a header to values and back to what can be written; which image a header describes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["CARD", "Cards", "cards_of", "image_cards", "image_shape", "storable_cards"]

CARD = 80
COMMENTARY = {"", "COMMENT", "HISTORY", "END"}
_OF_TABLE = re.compile(r"T(TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+|TFIELDS|THEAP|PCOUNT|GCOUNT|Z.*")
_NUMBER = re.compile(r"[+-]?\d+")

Cards = dict[str, Any]


def cards_of(text: bytes) -> Cards:
    """The cards of a header's bytes up to END."""
    cards: Cards = {}
    last, long = "", False
    lines = text.decode("latin-1")
    for at in range(0, len(lines), CARD):
        line = lines[at:at + CARD]
        key, rest = line[:8].rstrip(), line[10:]
        if key == "CONTINUE" and long and isinstance(cards.get(last), str):
            value = _value_of(line[8:])
            cards[last] = cards[last][:-1] + str(value)
            long = str(value).endswith("&")
            continue
        if key == "HIERARCH" and "=" in line:
            key, _, rest = line[8:].partition("=")
            key = key.strip().upper()
        elif line[8:10] != "= ":
            continue
        long = False
        if key in COMMENTARY or key in cards:
            continue
        cards[key] = _value_of(rest)
        last, long = key, isinstance(cards[key], str) and cards[key].endswith("&")
    return cards


def _value_of(text: str) -> Any:
    """A card's value: str, bool, int, float; None if undefined; other text as it stands."""
    text = text.lstrip()
    if text.startswith("'"):
        match = re.match(r"'((?:[^']|'')*)'", text)
        return (match[1] if match else text[1:]).replace("''", "'").rstrip()
    text = text.partition("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    if _NUMBER.fullmatch(text):
        return int(text)
    try:
        return float(text.replace("D", "E").replace("d", "e")) if text else None
    except ValueError:
        return text


def image_cards(cards: Cards) -> Cards:
    """The cards that a tile-compressed image had before; others as they are."""
    if cards.get("ZIMAGE") is not True:
        return cards
    sizes = {"BITPIX": cards["ZBITPIX"], "NAXIS": cards["ZNAXIS"],
             **{f"NAXIS{n}": cards[f"ZNAXIS{n}"] for n in range(1, cards["ZNAXIS"] + 1)}}
    return {**{key: value for key, value in cards.items() if not _OF_TABLE.fullmatch(key)}, **sizes}


def image_shape(cards: Cards) -> tuple[int, int] | None:
    """(ny, nx) of an image; None for anything else."""
    kind = str(cards.get("XTENSION", "IMAGE")).strip()
    if kind not in ("IMAGE", "BINTABLE") or "TFIELDS" in cards or cards["NAXIS"] < 2:
        return None
    sizes = [cards[f"NAXIS{n}"] for n in range(1, cards["NAXIS"] + 1)]
    return (sizes[1], sizes[0]) if min(sizes) > 0 and math.prod(sizes[2:]) == 1 else None


def storable_cards(cards: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(key, value, comment); what a header cannot hold (NaN, infinity) is undefined."""
    for key, value in cards.items():
        value, comment = value if isinstance(value, tuple) else (value, "")
        value = value.item() if isinstance(value, np.generic) else value
        yield key, None if isinstance(value, float) and not math.isfinite(value) else value, comment
