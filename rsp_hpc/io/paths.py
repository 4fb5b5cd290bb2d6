"""The one place that builds paths: where each product, log and status file of an output folder lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Store", "file_name"]

_VISIT = re.compile(r"\d+\.h5")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Store:
    """The output folder of one survey run. Knows names, touches files only to list what is there.

    Attributes
    ----------
    output : Path of the folder; a text is accepted
    """

    output: Path

    def __post_init__(self):
        object.__setattr__(self, "output", Path(self.output))

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.output

    @property
    def survey_db(self) -> Path:
        """The data base that `ingest` writes."""
        return self.output / "survey.db"

    @property
    def calibs(self) -> Path:
        """The calibration library of this run alone, see `io.library`."""
        return self.output / "calibs"

    @property
    def visits_folder(self) -> Path:
        """Folder of the visits."""
        return self.output / "visits"

    def visit(self, visit: int) -> Path:
        """All detectors of a visit with their sources."""
        return self.visits_folder / f"{int(visit)}.h5"

    @property
    def tracts_folder(self) -> Path:
        """Folder of the tracts."""
        return self.output / "tracts"

    def tract(self, tract: int) -> Path:
        """Folder of a tract."""
        return self.tracts_folder / str(int(tract))

    def coadds(self, tract: int) -> Path:
        """Coadds of all bands and patches of a tract."""
        return self.tract(tract) / "coadds.h5"

    def objects(self, tract: int) -> Path:
        """The object catalogue of a tract."""
        return self.tract(tract) / "objects.h5"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.output / "report"

    @property
    def report_page(self) -> Path:
        """The page to open in a browser."""
        return self.report / "index.html"

    @property
    def logs(self) -> Path:
        """Folder of the logs, one file per rank."""
        return self.output / "logs"

    @property
    def status(self) -> Path:
        """Progress of the run, for `rsp-hpc status`."""
        return self.output / "status.json"

    @property
    def failures(self) -> Path:
        """Units and parts that failed, with the reasons."""
        return self.output / "failures.json"

    @property
    def timing(self) -> Path:
        """Seconds, memory and bytes per stage and rank."""
        return self.output / "timing.csv"

    @property
    def costs(self) -> Path:
        """Measured costs of parts, from which the next run is planned."""
        return self.output / "costs.json"

    @property
    def config(self) -> Path:
        """The effective configuration."""
        return self.output / "config.yaml"

    @property
    def stop(self) -> Path:
        """Touch this file, and the run stops after the parts in work."""
        return self.output / "stop"

    @property
    def lock(self) -> Path:
        """Held by the run that writes here."""
        return self.output / ".lock"

    def folders(self) -> list[Path]:
        """Every folder that products are written to, of those that are there."""
        places = [self.output, self.visits_folder, self.report, *_inside(self.tracts_folder)]
        return [place for place in places if place.is_dir()]

    def visits(self) -> list[int]:
        """Numbers of the visits that are finished, ascending."""
        return sorted(int(path.stem) for path in _inside(self.visits_folder) if _VISIT.fullmatch(path.name))

    def tracts(self, product: str = "coadds") -> list[int]:
        """Numbers of the tracts whose `product` ("coadds", "objects") is finished, ascending."""
        return sorted(int(path.name) for path in _inside(self.tracts_folder)
                      if _NUMBER.fullmatch(path.name) and (path / f"{product}.h5").is_file())


def _inside(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is no folder."""
    return list(folder.iterdir()) if folder.is_dir() else []


def file_name(name: str) -> str:
    """A name from a camera's description as a file name: no separators, no leading dot, and no two names alike."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", lambda match: f"%{ord(match[0]):02x}", name)
