"""calibs: bias, dark and flats combined per detector, defects from them."""

from __future__ import annotations

from ..algorithms.calibs import build_calibration
from ..io.calibration import CalibrationWriter, encode_calibration
from ..io.raw import RawFrame
from .stage import Clock, Part, Stage, Unit, identity
from .survey import Run


class Calibs(Stage):
    """Unit: a detector, which is one part; its frames are read in bands of rows."""

    name = "calibs"

    def units(self, run: Run) -> list[Unit]:
        if run.camera.detrended:
            return []
        units = []
        for detector in run.camera.detectors:
            exposures = [exposure for exposure in run.survey.exposures()
                         if exposure.kind in ("bias", "dark", "flat") and run.survey.files(exposure.visit, detector.name)]
            if not exposures or (run.options.detectors and detector.name not in run.options.detectors):
                continue
            inputs = [f"{exposure.visit} {run.survey.input_hash(exposure.visit, detector.name)}" for exposure in exposures]
            units.append(Unit(f"calibs {detector.name}", (detector, exposures), (Part(detector.name),),
                              run.store.calibration(detector.name),
                              identity(self.name, run.config.calibs.model_dump(mode="json"), inputs)))
        return units

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        detector, exposures = unit.key
        frames = {exposure: RawFrame(run.survey.files(exposure.visit, detector.name), run.camera, detector)
                  for exposure in exposures}
        with clock("compute"):
            calibration = build_calibration(frames, run.config.calibs)
        with clock("encode"):
            return encode_calibration(calibration)

    def writer(self, run: Run, unit: Unit):
        return CalibrationWriter(unit.product, run.header(self.name, unit))
