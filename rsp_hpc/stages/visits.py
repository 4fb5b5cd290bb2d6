"""visits: raw detectors to calibrated images and sources, one file per visit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..algorithms.crosstalk import foreign_detectors
from ..algorithms.sky import solve_sky
from ..algorithms.summary import completed
from ..algorithms.visit import calibrate_detector
from ..algorithms.wholevisit import solve_visit
from ..errors import BadData
from ..io.library import Choice
from ..io.raw import read_raw_detector
from ..io.refcat import read_reference
from ..io.visit import VisitWriter, encode_visit_detector
from ..parallel import Failure, on_leader
from ..products.box import Box
from ..products.calibration import Calibration
from ..products.exposure import Exposure, RawDetector
from ..products.geometry import angular_separation, sky_of_vectors, unit_vectors
from ..products.reference import ReferenceCatalogue
from ..products.visit import VisitDetector
from ..products.wcs import Wcs
from .choose import Chooser, calibration_of
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run


class Visits(Stage):
    """Unit: a visit. Parts: its detectors."""

    name = "visits"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(visits=run.config.visits, io=run.config.io, reference=run.config.reference)
        chooser, units = Chooser(run), []
        for exposure in run.survey.exposures("science"):
            names = self._selected(run, exposure)
            inputs = {f"raw {name}": run.survey.hash_of_inputs(exposure.visit, name) for name in names}
            parts = []
            for name in names:
                choices = _choices(run, chooser, exposure, name)
                if isinstance(choices, dict):
                    inputs |= {f"{kind} {name}": choice.identity for kind, choice in choices.items()}
                parts.append(Part(name, (run.survey.files(exposure.visit, name), choices)))
            if parts:
                units.append(Unit(f"visit {exposure.visit}", exposure, tuple(parts), run.store.visit(exposure.visit),
                                  configuration, inputs))
        return units

    def _selected(self, run: Run, exposure: Exposure) -> list[str]:
        """The detectors of a visit that the command line selects."""
        options = run.options
        if exposure.band not in run.bands or (options.visits and exposure.visit not in options.visits):
            return []
        if options.tracts and not run.survey.touches(exposure.visit, options.tracts):
            return []
        return [name for name in run.survey.detectors(exposure.visit) if not options.detectors or name in options.detectors]

    def prepare(self, run: Run) -> None:
        config = run.config.reference
        if config is not None:
            run.reference = on_leader(run.world, lambda: read_reference(run.data / config.file, config))

    def work(self, run: Run, unit: Unit, part: Part, record: Record):
        files, choices = part.key
        if isinstance(choices, BadData):
            raise choices
        with record("read"):
            raw = read_raw_detector(files, run.camera, part.name)
            calibration = calibration_of(run, choices, part.name)
            raw = _with_neighbours(run, raw, calibration)
            reference = _reference(run, unit.key, raw.wcs, raw.detector.box)
        with record("compute"):
            visit = calibrate_detector(raw, calibration, reference, run.config.visits)
        with record("encode"):
            return encode_visit_detector(visit, q=run.config.io.quantisation or 1.0, exact=not run.config.io.quantisation)

    def complete(self, run: Run, unit: Unit, writer: VisitWriter) -> list[Failure]:
        """One solution of the focal plane, of the zero points and of the sky; a detector that even that cannot place is left out."""
        config, failures = run.config.visits, []
        visits = writer.detectors()
        reference = _around_visit(run, visits)
        solved = solve_visit(visits, reference, (config.astrometry, config.focalplane, config.photometry))
        for visit, result in zip(visits, solved):
            if isinstance(result, BadData):
                writer.remove(visit)
                failures.append(Failure("", visit.detector, type(result).__name__, str(result)))
            else:
                writer.replace(result)
        visits, writer.sky = solve_sky(writer.detectors(), config.sky)
        for visit in visits:
            writer.replace(completed(visit, config.summary))
        return failures

    def writer(self, run: Run, unit: Unit, header):
        return VisitWriter(unit.product, header)


def _with_neighbours(run: Run, raw: RawDetector, calibration: Calibration) -> RawDetector:
    """With the frames of the detectors that speak into this one; one that is missing is named when it is needed."""
    if calibration.crosstalk is None or not run.config.visits.detrend.crosstalk.apply:
        return raw
    names = foreign_detectors(calibration.crosstalk, raw.detector.name)
    files = {name: run.survey.files(raw.exposure.visit, name) for name in names}
    return replace(raw, others={name: read_raw_detector(found, run.camera, name) for name, found in files.items() if found})


def _reference(run: Run, exposure: Exposure, wcs: Wcs | None, box: Box) -> ReferenceCatalogue | None:
    """The reference stars that may be on a detector, at the epoch of the exposure.

    Raises
    ------
    BadData
        The catalogue lacks the band, or is nowhere near: said before the detector is worked on.
    """
    if run.reference is None:
        return None
    if wcs is None:
        raise BadData(f"visit {exposure.visit}: no pointing in the header to begin the match with; add ra and dec to the camera's "
                      "header keys")
    if exposure.band not in run.reference.bands:
        raise BadData(f"the reference catalogue has no band {exposure.band}, only {', '.join(run.reference.bands) or 'positions'}; "
                      "name its column in reference.bands or give another catalogue")
    middle = wcs.pixel_to_sky(box.x0 + 0.5 * box.nx, box.y0 + 0.5 * box.ny)
    size = float(np.max(angular_separation(*wcs.pixel_to_sky(*box.corners().T), *middle)))
    match = run.config.visits.astrometry.match
    radius = 1.1 * size * (1.0 + match.max_scale) + (match.max_offset + 60.0) / 3600.0
    near = run.reference.cone(float(middle[0]), float(middle[1]), radius)
    if not len(near):
        raise BadData(f"the reference catalogue is too far away: it has no star within {radius:.2f} deg of the detector at "
                      f"{middle[0]:.4f} {middle[1]:+.4f}; check the pointing or give another")
    return near.at_epoch(exposure.mjd)


def _around_visit(run: Run, visits: list[VisitDetector]) -> ReferenceCatalogue | None:
    """The reference stars around all detectors of a visit, at its epoch."""
    if run.reference is None or not visits:
        return None
    corners = np.concatenate([np.stack(v.guess.pixel_to_sky(*v.background.box.corners().T), -1) for v in visits if v.guess])
    ra, dec = sky_of_vectors(unit_vectors(*corners.T).sum(axis=0))
    radius = float(np.max(angular_separation(*corners.T, ra, dec)))
    margin = run.config.visits.astrometry.match.max_offset / 3600.0
    return run.reference.cone(float(ra), float(dec), 1.1 * radius + margin + 0.02).at_epoch(visits[0].exposure.mjd)


def _choices(run: Run, chooser: Chooser, exposure: Exposure, detector: str) -> dict[str, Choice] | BadData:
    """The calibration products of a detector; why it has none is told by the rank that would use them, as its part's failure."""
    if run.camera.detrended:
        return {}
    try:
        return chooser.for_exposure(exposure, detector)
    except BadData as error:
        return error
