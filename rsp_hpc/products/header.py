"""Raw headers to the program's words: visit, kind, band, times, pointing, gains, as a camera's `header` section says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from ..errors import BadData
from .camera import AMPLIFIER_KEYS, Camera, Detector, HeaderKey
from .electronics import Crosstalk
from .exposure import KINDS, Exposure

__all__ = ["crosstalk_of", "exposure_of", "mode_difference", "mode_of", "tai_minus_utc", "translate", "with_header_values"]

Cards = Mapping[str, Any]

LEAPS = ((41317, 10), (41499, 11), (41683, 12), (42048, 13), (42413, 14), (42778, 15), (43144, 16), (43509, 17), (43874, 18),
         (44239, 19), (44786, 20), (45151, 21), (45516, 22), (46247, 23), (47161, 24), (47892, 25), (48257, 26), (48804, 27),
         (49169, 28), (49534, 29), (50083, 30), (50630, 31), (51179, 32), (53736, 33), (54832, 34), (56109, 35), (57204, 36),
         (57754, 37))
"""(MJD UTC, TAI - UTC in seconds from then on): IERS Bulletin C; none was announced after 2017."""

MJD_UNIX = 40587.0


def tai_minus_utc(mjd_utc: float) -> float:
    """Leap seconds at a UTC date, s."""
    return float(next((seconds for start, seconds in reversed(LEAPS) if mjd_utc >= start), 10))


def translate(rule: HeaderKey, headers: Sequence[Cards], file_name: str, what: str) -> Any:
    """One value by its rule; None where it is missing and not required.

    Parameters
    ----------
    headers : the cards of each HDU that was read; a rule's `hdu` counts in this list
    file_name, what : for the rule's pattern and for messages

    Raises
    ------
    BadData
        The header has no such key, or its value does not fit.
    """
    text = _raw_value(rule, headers, file_name)
    if text is None and rule.value is not None:
        return rule.value
    if text is None:
        if rule.required:
            source = f"key {rule.key or ' or '.join(rule.keys)}" if rule.key or rule.keys else f"match of '{rule.pattern}'"
            raise BadData(f"{file_name}: no {source} for {what}; add it to the header or change header.{what} of the camera")
        return None
    if rule.values:
        if str(text).strip() not in rule.values:
            raise BadData(f"{file_name}: {what} is '{str(text).strip()}', the camera knows {', '.join(rule.values)}; "
                          f"add it to header.{what}.values or leave the file out")
        return rule.values[str(text).strip()]
    try:
        return _converted(rule, text)
    except (ValueError, TypeError, OverflowError):
        raise BadData(f"{file_name}: {what} is {str(text)!r:.40}, not a {rule.unit or 'number'}; mend the header") from None


def _raw_value(rule: HeaderKey, headers: Sequence[Cards], file_name: str) -> Any:
    """The header's value after joining and pattern; None if something is missing."""
    cards = headers[rule.hdu] if rule.hdu < len(headers) else {}
    if rule.keys:
        parts = [cards.get(key) for key in rule.keys]
        if any(part is None for part in parts):
            return None
        text: Any = rule.format.format(*parts) if rule.format else "".join(map(str, parts))
    elif rule.key:
        text = cards.get(rule.key)
    else:
        text = file_name.rsplit("/", 1)[-1] if rule.pattern else None
    if text is None or (isinstance(text, str) and not text.strip()):
        return None
    if rule.pattern:
        match = re.search(rule.pattern, str(text))
        return "".join(group or "" for group in match.groups()) if match else None
    return text


def _converted(rule: HeaderKey, text: Any) -> Any:
    """Text or number in the program's unit: degrees, seconds, MJD."""
    if rule.unit == "":
        number = _plain_number(text)
        return text if number is None else _scaled(rule, number)
    if rule.unit == "isot":
        stamp = datetime.fromisoformat(str(text).strip().replace("Z", "")).replace(tzinfo=timezone.utc)
        return _finite(stamp.timestamp() / 86400.0 + MJD_UNIX)
    if rule.unit in ("hourangle", "deg") and isinstance(text, str) and re.search(r"\d[\s:hd]+\d", text):
        return _scaled(rule, _sexagesimal(text) * (15.0 if rule.unit == "hourangle" else 1.0))
    number = _finite(float(text))
    if rule.unit in ("mjd", "jd", "mjd_seconds"):
        return {"mjd": number, "jd": number - 2400000.5, "mjd_seconds": number / 86400.0}[rule.unit]
    return _scaled(rule, number * {"hourangle": 15.0, "radian": math.degrees(1.0), "ms": 1e-3}.get(rule.unit, 1.0))


def _scaled(rule: HeaderKey, number: float | int) -> float | int:
    if rule.scale == 1.0 and rule.offset == 0.0:
        return number if isinstance(number, int) else _finite(number)
    return _finite(number * rule.scale + rule.offset)


def _plain_number(text: Any) -> float | int | None:
    """A header's number as it is; the text of an integer as one; None for other text."""
    if isinstance(text, (int, float)):
        return text
    return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", str(text)) else None


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _sexagesimal(text: str) -> float:
    parts = [float(part) for part in re.findall(r"\d+(?:\.\d*)?", text)]
    if len(parts) > 3:
        raise ValueError(text)
    size = sum(part / 60.0 ** power for power, part in enumerate(parts))
    return -size if text.strip().startswith("-") else size


def exposure_of(camera: Camera, headers: Sequence[Cards], file_name: str) -> Exposure:
    """What a raw file says of its exposure.

    The date is moved to the middle of the exposure and to TAI. Dark time defaults to the exposure time, pointing and
    airmass to NaN, the rotation to 0.

    Raises
    ------
    BadData
        A required key is missing or does not fit, the kind or band is unknown.
    """
    rules = camera.header

    def value(name: str, default: Any = None) -> Any:
        found = translate(rules[name], headers, file_name, name) if name in rules else None
        return default if found is None else found

    def number(name: str, default: float) -> float:
        found = value(name, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise BadData(f"{file_name}: {name} is {found!r:.40}, not a number; mend the header")
        return float(found)

    kind = value("kind")
    if kind not in KINDS:
        raise BadData(f"{file_name}: kind is {kind!r:.40}, must be one of {', '.join(KINDS)}; see header.kind of the camera")
    band = str(value("band", "") if kind in ("science", "flat") else "")
    if kind in ("science", "flat") and band not in camera.bands:
        raise BadData(f"{file_name}: band '{band}' is not one of the camera's {', '.join(camera.bands)}; see header.band")
    visit, exposure_time = value("visit"), number("exposure_time", 0.0)
    if isinstance(visit, bool) or not isinstance(visit, int) or not 0 <= visit < 2**63:
        raise BadData(f"{file_name}: visit is {visit!r:.40}, must be a whole number; see header.visit of the camera")
    if exposure_time < 0:
        raise BadData(f"{file_name}: exposure time {exposure_time} s is negative; mend the header")
    mjd = number("mjd", math.nan)
    rule = rules["mjd"]
    mjd += (tai_minus_utc(mjd) if rule.time_scale == "utc" else 0.0) / 86400.0
    mjd += ({"start": 0.5, "middle": 0.0, "end": -0.5}[rule.time_at] * exposure_time + rule.offset) / 86400.0
    return Exposure(visit=visit, kind=kind, band=band, mjd=mjd, exposure_time=exposure_time,
                    dark_time=number("dark_time", exposure_time), ra=number("ra", math.nan), dec=number("dec", math.nan),
                    rotation=number("rotation", 0.0), airmass=number("airmass", math.nan),
                    readout_mode=str(value("readout_mode", "")).strip(), binning=str(value("binning", "")).strip())


def mode_of(exposure: Exposure, camera: Camera, detector: Detector) -> str:
    """How a detector was read out, as far as the headers tell: frames of different modes are not combined.

    Parameters
    ----------
    detector : with its headers' values; all or some of its amplifiers

    Returns
    -------
    JSON text of a mapping; '{}' where the camera's headers tell nothing
    """
    mode = {"read-out mode": exposure.readout_mode, "binning": exposure.binning}
    if "gain" in camera.header:
        mode |= {f"gain of {amplifier.name}": f"{amplifier.gain:.6g}" for amplifier in detector.amplifiers}
    return json.dumps({name: value for name, value in mode.items() if value}, sort_keys=True)


def mode_difference(first: str, second: str) -> str:
    """In what two modes of `mode_of` differ, '' if they agree: 'gain of A1 is 1.5 and 1.6'."""
    one, two = (json.loads(text or "{}") for text in (first, second))
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            return f"{name} is {one.get(name, 'unknown')} and {two.get(name, 'unknown')}"
    return ""


def with_header_values(camera: Camera, detector: Detector, band: str, headers: Sequence[Cards], file_name: str) -> Detector:
    """The detector with gain and read noise of the band and, where the camera says so, of the amplifiers' headers.

    `headers` has one entry per amplifier, in the detector's order: the cards of the HDU and file that hold it.

    Raises
    ------
    BadData
        A required key is missing, or a gain is not positive.
    """
    detector = detector.in_band(band)
    rules = {name: camera.header[name] for name in AMPLIFIER_KEYS if name in camera.header}
    if not rules:
        return detector
    amplifiers = []
    for amplifier, cards in zip(detector.amplifiers, headers, strict=True):
        found = {name: translate(rule.model_copy(update={"hdu": 0}), [cards], file_name, name) for name, rule in rules.items()}
        found = {name: value for name, value in found.items() if value is not None}
        for name, value in found.items():
            if not isinstance(value, (int, float)) or not (value > 0 or (name == "read_noise" and value == 0)):
                raise BadData(f"{file_name}: {name} of amplifier {amplifier.name} is {value!r:.40}; mend the header")
        amplifiers.append(amplifier.model_copy(update={name: float(value) for name, value in found.items()}))
    return detector.model_copy(update={"amplifiers": tuple(amplifiers)})


def crosstalk_of(camera: Camera, detector: Detector, headers: Sequence[Cards], file_name: str) -> Crosstalk | None:
    """The coefficients of crosstalk in a header, in electrons per electron; None where the camera names no keys.

    detector : with the gains of this exposure, which turn ADU per ADU into electrons per electron

    Raises
    ------
    BadData
        A coefficient is missing, or is no number that could be one.
    """
    rule = camera.crosstalk
    if rule is None:
        return None
    cards = headers[rule.hdu] if rule.hdu < len(headers) else {}
    n = len(detector.amplifiers)
    coefficient = np.zeros((n, n))
    for target, to in enumerate(detector.amplifiers):
        for source, of in enumerate(detector.amplifiers):
            if source == target:
                continue
            key = rule.key.format(source=source + 1, target=target + 1, source_name=of.name, target_name=to.name)
            value = cards.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 0.1:
                raise BadData(f"{file_name}: coefficient of crosstalk {key} is {value!r:.40}; mend the header or take "
                              "crosstalk.key out of the camera")
            coefficient[target, source] = value * (to.gain / of.gain if rule.unit == "ADU" else 1.0)
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    return Crosstalk(names, names, coefficient, np.full((n, n), np.nan), np.zeros((n, n)), np.zeros((n, n), np.int64))
