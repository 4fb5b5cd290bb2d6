"""Warp: a calibrated detector resampled onto sky pixels, in nJy, with its variance, mask and PSF.

Lanczos-3 (Duchon 1979, J. Appl. Meteor. 18, 1016), one pass over three planes. The mapping target pixel -> sky ->
source pixel is exact on a lattice of 32 pixels and cubic in between (1e-9 pixel). The lattice is fixed to the target's
pixel numbers, so that a pixel has the same value whatever box it was warped in.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import warp as kernel
from ..products.box import Box
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import CellPsf
from ..products.visit import VisitDetector
from ..products.warp import Warp
from ..products.wcs import Wcs

__all__ = ["BAD_PLANES", "WarpConfig", "warp", "warp_psf"]

BAD_PLANES = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN")
MARGIN = 2
"""Pixels warped around the box: the coadd compares neighbours, alike on both sides of a block's border."""


class WarpConfig(Config):
    """How a calibrated detector is resampled onto the sky map's pixels."""

    max_bad: float = parameter(1.0, "share of the kernel that may fall on interpolated bad pixels; beyond, no data. 1: the same "
                                    "inputs all over a star, so that its PSF is that of the cell", low=0.0, high=1.0)
    cell: int = parameter(150, "side of a cell, on which the PSF is constant", unit="pixel", low=10)
    psf_size: int = parameter(41, "odd side of the warped PSF, one for all inputs of a coadd; 0: the visit PSF's",
                              unit="pixel", low=0)
    psf_phases: int = parameter(4, "positions per cell at which the PSF is warped and averaged: 1, 4, 9 or 16", low=1,
                                high=16)


class Mapping:
    """Source pixel of every target pixel of a box: exact on the lattice, cubic in between.

    `x`, `y`: (gny, gnx) float64 source pixels at the nodes; `area`: source area per target area there; `offset`: (row,
    column) of the box's first pixel after node (1, 1).
    """

    def __init__(self, source: Wcs, target: Wcs, box: Box):
        step = kernel.STEP
        column, row = box.x0 // step, box.y0 // step
        self.first = step * (column - 2), step * (row - 2)  # one node more on each side, for the derivatives
        self.offset = box.y0 - step * row, box.x0 - step * column
        x = self.first[0] + step * np.arange((self.offset[1] + box.nx - 1) // step + 6)
        y = self.first[1] + step * np.arange((self.offset[0] + box.ny - 1) // step + 6)
        xs, ys = source.sky_to_pixel(*target.pixel_to_sky(*np.meshgrid(x, y)))
        inner = slice(1, -1)
        along, across = ([(q[inner, 2:] - q[inner, :-2]) / (2 * step) for q in (xs, ys)],
                         [(q[2:, inner] - q[:-2, inner]) / (2 * step) for q in (xs, ys)])
        self.area = np.ascontiguousarray(np.abs(along[0] * across[1] - along[1] * across[0]))
        self.x, self.y = (np.ascontiguousarray(q[inner, inner]) for q in (xs, ys))
        self.first = self.first[0] + step, self.first[1] + step

    def __call__(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Source positions of target positions within the box, by the kernel's own interpolation."""
        u, v = ((np.asarray(q, float) - first) / kernel.STEP for q, first in zip((x, y), self.first))
        i, j = (np.clip(np.floor(q).astype(int), 1, n - 3) for q, n in zip((u, v), self.x.shape[::-1]))
        wu, wv = _cubic_weights(u - i), _cubic_weights(v - j)
        return tuple(sum(wv[b] * wu[a] * grid[j + b - 1, i + a - 1] for b in range(4) for a in range(4))
                     for grid in (self.x, self.y))  # type: ignore[return-value]

    def affine(self, x, y) -> np.ndarray:
        """(n, 2, 2): d(source x, y) / d(target x, y)."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        du = [0.5 * (high - low) for low, high in zip(self(x - 1.0, y), self(x + 1.0, y))]
        dv = [0.5 * (high - low) for low, high in zip(self(x, y - 1.0), self(x, y + 1.0))]
        return np.ascontiguousarray(np.moveaxis(np.array([[du[0], dv[0]], [du[1], dv[1]]]), -1, 0))


def warp(visit: VisitDetector, target: Wcs, box: Box, config: WarpConfig) -> Warp | None:
    """Resample a detector onto `box` of the target's pixels.

    Images hold flux per pixel: values are multiplied by the photometric scale and by the local ratio of target to
    source pixel area, so that a star keeps its flux.

    Returns
    -------
    Warp in nJy, or None if the detector has no usable pixel on the box

    Raises
    ------
    BadData
        The visit's photometric scale is not a positive number.
    """
    scale = visit.photocal.scale
    if not (np.isfinite(scale) and scale > 0):
        raise BadData(f"visit {visit.exposure.visit} {visit.detector}: photometric scale is {scale}; "
                      "leave the visit out or calibrate it again")
    covered = _whole_cells(covered_box(visit, target).intersect(box.grow(MARGIN)), box, config.cell)
    weight = _weight(visit, target)
    if covered.area == 0 or weight is None:
        return None
    mapping = Mapping(visit.wcs, target, covered)
    image = _resample(visit.image, mapping, covered, scale, config)
    coverage = _coverage(image, box, config.cell)
    if not coverage.any():
        return None
    psf, noise = _cells(visit, mapping, coverage, box, config)
    return Warp(image, visit.exposure.visit, visit.detector_id, weight, psf, noise, coverage, visit.aperture_correction)


def _resample(source: MaskedImage, mapping: Mapping, box: Box, scale: float, config: WarpConfig) -> MaskedImage:
    rules = {"bad": bits(*BAD_PLANES), "interpolated": bits("INTRP"), "no_data": bits("NO_DATA"),
             "rejected": bits("REJECTED"), "edge": bits("SENSOR_EDGE"), "max_bad": config.max_bad}
    planes = tuple(map(np.ascontiguousarray, (source.image, source.variance, source.mask)))
    grid = mapping.x - source.box.x0, mapping.y - source.box.y0, scale * mapping.area
    image, variance, mask = kernel.warp(planes, grid, rules, mapping.offset, box.shape)
    return MaskedImage(image, mask, variance, box, "nJy")


def covered_box(visit: VisitDetector, target: Wcs) -> Box:
    """The smallest box of target pixels that holds the detector; empty if the target's plane does not reach it."""
    inside = visit.image.box
    t = np.linspace(0.0, 1.0, 9)
    (x0, y0), (x1, y1) = inside.corners()[0], inside.corners()[2]
    x = np.concatenate([x0 + t * (x1 - x0), x0 + t * (x1 - x0), np.full(9, x0), np.full(9, x1)])
    y = np.concatenate([np.full(9, y0), np.full(9, y1), y0 + t * (y1 - y0), y0 + t * (y1 - y0)])
    x, y = target.sky_to_pixel(*visit.wcs.pixel_to_sky(x, y))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Box(0, 0, 0, 0)
    left, low = int(np.floor(x.min())) - 2, int(np.floor(y.min())) - 2
    return Box(left, low, int(np.ceil(x.max())) + 3 - left, int(np.ceil(y.max())) + 3 - low)


def _weight(visit: VisitDetector, target: Wcs) -> float | None:
    """One over the median variance in nJy^2 per target pixel: of a fixed sample of the detector, whatever the box."""
    sample = MaskedImage(visit.image.image[::5, ::5], visit.image.mask[::5, ::5], visit.image.variance[::5, ::5])
    good = sample.variance[sample.good(*BAD_PLANES)]
    if good.size == 0:
        return None
    box = visit.image.box
    middle = box.x0 + 0.5 * box.nx, box.y0 + 0.5 * box.ny
    there = target.sky_to_pixel(*visit.wcs.pixel_to_sky(*middle))
    if not np.isfinite(there).all():
        return None
    areas = [abs(np.linalg.det(wcs.local_jacobian(float(x), float(y)))) for wcs, (x, y) in ((target, there),
                                                                                            (visit.wcs, middle))]
    return float(1.0 / (np.median(good) * (visit.photocal.scale * areas[0] / areas[1]) ** 2))


def _whole_cells(covered: Box, box: Box, cell: int) -> Box:
    """Grown to whole cells of `box` (and its margin), so that a cell never depends on what else is warped."""
    if covered.area == 0:
        return covered
    x0, y0 = (start + cell * ((low - start) // cell) for start, low in ((box.x0, covered.x0), (box.y0, covered.y0)))
    x1, y1 = (start - cell * ((start - high) // cell) for start, high in ((box.x0, covered.x1), (box.y0, covered.y1)))
    return Box(x0, y0, x1 - x0, y1 - y0).intersect(box.grow(MARGIN))


def _coverage(image: MaskedImage, box: Box, cell: int) -> np.ndarray:
    """(ncy, ncx) float32: fraction of the pixels of each of the box's cells that have a value."""
    valid = np.isfinite(image.image)
    counts = np.zeros((-(-box.ny // cell), -(-box.nx // cell)), np.float32)
    for row, column in np.ndindex(counts.shape):
        whole = Box(box.x0 + column * cell, box.y0 + row * cell, cell, cell).intersect(box)
        counts[row, column] = np.count_nonzero(valid[whole.intersect(image.box).slices(image.box)]) / whole.area
    return counts


def _cells(visit: VisitDetector, mapping: Mapping, coverage: np.ndarray, box: Box, config: WarpConfig):
    """PSF and mean sum of squared weights in each covered cell."""
    rows, columns = np.nonzero(coverage)
    x = box.x0 + config.cell * columns + 0.5 * (config.cell - 1)
    y = box.y0 + config.cell * rows + 0.5 * (config.cell - 1)
    size = config.psf_size or visit.psf.size
    noise = np.full(coverage.shape, np.nan, np.float32)
    noise[rows, columns] = _noise_factor(mapping, x, y, config.cell)
    cells = np.full((*coverage.shape, size, size), np.nan, np.float32)
    per_side = int(np.sqrt(config.psf_phases))
    steps = config.cell * ((np.arange(per_side) + 0.5) / per_side - 0.5)
    stamps = [_stamps(visit, mapping, np.round(x + dx), np.round(y + dy), size) for dy in steps for dx in steps]
    mean = np.mean(stamps, axis=0)
    cells[rows, columns] = mean / mean.sum(axis=(1, 2), keepdims=True)
    return CellPsf(cells, config.cell, box), noise


def warp_psf(visit: VisitDetector, target: Wcs, x, y, size: int) -> np.ndarray:
    """(n, size, size) float32: the visit's PSF as the warp shows it at n target pixels; sum one.

    The stamp is a star on the centre of target pixel (x, y), resampled by the same kernel at the same phase: a star of
    flux F nJy is F times the stamp.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    left, low = int(np.floor(x.min())), int(np.floor(y.min()))
    box = Box(left, low, int(np.ceil(x.max())) - left + 1, int(np.ceil(y.max())) - low + 1)
    stamps = _stamps(visit, Mapping(visit.wcs, target, box), x, y, size)
    return stamps / stamps.sum(axis=(1, 2), keepdims=True)


def _stamps(visit: VisitDetector, mapping: Mapping, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    xs, ys = mapping(x, y)
    phase = np.stack([xs - np.floor(xs), ys - np.floor(ys)], axis=-1)
    inside = visit.image.box  # a cell's centre may lie outside of the detector: do not extrapolate the PSF
    stamps = visit.psf.stamps(np.clip(xs, inside.x0, inside.x1 - 1), np.clip(ys, inside.y0, inside.y1 - 1))
    return kernel.warp_psf(np.ascontiguousarray(stamps, np.float32), phase, mapping.affine(x, y), size)


def _noise_factor(mapping: Mapping, x: np.ndarray, y: np.ndarray, cell: int, per_side: int = 8) -> np.ndarray:
    """(n,): mean over a cell of sum(w^2), at 64 pixels (golden-ratio offsets: no resonance with the mapping)."""
    count = np.arange(per_side * per_side)
    dx = np.round(cell * ((count + 0.5) / len(count) - 0.5))
    dy = np.round(cell * ((0.5 + count * 0.6180339887498949) % 1.0 - 0.5))
    xs, ys = mapping(x[:, None] + dx, y[:, None] + dy)
    return (_sum_of_squares(xs) * _sum_of_squares(ys)).mean(axis=1)


def _sum_of_squares(position: np.ndarray) -> np.ndarray:
    """Sum of the squares of the six Lanczos-3 weights, normalised to unit sum, at a pixel position."""
    offset = np.arange(-2, 4) - (position - np.floor(position))[..., None]
    weight = np.where(np.abs(offset) < 3.0, np.sinc(offset) * np.sinc(offset / 3.0), 0.0)
    return (weight**2).sum(axis=-1) / weight.sum(axis=-1) ** 2


def _cubic_weights(t: np.ndarray) -> tuple[np.ndarray, ...]:
    """Lagrange weights of values at -1, 0, 1, 2."""
    return (-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2, -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6)
