"""calibs: one kind of calibration product, of each detector (and band) one file in the calibration library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..algorithms.calibs.build import Request, build, section_of
from ..algorithms.calibs.frames import Frame
from ..errors import BadData
from ..io.calibration import CalibrationWriter, encode_product, read_calibration_product
from ..io.library import Choice
from ..io.raw import RawFile, read_raw_detector
from ..io.scratch import scratch_plane
from ..parallel import Failure
from ..products.exposure import Exposure
from ..products.header import mode_difference
from ..products.kinds import KINDS, CalibrationProduct
from .choose import Chooser, calibration_of
from .library import mjd_of
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run


@dataclass(frozen=True)
class _Work:
    """What the rank that builds a product needs to know."""

    band: str
    frames: tuple[tuple[Exposure, list[RawFile]], ...]
    needs: dict[str, Choice]
    mode: str


class Calibs(Stage):
    """Unit: a detector (and band) of one kind, which is one part; frames are read as they are needed."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.name = kind, f"calibs {kind}"

    def units(self, run: Run) -> list[Unit]:
        if run.camera.detrended:
            return []
        chooser, units = Chooser(run), []
        bands = chooser.bands_of(self.kind)
        for band in bands:
            for detector in run.camera.detectors:
                if run.options.detectors and detector.name not in run.options.detectors:
                    continue
                name = f"calibs {' '.join(filter(None, (self.kind, band)))} {detector.name}"
                try:
                    unit = self._unit(run, chooser, band, (detector.name, name))
                except BadData as error:
                    self.problems.append(Failure(name, "", type(error).__name__, str(error)))
                    continue
                units += [unit] if unit is not None else []
        return units

    def _unit(self, run: Run, chooser: Chooser, band: str, names: tuple[str, str]) -> Unit | None:
        """The unit of one detector; None where the survey has nothing to make it of."""
        detector, name = names
        frames = self._frames(run, band, detector)
        if KINDS[self.kind].frames and not frames:
            return None
        mode = common_mode([(exposure, run.survey.mode(exposure.visit, detector)) for exposure, _ in frames], name)
        mjd = float(np.mean([exposure.mjd for exposure, _ in frames])) if frames else run.survey.exposures()[0].mjd
        bands = (band,) if KINDS[self.kind].per_band else run.bands
        needs = chooser.for_building(self.kind, bands, detector, mjd, mode)
        if not frames and not needs:
            return None
        inputs = {str(exposure.visit): run.survey.hash_of_inputs(exposure.visit, detector) for exposure, _ in frames}
        inputs |= {need: choice.identity for need, choice in needs.items()}
        work = _Work(band, tuple(frames), needs, mode)
        return Unit(name, work, (Part(detector, None, float(len(frames) or 1)),),
                    run.library.path(self.kind, band, run.label, detector),
                    configuration_text(calibs=section_of(self.kind, run.config.calibs)), inputs)

    def _frames(self, run: Run, band: str, detector: str) -> list[tuple[Exposure, list[RawFile]]]:
        """The exposures that go in, by date, with the files of a detector; science frames only where there are no
        spots.
        """
        config = run.config.calibs
        bands = (band,) if KINDS[self.kind].per_band else config.bands.get(self.kind, run.bands)
        first, last = (mjd_of(text) for text in (config.first or "-inf", config.last or "inf"))
        wanted = set(KINDS[self.kind].frames)
        if "spots" in wanted and run.survey.exposures("spots"):
            wanted.discard("science")
        chosen = [exposure for exposure in run.survey.exposures() if exposure.kind in wanted
                  and exposure.band in ("", *bands) and first <= exposure.mjd < last
                  and (not config.visits or exposure.visit in config.visits)]
        chosen.sort(key=lambda exposure: (exposure.mjd, exposure.visit))
        return [(exposure, files) for exposure in chosen if (files := run.survey.files(exposure.visit, detector))]

    def work(self, run: Run, unit: Unit, part: Part, record: Record):
        work: _Work = unit.key
        frames = [Frame(exposure, _reader(run, files, part.name)) for exposure, files in work.frames]
        with record("read"):
            made = {} if frames else {name: read_calibration_product(choice.path, run.camera.name, part.name).content
                                      for name, choice in work.needs.items()}
            needs = {name.split()[0]: choice for name, choice in work.needs.items()} if frames else {}
            calibration = calibration_of(run, needs, part.name)
        detector = run.camera.detector(part.name).in_band(work.band)
        if frames and "gain" in run.camera.header:
            detector = frames[0].load().detector
        with record("compute"):  # frames are read as they are needed
            content, verdict = build(Request(self.kind, work.band, frames, detector, run.config.calibs, calibration, made,
                                             scratch_plane, record.leave_out))
        dates = [exposure.mjd for exposure, _ in work.frames] or [float("nan")]
        product = CalibrationProduct(self.kind, run.camera.name, part.name, run.label, content, work.band, verdict,
                                     min(dates), max(dates), work.mode)
        with record("encode"):
            return encode_product(product)

    def writer(self, run: Run, unit: Unit, header):
        return CalibrationWriter(unit.product, header)


def _reader(run: Run, files: list, detector: str):
    return lambda: read_raw_detector(files, run.camera, detector)


def common_mode(modes: Sequence[tuple[Exposure, str]], name: str) -> str:
    """The read-out mode that all frames share.

    Raises
    ------
    BadData
        They do not; names what differs, and in which visits.
    """
    groups: dict[str, list[int]] = {}
    for exposure, mode in modes:
        groups.setdefault(mode, []).append(exposure.visit)
    if len(groups) > 1:
        (one, these), (other, those) = sorted(groups.items(), key=lambda item: -len(item[1]))[:2]
        raise BadData(f"{name}: frames of different read-out: {mode_difference(one, other)} (visits {_few(these)} and {_few(those)}); "
                      "choose those of one mode with --visit, calibs.first and calibs.last, or take the others away")
    return next(iter(groups), "")


def _few(visits: list[int]) -> str:
    return ", ".join(map(str, visits[:4])) + (f" and {len(visits) - 4} more" if len(visits) > 4 else "")
