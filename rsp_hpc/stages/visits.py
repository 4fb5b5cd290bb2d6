"""visits: raw detectors to calibrated images and sources, one file per visit."""

from __future__ import annotations

from ..algorithms.visit import calibrate_detector
from ..errors import BadData
from ..io import product
from ..io.calibration import read_calibration
from ..io.fits import read_table
from ..io.raw import read_raw_detector
from ..io.visit import VisitWriter, encode_visit_detector
from ..products.calibration import Calibration
from ..products.reference import ReferenceCatalogue
from .stage import Clock, Part, Stage, Unit, configuration_text
from .survey import Run


class Visits(Stage):
    """Unit: a visit. Parts: its detectors."""

    name = "visits"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(visits=run.config.visits, io=run.config.io, reference=run.config.reference)
        units = []
        for exposure in run.survey.exposures("science"):
            names = self._selected(run, exposure)
            if not names:
                continue
            inputs = {f"raw {name}": run.survey.hash_of_inputs(exposure.visit, name) for name in names}
            inputs |= {f"calibration {name}": found for name in names
                       if (found := product.identity(run.store.calibration(name)))}
            units.append(Unit(f"visit {exposure.visit}", exposure, tuple(Part(name) for name in names),
                              run.store.visit(exposure.visit), configuration, inputs))
        return units

    def _selected(self, run: Run, exposure) -> list[str]:
        """The detectors of a visit that the command line selects."""
        options = run.options
        if exposure.band not in run.bands or (options.visits and exposure.visit not in options.visits):
            return []
        if options.tracts and not run.survey.touches(exposure.visit, options.tracts):
            return []
        return [name for name in run.survey.detectors(exposure.visit) if not options.detectors or name in options.detectors]

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        exposure = unit.key
        with clock("read"):
            raw = read_raw_detector(run.survey.files(exposure.visit, part.name), run.camera, part.name)
            calibration = run.cached(f"calibration {part.name} {exposure.band}",
                                     lambda: _calibration(run, part.name, exposure.band))
            reference = run.cached("reference", lambda: _reference(run))
        with clock("compute"):
            visit = calibrate_detector(raw, calibration, reference, run.config.visits)
        with clock("encode"):
            return encode_visit_detector(visit, q=run.config.io.quantisation or 1.0, exact=not run.config.io.quantisation)

    def writer(self, run: Run, unit: Unit, header):
        return VisitWriter(unit.product, header)


def _calibration(run: Run, detector: str, band: str) -> Calibration:
    """This detector's calibration in a band; an empty one for frames that arrive detrended or where the survey has none."""
    if run.camera.detrended or not run.survey.has_calibrations:
        return Calibration()
    path = run.store.calibration(detector)
    if not path.exists():
        raise BadData(f"detector {detector} has no calibration: add its bias, dark and flat frames to the data and run calibs")
    return read_calibration(path, band)


def _reference(run: Run) -> ReferenceCatalogue | None:
    """The reference catalogue, if the survey has one."""
    config = run.config.reference
    return None if config is None else ReferenceCatalogue.from_columns(read_table(run.data / config.file), config)
