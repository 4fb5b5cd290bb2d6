"""calibs illumination: what stars say of the flat, from the finished visits of a band, one file per detector."""

from __future__ import annotations

import numpy as np

from ..algorithms.calibs.build import section_of
from ..algorithms.calibs.illumination import IlluminationFit, build_illumination, illumination_plane
from ..algorithms.calibs.stars import COLUMNS, star_table, stars_of
from ..errors import BadData
from ..io.calibration import encode_product
from ..io.product import read_header
from ..io.visit import read_exposure, read_sources, read_visit_lean, visit_detector_names
from ..parallel import Failure, on_leader
from ..products.electronics import Verdict
from ..products.kinds import CalibrationProduct
from .calibs import Calibs
from .choose import Chooser
from .stage import Part, Record, Unit, configuration_text
from .survey import Run


class Starflat(Calibs):
    """Unit: a detector and band. Rank 0 fits the whole camera; the ranks draw the planes."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.fits: dict = {}

    def units(self, run: Run) -> list[Unit]:
        if run.camera.detrended:
            return []
        units = []
        for band in Chooser(run).bands_of(self.kind):
            visits = _visits(run, band)
            inputs = {f"visit {visit}": found for visit in visits if (found := self.identity(run.store.visit(visit), f"visit {visit}"))}
            if not inputs:
                self.problems.append(Failure(f"calibs illumination {band}", "", "BadData",
                                             f"no visit in band {band} is finished: it is made of their stars; run visits first"))
                continue
            for detector in run.camera.detectors:
                if not run.options.detectors or detector.name in run.options.detectors:
                    units.append(Unit(f"calibs illumination {band} {detector.name}", band, (Part(detector.name),),
                                      run.library.path(self.kind, band, run.label, detector.name),
                                      configuration_text(calibs=section_of(self.kind, run.config.calibs)), inputs))
        return units

    def prepare(self, run: Run) -> None:
        self.fits = on_leader(run.world, lambda: {band: _fit(run, band) for band in Chooser(run).bands_of(self.kind)})

    def work(self, run: Run, unit: Unit, part: Part, record: Record):
        found = self.fits[unit.key]
        if isinstance(found, BadData):
            raise found
        fit, verdict, dates = found
        detector = run.camera.detector(part.name)
        with record("compute"):
            content = illumination_plane(fit, run.camera, detector, run.config.calibs.illumination)
        product = CalibrationProduct(self.kind, run.camera.name, part.name, run.label, content, unit.key, verdict, *dates)
        with record("encode"):
            return encode_product(product)


def _visits(run: Run, band: str) -> list[int]:
    """The finished visits of a band, of those that `calibs.visits` selects."""
    chosen = run.config.calibs.visits
    bands = {exposure.visit: exposure.band for exposure in run.survey.exposures("science")}
    return [visit for visit in run.store.visits() if bands.get(visit) == band and (not chosen or visit in chosen)]


def _fit(run: Run, band: str) -> tuple[IlluminationFit, Verdict, tuple[float, float]] | BadData:
    """The fit to all stars of a band and the dates of its visits; or why there is none."""
    numbers = {detector.name: number for number, detector in enumerate(run.camera.detectors)}
    visits, parts, dates = _visits(run, band), [], []
    try:
        for count, visit in enumerate(visits):
            path = run.store.visit(visit)
            used = [name for name in read_header(path).inputs if name.startswith("illumination ")]
            if used:
                return BadData(f"{path}: was made with an illumination correction; build it from visits made without one")
            dates.append(read_exposure(path).mjd)
            for name in visit_detector_names(path):
                lean, sources = read_visit_lean(path, name), read_sources(path, COLUMNS, name)
                parts.append(stars_of(sources, lean.photocal.scale, (count, run.camera, run.camera.detector(name), numbers[name])))
        if not parts:
            return BadData(f"no visit in band {band} is finished; run visits first")
        fit, verdict = build_illumination(star_table(parts), len(visits), run.camera, run.config.calibs.illumination)
        return fit, verdict, (float(np.min(dates)), float(np.max(dates)))
    except BadData as error:
        return error
