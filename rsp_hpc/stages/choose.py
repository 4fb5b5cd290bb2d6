"""Which calibration products an exposure gets: by its date from the library, and which kinds it must have at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..algorithms.calibs.sky import camera_scales
from ..errors import BadData
from ..io.library import Choice, assemble
from ..products.calibration import Calibration
from ..products.exposure import Exposure
from ..products.kinds import KINDS
from .survey import Run

__all__ = ["Chooser", "calibration_of"]

logger = logging.getLogger(__name__)

KEPT = 4
"""Calibrations that a rank keeps for its next parts: five planes of a detector each."""


class Chooser:
    """Chooses products; for rank 0, which tells the others what to read."""

    def __init__(self, run: Run):
        self.run, self.library = run, run.library
        self._told: set[Path] = set()
        self._scales: dict[Path, dict[str, float]] = {}

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that every detector must have: those that this survey builds and has frames for, or has built, and the certified
        ones.
        """
        there = {exposure.kind for exposure in self.run.survey.exposures()}
        planned: set[str] = set()
        for kind in self.run.config.calibs.kinds:  # in order of dependency
            row = KINDS[kind]
            if kind == "illumination":  # is made of visits: these cannot wait for it
                continue
            if there & set(row.frames) if row.frames else planned & set(row.needs):
                planned.add(kind)
        others = self.library.kinds_certified() | {kind for label in self.run.labels for kind in self.library.kinds_of(label)}
        return tuple(kind for kind in KINDS if kind in planned | others)

    def bands_of(self, kind: str) -> tuple[str, ...]:
        """The bands in which there is one of this kind; ('',) where there is one for all."""
        if not KINDS[kind].per_band:
            return ("",)
        chosen = self.run.config.calibs.bands.get(kind)
        return tuple(band for band in self.run.bands if chosen is None or band in chosen)

    def for_exposure(self, exposure: Exposure, detector: str) -> dict[str, Choice]:
        """kind -> product, for detrending an exposure.

        Raises
        ------
        BadData
            One is missing, bad, not valid at this date, or of another read-out mode; the message says what to do.
        """
        mode = self.run.survey.mode(exposure.visit, detector)
        bands = {kind: exposure.band if KINDS[kind].per_band else "" for kind in self.kinds
                 if not KINDS[kind].per_band or exposure.band in self.bands_of(kind)}
        found = self._chosen(bands, detector, exposure.mjd, mode, own_first=False)
        if "sky" in found:
            scale = self._sky_scales(found["sky"].path.parent).get(detector, 1.0)
            found["sky"] = replace(found["sky"], scale=scale, identity=f"{found['sky'].identity} scale {scale:.9g}")
        return found

    def _sky_scales(self, folder: Path) -> dict[str, float]:
        """Detector -> its sky over the camera's mean, from the levels of the visits that a set of sky frames was made of."""
        if folder not in self._scales:
            facts = [self.library.facts(path) for path in sorted(folder.glob("*.h5")) if path.name[0] != "."]
            levels = {item.detector: {name.split()[1]: value for name, value in item.verdict.statistics.items()
                                      if name.startswith("level ")} for item in facts}
            areas = {detector.name: float(detector.box.area) for detector in self.run.camera.detectors}
            self._scales[folder] = camera_scales(levels, areas, self.run.config.calibs.sky)[0]
        return self._scales[folder]

    def for_building(self, kind: str, bands: tuple[str, ...], detector: str, mjd: float, mode: str) -> dict[str, Choice]:
        """'kind' or 'kind band' -> product, for what a kind needs; those of the same label first."""
        found: dict[str, Choice] = {}
        for need in (need for need in KINDS[kind].needs if need in self.kinds):
            for band in bands if KINDS[need].per_band else ("",):
                if KINDS[need].per_band and not self._anywhere(need, band):
                    continue
                found[f"{need} {band}".strip()] = self._chosen({need: band}, detector, mjd, mode, own_first=True)[need]
        return found

    def _anywhere(self, kind: str, band: str) -> bool:
        """Whether this survey has frames of a band for a kind, or any such product is certified."""
        if any(key[:2] == (kind, band) for key in self.library.certificates):
            return True
        return any(self.run.survey.exposures(frames, band) for frames in KINDS[kind].frames)

    def _chosen(self, bands: Mapping[str, str], detector: str, mjd: float, mode: str, own_first: bool) -> dict[str, Choice]:
        found, missing = {}, []
        for kind, band in bands.items():
            choice = self.library.choose((kind, band, detector), mjd, self.run.labels if own_first else (self.run.label,),
                                         (mode, own_first))
            if choice is None:
                missing.append(kind)
                continue
            found[kind] = choice
            if choice.verdict.state != "good" and choice.path not in self._told:
                self._told.add(choice.path)
                logger.warning("%s: used though it is %s (%s)", choice.path, choice.verdict.state, "; ".join(choice.verdict.reasons)[:200])
        if missing:
            band = next((bands[kind] for kind in missing if bands[kind]), "")
            raise BadData(f"detector {detector} has no {' and no '.join(missing)}{f' in band {band}' if band else ''} among its "
                          f"calibrations: add the frames to the data and run calibs, which says what is wrong with them, certify one, "
                          f"or leave {'the band or ' if band else ''}the detector out")
        return found


def calibration_of(run: Run, choices: Mapping[str, Choice], detector: str) -> Calibration:
    """The calibration from the chosen products, on any rank; the last few are kept."""
    shape = run.camera.detector(detector).box.shape
    key = f"calibration {detector} {sorted((kind, choice.identity) for kind, choice in choices.items())}"
    return run.cached(key, lambda: assemble(choices, run.camera.name, detector, shape), KEPT)
