"""survey.db: what `ingest` found, in SQLite: exposures, files with verdicts, detectors on the sky, tract overlaps.

Written aside and renamed on one rank, then only read, as a whole: no data base is on the path of the computation.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import BadData, ConfigError, Damaged
from ..products.assembly import mean_wcs
from ..products.camera import Camera
from ..products.exposure import Exposure
from ..products.skymap import RingsSkyMap
from ..products.wcs import Wcs
from .atomic import atomic
from .raw import RawFile

__all__ = ["Pointing", "Survey", "read_survey", "survey_identity", "survey_of", "write_survey"]

FORMAT_VERSION = 2
"""Raised when an older program would misread the tables; what is only added does not raise it."""

MARGIN = 30.0
"""Arcsec by which a rough WCS may be off: overlaps are looked for so much further out."""

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE exposures (visit INTEGER PRIMARY KEY, kind TEXT NOT NULL, band TEXT NOT NULL, mjd REAL, exposure_time REAL,
    dark_time REAL, ra REAL, dec REAL, rotation REAL, airmass REAL,
    readout_mode TEXT NOT NULL, binning TEXT NOT NULL);
CREATE TABLE files (number INTEGER PRIMARY KEY, path TEXT NOT NULL, visit INTEGER, detector TEXT NOT NULL,
    amplifier TEXT, verdict TEXT NOT NULL, message TEXT NOT NULL, size INTEGER, mtime REAL,
    fingerprint TEXT, mask TEXT, mode TEXT NOT NULL);
CREATE TABLE detectors (visit INTEGER, detector TEXT, ra0 REAL, dec0 REAL, ra1 REAL, dec1 REAL, ra2 REAL, dec2 REAL,
    ra3 REAL, dec3 REAL, PRIMARY KEY (visit, detector));
CREATE TABLE overlaps (visit INTEGER, detector TEXT, tract INTEGER, patch INTEGER);
CREATE TABLE names (number INTEGER PRIMARY KEY, detector TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Pointing:
    """One detector of one visit: its outer corners on the sky by the rough WCS, ICRS degrees; NaN where unknown."""

    visit: int
    detector: str
    ra: tuple[float, float, float, float]
    dec: tuple[float, float, float, float]


@dataclass(frozen=True)
class Survey:
    """All that `ingest` found, in memory.

    Attributes
    ----------
    camera : its name
    all_files : every raw file with its verdict, sorted by path; from survey.db they come without the WCS, which
        reading the pixels finds again
    pointings : every usable detector of every exposure, by visit, then in the camera's order
    rows : (n, 4) int64 (visit, detector's number in `names`, tract, patch) of every science detector, sorted
    names : of the camera's detectors, in its order
    identity : what `ingest` was asked to make, see `survey_identity`
    """

    camera: str
    all_files: tuple[RawFile, ...]
    pointings: tuple[Pointing, ...]
    rows: np.ndarray
    names: tuple[str, ...]
    identity: str = ""

    @cached_property
    def _exposures(self) -> dict[int, Exposure]:
        found = {entry.exposure.visit: entry.exposure for entry in reversed(self.all_files) if entry.usable}
        return dict(sorted(found.items()))

    @cached_property
    def _files(self) -> dict[tuple[int, str], list[RawFile]]:
        found: dict[tuple[int, str], list[RawFile]] = {}
        for entry in self.all_files:
            if entry.usable:
                found.setdefault((entry.exposure.visit, entry.detector), []).append(entry)
        return found

    @cached_property
    def _detectors(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for pointing in self.pointings:
            found.setdefault(pointing.visit, []).append(pointing.detector)
        return found

    @cached_property
    def _tracts(self) -> dict[int, np.ndarray]:
        """tract -> its rows."""
        order = self.rows[np.argsort(self.rows[:, 2], kind="stable")]
        numbers, starts = np.unique(order[:, 2], return_index=True)
        return dict(zip(numbers.tolist(), np.split(order, starts[1:])))

    @cached_property
    def _seen(self) -> set[tuple[int, int]]:
        """(visit, tract) that overlap."""
        return set(map(tuple, np.unique(self.rows[:, [0, 2]], axis=0).tolist()))

    def exposures(self, kind: str | None = None, band: str | None = None) -> list[Exposure]:
        """The exposures of a kind and band (None: any), by visit number."""
        return [exposure for exposure in self._exposures.values()
                if kind in (None, exposure.kind) and band in (None, exposure.band)]

    def exposure(self, visit: int) -> Exposure:
        """One exposure; ConfigError if there is none."""
        if visit not in self._exposures:
            raise ConfigError(f"visit {visit}: there is no such exposure among the {len(self._exposures)} ingested")
        return self._exposures[visit]

    def detectors(self, visit: int) -> list[str]:
        """Names of the detectors of a visit that have usable files, in the camera's order."""
        return list(self._detectors.get(visit, ()))

    def files(self, visit: int, detector: str) -> list[RawFile]:
        """The usable files of a detector in an exposure: one, or one per amplifier."""
        return list(self._files.get((visit, detector), ()))

    def mode(self, visit: int, detector: str) -> str:
        """How a detector was read out in an exposure, see `products.header.mode_of`."""
        modes = [json.loads(entry.mode) for entry in self.files(visit, detector)]
        return json.dumps({name: value for mode in modes for name, value in mode.items()}, sort_keys=True)

    def refused(self) -> list[RawFile]:
        """The files that cannot be used, with the reasons."""
        return [entry for entry in self.all_files if not entry.usable]

    def missing(self, camera: Camera) -> list[str]:
        """One line for each detector that an exposure lacks, or lacks an amplifier of."""
        lines = []
        for visit in self._exposures:
            for detector in camera.detectors:
                found = {entry.amplifier for entry in self.files(visit, detector.name)}
                lacking = [amplifier.name for amplifier in detector.amplifiers if not {None, amplifier.name} & found]
                part = "" if not found else f" amplifier {', '.join(lacking)}:"
                lines += [f"visit {visit} detector {detector.name}:{part} no usable raw file; fetch it, or go on "
                          f"without this detector"] if lacking else []
        return lines

    def tracts(self) -> list[int]:
        """Numbers of the tracts that science detectors overlap."""
        return sorted(self._tracts)

    def overlaps(self, tract: int) -> list[tuple[int, str, tuple[int, ...]]]:
        """(visit, detector, patches) of a tract, by visit, then in the camera's order."""
        found: dict[tuple[int, int], list[int]] = {}
        for visit, detector, _, patch in self._tracts.get(tract, np.zeros((0, 4), int)).tolist():
            found.setdefault((visit, detector), []).append(patch)
        return [(visit, self.names[detector], tuple(patches)) for (visit, detector), patches in found.items()]

    def touches(self, visit: int, tracts: Iterable[int]) -> bool:
        """Whether a visit overlaps any of some tracts."""
        return any((visit, tract) in self._seen for tract in tracts)

    @property
    def has_calibrations(self) -> bool:
        """Whether there is any bias, dark or flat frame."""
        return any(exposure.kind != "science" for exposure in self._exposures.values())

    def hash_of_inputs(self, visit: int, detector: str | None = None) -> str:
        """32 hexadecimal digits that change when a usable file of a visit or detector comes, goes or changes."""
        names = self.detectors(visit) if detector is None else [detector]
        rows = sorted((name, entry.amplifier or "", entry.fingerprint)
                      for name in names for entry in self.files(visit, name))
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def survey_of(files: Sequence[RawFile], camera: Camera, skymap: RingsSkyMap, identity: str = "") -> Survey:
    """The survey that examined and settled files make: detectors on the sky and the patches they may touch."""
    files = tuple(sorted(files, key=lambda entry: (str(entry.path), entry.detector)))
    pointings = _pointings(files, camera)
    science = {entry.exposure.visit for entry in files if entry.usable and entry.exposure.kind == "science"}
    placed = [item for item in pointings if item.visit in science and not math.isnan(item.ra[0])]
    names = tuple(detector.name for detector in camera.detectors)
    rows = np.zeros((0, 4), np.int64)
    if placed:
        found = skymap.overlaps(np.array([item.ra for item in placed]), np.array([item.dec for item in placed]), MARGIN)
        which = np.array([(item.visit, names.index(item.detector)) for item in placed])[found[:, 0]]
        rows = np.unique(np.concatenate([which, found[:, 1:]], axis=1), axis=0)
    return Survey(camera.name, files, pointings, rows, names, identity)


def _pointings(files: Sequence[RawFile], camera: Camera) -> tuple[Pointing, ...]:
    """Every usable detector of every exposure, with the corners where a file has a WCS."""
    order = {detector.name: number for number, detector in enumerate(camera.detectors)}
    members: dict[tuple[int, int], list[Wcs]] = {}
    for entry in files:
        if entry.usable:
            solutions = members.setdefault((entry.exposure.visit, order[entry.detector]), [])
            solutions += [entry.wcs] if entry.wcs is not None else []
    found = []
    for (visit, number), solutions in sorted(members.items()):
        detector = camera.detectors[number]
        ra, dec = np.full((2, 4), np.nan)
        if solutions:
            ra, dec = mean_wcs(solutions, detector).pixel_to_sky(*detector.box.corners().T)
        found.append(Pointing(visit, detector.name, tuple(ra.tolist()), tuple(dec.tolist())))
    return tuple(found)


def write_survey(path: str | Path, survey: Survey) -> None:
    """Write survey.db as a whole or not at all.

    Raises
    ------
    BadData
        The folder is full or cannot be written.
    """
    with atomic(path) as aside:
        try:
            with closing(sqlite3.connect(aside, isolation_level=None)) as database:
                _fill(database, survey)
        except sqlite3.OperationalError as error:
            code = errno.ENOSPC if "full" in str(error) or "disk I/O" in str(error) else errno.EACCES
            raise OSError(code, str(error)) from None


def _fill(database: sqlite3.Connection, survey: Survey) -> None:
    database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; "
                           f"PRAGMA user_version = {FORMAT_VERSION}; BEGIN; {TABLES}")
    database.executemany("INSERT INTO about VALUES (?, ?)", [("camera", survey.camera), ("identity", survey.identity)])
    database.executemany(f"INSERT INTO exposures VALUES ({', '.join('?' * len(fields(Exposure)))})",
                         map(astuple, _all_exposures(survey)))
    database.executemany(f"INSERT INTO files VALUES ({', '.join('?' * 12)})", [
        (number, str(entry.path), entry.exposure and entry.exposure.visit, entry.detector, entry.amplifier,
         entry.verdict, entry.message, entry.size, entry.mtime, entry.fingerprint, entry.mask and str(entry.mask), entry.mode)
        for number, entry in enumerate(survey.all_files)])
    database.executemany(f"INSERT INTO detectors VALUES ({', '.join('?' * 10)})", [
        (item.visit, item.detector, *(value for corner in zip(item.ra, item.dec) for value in corner))
        for item in survey.pointings])
    database.executemany("INSERT INTO names VALUES (?, ?)", enumerate(survey.names))
    database.executemany("INSERT INTO overlaps VALUES (?, ?, ?, ?)", (
        (visit, survey.names[detector], tract, patch) for visit, detector, tract, patch in survey.rows.tolist()))
    database.execute("COMMIT")


def _all_exposures(survey: Survey) -> list[Exposure]:
    """One per visit; those of refused files too, where no usable file has the visit."""
    found = {entry.exposure.visit: entry.exposure for entry in survey.all_files if entry.exposure is not None}
    return [exposure for _, exposure in sorted({**found, **survey._exposures}.items())]


def read_survey(path: str | Path) -> Survey:
    """The whole of survey.db.

    Raises
    ------
    ConfigError
        There is none, or a newer version of the program wrote it.
    BadData
        It is damaged.
    """
    with _opened(path) as database:
        try:
            damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            _current(path, database)
            return _survey_in(database)
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
            raise _damaged(path, error) from None


def survey_identity(path: str | Path) -> str | None:
    """The identity that a survey.db was written with; None where there is none, '' for an older version. Raises as `read_survey`."""
    if not Path(path).exists():
        return None
    with _opened(path) as database:
        try:
            if 0 < database.execute("PRAGMA user_version").fetchone()[0] < FORMAT_VERSION:
                return ""
            return str(database.execute("SELECT value FROM about WHERE name = 'identity'").fetchone()[0])
        except (sqlite3.Error, TypeError) as error:
            raise _damaged(path, error) from None


def _damaged(path: str | Path, error: Exception) -> Damaged:
    return Damaged(f"{path}: damaged ({' '.join(str(error).split()):.80}); delete it and run ingest again")


def _opened(path: str | Path):
    """A read-only connection to a data base of a version that is understood; locks nothing, leaves no file beside."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: is missing; run ingest first")
    database = None
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        version = database.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise _damaged(path, error) from None
    if version > FORMAT_VERSION:
        database.close()
        raise ConfigError(f"{path}: has format {version}, this program reads up to {FORMAT_VERSION}: use the newer one "
                          f"that wrote it, or another output folder")
    return closing(database)


def _current(path: str | Path, database: sqlite3.Connection) -> None:
    """ConfigError for an older version, which lacks columns."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if 0 < version < FORMAT_VERSION:
        raise ConfigError(f"{path}: has format {version} of an older program; run ingest again")


def _survey_in(database: sqlite3.Connection) -> Survey:
    about = dict(database.execute("SELECT name, value FROM about"))
    exposures = {row[0]: Exposure(*_nan(row)) for row in database.execute("SELECT * FROM exposures")}
    files = tuple(
        RawFile(Path(path), None if visit is None else exposures[visit], sys.intern(detector), amplifier,
                sys.intern(verdict), message, size, mtime, fingerprint, None, mask and Path(mask), sys.intern(mode))
        for path, visit, detector, amplifier, verdict, message, size, mtime, fingerprint, mask, mode in database.execute(
            "SELECT path, visit, detector, amplifier, verdict, message, size, mtime, fingerprint, mask, mode FROM files "
            "ORDER BY number"))
    pointings = tuple(Pointing(row[0], sys.intern(row[1]), _nan(row[2::2]), _nan(row[3::2]))
                      for row in database.execute("SELECT * FROM detectors ORDER BY rowid"))
    rows = list(database.execute("SELECT o.visit, n.number, o.tract, o.patch FROM overlaps o "
                                 "JOIN names n USING (detector) ORDER BY o.rowid"))
    names = tuple(row[0] for row in database.execute("SELECT detector FROM names ORDER BY number"))
    return Survey(about["camera"], files, pointings, np.array(rows, np.int64).reshape(-1, 4), names, about["identity"])


def _nan(row: tuple) -> tuple:
    """SQLite keeps NaN as NULL."""
    return tuple(math.nan if value is None else value for value in row)
