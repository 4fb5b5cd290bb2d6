"""The plain inputs of the report: what `collect` gathers from an output folder, and what tests make by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..products.box import Box
from ..products.catalogue import Catalogue
from ..products.reference import ReferenceCatalogue
from ..products.wcs import Wcs
from .images import BlankSky
from .metrics import Metric, Truth
from .visits import VisitRow

__all__ = ["Failure", "Inputs", "PatchArea", "Picture", "Span", "StageState", "Timing"]


@dataclass(frozen=True)
class Picture:
    """A part of a tract to be shown in colour.

    Attributes
    ----------
    title : str
    images : band -> (ny, nx) float32, nJy, binned by `step`; NaN where there is no data
    box : Box in tract pixels, before binning
    step : int, tract pixels per picture pixel
    wcs : Wcs of the tract
    inner : [(label, Box)], inner boxes of the patches, tract pixels
    borders : [(m, 2) float64], borders between tracts as lines in tract pixels
    """

    title: str
    images: dict[str, np.ndarray]
    box: Box
    step: int
    wcs: Wcs
    inner: list[tuple[str, Box]] = field(default_factory=list)
    borders: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class PatchArea:
    """Where a patch lies: corners (4, 2) of its inner box, ICRS degrees."""

    tract: int
    patch: int
    corners: np.ndarray


@dataclass(frozen=True)
class StageState:
    """How far a stage has come, in units; `total` None if that is unknown."""

    stage: str
    done: int
    total: int | None = None
    failed: int = 0


@dataclass(frozen=True)
class Failure:
    """A part that could not be processed."""

    stage: str
    unit: str
    part: str
    error: str
    message: str


@dataclass(frozen=True)
class Timing:
    """Seconds of one rank in one stage, by kind: compute, read, write, wait."""

    stage: str
    rank: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Span:
    """When a rank worked on a part: seconds since the run began."""

    stage: str
    rank: int
    part: str
    start: float
    end: float


@dataclass
class Inputs:
    """Everything the page shows. What is not there stays empty, and `missing` says so in words."""

    name: str
    bands: tuple[str, ...] = ()
    objects: Catalogue | None = None
    truth: Truth | None = None
    visits: list[VisitRow] = field(default_factory=list)
    skies: list[BlankSky] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    patches: list[PatchArea] = field(default_factory=list)
    states: list[StageState] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    extra: list[Metric] = field(default_factory=list)
    configuration: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    reference: ReferenceCatalogue | None = None
    pages: list[tuple[str, str]] = field(default_factory=list)
    """(address, words) of other pages that belong to this one."""
