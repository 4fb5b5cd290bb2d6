"""calibs: bias, dark and flats combined per detector, defects from them."""

from __future__ import annotations

from ..algorithms.calibs import Frame, build_calibration
from ..io.calibration import CalibrationWriter, encode_calibration
from ..io.raw import read_raw_detector
from ..io.scratch import scratch_plane
from ..products.camera import Detector
from .stage import Clock, Part, Stage, Unit, configuration_text
from .survey import Run


class Calibs(Stage):
    """Unit: a detector, which is one part; its frames are combined in bands of rows."""

    name = "calibs"

    def units(self, run: Run) -> list[Unit]:
        if run.camera.detrended:
            return []
        configuration = configuration_text(calibs=run.config.calibs)
        units = []
        for detector in run.camera.detectors:
            visits = [exposure.visit for exposure in run.survey.exposures() if exposure.kind != "science"
                      and exposure.band in ("", *run.bands) and run.survey.files(exposure.visit, detector.name)]
            if visits and (not run.options.detectors or detector.name in run.options.detectors):
                inputs = {str(visit): run.survey.hash_of_inputs(visit, detector.name) for visit in visits}
                units.append(Unit(f"calibs {detector.name}", (detector, visits), (Part(detector.name, None, float(len(visits))),),
                                  run.store.calibration(detector.name), configuration, inputs))
        return units

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        detector, visits = unit.key
        frames = [Frame(run.survey.exposure(visit), _reader(run, visit, detector)) for visit in visits]
        with clock("compute"):  # frames are read as they are needed
            calibration = build_calibration(frames, detector.box.shape, run.config.calibs, scratch_plane)
        with clock("encode"):
            return encode_calibration(calibration)

    def writer(self, run: Run, unit: Unit, header):
        return CalibrationWriter(unit.product, header)


def _reader(run: Run, visit: int, detector: Detector):
    return lambda: read_raw_detector(run.survey.files(visit, detector.name), run.camera, detector.name)
