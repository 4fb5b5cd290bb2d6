"""One pass over the coadds: noise at the true objects, blank sky, and the pictures; one coadd in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import BadData
from ..products.box import Box
from ..products.catalogue import Catalogue
from ..products.coadd import Coadd
from ..products.skymap import Patch, RingsSkyMap, Tract
from .config import ReportConfig
from .figure import in_order
from .folder import Folder
from .images import UNFIT, BlankSky, adaptive_moments, blank_sky
from .inputs import PatchArea, Picture
from .metrics import Truth
from .robust import evenly, neighbours

__all__ = ["CoaddSurvey", "survey_coadds"]

PICTURE_SIZE, ZOOM_SIZE = 700, 400


@dataclass
class CoaddSurvey:
    """What the pass over the coadds found.

    Attributes
    ----------
    noise : band -> (n_true,) float64, nJy, error of a star's optimal flux at the true objects; NaN off the coadds
    psf_sigma : band -> float, arcsec
    usable : (n_true,) bool, on good pixels in all bands that cover the object, at least one
    """

    usable: np.ndarray
    noise: dict[str, np.ndarray] = field(default_factory=dict)
    psf_sigma: dict[str, float] = field(default_factory=dict)
    skies: list[BlankSky] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    patches: list[PatchArea] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def survey_coadds(folder: Folder, skymap: RingsSkyMap, truth: Truth | None, config: ReportConfig,
                  objects: Catalogue | None = None) -> CoaddSurvey:
    """Look at every coadd, or at an even choice of patches where there are very many."""
    n = 0 if truth is None else len(truth)
    found = CoaddSurvey(np.zeros(n, bool))
    bad, sigmas = np.zeros(n, bool), {}
    places: dict[tuple[int, int], list[str]] = {}
    for number in folder.tracts():
        try:
            for patch, band in folder.patches(number):
                places.setdefault((number, patch), []).append(band)
        except BadData as error:
            found.missing.append(str(error))
    found.bands = in_order(band for bands in places.values() for band in bands)
    if not places:
        found.missing.append("coadds: none is finished")
    for number, patch in places:
        area = skymap.tract(number)
        found.patches.append(PatchArea(number, patch, np.stack(area.corners(area.patch(patch).inner), axis=-1)))
    keys = sorted(places)
    chosen = [keys[k] for k in evenly(len(keys), config.most_patches)]
    if len(chosen) < len(keys):
        found.missing.append(f"blank sky, truth and pictures: from {len(chosen)} of {len(keys)} patches")
    canvases = _canvases(skymap, chosen, places, config)
    for number, index in chosen:
        tract = skymap.tract(number)
        patch = tract.patch(index)
        rows, x, y = _inside(truth, tract, patch)
        detected = _detected(objects, tract)
        for band in places[number, index]:
            try:
                coadd = folder.coadd(number, index, band)
            except BadData as error:
                found.missing.append(str(error))
                continue
            _look(found, coadd, detected, config)
            sigmas.setdefault(band, []).append(_psf_sigma(coadd, tract))
            _at_truth(found, bad, coadd, rows, x, y)
            for canvas in canvases:
                if canvas.number == number:
                    canvas.add(coadd, patch)
    found.usable &= ~bad
    found.psf_sigma = {band: float(np.nanmedian(values)) for band, values in sigmas.items()
                       if np.isfinite(values).any()}
    found.noise = {band: values for band, values in found.noise.items() if band in found.psf_sigma}
    found.pictures = [picture for canvas in canvases if (picture := canvas.picture()) is not None]
    return found


def _detected(objects: Catalogue | None, tract: Tract) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) in a tract's pixels of all its objects, primary or not."""
    if objects is None:
        return np.zeros(0), np.zeros(0)
    mine = objects["tract"] == tract.number
    return tract.wcs.sky_to_pixel(objects["coord_ra"][mine], objects["coord_dec"][mine])


def _look(found: CoaddSurvey, coadd: Coadd, detected: tuple[np.ndarray, np.ndarray], config: ReportConfig) -> None:
    inside = coadd.image.box.contains(*detected)
    sky = blank_sky(coadd, config.empty_apertures, config.seed, (detected[0][inside], detected[1][inside]))
    if sky is not None and np.isfinite(sky.scatter.value):
        found.skies.append(sky)


def _inside(truth: Truth | None, tract: Tract, patch: Patch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, x, y) of the true objects that belong to this patch of this tract."""
    if truth is None or not len(truth):
        return np.empty(0, int), np.empty(0), np.empty(0)
    ra, dec = tract.wcs.pixel_to_sky(patch.inner.x0 + 0.5 * patch.inner.nx, patch.inner.y0 + 0.5 * patch.inner.ny)
    reach = 0.75 * max(patch.inner.nx, patch.inner.ny) * tract.wcs.pixel_scale
    near = neighbours([float(ra)], [float(dec)], truth.ra, truth.dec, reach)[1]
    x, y = tract.wcs.sky_to_pixel(truth.ra[near], truth.dec[near])
    here = patch.inner.contains(x, y) & tract.contains(truth.ra[near], truth.dec[near])
    return near[here], x[here], y[here]


def _psf_sigma(coadd: Coadd, tract: Tract) -> float:
    """Sigma of the coadd's PSF in arcsec, median over its cells."""
    cells = coadd.psf.cells.reshape(-1, coadd.psf.size, coadd.psf.size)
    sizes = [np.sqrt(0.5 * (m[0] + m[1])) for cell in cells[:: max(1, len(cells) // 9)] if np.isfinite(cell).all()
             for m in (adaptive_moments(cell.astype(float)),)]
    return float(np.nanmedian(sizes)) * tract.wcs.pixel_scale if np.isfinite(sizes).any() else float("nan")


def _at_truth(found: CoaddSurvey, bad: np.ndarray, coadd: Coadd, rows: np.ndarray, x: np.ndarray,
              y: np.ndarray) -> None:
    """Enter the noise at the true objects: median variance of their cell times its noise correlation, over sum(P^2)."""
    noise = found.noise.setdefault(coadd.band, np.full(len(found.usable), np.nan))
    image = coadd.image
    column, line = (np.rint(v).astype(int) - origin for v, origin in ((x, image.box.x0), (y, image.box.y0)))
    there = (column >= 0) & (line >= 0) & (column < image.box.nx) & (line < image.box.ny)
    rows, column, line, x, y = rows[there], column[there], line[there], x[there], y[there]
    if not len(rows):
        return
    cell = coadd.psf.index(x, y)
    table = cell_variance(coadd)
    area = (coadd.psf.cells[cell].astype(float) ** 2).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        noise[rows] = np.sqrt(table[cell] * coadd.noise_correlation[cell] / area)
    covered = coadd.n_inputs[line, column] > 0
    good = image.good(*UNFIT)[line, column] & np.isfinite(noise[rows])
    found.usable[rows] |= covered & good
    bad[rows] |= covered & ~good


def cell_variance(coadd: Coadd) -> np.ndarray:
    """(ncy, ncx) median variance of the pixels of each cell, nJy^2; NaN where there is none."""
    ncy, ncx = coadd.psf.cells.shape[:2]
    side, table = coadd.psf.cell, np.full((ncy, ncx), np.nan)
    origin_x, origin_y = coadd.psf.box.x0 - coadd.image.box.x0, coadd.psf.box.y0 - coadd.image.box.y0
    for j in range(ncy):
        for i in range(ncx):
            rows, columns = (slice(max(0, start), max(0, start + side))
                             for start in (origin_y + j * side, origin_x + i * side))
            values = coadd.image.variance[rows, columns]
            values = values[np.isfinite(values) & (values > 0)]
            table[j, i] = np.median(values) if len(values) else np.nan
    return table


@dataclass
class _Canvas:
    """A picture that grows patch by patch: sums and counts of pixels per bin and band."""

    number: int
    tract: Tract
    title: str
    box: Box
    step: int
    patches: dict[int, Patch]
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return -(-self.box.ny // self.step), -(-self.box.nx // self.step)

    def add(self, coadd: Coadd, patch: Patch) -> None:
        """Bin a patch's inner pixels that lie in the picture."""
        part = patch.inner.intersect(self.box).intersect(coadd.image.box)
        if not part.area:
            return
        pixels = coadd.image.cutout(part)
        good = np.isfinite(pixels.image) & (pixels.variance < np.inf)
        sums = self.sums.setdefault(coadd.band, np.zeros(self.shape))
        counts = self.counts.setdefault(coadd.band, np.zeros(self.shape))
        for axis_sum, values in ((sums, np.where(good, pixels.image, 0.0)), (counts, good.astype(float))):
            binned, top, left = _binned(values, part, self.box, self.step)
            axis_sum[top:top + binned.shape[0], left:left + binned.shape[1]] += binned

    def picture(self) -> Picture | None:
        """The finished picture, cut to where there are data; None if there are none."""
        seen = sum((counts > 0 for counts in self.counts.values()), np.zeros(self.shape, bool))
        if not np.any(seen):
            return None
        rows, columns = (np.nonzero(seen.any(axis=axis))[0] for axis in (1, 0))
        cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            images = {band: np.where(self.counts[band] > 0, self.sums[band] / self.counts[band],
                                     np.nan)[cut].astype("f4")
                      for band in in_order(self.sums)}
        box = Box(self.box.x0 + int(columns[0]) * self.step, self.box.y0 + int(rows[0]) * self.step,
                  int(columns[-1] - columns[0] + 1) * self.step, int(rows[-1] - rows[0] + 1) * self.step)
        inner = [(f"patch {index}", patch.inner) for index, patch in self.patches.items()]
        return Picture(self.title, images, box, self.step, self.tract.wcs, inner, tract_borders(self.tract, box))


def _binned(values: np.ndarray, part: Box, box: Box, step: int) -> tuple[np.ndarray, int, int]:
    """Sums over the bins of a picture, and the bin that the first row and column belong to."""
    for axis, start, size in ((0, part.y0 - box.y0, part.ny), (1, part.x0 - box.x0, part.nx)):
        edges = np.arange(start - start % step, start + size, step) - start
        values = np.add.reduceat(values, np.maximum(edges, 0), axis=axis)
    return values, (part.y0 - box.y0) // step, (part.x0 - box.x0) // step


def _canvases(skymap: RingsSkyMap, keys: list[tuple[int, int]], places: dict, config: ReportConfig) -> list[_Canvas]:
    """Overviews of the tracts with the most patches, and a close look into the patch with the most bands of each."""
    members: dict[int, list[int]] = {}
    for number, patch in keys:
        members.setdefault(number, []).append(patch)
    result = []
    for number in sorted(members, key=lambda number: (-len(members[number]), number))[:max(1, config.pictures // 2)]:
        tract = skymap.tract(number)
        patches = {index: tract.patch(index) for index in members[number]}
        x0, y0 = (min(getattr(patch.inner, name) for patch in patches.values()) for name in ("x0", "y0"))
        x1, y1 = (max(getattr(patch.inner, name) for patch in patches.values()) for name in ("x1", "y1"))
        box = Box(x0, y0, x1 - x0, y1 - y0)
        step = max(1, -(-max(box.nx, box.ny) // PICTURE_SIZE))
        result.append(_Canvas(number, tract, f"Tract {number}" + (f", 1 in {step} pixels" if step > 1 else ""), box,
                              step, patches))
        most = max(patches, key=lambda index: (len(places[number, index]), -index))
        inner = patches[most].inner
        side = min(ZOOM_SIZE, inner.nx, inner.ny)
        close = Box(inner.x0 + (inner.nx - side) // 2, inner.y0 + (inner.ny - side) // 2, side, side)
        result.append(_Canvas(number, tract, f"Tract {number}, patch {most}, every pixel", close, 1,
                              {most: patches[most]}))
    return result[:config.pictures]


def tract_borders(tract: Tract, box: Box, samples: int = 80) -> list[np.ndarray]:
    """Lines between this tract's inner area and its neighbours', in tract pixels, in a box."""
    import contourpy  # comes with matplotlib

    x, y = np.linspace(box.x0, box.x1 - 1, samples), np.linspace(box.y0, box.y1 - 1, samples)
    grid_x, grid_y = np.meshgrid(x, y)
    own = tract.contains(*tract.wcs.pixel_to_sky(grid_x, grid_y)).astype(float)
    if own.min() == own.max():
        return []
    return list(contourpy.contour_generator(x, y, own).lines(0.5))
