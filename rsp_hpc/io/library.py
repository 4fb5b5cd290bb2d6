"""The calibration library: one file per kind, label and detector, and the ledger that says which is valid when.

    <library>/<kind>[-<band>]/<label>/<detector>.h5     products (`io.calibration`)
    <library>/ledger.json                               certificates; replaced as a whole

A product is found by the date of the exposure. Where a kind (and band) of a detector has certificates, one of them must
cover the date; where it has none, the product that this very survey built (its label) holds for ever.
"""

from __future__ import annotations

import glob
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadData, ConfigError, Damaged
from ..products.calibration import Calibration
from ..products.electronics import Verdict
from ..products.header import mode_difference
from ..products.kinds import KINDS, Validity, check_content
from .atomic import RunLock, write_text
from .calibration import ProductFacts, read_calibration_product, read_facts, read_plane
from .paths import file_name

__all__ = ["Certificate", "Choice", "Library", "assemble"]

FORMAT, FORMAT_VERSION = "rsp_hpc ledger", 1
PLANES = ("bias", "dark", "flat", "defects", "fringe", "illumination", "sky")


@dataclass(frozen=True)
class Certificate:
    """That a product is valid from `begin` to `end` (MJD TAI, half open).

    Attributes
    ----------
    kind, band, detector, label : which product
    identity : of the product when it was certified; another one is not what was certified
    verdict : its state then; forced : certified though it was bad
    created : when
    """

    kind: str
    band: str
    detector: str
    label: str
    begin: float
    end: float
    identity: str
    verdict: str = "good"
    forced: bool = False
    created: str = ""

    @property
    def validity(self) -> Validity:
        """The range of dates."""
        return Validity(self.begin, self.end)

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, band, detector)."""
        return self.kind, self.band, self.detector


@dataclass(frozen=True)
class Choice:
    """The product that was chosen for a date; small, so that it can travel to the rank that uses it.

    `scale` multiplies its plane: it puts the sky of a detector, mean one there, on the camera's mean.
    """

    path: Path
    identity: str
    verdict: Verdict = field(repr=False, default=Verdict())
    name: str = ""
    scale: float = 1.0


def _name(key: tuple[str, str, str]) -> str:
    kind, band, detector = key
    return f"{' '.join(filter(None, (kind, band)))} of {detector}"


class Library:
    """A folder of calibration products."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._facts: dict[Path, ProductFacts] = {}

    def path(self, kind: str, band: str, label: str, detector: str) -> Path:
        """Where a product lies."""
        return self.folder / file_name("-".join(filter(None, (kind, band)))) / file_name(label) / f"{file_name(detector)}.h5"

    @property
    def ledger(self) -> Path:
        """The file of the certificates."""
        return self.folder / "ledger.json"

    def products(self) -> list[Path]:
        """All product files, sorted."""
        return sorted(path for path in self.folder.glob("*/*/*.h5") if path.name[0] != ".")

    def folders(self) -> list[Path]:
        """The folders that products are written to, of those that are there."""
        return sorted(path for path in self.folder.glob("*/*") if path.is_dir())

    def kinds_of(self, label: str) -> set[str]:
        """Kinds that have any product of a label."""
        return {folder.parent.name.partition("-")[0] for folder in self.folder.glob(f"*/{glob.escape(file_name(label))}")
                if any(path.name[0] != "." for path in folder.glob("*.h5"))} & KINDS.keys()

    def facts(self, path: Path) -> ProductFacts:
        """What a product says of itself; read once."""
        if path not in self._facts:
            self._facts[path] = read_facts(path)
        return self._facts[path]

    @cached_property
    def certificates(self) -> dict[tuple[str, str, str], list[Certificate]]:
        """(kind, band, detector) -> its certificates, by date.

        Raises
        ------
        BadData
            The ledger is damaged, or two of its ranges overlap.
        """
        return _sorted(_read(self.ledger))

    def kinds_certified(self) -> set[str]:
        """Kinds that have any certificate."""
        return {kind for kind, _, _ in self.certificates}

    # -- finding ---------------------------------------------------------------------------------------------------
    def choose(self, key: tuple[str, str, str], mjd: float, labels: tuple[str, ...], how: tuple[str, bool] = ("", False)) -> Choice | None:
        """The product for a date; None where nothing is certified and this label has none.

        Parameters
        ----------
        key : (kind, band, detector)
        mjd : of the exposure
        labels : of the products that hold for ever where nothing is certified; the first that there is
        how : the exposure's read-out mode (`products.header.mode_of`; '' if any will do); whether a product of the labels comes
            before certified ones, as for what is used to build others

        Raises
        ------
        BadData
            No certificate covers the date; the product is missing, damaged, bad, of another read-out mode, or has changed since
            it was certified.
        """
        kind, band, detector = key
        certificates = self.certificates.get(key, [])
        places = [self.path(kind, band, label, detector) for label in labels]
        own = next((path for path in places if path.exists()), None)
        mode, own_first = how
        if own is None and not certificates:
            return None
        if own is not None and (own_first or not certificates):
            certificate, path = None, own
        else:
            certificate = next((item for item in certificates if mjd in item.validity), None)
            if certificate is None:
                raise BadData(_gap(key, mjd, certificates))
            path = self.path(kind, band, certificate.label, detector)
        facts = self.facts(path)
        self._check(facts, key, certificate)
        if mode and facts.mode and (difference := mode_difference(facts.mode, mode)):
            raise BadData(f"{path}: its frames were read out in another way than the exposure: {difference}; build one of this mode")
        return Choice(path, facts.identity, facts.verdict, f"{kind} {band}".strip())

    def _check(self, facts: ProductFacts, key, certificate: Certificate | None) -> None:
        if facts.key != key:
            raise BadData(f"{facts.path}: is the {_name(facts.key)}, wanted the {_name(key)}; put the right file there")
        if certificate is not None and facts.identity != certificate.identity:
            raise BadData(f"{facts.path}: has changed since it was certified on {certificate.created}; look at it (calibs list), "
                          "withdraw the certificate and certify it again")
        if facts.verdict.state == "bad" and not (certificate and certificate.forced):
            raise BadData(f"{facts.path}: is bad ({'; '.join(facts.verdict.reasons) or 'no reason given'}); make a better one, or "
                          "certify it with --force")

    # -- certifying ------------------------------------------------------------------------------------------------
    def certify(self, paths: Iterable[Path], validity: Validity, force: bool = False) -> list[Certificate]:
        """Enter products as valid in a range of dates; all of them or none.

        Raises
        ------
        BadData
            A product cannot be read, is bad (without `force`), or the range overlaps a certified one.
        ConfigError
            The range is empty, or another process writes the ledger.
        """
        if not validity.begin < validity.end:
            raise ConfigError(f"the validity {validity} is empty: the end must be after the begin")
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        new = []
        for path in paths:
            facts = read_facts(path)
            if path != self.path(facts.kind, facts.band, facts.label, facts.detector):
                raise BadData(f"{path}: holds the {_name(facts.key)} ({facts.label}), which is not its place in the library")
            if facts.verdict.state == "bad" and not force:
                raise BadData(f"{path}: is bad ({'; '.join(facts.verdict.reasons)}); certify it with --force if it must be used")
            content = read_calibration_product(path).content
            check_content(content, str(path), finite=True)
            new.append(Certificate(*facts.key, facts.label, validity.begin, validity.end, facts.identity,
                                   facts.verdict.state, facts.verdict.state == "bad", created))
        with RunLock(self.folder):
            self._replace([*_read(self.ledger), *new])
        return new

    def withdraw(self, kind: str, bands: tuple[str, ...], label: str, detectors: tuple[str, ...] = ()) -> list[Certificate]:
        """Take certificates back; those that were. What is empty selects all."""
        with RunLock(self.folder):
            known = _read(self.ledger)
            gone = [item for item in known if kind in ("", item.kind) and label in ("", item.label)
                    and (not bands or item.band in bands) and (not detectors or item.detector in detectors)]
            if gone:
                self._replace([item for item in known if item not in gone])
        return gone

    def _replace(self, certificates: list[Certificate]) -> None:
        ordered = [item for _, items in sorted(_sorted(certificates).items()) for item in items]
        rows = [{name: None if isinstance(value, float) and math.isinf(value) else value for name, value in asdict(item).items()}
                for item in ordered]
        write_text(self.ledger, json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, "certificates": rows}, indent=1))
        self.__dict__.pop("certificates", None)


def _read(path: Path) -> list[Certificate]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{path}: cannot be read ({error})") from None
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError("is no ledger")
        if document["format_version"] > FORMAT_VERSION:
            raise BadData(f"{path}: has format {document['format_version']}, this program reads up to {FORMAT_VERSION}; use the newer")
        return [_certificate(row) for row in document["certificates"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadData):
            raise
        raise Damaged(f"{path}: damaged ({' '.join(str(error).split()):.80}); restore it, or delete it and certify again") from None


def _certificate(row: Mapping[str, Any]) -> Certificate:
    begin, end = (unknown if row[name] is None else float(row[name])
                  for name, unknown in (("begin", -math.inf), ("end", math.inf)))
    texts = {name: row[name] for name in ("kind", "band", "detector", "label", "identity", "verdict", "created")}
    if not all(isinstance(text, str) for text in texts.values()) or row["kind"] not in KINDS or not begin < end:
        raise ValueError(f"certificate {dict(row)!r:.60}")
    return Certificate(**texts, begin=begin, end=end, forced=bool(row["forced"]))


def _sorted(certificates: Iterable[Certificate]) -> dict[tuple[str, str, str], list[Certificate]]:
    """By what they are of and by date; BadData where two overlap."""
    found: dict[tuple[str, str, str], list[Certificate]] = {}
    for item in sorted(certificates, key=lambda item: (item.key, item.begin)):
        others = found.setdefault(item.key, [])
        if others and others[-1].validity.overlaps(item.validity):
            one, two = others[-1], item
            raise BadData(f"{_name(item.key)}: {one.label} (valid {one.validity}) and {two.label} (valid {two.validity}) overlap; "
                          "give ranges that do not, or withdraw one")
        others.append(item)
    return found


def _gap(key: tuple[str, str, str], mjd: float, certificates: list[Certificate]) -> str:
    before = [item for item in certificates if item.end <= mjd]
    after = [item for item in certificates if item.begin > mjd]
    left = f"{before[-1].label}, valid {before[-1].validity}, ends before" if before else "there is none before"
    right = f"{after[0].label}, valid {after[0].validity}, begins after" if after else "there is none after"
    return (f"{_name(key)}: nothing is certified for MJD {mjd:.5f}: {left}; {right}; certify one of them for this date, or build "
            "one")


def assemble(choices: Mapping[str, Choice], camera: str, detector: str, shape: tuple[int, int]) -> Calibration:
    """The calibration of a detector from the chosen products.

    Parameters
    ----------
    choices : kind -> product
    shape : (ny, nx) of the detector

    Raises
    ------
    BadData
        A product is missing, damaged, of another camera, detector or size, or holds NaN where there must be numbers.
    """
    parts: dict[str, Any] = {"verdicts": {kind: choice.verdict for kind, choice in choices.items()},
                             "inputs": tuple(f"{choice.name} {choice.identity}" for choice in choices.values())}
    for kind, choice in choices.items():
        if kind in PLANES:
            facts = read_facts(choice.path)
            if (facts.camera, facts.detector) != (camera, detector):
                raise BadData(f"{choice.path}: is of camera {facts.camera}, detector {facts.detector}, wanted {camera}, {detector}; "
                              "put the right file there or build it")
            parts[kind], plain = read_plane(choice.path, shape)
            if kind in ("bias", "dark"):
                parts[f"{kind}_variance"] = float(plain.get("typical_variance", 0.0))
            if kind == "dark":
                parts["dark_time"] = float(plain.get("dark_time", 0.0))
            _check_plane(parts[kind], choice.path)
            if choice.scale != 1.0:
                parts[kind] = parts[kind] * np.float32(choice.scale)
        else:
            content = read_calibration_product(choice.path, camera, detector, shape).content
            check_content(content, str(choice.path), finite=True)
            parts[kind] = content
    if "ptc" in parts and "linearity" in parts:
        parts["linearity"] = parts["linearity"].at_gain(parts["ptc"].gain)
    return Calibration(**parts)


def _check_plane(image: np.ndarray, path: Path) -> None:
    if image.dtype.kind == "f" and np.count_nonzero(np.isfinite(image)) < 0.5 * image.size:
        raise BadData(f"{path}: more than half of its pixels are not numbers; look at its frames and build it again")
