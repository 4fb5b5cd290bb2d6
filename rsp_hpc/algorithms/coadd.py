"""Coadd: the clipped weighted mean of warps, with its PSF, its noise correlation and its inputs.

Each input has one weight (one over its median variance), so that the coadd's PSF is the weighted mean of the warps'
PSFs and a star's profile does not depend on its brightness. Outliers are found against the mean of the other inputs
(algorithms.md D.2), with a tolerance where the sky varies from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..config import Config, parameter
from ..errors import BadData, NothingToDo
from ..kernels import coadd as kernel
from ..products.box import Box
from ..products.catalogue import Catalogue, Column
from ..products.coadd import Coadd
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import CellPsf
from ..products.warp import Warp

__all__ = ["CoaddConfig", "coadd", "coadd_blocks", "row_blocks", "stitch"]

CARRIED = ("INTRP", "SUSPECT", "CROSSTALK", "STREAK", "VIGNETTED", "ITL_DIP", "HIGH_VARIANCE")

INPUT_COLUMNS = (
    Column("visit", "i8", "", "visit id"),
    Column("detector", "i4", "", "detector id"),
    Column("weight", "f8", "nJy^-2", "one over the median variance of the warp"),
    Column("nPixels", "i8", "", "pixels with a value"),
    Column("nClipped", "i8", "", "pixels of them that were clipped"),
    Column("apertureCorrection", "f8", "", "factor from PSF flux to calibration aperture flux"),
)


class CoaddConfig(Config):
    """How warps are combined."""

    kappa: float = parameter(4.5, "an input this far from the mean of the others is clipped", unit="sigma", above=0.0)
    tolerance: float = parameter(1.0, "times the local range of the others, added to the limit: spares stars when the "
                                      "seeing changes", low=0.0)
    min_inputs: int = parameter(3, "pixels with fewer inputs are not clipped", low=3)
    max_saturated: float = parameter(0.2, "a pixel is saturated if more than this share of the weight was", low=0.0,
                                     high=1.0)
    min_coverage: float = parameter(0.5, "an input belongs to a cell if it covers this fraction of it", above=0.0,
                                    high=1.0)
    block_rows: int = parameter(0, "rows combined at a time, in whole cells; 0: all. Less memory, the same result",
                                unit="pixel", low=0, neutral=True)


def coadd(band: str, warps: list[Warp], box: Box, config: CoaddConfig) -> Coadd:
    """Combine the warps of one band on a box.

    Parameters
    ----------
    warps : made for this very box; their order does not matter

    Raises
    ------
    NothingToDo
        There is no warp.
    BadData
        The warps were made for another box or with different cells.
    """
    warps = _checked(warps, box)
    inputs = [kernel.Input(warp.image.image, warp.image.variance, warp.image.mask, warp.image.box.x0 - box.x0,
                           warp.image.box.y0 - box.y0, warp.weight) for warp in warps]
    rules = {"kappa": config.kappa, "tolerance": config.tolerance, "max_saturated": config.max_saturated,
             "min_inputs": config.min_inputs, "carry": bits(*CARRIED), "rejected": bits("REJECTED"),
             "edge": bits("SENSOR_EDGE"), "saturated": bits("SAT"), "clipped": bits("CLIPPED"),
             "no_data": bits("NO_DATA")}
    image, variance, mask, count, clipped = kernel.clipped_mean(inputs, box.shape, rules)
    psf, noise, n_expected = _cells(warps, box, config)
    cell = psf.cell
    expected = np.repeat(np.repeat(n_expected, cell, axis=0), cell, axis=1)[:box.ny, :box.nx]
    mask |= np.where(count != expected, np.uint32(bits("INEXACT_PSF")), np.uint32(0))
    return Coadd(band, MaskedImage(image, mask, variance, box, "nJy"), count, psf, noise, _inputs(warps, clipped, box))


def row_blocks(box: Box, cell: int, rows: int) -> Iterator[Box]:
    """Boxes of about `rows` rows, in whole cells, that tile a box from below; the box itself for rows = 0."""
    step = max(cell, rows // cell * cell) if rows else max(box.ny, 1)
    for y0 in range(box.y0, box.y1, step):
        yield Box(box.x0, y0, box.nx, min(step, box.y1 - y0))


def coadd_blocks(band: str, warps_of: Callable[[Box], list[Warp]], box: Box, cell: int, config: CoaddConfig) -> Coadd:
    """Coadd a box block by block, so that only one block's warps are in memory at a time.

    `warps_of(block)` makes the warps of a block. The result has the same bits as one coadd of the whole box.

    Raises
    ------
    NothingToDo
        No block has a warp.
    """
    parts = []
    for block in row_blocks(box, cell, config.block_rows):
        try:
            parts.append(coadd(band, warps_of(block), block, config))
        except NothingToDo:
            parts.append(None)
    return stitch(parts, list(row_blocks(box, cell, config.block_rows)), box)


def stitch(parts: list[Coadd | None], blocks: list[Box], box: Box) -> Coadd:
    """Put blocks of rows together; None stands for a block without input.

    Raises
    ------
    NothingToDo
        All are None.
    """
    whole = next((part for part in parts if part is not None), None)
    if whole is None:
        raise NothingToDo("no warp covers any pixel here")
    parts = [_without_input(whole, block) if part is None else part for part, block in zip(parts, blocks)]
    image, mask, variance = (np.concatenate([getattr(part.image, name) for part in parts])
                             for name in ("image", "mask", "variance"))
    psf = CellPsf(np.concatenate([part.psf.cells for part in parts]), whole.psf.cell, box)
    n_inputs = np.concatenate([part.n_inputs for part in parts])
    noise = np.concatenate([part.noise_correlation for part in parts])
    inputs = _merged([part.inputs for part in parts])
    return Coadd(whole.band, MaskedImage(image, mask, variance, box, "nJy"), n_inputs, psf, noise, inputs)


def _without_input(like: Coadd, box: Box) -> Coadd:
    """An empty block of rows beside a coadd."""
    rows = -(-box.ny // like.psf.cell)
    cells = np.full((rows, *like.psf.cells.shape[1:]), np.nan, np.float32)
    return Coadd(like.band, MaskedImage.without_data(box, "nJy"), np.zeros(box.shape, np.uint16),
                 CellPsf(cells, like.psf.cell, box), np.full(cells.shape[:2], np.nan, np.float32),
                 Catalogue(INPUT_COLUMNS))


def _checked(warps: list[Warp], box: Box) -> list[Warp]:
    """The warps sorted by visit and detector, so that sums do not depend on the order of arrival."""
    if not warps:
        raise NothingToDo("no warp covers any pixel here")
    for warp in warps:
        if warp.psf.box != box or warp.psf.cells.shape != warps[0].psf.cells.shape:
            raise BadData(f"the warp of visit {warp.visit} detector {warp.detector} was made for {warp.psf.box} in "
                          f"{warp.psf.cells.shape} cells, not for {box}; warp all inputs of a coadd onto its box")
    return sorted(warps, key=lambda warp: (warp.visit, warp.detector))


def _cells(warps: list[Warp], box: Box, config: CoaddConfig) -> tuple[CellPsf, np.ndarray, np.ndarray]:
    """PSF, noise correlation and number of inputs per cell.

    An input counts in a cell, with its whole weight, if it covers enough of it; where none covers enough, all that touch the
    cell count. So the PSF is exact wherever all these inputs are present; elsewhere INEXACT_PSF is set. Each input's PSF is divided by its aperture correction: images are calibrated to total
    fluxes, so that a star of flux F adds F / correction times its PSF. The PSF flux of a star on the coadd is then its total flux.
    """
    coverage = np.stack([warp.coverage for warp in warps]).astype(float)
    enough = coverage >= config.min_coverage
    enough |= ~enough.any(axis=0) & (coverage > 0)
    weight = enough * np.array([warp.weight for warp in warps])[:, None, None]
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore"):
        share = weight / total
    cells = np.full(warps[0].psf.cells.shape, np.nan)
    smooth, plane = np.zeros(total.shape), np.zeros(total.shape)
    for warp, part, used in zip(warps, share, enough):
        cells[used] = np.nan_to_num(cells[used]) + (part[used, None, None] / warp.aperture_correction) * warp.psf.cells[used]
        variance = np.where(used, part**2 / warp.weight, 0.0)
        smooth += variance
        plane += variance * np.where(used, warp.noise_factor, 0.0)
    with np.errstate(invalid="ignore"):
        correlation = smooth / plane
    psf = CellPsf(cells.astype(np.float32), warps[0].psf.cell, box)
    return psf, correlation.astype(np.float32), enough.sum(axis=0)


def _inputs(warps: list[Warp], clipped: np.ndarray, box: Box) -> Catalogue:
    pixels = [int(np.isfinite(warp.image.cutout(box).image).sum()) for warp in warps]
    return Catalogue(INPUT_COLUMNS, {
        "visit": [warp.visit for warp in warps], "detector": [warp.detector for warp in warps],
        "weight": [warp.weight for warp in warps], "nPixels": pixels, "nClipped": clipped,
        "apertureCorrection": [warp.aperture_correction for warp in warps]})


def _merged(tables: list[Catalogue]) -> Catalogue:
    """One row per visit and detector: pixel counts are added."""
    rows = Catalogue.concatenate(tables)
    _, first, group = np.unique(np.stack([rows["visit"], rows["detector"].astype(np.int64)]), axis=1, return_index=True,
                                return_inverse=True)
    merged = rows.rows(first)
    sums = {name: np.bincount(group.ravel(), rows[name], len(first)).astype(np.int64)
            for name in ("nPixels", "nClipped")}
    return merged.with_columns([merged.columns[name] for name in sums], sums)
