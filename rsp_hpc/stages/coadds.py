"""coadds: visits warped onto a tract's patches and combined, one file per tract. Warps stay in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .. import log
from ..algorithms.coadd import coadd
from ..algorithms.photometry import relative_scales
from ..algorithms.sky import with_visit_sky
from ..algorithms.warp import warp
from ..errors import BadData, NothingToDo
from ..io.coadd import CoaddWriter, encode_coadd
from ..io.visit import read_exposure, read_sources, read_visit_detector, visit_detector_names
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run


STARS = ("ra", "dec", "psfFlux", "psfFluxErr", "psfFlux_flag", "pixelFlags_saturated")


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
        scales = _scales(run, detectors) if run.config.reference is None else {}
        units = []
        for tract in run.survey.tracts():
            if run.options.tracts and tract not in run.options.tracts:
                continue
            members = self._members(run, tract, detectors)
            incomplete = any(visit in damaged for visit, _, _ in run.survey.overlaps(tract))
            parts = tuple(Part(f"{band} {patch}", (band, patch, tuple((*member, scales.get(member[0], 1.0)) for member in chosen)),
                               float(len(chosen))) for (patch, band), chosen in sorted(members.items()))
            inputs = {f"visit {visit}": present[visit] for part in parts for visit, _, _ in part.key[2]}
            inputs |= {f"scale of visit {visit}": repr(scale) for part in parts for visit, _, scale in part.key[2] if scale != 1.0}
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
        for visit, detector, scale in members:
            try:
                with record("read"):
                    source = read_visit_detector(run.store.visit(visit), detector, sources=False)
                if config.sky == "visit":
                    with record("compute"):
                        source = with_visit_sky(source)
            except BadData as error:
                record.leave_out(f"visit {visit} {detector}", error)
                continue
            calibrated = replace(source, photocal=replace(source.photocal, scale=source.photocal.scale * scale))
            with record("compute"):
                warps.append(warp(calibrated, tract.wcs, box, warping))
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


def _scales(run: Run, visits) -> dict[int, float]:
    """visit -> factor on its nominal zero point, from the stars that visits share; for surveys without a reference catalogue."""
    bands: dict[str, list[int]] = {}
    for visit in sorted(visits):
        bands.setdefault(read_exposure(run.store.visit(visit)).band, []).append(visit)
    scales: dict[int, float] = {}
    for band, members in sorted(bands.items()):
        factors = relative_scales([read_sources(run.store.visit(visit), STARS) for visit in members], run.config.coadds.relative)
        scales |= dict(zip(members, map(float, factors)))
        if len(members) > 1:
            log.tell("coadds: no reference catalogue; visits in %s lost up to %.2f mag against the clearest", band,
                     2.5 * np.log10(max(factors)))
    return scales
