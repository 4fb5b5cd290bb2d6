"""visits: raw detectors to calibrated images and sources, one file per visit."""

from __future__ import annotations

from ..algorithms.visit import calibrate_detector
from ..errors import BadData
from ..io.calibration import read_calibration
from ..io.product import identity_of_file
from ..io.raw import read_raw_detector
from ..io.reference import read_reference
from ..io.visit import VisitWriter, encode_visit_detector
from ..products.calibration import Calibration
from ..products.reference import ReferenceCatalogue
from .stage import Clock, Part, Stage, Unit, identity
from .survey import Run


class Visits(Stage):
    """Unit: a visit. Parts: its detectors."""

    name = "visits"

    def units(self, run: Run) -> list[Unit]:
        units = []
        configuration = {"visits": run.config.visits.model_dump(mode="json"), "io": run.config.io.model_dump(mode="json"),
                         "reference": _plain(run.config.reference)}
        for exposure in run.survey.exposures("science"):
            if exposure.band not in run.bands or (run.options.visits and exposure.visit not in run.options.visits):
                continue
            names = [name for name in run.survey.detectors(exposure.visit)
                     if not run.options.detectors or name in run.options.detectors]
            if not names or (run.options.tracts and not run.survey.visit_touches(exposure.visit, run.options.tracts)):
                continue
            inputs = [f"{name} {run.survey.input_hash(exposure.visit, name)} {_calibration_identity(run, name)}"
                      for name in names]
            units.append(Unit(f"visit {exposure.visit}", exposure, tuple(Part(name) for name in names),
                              run.store.visit(exposure.visit), identity(self.name, configuration, inputs)))
        return units

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        exposure, detector = unit.key, run.camera.detector(part.name)
        with clock("read"):
            raw = read_raw_detector(run.survey.files(exposure.visit, part.name), run.camera, detector)
            calibration = run.cached(f"calibration {part.name} {exposure.band}",
                                     lambda: _calibration(run, part.name, exposure.band))
            reference = run.cached("reference", lambda: _reference(run))
        with clock("compute"):
            visit = calibrate_detector(raw, calibration, reference, run.config.visits)
        with clock("encode"):
            return encode_visit_detector(visit, run.config.io.quantisation)

    def writer(self, run: Run, unit: Unit):
        return VisitWriter(unit.product, run.header(self.name, unit))


def _plain(model) -> dict | None:
    return model.model_dump(mode="json") if model is not None else None


def _calibration_identity(run: Run, detector: str) -> str:
    path = run.store.calibration(detector)
    return identity_of_file(path) if path.exists() else "none"


def _calibration(run: Run, detector: str, band: str) -> Calibration:
    """This detector's calibration in a band; an empty one for frames that arrive detrended or have none at all."""
    if run.camera.detrended or not run.survey.has_calibrations:
        return Calibration()
    path = run.store.calibration(detector)
    if not path.exists():
        raise BadData(f"detector {detector}: no calibration frames; add its bias, dark and flats to the data and ingest again")
    return read_calibration(path, band)


def _reference(run: Run) -> ReferenceCatalogue | None:
    if run.config.reference is None:
        return None
    return read_reference(run.data, run.config.reference)
