"""The survey's configuration (one YAML), and the Run: all that a stage needs to know of one start of the program."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import field_validator

from .. import log
from ..algorithms.borders import BordersConfig
from ..algorithms.calibs.build import CalibsConfig
from ..algorithms.coadd import CoaddConfig
from ..algorithms.objects import ObjectsConfig
from ..algorithms.photometry import RelativeConfig
from ..algorithms.visit import VisitConfig
from ..algorithms.warp import WarpConfig
from ..config import Config, build, changed, load_yaml, parameter
from ..errors import BadData, ConfigError
from ..io.atomic import write_text
from ..io.database import Survey, read_survey
from ..io.library import Library
from ..io.paths import Store
from ..io.refcat import ReferenceFolder
from ..parallel import Communicator, Progress, StopRequest, on_leader
from ..products.camera import Camera, load_camera
from ..products.reference import ReferenceCatalogue, ReferenceConfig
from ..products.skymap import RingsSkyMap, SkyMapConfig
from ..report.config import ReportConfig
from ..simulate.survey import SurveySimulation

__all__ = ["Options", "Run", "SurveyConfig", "load_survey", "survey_from"]

logger = logging.getLogger(__name__)


class MpiConfig(Config):
    """How ranks are grouped."""

    team_size: int = parameter(0, "ranks that share one unit; 0: one, or more where there are fewer units than ranks", low=0)


class IoConfig(Config):
    """How products are stored."""

    quantisation: float = parameter(4.0, "visit images: steps per sigma of the noise; 0: exact", low=0.0, high=64.0)


class CoaddsConfig(Config):
    """From visits to the coadds of a tract."""

    warp: WarpConfig = WarpConfig()
    coadd: CoaddConfig = CoaddConfig()
    relative: RelativeConfig = RelativeConfig()
    sky: Literal["detector", "visit"] = parameter("detector", "what is subtracted: each detector's own mesh, or the sky of the visit's "
                                                  "focal plane, which keeps light larger than a mesh cell")
    max_psf_fwhm: float = parameter(0.0, "leave out detectors with wider PSFs; 0: none", unit="arcsec", low=0.0)


class SurveyConfig(Config):
    """One survey: where its data are, and how each stage works on them."""

    name: str = parameter("survey", "name, for the report")
    camera: str = parameter(..., "camera: the name of a file in cameras/, or a path")
    data: str = parameter("", "folder with the raw files, relative to this file; --data overrides it")
    output: str = parameter(..., "folder for the products, relative to the present folder; --output overrides it")
    calibration_library: str = parameter("", "folder of calibration products that runs share, relative to the present folder; "
                                             "'': calibs in the output folder")
    bands: tuple[str, ...] = parameter((), "bands to reduce; (): all of the camera")
    reference: ReferenceConfig | None = None
    skymap: SkyMapConfig = SkyMapConfig()
    mpi: MpiConfig = MpiConfig()
    io: IoConfig = IoConfig()
    calibs: CalibsConfig = CalibsConfig()
    visits: VisitConfig = VisitConfig()
    coadds: CoaddsConfig = CoaddsConfig()
    objects: ObjectsConfig = ObjectsConfig()
    borders: BordersConfig = BordersConfig()
    report: ReportConfig = ReportConfig()
    simulate: SurveySimulation | None = None

    @field_validator("output", "camera")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value


@dataclass(frozen=True)
class Options:
    """What the command line chose; empty tuples select everything."""

    visits: tuple[int, ...] = ()
    detectors: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    tracts: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()
    dry_run: bool = False
    reprocess: bool = False
    max_time: float | None = None
    verbose: bool = False

    @property
    def selects(self) -> bool:
        """Whether anything was selected: what else there is, is then none of this run's business."""
        return bool(self.visits or self.detectors or self.bands or self.tracts or self.patches)

    def check(self, survey: Survey) -> None:
        """That what was selected is there; ConfigError if it is not."""
        for visit in self.visits:
            survey.exposure(visit)
        for tract in set(self.tracts) - set(survey.tracts()):
            raise ConfigError(f"--tract {tract}: no visit overlaps it; those with visits are "
                              f"{', '.join(map(str, survey.tracts()[:20])) or 'none'}")


@dataclass
class Run:
    """One start of the program, on one rank."""

    config: SurveyConfig
    camera: Camera
    data: Path
    store: Store
    world: Communicator
    stop: StopRequest
    options: Options = Options()
    host: str = field(default_factory=socket.gethostname)
    reference: ReferenceCatalogue | ReferenceFolder | None = None
    """The reference catalogue, once the visits stage has been prepared."""
    expected: dict[str, int] = field(default_factory=dict)
    """Stage -> files that it should make in the end; of the stages that this start has run."""
    _cache: dict[str, Any] = field(default_factory=dict)

    def cached(self, name: str, make, keep: int = 0) -> Any:
        """A value that is made once per rank, on first use: the sky map. With `keep`: only the last so many of the values whose
        names begin with the same word stay: calibrations.
        """
        if name in self._cache:
            self._cache[name] = self._cache.pop(name)  # the last used
            return self._cache[name]
        alike = [other for other in self._cache if other.split()[0] == name.split()[0]] if keep else []
        for other in alike[:max(0, len(alike) - keep + 1)]:
            del self._cache[other]
        self._cache[name] = make()
        return self._cache[name]

    def forget(self, name: str) -> None:
        """Drop a cached value whose file was made anew."""
        self._cache.pop(name, None)

    @property
    def survey(self) -> Survey:
        """What `ingest` found. For rank 0 only: others get what they need with their parts. ConfigError if there is none."""
        return self.cached("survey", self._read_survey)

    def _read_survey(self) -> Survey:
        survey = read_survey(self.store.survey_db)
        self.options.check(survey)
        return survey

    @property
    def library(self) -> Library:
        """The calibration library, as it is now."""
        shared_by_runs = self.config.calibration_library
        return Library(Path(shared_by_runs).resolve() if shared_by_runs else self.store.calibs)

    @property
    def label(self) -> str:
        """The set of calibration products that this run builds."""
        return self.config.calibs.label or self.config.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Where to look for what a product of this set is made with: in the set, then in the survey's own."""
        return tuple(dict.fromkeys((self.label, self.config.name)))

    @property
    def skymap(self) -> RingsSkyMap:
        """The sky map."""
        return self.cached("skymap", lambda: RingsSkyMap(self.config.skymap))

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands to work on, bluest first."""
        wanted = set(self.options.bands or self.config.bands or self.camera.bands)
        return tuple(band for band in self.camera.bands if band in wanted)

    def tell_progress(self, stage: str, state: Progress) -> None:
        """Rank 0: a line for the terminal, and the status file."""
        log.tell("%s %d/%d, %d with failures, %.0f s, %.0f s left", stage, state.finished, state.total, state.failed,
                 state.seconds_elapsed, state.seconds_left)
        self.write_status("running", stage=stage, total=state.total, finished=state.finished, failed=state.failed,
                          seconds=round(state.seconds_elapsed, 1), seconds_left=round(state.seconds_left, 1))

    def write_status(self, state: str, **more) -> None:
        """Rank 0: replace the status file as a whole. That it cannot be written is no reason to end."""
        row = {"state": state, **more, "ranks": self.world.size, "host": self.host, "pid": os.getpid(),
               "time": round(time.time(), 1)}
        try:
            write_text(self.store.status, json.dumps(row))
        except (BadData, OSError) as error:
            logger.warning("%s", error)


def load_survey(path: Path, changes: tuple[str, ...] = ()) -> SurveyConfig:
    """Read a survey's YAML and apply changes of the form `coadds.coadd.clip=4`.

    Raises
    ------
    ConfigError
        The file, a key or a value is wrong; the message names the key and the nearest known one.
    """
    return build(SurveyConfig, changed(load_yaml(path), changes))


def find_camera(name: str, beside: Path) -> Camera:
    """The camera of this name: a path, or in `cameras/` beside the configuration, the checkout or the installation."""
    root = Path(__file__).resolve().parents[2]
    places = [beside / name, *(folder / "cameras" / f"{name}.yaml" for folder in
                               (beside, root / "configs", Path(sys.prefix) / "share" / "rsp_hpc"))]
    for place in places:
        if place.is_file():
            return load_camera(load_yaml(place), f"camera {place.stem}")
    known = sorted({path.stem for place in places[1:] for path in place.parent.glob("*.yaml")})
    raise ConfigError(f"camera: no file for {name}; known are {', '.join(known) or 'none'}")


def survey_from(path: str, changes: tuple[str, ...], world: Communicator, options: Options,
                data: str | None = None, output: str | None = None) -> Run:
    """The Run of one command line; rank 0 reads, all ranks get the same, or the same error (collective)."""
    def read() -> tuple[SurveyConfig, Camera, Path, Path]:
        config = load_survey(Path(path), changes)
        camera = find_camera(config.camera, Path(path).resolve().parent)
        unknown = [band for band in (*config.bands, *options.bands) if band not in camera.bands]
        if unknown:
            raise ConfigError(f"band {unknown[0]}: camera {camera.name} has {', '.join(camera.bands)}")
        for name in options.detectors:
            camera.detector(name)
        folder = (Path(data) if data else Path(path).resolve().parent / config.data).resolve()
        return config, camera, folder, Path(output or config.output).resolve()

    config, camera, folder, target = on_leader(world, read)
    store = Store(target)
    return Run(config, camera, folder, store, world, StopRequest(target, options.max_time), options)
