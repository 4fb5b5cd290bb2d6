"""coadds: visits warped onto a tract's patches and combined, one file per tract. Warps stay in memory."""

from __future__ import annotations

from ..algorithms.coadd import coadd
from ..algorithms.warp import warp
from ..errors import NothingToDo
from ..io import product
from ..io.coadd import CoaddWriter, encode_coadd
from ..io.visit import read_visit_detector, visit_detector_names
from .stage import Clock, Part, Stage, Unit, configuration_text
from .survey import Run


class Coadds(Stage):
    """Unit: a tract. Parts: a band of a patch each."""

    name = "coadds"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(coadds=run.config.coadds, skymap=run.config.skymap, bands=run.bands)
        present = {path_visit: product.identity(run.store.visit(path_visit)) for path_visit in run.store.visits()}
        detectors = {visit: set(visit_detector_names(run.store.visit(visit))) for visit in present}
        units = []
        for tract in run.survey.tracts():
            if run.options.tracts and tract not in run.options.tracts:
                continue
            members = self._members(run, tract, detectors)
            parts = tuple(Part(f"{band} {patch}", (band, patch, tuple(chosen)), float(len(chosen)))
                          for (patch, band), chosen in sorted(members.items()))
            inputs = {f"visit {visit}": present[visit] for part in parts for visit, _ in part.key[2]}
            if parts:
                units.append(Unit(f"tract {tract}", tract, parts, run.store.coadds(tract), configuration, inputs))
        return units

    def _members(self, run: Run, tract: int, detectors: dict[int, set[str]]) -> dict[tuple[int, str], list[tuple[int, str]]]:
        """(patch, band) -> the (visit, detector) that overlap it and have been calibrated."""
        wanted = set(run.skymap.tract(tract).primary_patches())
        if run.options.patches:
            wanted &= set(run.options.patches)
        members: dict[tuple[int, str], list[tuple[int, str]]] = {}
        for visit, detector, patches in run.survey.overlaps(tract):
            band = run.survey.exposure(visit).band
            if band in run.bands and detector in detectors.get(visit, ()):
                for patch in wanted.intersection(patches):
                    members.setdefault((patch, band), []).append((visit, detector))
        return members

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        band, index, members = part.key
        tract = run.skymap.tract(unit.key)
        box = tract.patch(index).outer
        config = run.config.coadds
        warping = config.warp.model_copy(update={"cell": run.config.skymap.cell_size})
        warps = []
        for visit, detector in members:
            with clock("read"):
                source = read_visit_detector(run.store.visit(visit), detector, sources=False)
            with clock("compute"):
                warps.append(warp(source, tract.wcs, box, warping))
        warps = [warped for warped in warps if warped is not None]
        if not warps:
            raise NothingToDo(f"no visit covers patch {index} in {band}")
        with clock("compute"):
            combined = coadd(band, warps, box, config.coadd)
        with clock("encode"):
            return encode_coadd(index, combined)

    def writer(self, run: Run, unit: Unit, header):
        return CoaddWriter(unit.product, header, run.skymap.tract(unit.key))
