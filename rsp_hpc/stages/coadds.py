"""coadds: visits warped onto a tract's patches and combined, one file per tract. Warps stay in memory."""

from __future__ import annotations

from ..algorithms.coadd import coadd
from ..algorithms.warp import warp
from ..errors import BadData, NothingToDo
from ..io.coadd import CoaddWriter, encode_coadd
from ..io.visit import read_visit_detector, visit_detector_names
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run


class Coadds(Stage):
    """Unit: a tract. Parts: a band of a patch each."""

    name = "coadds"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(coadds=run.config.coadds, skymap=run.config.skymap, bands=run.bands)
        present, detectors, damaged = {}, {}, set()
        for visit in run.store.visits():
            present[visit] = self.identity(run.store.visit(visit), f"visit {visit}")
            if present[visit] is None:
                damaged.add(visit)
            else:
                detectors[visit] = set(visit_detector_names(run.store.visit(visit)))
        units = []
        for tract in run.survey.tracts():
            if run.options.tracts and tract not in run.options.tracts:
                continue
            members = self._members(run, tract, detectors)
            incomplete = any(visit in damaged for visit, _, _ in run.survey.overlaps(tract))
            parts = tuple(Part(f"{band} {patch}", (band, patch, tuple(chosen)), float(len(chosen)))
                          for (patch, band), chosen in sorted(members.items()))
            inputs = {f"visit {visit}": present[visit] for part in parts for visit, _ in part.key[2]}
            if parts:
                units.append(Unit(f"tract {tract}", tract, parts, run.store.coadds(tract), configuration, inputs, incomplete))
        return units

    def _members(self, run: Run, tract: int, detectors: dict[int, set[str]]) -> dict[tuple[int, str], list[tuple[int, str]]]:
        """(patch, band) -> the (visit, detector) that overlap it and have been calibrated."""
        options, wanted = run.options, set(run.skymap.tract(tract).primary_patches())
        if options.patches:
            wanted &= set(options.patches)
        members: dict[tuple[int, str], list[tuple[int, str]]] = {}
        for visit, detector, patches in run.survey.overlaps(tract):
            if (options.visits and visit not in options.visits) or (options.detectors and detector not in options.detectors):
                continue
            band = run.survey.exposure(visit).band
            if band in run.bands and detector in detectors.get(visit, ()):
                for patch in wanted.intersection(patches):
                    members.setdefault((patch, band), []).append((visit, detector))
        return members

    def work(self, run: Run, unit: Unit, part: Part, record: Record):
        band, index, members = part.key
        tract = run.skymap.tract(unit.key)
        box = tract.patch(index).outer
        config = run.config.coadds
        warping = config.warp.model_copy(update={"cell": run.config.skymap.cell_size})
        warps = []
        for visit, detector in members:
            try:
                with record("read"):
                    source = read_visit_detector(run.store.visit(visit), detector, sources=False)
            except BadData as error:
                record.leave_out(f"visit {visit} {detector}", error)
                continue
            with record("compute"):
                warps.append(warp(source, tract.wcs, box, warping))
        warps = [warped for warped in warps if warped is not None]
        if not warps and record.left_out:
            raise record.left_out[0][1]
        if not warps:
            raise NothingToDo(f"no visit covers patch {index} in {band}")
        with record("compute"):
            combined = coadd(band, warps, box, config.coadd)
        with record("encode"):
            return encode_coadd(index, combined)

    def writer(self, run: Run, unit: Unit, header):
        return CoaddWriter(unit.product, header, run.skymap.tract(unit.key))
