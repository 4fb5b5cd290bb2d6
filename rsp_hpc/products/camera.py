"""A camera: its detectors, amplifiers, focal plane, header keys and file layout. One YAML describes one camera."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..config import Config, build, parameter
from ..errors import ConfigError
from .box import Box

__all__ = ["AMPLIFIER_KEYS", "Amplifier", "Camera", "Detector", "EXPOSURE_KEYS", "HeaderKey", "Layout", "load_camera"]

EXPOSURE_KEYS = ("visit", "kind", "band", "mjd", "exposure_time", "dark_time", "ra", "dec", "rotation", "airmass", "detector",
                 "readout_mode", "binning")
"""What `Camera.header` may translate once per file."""

AMPLIFIER_KEYS = ("gain", "read_noise", "saturation")
"""What `Camera.header` may translate per amplifier, from the header of the HDU (and file) that holds the amplifier."""

MAX_PIXELS = 100_000  # side of the largest sensor that a description may ask for


def _as_box(values: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    if min(values[:2]) < 0 or min(values[2:]) <= 0 or max(values) > MAX_PIXELS:
        raise ValueError(f"a region is [x0, y0, nx, ny], zero-based, with positive sizes up to {MAX_PIXELS}")
    return values


Region = Annotated[tuple[int, int, int, int], AfterValidator(_as_box)]
"""[x0, y0, nx, ny], zero-based."""


class Amplifier(Config):
    """One read-out: where its pixels are in the file, where they go, and its electronics.

    `section` is this amplifier's rectangle in the image (HDU) that holds it; the other regions are inside the section.
    """

    name: str = parameter(..., "amplifier name")
    hdu: int = parameter(0, "FITS HDU that holds the section")
    section: Region = parameter(..., "[x0, y0, nx, ny] of the amplifier in that HDU", unit="pixel")
    data: Region = parameter(..., "[x0, y0, nx, ny] of the light-sensitive pixels in the section", unit="pixel")
    serial_overscan: Region | None = parameter(None, "read-outs past the end of each row, in the section", unit="pixel")
    parallel_overscan: Region | None = parameter(None, "rows past the last, in the section", unit="pixel")
    prescan: Region | None = parameter(None, "read-outs before the first pixel of each row, in the section", unit="pixel")
    origin: tuple[int, int] = parameter((0, 0), "[x0, y0] of the data region in the assembled detector", unit="pixel")
    flip_x: bool = parameter(False, "columns run backwards in the file")
    flip_y: bool = parameter(False, "rows run backwards in the file")
    gain: float = parameter(1.0, "gain", unit="electron/ADU", above=0.0)
    read_noise: float = parameter(0.0, "read noise", unit="electron", low=0.0)
    saturation: float = parameter(65535.0, "level at and above which a raw pixel is saturated", unit="ADU", above=0.0)
    suspect: float | None = parameter(None, "level at and above which a raw pixel is suspect, where it is not yet saturated",
                                      unit="ADU", above=0.0)
    offset: float = parameter(0.0, "constant offset where there is no overscan and no bias (soft bias)", unit="ADU")
    gain_by_band: dict[str, Annotated[float, Field(gt=0.0)]] = parameter(
        {}, "gain in these bands, where the electronics of a band are its own", unit="electron/ADU")
    read_noise_by_band: dict[str, Annotated[float, Field(ge=0.0)]] = parameter(
        {}, "read noise in these bands", unit="electron")

    @model_validator(mode="after")
    def _regions_inside(self) -> Amplifier:
        whole = Box(0, 0, *self.section[2:])
        for name in ("data", "serial_overscan", "parallel_overscan", "prescan"):
            region = getattr(self, name)
            if region is not None and Box(*region).intersect(whole) != Box(*region):
                raise ValueError(f"{name} {list(region)} leaves the amplifier's section of {whole.nx} x {whole.ny} pixels")
        return self

    def in_band(self, band: str) -> Amplifier:
        """With the gain and read noise of a band."""
        values = {"gain": self.gain_by_band.get(band, self.gain),
                  "read_noise": self.read_noise_by_band.get(band, self.read_noise)}
        return self.model_copy(update=values)

    @property
    def read_backwards(self) -> tuple[bool, bool]:
        """Whether columns, rows stand in the file against the order in which they were read: overscan is read last."""
        def backwards(axis: int, last: tuple | None, first: tuple | None) -> bool:
            return self.data[axis] > last[axis] if last is not None else first is not None and first[axis] > self.data[axis]

        return backwards(0, self.serial_overscan, self.prescan), backwards(1, self.parallel_overscan, None)

    @property
    def data_box(self) -> Box:
        """The data region in the section."""
        return Box(*self.data)

    @property
    def assembled_box(self) -> Box:
        """Where the data region sits in the assembled detector."""
        return Box(self.origin[0], self.origin[1], self.data[2], self.data[3])


class Detector(Config):
    """One sensor: assembled size, amplifiers, place on the focal plane."""

    name: str = parameter(..., "detector name, for example R22_S11")
    id: int = parameter(..., "detector number", low=0)
    size: tuple[int, int] = parameter(..., "[nx, ny] of the assembled detector", unit="pixel")
    amplifiers: tuple[Amplifier, ...] = parameter(..., "its amplifiers")
    center: tuple[float, float] = parameter((0.0, 0.0), "[x, y] of the sensor's centre on the focal plane", unit="mm")
    rotation: float = parameter(0.0, "rotation of the sensor's +x axis on the focal plane, anticlockwise", unit="deg")

    @model_validator(mode="after")
    def _amplifiers_tile(self) -> Detector:
        """Every pixel belongs to exactly one amplifier: all inside, no two overlap, areas sum up."""
        names = [amplifier.name for amplifier in self.amplifiers]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"detector {self.name}: amplifier names must be unique, at least one")
        boxes = [amplifier.assembled_box for amplifier in self.amplifiers]
        for number, box in enumerate(boxes):
            if box.intersect(self.box) != box:
                raise ValueError(f"detector {self.name}: amplifier {names[number]} at {box} leaves the {self.size} pixels")
            for other in range(number):
                if boxes[other].intersect(box).area:
                    raise ValueError(f"detector {self.name}: amplifiers {names[other]} and {names[number]} overlap")
        if sum(box.area for box in boxes) != self.box.area:
            raise ValueError(f"detector {self.name}: the amplifiers leave a gap in the {self.size[0]} x {self.size[1]} pixels")
        return self

    @property
    def box(self) -> Box:
        """The assembled detector."""
        return Box(0, 0, self.size[0], self.size[1])

    def in_band(self, band: str) -> Detector:
        """With every amplifier's gain and read noise of a band."""
        return self.model_copy(update={"amplifiers": tuple(amplifier.in_band(band) for amplifier in self.amplifiers)})


class HeaderKey(Config):
    """How one piece of information is read from a raw header (`products.header.translate` does it).

    text of the header -> `pattern` -> `values` -> for numbers: unit, `scale`, `offset`.
    """

    key: str = parameter("", "FITS keyword; empty: use `value`, or the file name where there is a pattern")
    keys: tuple[str, ...] = parameter((), "several FITS keywords, put together by `format`, instead of `key`")
    format: str = parameter("", "Python format of the values of `keys`, e.g. {0:d}{1:02d}{2:04d}")
    hdu: int = parameter(0, "HDU whose header has it; amplifier keys: the amplifier's own HDU, whatever stands here", low=0)
    value: str | float | int | None = parameter(None, "used where the key is empty or missing")
    unit: str = parameter("", "unit of the header's number: deg, hourangle, radian, s, ms, mjd, jd, isot, mjd_seconds")
    time_scale: Literal["tai", "utc"] = parameter("tai", "time scale of a date")
    time_at: Literal["start", "middle", "end"] = parameter("middle", "the date is that of this moment of the exposure")
    scale: float = parameter(1.0, "multiplies a number")
    offset: float = parameter(0.0, "added to a number after `scale`, in the unit it then has (dates: in s)")
    values: dict[str, str | int | float] = parameter({}, "translation of header values, e.g. {sdss_g: g}")
    pattern: str = parameter("", "regular expression applied to the header's text, or to the file name where there is no "
                                 "key; its groups are joined")
    required: bool = parameter(True, "a file without it is refused")

    @field_validator("pattern")
    @classmethod
    def _has_groups(cls, pattern: str) -> str:
        return _checked_pattern(pattern) if pattern else pattern

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in UNITS:
            raise ValueError(f"must be one of {', '.join(sorted(UNITS - {''}))}")
        return unit


UNITS = {"", "deg", "hourangle", "radian", "s", "ms", "mjd", "jd", "isot", "mjd_seconds", "electron", "ADU"}


def _checked_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if not groups:
        raise ValueError("needs at least one (group)")
    return pattern


class CrosstalkKeys(Config):
    """Where a header has the coefficients of crosstalk between the amplifiers of a detector."""

    key: str = parameter(..., "FITS keyword of a coefficient, with {source} and {target}: the amplifiers' numbers in the camera's "
                              "order, from 1, or {source_name} and {target_name}")
    hdu: int = parameter(0, "HDU whose header has it", low=0)
    unit: Literal["ADU", "electron"] = parameter("ADU", "ghost and source are counted in this")

    @field_validator("key")
    @classmethod
    def _names_both(cls, key: str) -> str:
        try:
            one, two = (key.format(source=source, target=target, source_name=f"S{source}", target_name=f"T{target}")
                        for source, target in ((1, 2), (2, 1)))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"'{key}' is no pattern of {{source}} and {{target}} ({error})") from None
        if one == two:
            raise ValueError("has to name both {source} and {target}")
        return key


class Layout(Config):
    """Which files make an exposure."""

    kind: Literal["detector", "multi-extension", "amplifier"] = parameter(
        "detector", "one file per detector, one file with all amplifiers as extensions, or one file per amplifier")
    pattern: str = parameter(..., "regular expression on the file name; named groups visit, detector, amplifier, band")
    masks: Literal["", "sdss-fpm"] = parameter("", "format of mask files that come with detrended frames")

    @field_validator("pattern")
    @classmethod
    def _has_groups(cls, pattern: str) -> str:
        return _checked_pattern(pattern)


class Camera(Config):
    """All that the program knows of an instrument."""

    name: str = parameter(..., "camera name")
    pixel_scale: float = parameter(..., "mean pixel scale", unit="arcsec/pixel", above=0.0)
    pixel_size: float = parameter(10.0, "pixel size", unit="micron", above=0.0)
    detectors: tuple[Detector, ...] = parameter(..., "its detectors")
    bands: tuple[str, ...] = parameter(..., "its bands, bluest first")
    layout: Layout = parameter(..., "which files make an exposure")
    header: dict[str, HeaderKey] = parameter(
        ..., "how to read visit, kind, band, mjd, exposure_time, dark_time, ra, dec, rotation, airmass, detector, "
             "readout_mode, binning; per amplifier gain, read_noise, saturation")
    crosstalk: CrosstalkKeys | None = parameter(None, "where the header has coefficients of crosstalk; a calibration product of it "
                                                      "goes before")
    wcs: Literal["header", "geometry", "none"] = parameter("geometry", "where the rough WCS comes from")
    wcs_hdu: int = parameter(0, "HDU whose header has the WCS", low=0)
    wcs_pixels: Literal["detector", "amplifier"] = parameter(
        "detector", "the header's WCS counts the pixels of the assembled detector, or of the raw amplifier in the file")
    wcs_parity: Literal[1, -1] = parameter(1, "+1: seen on the sky with east to the left when +y is north; -1: mirrored")
    detrended: bool = parameter(False, "frames arrive with bias, dark and flat already applied")

    @model_validator(mode="after")
    def _consistent(self) -> Camera:
        for what, values in (("names", [d.name for d in self.detectors]), ("ids", [d.id for d in self.detectors])):
            if len(set(values)) < len(values):
                raise ValueError(f"detector {what} must be unique")
        if not self.detectors:
            raise ValueError("a camera has at least one detector")
        known = set(EXPOSURE_KEYS) | set(AMPLIFIER_KEYS)
        if unknown := sorted(set(self.header) - known):
            raise ValueError(f"header.{unknown[0]}: unknown; known are {', '.join(EXPOSURE_KEYS + AMPLIFIER_KEYS)}")
        if missing := [name for name in ("visit", "kind", "mjd", "exposure_time") if name not in self.header]:
            raise ValueError(f"header.{missing[0]}: missing; say where it stands")
        return self

    def detector(self, name: str) -> Detector:
        """The detector of this name; ConfigError naming the known ones otherwise."""
        for detector in self.detectors:
            if detector.name == name:
                return detector
        raise ConfigError(f"camera {self.name} has no detector {name}; it has "
                          f"{', '.join(d.name for d in self.detectors[:8])}{' ...' if len(self.detectors) > 8 else ''}")


def load_camera(values: dict[str, Any], where: str = "camera") -> Camera:
    """Build a camera from the plain values of its YAML, expanding its short forms.

    The short forms, next to the fields of `Camera`:

    detector_types : {type: {size, amplifier: {values common to all}, amplifiers: [...], amplifier_rows: [...]}}
        An amplifier row is {names, hdu, hdu_step, origin, step, and any amplifier field}: the n-th name has the origin
        plus n steps and the HDU plus n hdu_steps.
    detectors : [{name, id, type, center, rotation, amplifiers: {name: {values of this very amplifier}}}]
        A detector of a type takes size and amplifiers from it.
    mosaic : {groups: {name: {type, center}}, sensors: {name: [x, y]}, first_id}
        Instead of `detectors`: in each group (raft), in order, one detector per sensor, named GROUP_SENSOR, its centre the
        sum of both.

    Raises
    ------
    ConfigError
        One line per mistake, each with the dotted path.
    """
    values = dict(_mapping(values, where))
    types = {name: _expanded_type(kind, f"{where}.detector_types.{name}")
             for name, kind in _mapping(values.pop("detector_types", {}), f"{where}.detector_types").items()}
    mosaic = values.pop("mosaic", None)
    if mosaic is not None:
        if "detectors" in values:
            raise ConfigError(f"{where}: give detectors or mosaic, not both")
        values["detectors"] = _expanded_mosaic(mosaic, f"{where}.mosaic")
    detectors = _sequence(values.get("detectors"), f"{where}.detectors")
    values["detectors"] = [_typed(_mapping(item, f"{where}.detectors.{number}"), types, f"{where}.detectors.{number}")
                           for number, item in enumerate(detectors)]
    return build(Camera, values, where)


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where}: must be a mapping with text keys, is {type(value).__name__}")
    return value


def _sequence(value: Any, where: str, length: int | None = None) -> list:
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
        raise ConfigError(f"{where}: must be a list{f' of {length}' if length else ''}, is {str(value):.60}")
    return list(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{where}: must be a number, is {str(value):.60}")
    return value


def _pair(value: Any, where: str) -> tuple[float, float]:
    x, y = _sequence(value, where, 2)
    return _number(x, where), _number(y, where)


def _expanded_type(kind: Any, where: str) -> dict:
    """{size, amplifiers: {name: values}} of a detector type."""
    kind = _mapping(kind, where)
    if unknown := sorted(set(kind) - {"size", "amplifier", "amplifiers", "amplifier_rows"}):
        raise ConfigError(f"{where}.{unknown[0]}: unknown; known are amplifier, amplifier_rows, amplifiers, size")
    common = _mapping(kind.get("amplifier", {}), f"{where}.amplifier")
    amplifiers: dict[str, dict] = {}
    items = [(item, f"{where}.amplifiers.{n}") for n, item in
             enumerate(_sequence(kind.get("amplifiers", []), f"{where}.amplifiers"))]
    for number, row in enumerate(_sequence(kind.get("amplifier_rows", []), f"{where}.amplifier_rows")):
        items += _expanded_row(row, f"{where}.amplifier_rows.{number}")
    for item, path in items:
        name = str(_mapping(item, path).get("name", ""))
        if not name or name in amplifiers:
            raise ConfigError(f"{path}.name: {'is used twice: ' + name if name else 'missing'}")
        amplifiers[name] = {**common, **item}
    return {"size": kind.get("size"), "amplifiers": amplifiers}


def _expanded_row(row: Any, where: str) -> list[tuple[dict, str]]:
    """The amplifiers of a row, each with its path for messages."""
    row = dict(_mapping(row, where))
    names = _sequence(row.pop("names", None), f"{where}.names")
    x0, y0 = _pair(row.pop("origin", None), f"{where}.origin")
    dx, dy = _pair(row.pop("step", None), f"{where}.step")
    hdu, hdu_step = (_number(row.pop(key, 0), f"{where}.{key}") for key in ("hdu", "hdu_step"))
    return [({**row, "name": name, "hdu": hdu + n * hdu_step, "origin": [x0 + n * dx, y0 + n * dy]}, f"{where}.names.{n}")
            for n, name in enumerate(names)]


def _expanded_mosaic(mosaic: Any, where: str) -> list[dict]:
    """The detectors of a mosaic of equal groups."""
    mosaic = _mapping(mosaic, where)
    if unknown := sorted(set(mosaic) - {"groups", "sensors", "first_id"}):
        raise ConfigError(f"{where}.{unknown[0]}: unknown; known are first_id, groups, sensors")
    sensors = {name: _pair(place, f"{where}.sensors.{name}")
               for name, place in _mapping(mosaic.get("sensors"), f"{where}.sensors").items()}
    first = _number(mosaic.get("first_id", 0), f"{where}.first_id")
    detectors = []
    for name, group in _mapping(mosaic.get("groups"), f"{where}.groups").items():
        group = dict(_mapping(group, f"{where}.groups.{name}"))
        x, y = _pair(group.pop("center", None), f"{where}.groups.{name}.center")
        detectors += [{**group, "name": f"{name}_{sensor}", "id": first + len(detectors) + n,
                       "center": [round(x + place[0], 6), round(y + place[1], 6)]}
                      for n, (sensor, place) in enumerate(sensors.items())]
    return detectors


def _typed(detector: dict, types: dict[str, dict], where: str) -> dict:
    """A detector with size and amplifiers of its type, and the values given for single amplifiers on top."""
    if "type" not in detector:
        return detector
    detector = dict(detector)
    name = detector.pop("type")
    if name not in types:
        raise ConfigError(f"{where}.type: no detector type {str(name):.60}; there are {', '.join(types) or 'none'}")
    amplifiers = {key: dict(values) for key, values in types[name]["amplifiers"].items()}
    for key, values in _mapping(detector.pop("amplifiers", {}), f"{where}.amplifiers").items():
        if key not in amplifiers:
            raise ConfigError(f"{where}.amplifiers.{key}: type {name} has no such amplifier; it has {', '.join(amplifiers)}")
        amplifiers[key].update(_mapping(values, f"{where}.amplifiers.{key}"))
    return {"size": types[name]["size"], **detector, "amplifiers": list(amplifiers.values())}
