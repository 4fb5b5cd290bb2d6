"""objects: detection on the multi-band coadds, deblending, forced measurement; one catalogue per tract."""

from __future__ import annotations

from ..algorithms.borders import settle_borders
from ..algorithms.objects import measure_objects
from ..errors import BadData
from ..io.coadd import coadd_parts, read_coadd
from ..io.objects import ObjectsWriter, read_objects, replace_primary
from ..parallel import Failure
from ..products.catalogue import Catalogue
from .stage import Part, Record, Stage, Unit, configuration_text
from .survey import Run

BORDER = ("objectId", "tract", "coord_ra", "coord_dec", "detect_isPatchInner", "detect_isTractInner", "detect_isPrimary")


class Objects(Stage):
    """Unit: a tract. Parts: its patches. Last, objects that two tracts have measured are settled."""

    name = "objects"

    def units(self, run: Run) -> list[Unit]:
        configuration = configuration_text(objects=run.config.objects, borders=run.config.borders, bands=run.bands)
        units = []
        for tract in run.store.tracts():
            if run.options.tracts and tract not in run.options.tracts:
                continue
            path = run.store.coadds(tract)
            found = self.identity(path, f"tract {tract}")
            if found is None:
                continue
            patches: dict[int, list[str]] = {}
            for patch, band in coadd_parts(path):
                if band in run.bands and (not run.options.patches or patch in run.options.patches):
                    patches.setdefault(patch, []).append(band)
            parts = tuple(Part(f"patch {patch}", (patch, tuple(sorted(bands, key=run.bands.index))), float(len(bands)))
                          for patch, bands in sorted(patches.items()))
            if parts:
                units.append(Unit(f"tract {tract}", tract, parts, run.store.objects(tract), configuration,
                                  {"coadds": found}))
        return units

    def work(self, run: Run, unit: Unit, part: Part, record: Record) -> Catalogue:
        index, bands = part.key
        tract = run.skymap.tract(unit.key)
        with record("read"):
            coadds = {band: read_coadd(run.store.coadds(unit.key), band, index) for band in bands}
        with record("compute"):
            return measure_objects(tract, tract.patch(index), coadds, run.config.objects)

    def writer(self, run: Run, unit: Unit, header):
        return ObjectsWriter(unit.product, header, lambda rows: _one_per_object(rows, run), run.bands)

    def finish(self, run: Run) -> list[Failure]:
        """Settle the objects that neighbouring tracts share; only files whose flags change are replaced."""
        tables, failures = {}, []
        for tract in run.store.tracts("objects"):
            try:
                tables[tract] = read_objects(run.store.objects(tract), BORDER)
            except BadData as error:
                failures.append(Failure(f"tract {tract}", "", type(error).__name__, str(error)))
        if len(tables) > 1:
            rows = Catalogue.concatenate([table for table in tables.values() if len(table)])
            rows = rows.rows(rows["detect_isPatchInner"])
            primary = settle_borders(rows["tract"], rows["detect_isTractInner"], rows["coord_ra"], rows["coord_dec"],
                                     run.config.borders)
            for tract in tables:
                mine = rows["tract"] == tract
                replace_primary(run.store.objects(tract), rows["objectId"][mine], primary[mine])
        return failures


def _one_per_object(rows: Catalogue, run: Run) -> Catalogue:
    """A tract's objects with `detect_isPatchInner` settled where patches overlap, and the primary flag to match."""
    inner = settle_borders(rows["patch"], rows["detect_isPatchInner"], rows["coord_ra"], rows["coord_dec"], run.config.borders)
    changed = {"detect_isPatchInner": inner, "detect_isPrimary": inner & rows["detect_isTractInner"]}
    return rows.with_columns([rows.columns[name] for name in changed], changed)
