"""objects: detection on the multi-band coadds, deblending, forced measurement, one catalogue per tract."""

from __future__ import annotations

import numpy as np

from ..algorithms.borders import settle_borders
from ..algorithms.objects import measure_objects
from ..io.coadd import read_coadd
from ..io.objects import ObjectsWriter, read_border, rewrite_primary
from ..io.product import identity_of_file
from ..products.catalogue import Catalogue
from .stage import Clock, Part, Stage, Unit, identity
from .survey import Run


class Objects(Stage):
    """Unit: a tract. Parts: its patches."""

    name = "objects"

    def units(self, run: Run) -> list[Unit]:
        configuration = {"objects": run.config.objects.model_dump(mode="json"), "borders": run.config.borders.model_dump(mode="json"),
                         "bands": run.bands}
        units = []
        for tract in run.store.tracts():
            path = run.store.coadds(tract)
            if not path.exists() or (run.options.tracts and tract not in run.options.tracts):
                continue
            patches = [patch for patch in coadd_patches(path) if not run.options.patches or patch in run.options.patches]
            parts = tuple(Part(f"patch {patch}", patch) for patch in patches)
            units.append(Unit(f"tract {tract}", tract, parts, run.store.objects(tract),
                              identity(self.name, configuration, [identity_of_file(path), *map(str, patches)])))
        return units
