"""objects: detection on the multi-band coadds, deblending, forced measurement; one catalogue per tract."""

from __future__ import annotations

from ..algorithms.borders import settle_borders
from ..algorithms.objects import measure_objects
from ..io import product
from ..io.coadd import coadd_parts, read_coadd
from ..io.objects import ObjectsWriter, read_objects, replace_primary
from ..parallel import Failure
from ..products.catalogue import Catalogue
from .stage import Clock, Part, Stage, Unit, configuration_text
from .survey import Run

BORDER = ("objectId", "tract", "coord_ra", "coord_dec", "detect_isPatchInner", "detect_isTractInner", "detect_isPrimary")


class Objects(Stage):
    """Unit: a tract. Parts: its patches. Last, objects that two tracts have measured are settled."""

    name = "objects"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(objects=run.config.objects, borders=run.config.borders, bands=run.bands)
        units = []
        for tract in run.store.tracts():
            path = run.store.coadds(tract)
            found = product.identity(path)
            if found is None or (run.options.tracts and tract not in run.options.tracts):
                continue
            patches: dict[int, list[str]] = {}
            for patch, band in coadd_parts(path):
                if band in run.bands and (not run.options.patches or patch in run.options.patches):
                    patches.setdefault(patch, []).append(band)
            parts = tuple(Part(f"patch {patch}", (patch, tuple(sorted(bands, key=run.bands.index))), float(len(bands)))
                          for patch, bands in sorted(patches.items()))
            if parts:
                units.append(Unit(f"tract {tract}", tract, parts, run.store.objects(tract), configuration,
                                  {"coadds": found, "patches": ",".join(map(str, sorted(patches)))}))
        return units

    def work(self, run: Run, unit: Unit, part: Part, clock: Clock) -> Catalogue:
        index, bands = part.key
        tract = run.skymap.tract(unit.key)
        with clock("read"):
            coadds = {band: read_coadd(run.store.coadds(unit.key), band, index) for band in bands}
        with clock("compute"):
            return measure_objects(tract, tract.patch(index), coadds, run.config.objects)

    def writer(self, run: Run, unit: Unit, header):
        return ObjectsWriter(unit.product, header, lambda rows: _one_per_object(rows, run), run.bands)

    def finish(self, run: Run) -> list[Failure]:
        """Settle the objects that neighbouring tracts share; only files whose flags change are replaced."""
        tracts = [tract for tract in run.store.tracts() if run.store.objects(tract).exists()]
        if len(tracts) < 2:
            return []
        rows = Catalogue.concatenate([read_objects(run.store.objects(tract), BORDER) for tract in tracts])
        rows = rows.rows(rows["detect_isPatchInner"])
        primary = settle_borders(rows["tract"], rows["detect_isTractInner"], rows["coord_ra"], rows["coord_dec"],
                                 run.config.borders)
        for tract in tracts:
            mine = rows["tract"] == tract
            replace_primary(run.store.objects(tract), rows["objectId"][mine], primary[mine])
        return []


def _one_per_object(rows: Catalogue, run: Run) -> Catalogue:
    """A tract's objects with `detect_isPatchInner` settled where patches overlap, and the primary flag to match."""
    inner = settle_borders(rows["patch"], rows["detect_isPatchInner"], rows["coord_ra"], rows["coord_dec"], run.config.borders)
    changed = {"detect_isPatchInner": inner, "detect_isPrimary": inner & rows["detect_isTractInner"]}
    return rows.with_columns([rows.columns[name] for name in changed], changed)
