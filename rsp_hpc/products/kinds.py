"""The kinds of calibration products: what each holds, what it is made of and what it needs; one row per kind.

`FIELDS` says shape, unit and whether NaN is allowed for the arrays of each content type: what files state and readers check.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from ..errors import BadData, ConfigError
from .calibration import CombinedFrames, Defects
from .electronics import BrighterFatter, ChargeTransfer, Crosstalk, Linearity, PhotonTransfer, Verdict

__all__ = ["ALIASES", "CalibrationProduct", "FIELDS", "KINDS", "Kind", "Quantity", "Validity", "check_content", "docs_of",
           "kind_named", "kinds_in_order"]


class Kind(NamedTuple):
    """A kind of calibration product.

    Attributes
    ----------
    content : type of what it holds
    frames : kinds of the exposures that go in; () where it is made of other products only
    needs : kinds of products that are used to make it, where the survey has them
    per_band : whether there is one per band
    doc : one line
    """

    content: type
    frames: tuple[str, ...]
    needs: tuple[str, ...]
    per_band: bool
    doc: str


_ELECTRONICS = ("linearity", "ptc", "charge_transfer", "crosstalk")
_CLEAN = (*_ELECTRONICS, "brighter_fatter", "bias", "dark", "flat", "defects")

KINDS: dict[str, Kind] = {
    "linearity": Kind(Linearity, ("flat", "bias"), (), False, "what is added to the charge so that it is proportional to light"),
    "ptc": Kind(PhotonTransfer, ("flat", "bias"), ("linearity",), False, "photon transfer of flat pairs: gain, read noise, full well"),
    "brighter_fatter": Kind(BrighterFatter, (), ("ptc",), False, "how collected charge moves pixel borders, from the PTC"),
    "charge_transfer": Kind(ChargeTransfer, ("flat",), ("ptc",), False, "serial deferred charge, from what trails the flats"),
    "crosstalk": Kind(Crosstalk, ("bias", "spots", "science"), ("ptc",), False, "ghosts of bright sources in the other amplifiers"),
    "bias": Kind(CombinedFrames, ("bias",), _ELECTRONICS, False, "zero exposures combined, electron"),
    "dark": Kind(CombinedFrames, ("dark",), (*_ELECTRONICS, "bias"), False, "dark current, electron/s"),
    "flat": Kind(CombinedFrames, ("flat",), (*_ELECTRONICS, "bias", "dark"), True, "relative response, mean one"),
    "defects": Kind(Defects, (), ("bias", "dark", "flat"), False, "pixels that must not be used: hot, dead, off in the bias"),
    "fringe": Kind(CombinedFrames, ("science",), _CLEAN, True, "fringe pattern of the night sky, mean zero, rms one"),
    "sky": Kind(CombinedFrames, ("science",), _CLEAN, True, "how an empty sky looks after the flat, mean one"),
    "illumination": Kind(CombinedFrames, (), ("flat",), True, "response to stars over that to the flat's light, mean one"),
}
"""In order of dependency: what a kind needs stands before it."""

ALIASES = {"cti": "charge_transfer", "bf": "brighter_fatter"}


def kind_named(name: str) -> str:
    """The kind that a user means: `charge-transfer`, `cti`, ...; ConfigError naming the known ones otherwise."""
    word = name.strip().lower().replace("-", "_")
    word = ALIASES.get(word, word)
    if word not in KINDS:
        raise ConfigError(f"{name}: unknown kind of calibration product; known are {', '.join(KINDS)}")
    return word


def kinds_in_order(names) -> tuple[str, ...]:
    """The named kinds, each once, in order of dependency."""
    wanted = {kind_named(name) for name in names}
    return tuple(kind for kind in KINDS if kind in wanted)


class Quantity(NamedTuple):
    """Shape in letters ('n L L'; n counts the amplifiers; the same letter is the same number), unit, whether NaN is allowed."""

    shape: str
    unit: str = ""
    gaps: bool = False


_N = Quantity("n")
FIELDS: dict[type, dict[str, Quantity]] = {
    CombinedFrames: {"image": Quantity("y x", gaps=True), "variance": Quantity("y x", gaps=True)},
    Defects: {"image": Quantity("y x")},
    PhotonTransfer: {
        "gain": Quantity("n", "electron/ADU"), "gain_err": Quantity("n", "electron/ADU", True),
        "read_noise": Quantity("n", "electron"), "read_noise_err": Quantity("n", "electron", True),
        "full_well": Quantity("n", "ADU", True), "full_well_err": Quantity("n", "ADU", True), "a": Quantity("n L L", "1/electron", True),
        "a_err": Quantity("n L L", "1/electron", True), "b": Quantity("n L L", "1/electron", True),
        "b_err": Quantity("n L L", "1/electron", True),
        "noise": Quantity("n L L", "electron2", True), "noise_err": Quantity("n L L", "electron2", True), "chi2_dof": Quantity("n", "", True), "mean": Quantity("n M", "ADU", True),
        "covariance": Quantity("n M L L", "ADU2", True), "model": Quantity("n M L L", "ADU2", True), "used": Quantity("n M")},
    Linearity: {
        "gain": Quantity("n", "electron/ADU"),
        "level": Quantity("n K", "electron"), "correction": Quantity("n K", "electron"),
        "correction_err": Quantity("n K", "electron", True), "residual": Quantity("n M", "", True),
        "measured": Quantity("n M", "electron", True)},
    Crosstalk: {
        "coefficient": Quantity("n m"), "error": Quantity("n m", "", True), "quadratic": Quantity("n m", "1/electron"),
        "used": Quantity("n m", "pixel")},
    ChargeTransfer: {
        "inefficiency": _N, "inefficiency_err": Quantity("n", "", True), "offset_scale": _N,
        "offset_decay": Quantity("n", "pixel"), "trap_size": Quantity("n", "electron"), "trap_level": Quantity("n", "electron"),
        "trap_decay": Quantity("n", "pixel"), "signal": Quantity("n M", "electron", True),
        "trail": Quantity("n M P", "electron", True), "model": Quantity("n M P", "electron", True)},
    BrighterFatter: {name: Quantity("j i", "1/electron", name == "error") for name in ("kernel", "north", "east", "error")},
}


KEPT_TO_LOOK_AT = ("gain", "residual", "measured", "signal", "trail", "model")
"""Fields that may be empty."""


def check_content(content: Any, where: str, shape: tuple[int, int] | None = None, finite: bool = False) -> None:
    """That the arrays of a content fit each other, and the detector where its shape is given.

    Raises
    ------
    BadData
        Sizes disagree; with `finite` also where a value is not finite that has to be, or hardly a pixel is.
    """
    sizes: dict[str, int] = {} if shape is None else {"y": shape[0], "x": shape[1]}
    if hasattr(content, "amplifiers"):
        sizes["n"] = len(content.amplifiers)
    for name, quantity in FIELDS[type(content)].items():
        array = getattr(content, name)
        if array is None or (np.size(array) == 0 and name in KEPT_TO_LOOK_AT):
            continue
        letters = quantity.shape.split()
        found = np.shape(array)
        wanted = tuple(sizes.get(letter) for letter in letters)
        if len(found) != len(letters) or any(size not in (None, there) for size, there in zip(wanted, found)):
            said = " x ".join("any" if size is None else str(size) for size in wanted)
            raise BadData(f"{where}: {name} is {' x '.join(map(str, found)) or 'a number'}, must be {said}; build it again for "
                          "this camera")
        sizes |= zip(letters, found)
        if finite:
            _check_finite(content, name, np.asarray(array), quantity.gaps, where)


def _check_finite(content: Any, name: str, array: np.ndarray, gaps: bool, where: str) -> None:
    if array.dtype.kind != "f":
        return
    good = np.isfinite(array)
    if gaps:
        if name == "image" and array.size and np.count_nonzero(good) < 0.5 * array.size:
            raise BadData(f"{where}: only {100.0 * np.mean(good):.0f} % of its pixels are numbers; look at its frames and build "
                          "it again")
        return
    if not good.all():
        first = np.argwhere(~good)[0]
        names = getattr(content, "amplifiers", ())
        place = f" of amplifier {names[first[0]]}" if len(names) else f" at {first.tolist()}"
        raise BadData(f"{where}: {name}{place} is not a number; build it again, or leave the kind out")


def docs_of(cls: type) -> dict[str, str]:
    """Attribute -> its lines of the class's numpydoc, joined."""
    text = inspect.getdoc(cls) or ""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in re.sub(r"; (?=\w+ : )", "\n", text.partition("----------\n")[2]).splitlines():
        head = re.match(r"(\w+(?:, \w+)*) : (.*)", line)
        if head:
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2])
        elif names and line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {item.name: found.get(item.name, "") for item in fields(cls)}


@dataclass(frozen=True)
class Validity:
    """When a product may be used: begin <= mjd < end, MJD TAI."""

    begin: float = float("-inf")
    end: float = float("inf")

    def __contains__(self, mjd: float) -> bool:
        return self.begin <= mjd < self.end

    def overlaps(self, other: Validity) -> bool:
        """Whether any date is in both."""
        return self.begin < other.end and other.begin < self.end

    def __str__(self) -> str:
        return f"{_date(self.begin)} to {_date(self.end)}"


def _date(mjd: float) -> str:
    """MJD and the calendar day."""
    if not np.isfinite(mjd):
        return "ever" if mjd < 0 else "open end"
    return f"{mjd:.5f} ({np.datetime64('1858-11-17') + int(np.floor(mjd))})"


@dataclass(frozen=True)
class CalibrationProduct:
    """One calibration product of one detector, with what is needed to judge it.

    Attributes
    ----------
    kind : one of KINDS; band : '' where there is one for all bands
    camera, detector : names; label : of the set that it belongs to
    content : of the type that KINDS says
    verdict : with reasons and statistics
    begin, end : MJD of the first and last exposure that went in; NaN without exposures
    mode : read-out mode of these exposures, see `Exposure.mode`
    """

    kind: str
    camera: str
    detector: str
    label: str
    content: Any = field(repr=False)
    band: str = ""
    verdict: Verdict = Verdict()
    begin: float = float("nan")
    end: float = float("nan")
    mode: str = ""

    @property
    def name(self) -> str:
        """For messages: 'flat r of D00 (demo)'."""
        return f"{' '.join(filter(None, (self.kind, self.band)))} of {self.detector} ({self.label})"
