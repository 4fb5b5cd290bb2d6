"""calibs: bias, dark and flats combined per detector, defects from them."""

from __future__ import annotations

from ..algorithms.calibs.frames import Frame, build_calibration
from ..io.calibration import CalibrationWriter, encode_calibration
from ..io.raw import read_raw_detector
from ..io.scratch import scratch_plane
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run


class Calibs(Stage):
    """Unit: a detector, which is one part; its frames are combined in bands of rows."""

    name = "calibs"

    def units(self, run: Run) -> list[Unit]:
        if run.camera.detrended:
            return []
        configuration = configuration_text(calibs=run.config.calibs)
        exposures = [exposure for exposure in run.survey.exposures() if exposure.kind != "science"
                     and exposure.band in ("", *run.bands)]
        units = []
        for detector in run.camera.detectors:
            if run.options.detectors and detector.name not in run.options.detectors:
                continue
            frames = [(exposure, files) for exposure in exposures if (files := run.survey.files(exposure.visit, detector.name))]
            inputs = {str(exposure.visit): run.survey.hash_of_inputs(exposure.visit, detector.name) for exposure, _ in frames}
            if frames:
                units.append(Unit(f"calibs {detector.name}", frames, (Part(detector.name, None, float(len(frames))),),
                                  run.store.calibration(detector.name), configuration, inputs))
        return units

    def work(self, run: Run, unit: Unit, part: Part, record: Record):
        frames = [Frame(exposure, _reader(run, files, part.name)) for exposure, files in unit.key]
        with record("compute"):  # frames are read as they are needed
            calibration = build_calibration(frames, run.camera.detector(part.name).box.shape, run.config.calibs,
                                            scratch_plane, record.leave_out)
        with record("encode"):
            return encode_calibration(calibration)

    def writer(self, run: Run, unit: Unit, header):
        return CalibrationWriter(unit.product, header)


def _reader(run: Run, files: list, detector: str):
    return lambda: read_raw_detector(files, run.camera, detector)
