"""simulate: a survey with known truth, written as raw files into the data folder."""

from __future__ import annotations

import numpy as np

from .. import log
from ..errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, ConfigError
from ..io.fits import Hdu, write_fits
from ..io.raw import write_raw
from ..parallel import on_leader, run_parts, shared
from ..products.catalogue import Catalogue
from ..simulate.survey import SurveySimulation, plan, reference_of, simulate_detector, sky_of
from ..simulate.truth import survey_truth
from .survey import Run

__all__ = ["simulate_survey"]


def simulate_survey(run: Run) -> int:
    """Write all raw frames, the reference catalogue and the truth; on any number of ranks the same bytes (collective)."""
    config = run.config.simulate
    if config is None:
        raise shared(ConfigError("simulate: the configuration has no such section; see configs/demo.yaml"))
    exposures = on_leader(run.world, plan, config, run.camera)
    sky = sky_of(config)
    parts = [_Frame(number, exposure, detector) for number, exposure in enumerate(exposures) for detector in run.camera.detectors]
    if run.options.dry_run:
        log.tell("simulate: would write %d files into %s", len(parts), run.data)
        return EXIT_DONE
    truths: dict[str, Catalogue] = {}
    log.tell("simulate: %d frames of %d detectors into %s", len(exposures), len(run.camera.detectors), run.data)
    outcome = run_parts(run.world, parts, [3.0 if part.exposure.kind == "science" else 1.0 for part in parts],
                        lambda part: _write_frame(run, config, sky, part),
                        lambda part, truth: truths.__setitem__(str(part), truth), run.stop)
    for row in outcome.failures if run.world.rank == 0 else ():
        log.tell("  FAILED %s: %s", row.part, row.message)
    stopped, failed = run.world.bcast((outcome.stopped, bool(outcome.failures)))
    if stopped:
        return EXIT_STOPPED
    on_leader(run.world, lambda: _write_tables(run, config, sky, [truths[key] for key in sorted(truths)]))
    log.tell("simulate: %d files, %d failures", len(outcome.done), len(outcome.failures))
    return EXIT_FAILURES if failed else EXIT_DONE


class _Frame:
    """One detector of one exposure."""

    def __init__(self, number: int, exposure, detector):
        self.number, self.exposure, self.detector = number, exposure, detector

    def __str__(self) -> str:
        return f"{self.exposure.visit:06d} {self.detector.name}"


def _write_frame(run: Run, config: SurveySimulation, sky: Catalogue, part: _Frame) -> Catalogue:
    """Simulate and write one file; its true objects."""
    simulated = simulate_detector(config, run.camera, sky, part.exposure, part.detector)
    hdus = {amplifier.hdu: segment for amplifier, segment in zip(part.detector.amplifiers, simulated.segments)}
    images = [(hdus.get(hdu), simulated.cards if hdu == 0 else {}) for hdu in range(max(hdus) + 1)]
    write_raw(run.data / f"{run.camera.name}_{part.exposure.visit:06d}_{part.detector.name}.fits", images)
    return simulated.truth


def _write_tables(run: Run, config: SurveySimulation, sky: Catalogue, truths: list[Catalogue]) -> None:
    """The reference catalogue, and the truth with what all visits together could measure."""
    science = [exposure for exposure in plan(config, run.camera) if exposure.kind == "science"]
    bands = {exposure.visit: exposure.band for exposure in science}
    seeing = {band: float(np.median([exposure.fwhm for exposure in science if exposure.band == band])) for band in config.bands}
    truth = survey_truth(sky, truths, bands, seeing, run.camera.pixel_scale)
    for name, table in (("reference.fits", reference_of(config, sky)), ("truth.fits", truth)):
        units = {column.name: column.unit for column in table.columns.values() if column.unit}
        write_fits(run.data / name, [Hdu(table.arrays, {"EXTNAME": name.split(".")[0].upper()}, units)])
