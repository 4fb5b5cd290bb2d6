"""Raw exposures of any described camera: which files there are, a verdict on each, and the segments of one detector.

A file is looked at once, by `examine`, and never stops the others: whatever is wrong with it becomes its verdict.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BadData, ConfigError
from ..products.assembly import mean_wcs, wcs_of_amplifier
from ..products.box import Box
from ..products.camera import Amplifier, Camera, Detector
from ..products.exposure import Exposure, RawDetector
from ..products.focalplane import rough_wcs
from ..products.header import crosstalk_of, exposure_of, mode_of, translate, with_header_values
from ..products.wcs import Wcs
from . import sdss
from .fits import Cards, FitsFile, Hdu, write_fits

__all__ = ["RawFile", "examine", "find_files", "read_raw_detector", "scan", "settle", "write_raw"]

SCALE_TOLERANCE = 0.2  # a header's WCS whose pixels differ more from the camera's is not believed
RAW_TYPES = {"u1": np.uint16, "i1": np.int32, "i2": np.int32, "u2": np.uint16, "i4": np.int32, "f4": np.float32}


@dataclass(frozen=True)
class RawFile:
    """One file, or one detector's part of a file that holds several; what its header says and whether it can be used.

    Attributes
    ----------
    path : Path
    exposure : Exposure; None where the header could not be translated
    detector, amplifier : names; '' where unknown, amplifier None where the file holds all of them
    verdict : 'ok', 'fixed' (usable, `message` says what was put right) or 'refused' (`message` says why)
    size, mtime : bytes, seconds since 1970
    fingerprint : hash of the content, see `FitsFile.fingerprint`; followed by + and that of the mask file
    wcs : rough, of the assembled detector; None if unknown, and where the entry comes from survey.db
    mask : the mask file that belongs to it, or None
    mode : how its amplifiers were read out, see `products.header.mode_of`
    """

    path: Path
    exposure: Exposure | None = None
    detector: str = ""
    amplifier: str | None = None
    verdict: str = "ok"
    message: str = ""
    size: int = 0
    mtime: float = 0.0
    fingerprint: str = ""
    wcs: Wcs | None = None
    mask: Path | None = None
    mode: str = "{}"

    @property
    def usable(self) -> bool:
        """Not refused."""
        return self.verdict != "refused"

    def refused(self, reason: str) -> RawFile:
        """The same with this verdict."""
        return replace(self, verdict="refused", message=reason)


def scan(data: Iterable[str | Path], camera: Camera) -> list[RawFile]:
    """Every raw file of a camera in the given places, each with its verdict; sorted by path.

    Parameters
    ----------
    data : folders (searched with all below them), glob patterns, or files

    Raises
    ------
    ConfigError
        A place does not exist, or no file there is named as the camera's files are.
    """
    return settle([found for path in find_files(data, camera) for found in examine(path, camera)])


def find_files(data: Iterable[str | Path], camera: Camera) -> list[Path]:
    """The files whose names fit the camera's pattern, sorted; see `scan`."""
    places = [data] if isinstance(data, (str, Path)) else list(data)
    pattern, found, others = re.compile(camera.layout.pattern), set(), 0
    for place in places:
        for path in _files_at(Path(place).expanduser()):
            if pattern.search(path.name):
                found.add(path)
            else:
                others += 1
    if not found:
        raise ConfigError(f"no raw files match {camera.layout.pattern} in {', '.join(map(str, places)) or 'no folder'} "
                          f"({others} other files); set data to where they are, or camera to the one that took them")
    return sorted(found)


def _files_at(place: Path) -> list[Path]:
    """Files in a folder and below, of a glob pattern, or the file itself."""
    if place.is_dir():
        return [Path(folder, name) for folder, _, names in os.walk(place, followlinks=True) for name in names]
    if place.exists():
        return [place]
    if glob.has_magic(str(place)):
        return [Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
    raise ConfigError(f"data: {place} does not exist; give a folder, a file or a glob pattern")


def examine(path: str | Path, camera: Camera) -> list[RawFile]:
    """What one file holds: one entry, or one per detector where the file holds all of a camera's several. Never raises
    for what is wrong with the file.
    """
    path = Path(os.path.abspath(path))
    entry = RawFile(path)
    try:
        status = os.stat(path)
        entry = replace(entry, size=status.st_size, mtime=status.st_mtime)
        with FitsFile(path, keep=False) as file:
            headers = file.headers
            entry = replace(entry, fingerprint=file.fingerprint(), exposure=exposure_of(camera, headers, path.name))
            notes = _fallbacks(camera, headers, path.name) + ([] if file.padded else ["last block is not filled up"])
            return [_part_of(entry, camera, name, headers, notes) for name in _detectors_in(camera, headers, path)]
    except (BadData, ConfigError) as error:
        return [entry.refused(_without(path, str(error)))]
    except OSError as error:
        return [entry.refused(f"cannot be read ({error.strerror}); mend or fetch it")]


def _without(path: Path, message: str) -> str:
    """A message without the file's name at its front, which the entry has."""
    return message.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")


def _detectors_in(camera: Camera, headers: Sequence[Cards], path: Path) -> list[str]:
    """Names of the detectors that a file holds."""
    if camera.layout.kind == "multi-extension" and len(camera.detectors) > 1:
        return [detector.name for detector in camera.detectors]
    named = _from_name(camera, path, "detector")
    rule = camera.header.get("detector")
    found = translate(rule, headers, path.name, "detector") if rule else None
    if found is not None and named and str(found) != named:
        raise BadData(f"detector is {found} in the header and {named} in the file name; mend one of them")
    if found is None and not named and len(camera.detectors) == 1:
        return [camera.detectors[0].name]
    if found is None and not named:
        raise BadData("neither header nor file name says which detector it is; see header.detector of the camera")
    return [str(found) if found is not None else named]


def _from_name(camera: Camera, path: Path, group: str) -> str:
    """A named group of the layout's pattern; '' if there is none."""
    match = re.search(camera.layout.pattern, path.name)
    return (match.groupdict().get(group) or "") if match else ""


def _part_of(entry: RawFile, camera: Camera, name: str, headers: Sequence[Cards], notes: list[str]) -> RawFile:
    """A file's entry for one detector, checked against the camera's description."""
    entry = replace(entry, detector=name)
    try:
        exposure, detector = entry.exposure, camera.detector(name)
        if camera.layout.kind == "amplifier":
            entry = replace(entry, amplifier=_amplifier_of(camera, detector, entry.path).name)
        named = _from_name(camera, entry.path, "band")
        if exposure.band and named and named != exposure.band:
            raise BadData(f"band is {exposure.band} in the header and {named} in the file name; mend one of them")
        amplifiers = _amplifiers_in(entry, detector)
        _check_sizes(amplifiers, headers, camera.name)
        own = [headers[amplifier.hdu] for amplifier in amplifiers]
        inside = detector.model_copy(update={"amplifiers": amplifiers})
        entry = replace(entry, mode=mode_of(exposure, camera, with_header_values(camera, inside, exposure.band, own,
                                                                                  entry.path.name)))
        crosstalk_of(camera, inside, headers, entry.path.name)
        if exposure.kind == "science":
            wcs, note = _wcs_of(camera, detector, amplifiers, exposure, headers)
            entry, notes = replace(entry, wcs=wcs), notes + note
            if camera.layout.masks == "sdss-fpm":
                entry = _with_mask(entry, sdss.mask_file_of(entry.path))
    except (BadData, ConfigError) as error:
        return entry.refused(_without(entry.path, str(error)))
    return replace(entry, verdict="fixed" if notes else "ok", message="; ".join(notes))


def _with_mask(entry: RawFile, mask: Path) -> RawFile:
    """The entry with its mask file, which is a part of the content."""
    with FitsFile(mask, keep=False) as file:
        return replace(entry, mask=mask, fingerprint=f"{entry.fingerprint}+{file.fingerprint()}")


def _amplifier_of(camera: Camera, detector: Detector, path: Path) -> Amplifier:
    """The amplifier that a file's name says."""
    name = _from_name(camera, path, "amplifier")
    for amplifier in detector.amplifiers:
        if amplifier.name == name:
            return amplifier
    raise BadData(f"file name says amplifier '{name}', detector {detector.name} has "
                  f"{', '.join(amplifier.name for amplifier in detector.amplifiers)}")


def _amplifiers_in(entry: RawFile, detector: Detector) -> tuple[Amplifier, ...]:
    """The amplifiers that this file holds."""
    return tuple(amplifier for amplifier in detector.amplifiers if entry.amplifier in (None, amplifier.name))


def _fallbacks(camera: Camera, headers: Sequence[Cards], name: str) -> list[str]:
    """What the camera's description had to say because a header did not."""
    notes = []
    for what, rule in camera.header.items():
        if rule.value is not None and (rule.key or rule.keys) and what != "detector":
            bare = rule.model_copy(update={"value": None, "required": False})
            if translate(bare, headers, name, what) is None:
                notes.append(f"no key {rule.key or ' or '.join(rule.keys)}: {what} taken as {rule.value}")
    return notes


def _check_sizes(amplifiers: Sequence[Amplifier], headers: Sequence[Cards], camera: str) -> None:
    """That each image is as large as its amplifiers' sections together."""
    for hdu in sorted({amplifier.hdu for amplifier in amplifiers}):
        sections = [Box(*amplifier.section) for amplifier in amplifiers if amplifier.hdu == hdu]
        wanted = (max(box.x1 for box in sections), max(box.y1 for box in sections))
        if hdu >= len(headers):
            raise BadData(f"has {len(headers)} HDUs, camera {camera} reads HDU {hdu}; fetch it again or change the "
                          f"camera")
        cards = headers[hdu]
        is_image = cards.get("NAXIS", 0) >= 2 and "TFIELDS" not in cards
        found = (cards.get("NAXIS1"), cards.get("NAXIS2")) if is_image else (0, 0)
        if found != wanted:
            raise BadData(f"image of HDU {hdu} is {found[0]} x {found[1]} pixels, camera {camera} has {wanted[0]} x "
                          f"{wanted[1]}; leave it out or describe its read-out mode as a camera")


def _wcs_of(camera: Camera, detector: Detector, amplifiers: Sequence[Amplifier], exposure: Exposure,
            headers: Sequence[Cards]) -> tuple[Wcs | None, list[str]]:
    """(rough WCS of the assembled detector, what had to be put right)."""
    if camera.wcs == "none":
        return None, []
    why = []
    if camera.wcs == "header":
        try:
            return _header_wcs(camera, amplifiers, headers, detector), []
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            reason = f"no {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
            why = [f"no usable WCS in the header ({reason}): taken from the pointing"]
    if np.isnan(exposure.ra) or np.isnan(exposure.dec):
        missing = why[0].split(": taken")[0] if why else "camera.wcs is geometry"
        raise BadData(f"{missing} and no pointing (ra, dec); add one of them to the header")
    if not -90.0 <= exposure.dec <= 90.0:
        raise BadData(f"declination {exposure.dec} of the pointing is outside -90..90; mend the header")
    return rough_wcs(camera, detector, exposure.ra, exposure.dec, exposure.rotation), why


def _header_wcs(camera: Camera, amplifiers: Sequence[Amplifier], headers: Sequence[Cards], detector: Detector) -> Wcs:
    """The header's WCS, in pixels of the assembled detector; ValueError or KeyError where it is of no use."""
    if camera.wcs_pixels == "amplifier":
        found = [wcs_of_amplifier(_believable(headers[amplifier.hdu], camera), amplifier) for amplifier in amplifiers]
        return mean_wcs(found, detector)
    if camera.wcs_hdu >= len(headers):
        raise ValueError(f"there is no HDU {camera.wcs_hdu}")
    return _believable(headers[camera.wcs_hdu], camera)


def _believable(cards: Cards, camera: Camera) -> Wcs:
    wcs = Wcs.from_header(cards)
    if not np.all(np.isfinite([*wcs.crval, *wcs.crpix, *wcs.cd[0], *wcs.cd[1]])) or abs(wcs.crval[1]) > 90.0:
        raise ValueError("it is not finite, or its declination is outside -90..90")
    if abs(wcs.pixel_scale / camera.pixel_scale - 1.0) > SCALE_TOLERANCE:
        raise ValueError(f"its pixels are {wcs.pixel_scale:.4g} arcsec, the camera's {camera.pixel_scale:g}")
    return wcs


def settle(files: Sequence[RawFile]) -> list[RawFile]:
    """Refuse what contradicts earlier files: two files of the same pixels, two meanings of the same visit."""
    settled, owners, exposures = [], {}, {}
    for entry in sorted(files, key=lambda entry: (str(entry.path), entry.detector)):
        if entry.usable:
            key = (entry.exposure.visit, entry.detector, entry.amplifier)
            first = exposures.setdefault(entry.exposure.visit, entry)
            contradiction = _contradiction(first.exposure, entry.exposure)
            if contradiction:
                entry = entry.refused(f"visit {key[0]} {contradiction} {first.path.name}; see header.visit of the "
                                      f"camera")
            elif key in owners:
                entry = entry.refused(f"the same visit {key[0]} and detector {key[1]} as {owners[key]}; remove one")
            else:
                owners[key] = entry.path
        settled.append(entry)
    return settled


def _contradiction(first: Exposure, second: Exposure) -> str:
    """In what two files of a visit differ; '' if they agree."""
    kinds = [f"{exposure.kind} {exposure.band}".rstrip() for exposure in (first, second)]
    if kinds[0] != kinds[1]:
        return f"is {kinds[1]} here and {kinds[0]} in"
    if not abs(first.exposure_time - second.exposure_time) <= 1.0:
        return "was not exposed as long here as in"
    together = abs(first.mjd - second.mjd) <= (60.0 + first.exposure_time) / 86400.0
    return "" if together else "was taken at another time than in"


def read_raw_detector(files: Sequence[RawFile], camera: Camera, detector: str) -> RawDetector:
    """The segments of one detector, and what its headers say of gains and WCS.

    Parameters
    ----------
    files : the usable entries of `scan` for one visit and detector
    detector : name

    Raises
    ------
    BadData
        A file is missing or damaged, or is no longer what was examined.
    """
    described = camera.detector(detector)
    files = [entry for entry in files if entry.detector == detector and entry.usable]
    if not files:
        raise BadData(f"detector {detector}: no usable raw file; fetch it or leave the detector out")
    exposure = files[0].exposure
    by_amplifier = {entry.amplifier: entry for entry in files}
    missing = [a.name for a in described.amplifiers if None not in by_amplifier and a.name not in by_amplifier]
    if missing:
        raise BadData(f"visit {exposure.visit} detector {detector}: no file for amplifier {', '.join(missing)}; "
                      f"fetch it or leave the detector out")
    segments: dict[str, np.ndarray] = {}
    headers: dict[str, Cards] = {}
    solutions: list[Wcs] = []
    for entry in by_amplifier.values():
        amplifiers = _amplifiers_in(entry, described)
        with FitsFile(entry.path, keep={amplifier.hdu for amplifier in amplifiers}) as file:
            _check_read(entry, amplifiers, file, camera)
            cards = file.headers
            for amplifier in amplifiers:
                headers[amplifier.name] = file.header(amplifier.hdu)
                segments[amplifier.name] = _as_raw(file.image(amplifier.hdu, Box(*amplifier.section)))
            if exposure.kind == "science":
                solutions += _found_wcs(entry, camera, described, amplifiers, file.headers)
    names = [amplifier.name for amplifier in described.amplifiers]
    path = next(iter(by_amplifier.values())).path
    filled = with_header_values(camera, described, exposure.band, [headers[name] for name in names], path.name)
    return RawDetector(exposure, filled, tuple(segments[name] for name in names),
                       mean_wcs(solutions, described) if solutions else None,
                       _names_of([entry.path for entry in by_amplifier.values()]),
                       _mask_of(by_amplifier, described), camera.pixel_size,
                       crosstalk_of(camera, filled, cards, path.name))


def _check_read(entry: RawFile, amplifiers: Sequence[Amplifier], file: FitsFile, camera: Camera) -> None:
    """That a file is still what was examined."""
    if entry.fingerprint and file.fingerprint() != entry.fingerprint.partition("+")[0]:
        raise BadData(f"{entry.path}: has changed since it was ingested; run ingest again")
    try:
        _check_sizes(amplifiers, file.headers, camera.name)
    except BadData as error:
        raise BadData(f"{entry.path}: {error}") from None


def _found_wcs(entry: RawFile, camera: Camera, detector: Detector, amplifiers: Sequence[Amplifier],
               headers: Sequence[Cards]) -> list[Wcs]:
    """The rough WCS again, or nothing."""
    try:
        wcs, _ = _wcs_of(camera, detector, amplifiers, entry.exposure, headers)
    except BadData as error:
        raise BadData(f"{entry.path}: {error}") from None
    return [] if wcs is None else [wcs]


def _mask_of(files: dict[str | None, RawFile], detector: Detector) -> np.ndarray | None:
    paths = [entry.mask for entry in files.values() if entry.mask is not None]
    return sdss.read_mask(paths[0], detector.box.shape) if paths else None


def _as_raw(values: np.ndarray) -> np.ndarray:
    """uint16, int32 or float32."""
    return values.astype(RAW_TYPES.get(values.dtype.str[1:], np.float32), copy=False)


def _names_of(paths: Sequence[Path]) -> str:
    """A short name of the files for messages."""
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"


def write_raw(path: str | Path, hdus: Sequence[tuple[np.ndarray | None, dict]]) -> None:
    """Write raw images with their cards, one HDU each, as a whole or not at all; uint16 with BZERO, as cameras do."""
    write_fits(path, [Hdu(data, cards) for data, cards in hdus])
