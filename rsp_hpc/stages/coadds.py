"""coadds: visits warped onto a tract's patches and combined, one file per tract. Warps stay in memory."""

from __future__ import annotations

from ..algorithms.coadd import coadd
from ..algorithms.warp import warp
from ..errors import NothingToDo
from ..io.coadd import CoaddWriter, encode_coadd
from ..io.product import identity_of_file
from ..io.visit import read_visit_detector
from .stage import Clock, Part, Stage, Unit, identity
from .survey import Run


class Coadds(Stage):
    """Unit: a tract. Parts: a band of a patch each."""

    name = "coadds"

    def units(self, run: Run) -> list[Unit]:
        units = []
        identities: dict[int, str | None] = {}
        configuration = {"coadds": run.config.coadds.model_dump(mode="json"), "skymap": run.config.skymap.model_dump(mode="json"),
                         "bands": run.bands}
        for tract in run.survey.tracts():
            if run.options.tracts and tract not in run.options.tracts:
                continue
            inputs, members = [], {}
            wanted = set(run.skymap.tract(tract).primary_patches()) & set(run.options.patches or run.survey.patches(tract))
            for visit, detector, patches in run.survey.overlaps(tract):
                band = run.survey.exposure(visit).band
                found = identities.setdefault(visit, _visit_identity(run, visit))
                if band not in run.bands or found is None:
                    continue
                inputs.append(f"{visit} {detector} {found}")
                for patch in wanted & set(patches):
                    members.setdefault((patch, band), []).append((visit, detector))
            parts = tuple(Part(f"{band} {patch}", (band, patch, tuple(members[patch, band])), float(len(members[patch, band])))
                          for patch, band in sorted(members, key=lambda key: (key[0], run.bands.index(key[1]))))
            if parts:
                units.append(Unit(f"tract {tract}", tract, parts, run.store.coadds(tract),
                                  identity(self.name, configuration, sorted(set(inputs)))))
        return units

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock):
        band, index, members = part.key
        tract = run.skymap.tract(unit.key)
        patch = tract.patch(index)
        warps = []
        for visit, detector in members:
            with clock("read"):
                source = read_visit_detector(run.store.visit(visit), detector)
            if source is None:
                continue
            with clock("compute"):
                warped = warp(source, tract.wcs, patch.outer, run.config.coadds.warp)
            if warped is not None:
                warps.append(warped)
        if not warps:
            raise NothingToDo(f"no visit covers patch {index} in {band}")
        with clock("compute"):
            combined = coadd(band, warps, patch.outer, run.config.coadds.coadd)
        with clock("encode"):
            return encode_coadd(index, combined)

    def writer(self, run: Run, unit: Unit):
        return CoaddWriter(unit.product, run.header(self.name, unit), run.skymap.tract(unit.key))


def _visit_identity(run: Run, visit: int) -> str | None:
    path = run.store.visit(visit)
    return identity_of_file(path) if path.exists() else None
