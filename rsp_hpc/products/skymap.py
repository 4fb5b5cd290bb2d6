"""The rings sky map: tracts, each a tangent plane cut into patches, with Rubin's numbers, centres and pixels.

Rings of equal height in declination hold tracts of equal width in right ascension, so that an RA-Dec position has
exactly one tract; a tract's image is larger than its cell, so that neighbours overlap. Everything follows from the
configuration (anchors/rubin.md section 3), nothing is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from pydantic import model_validator

from ..config import Config, parameter
from .box import Box
from .geometry import project, sky_of_vectors, unit_vectors
from .wcs import Wcs

__all__ = ["Patch", "RingsSkyMap", "SkyMapConfig", "Tract"]


class SkyMapConfig(Config):
    """How the sky is cut into tracts and patches; the default is LSST's second cell map (`lsst_cells_v2`, DP2)."""

    num_rings: int = parameter(120, "rings of tracts between the two polar caps", low=1, high=5000)
    pixel_scale: float = parameter(0.2, "pixel size at the tract's centre", unit="arcsec", above=0.0)
    tract_overlap: float = parameter(1.0 / 60.0, "how far a tract's image reaches over its ring", unit="deg", low=0.0)
    ra_start: float = parameter(0.0, "right ascension of the first tract of each ring", unit="deg", low=0.0, high=360.0)
    patch_inner: int = parameter(3000, "side of a patch without its border", unit="pixel", low=1)
    patch_border: int = parameter(150, "border of a patch: DP2 150, DP1 200, HSC 100", unit="pixel", low=0)
    cell_size: int = parameter(150, "side of a cell, which divides patch_inner", unit="pixel", low=1)
    clip_patches: bool = parameter(False, "cut outer patches at the tract's edge (HSC's map)")
    version: Literal[0, 1] = parameter(1, "numbering: 1 is LSST's; 0: tracts at ra_start count with the ring below")

    @model_validator(mode="after")
    def _check_cells(self):
        if self.patch_inner % self.cell_size:
            raise ValueError(f"cell_size {self.cell_size} does not divide patch_inner {self.patch_inner}")
        return self


@dataclass(frozen=True)
class Patch:
    """One patch of a tract: its number, column and row in the tract, inner and outer box in the tract's pixels."""

    index: int
    x: int
    y: int
    inner: Box
    outer: Box


class RingsSkyMap:
    """All tracts. Cheap to make from its configuration; positions are ICRS degrees, arrays are accepted everywhere."""

    def __init__(self, config: SkyMapConfig = SkyMapConfig()):
        self.config = config
        self._height = np.pi / (config.num_rings + 1)  # of a ring, radians
        edges = self._height * (np.arange(config.num_rings + 1) + 0.5) - 0.5 * np.pi
        nearest = np.minimum(np.abs(edges[:-1]), np.abs(edges[1:]))  # to the equator, where the ring is longest
        self._counts = (2.0 * np.pi * np.cos(nearest) / self._height).astype(int) + 1
        self._first = np.concatenate([[0], np.cumsum(self._counts)])  # tracts below each ring, without the south cap
        self._tract_patches, self._tract_reach = self._layout()

    def __len__(self) -> int:
        return int(self._first[-1]) + 2

    def _layout(self) -> tuple[int, float]:
        """Patches along a tract's side (the same for all tracts), and the radius that holds a tract, degrees."""
        config = self.config
        radius = 0.5 * self._height + np.radians(config.tract_overlap)
        if radius > np.radians(60.0):
            raise ValueError("tracts reach further than 60 degrees: use more rings or less overlap")
        half = np.tan(radius) / np.radians(config.pixel_scale / 3600.0)
        pixels = 2 * int(np.ceil(half - 0.5)) + 1
        patches = -(-pixels // config.patch_inner)
        side = patches * config.patch_inner + 2 * config.patch_border
        corner = np.hypot(side, side) * 0.5 + 0.5 * config.patch_inner + 2.0  # whole patches sit off centre a little
        return patches, float(np.degrees(np.arctan(corner * np.radians(config.pixel_scale / 3600.0))))

    @property
    def patches_per_side(self) -> int:
        """Patches along each side of every tract."""
        return self._tract_patches

    def ring_of(self, tract) -> tuple[np.ndarray, np.ndarray]:
        """Ring (-1 the south cap, num_rings the north cap) and place in the ring of tract numbers.

        Raises
        ------
        IndexError
            There is no such tract.
        """
        tract = np.asarray(tract)
        if np.any((tract < 0) | (tract >= len(self))):
            raise IndexError(f"tract numbers are 0 to {len(self) - 1}")
        index = tract - 1
        side = "left" if self.config.version == 0 else "right"
        ring = np.searchsorted(self._first[1:], index, side)
        ring = np.where(index < 0, -1, np.where(tract == len(self) - 1, self.config.num_rings, ring))
        last = self.config.num_rings
        return ring, np.where((ring < 0) | (ring == last), 0, index - self._first[np.clip(ring, 0, last)])

    def centers(self, tract) -> tuple[np.ndarray, np.ndarray]:
        """(ra, dec) in degrees of the centres of tracts."""
        ring, place = self.ring_of(tract)
        inside = np.clip(ring, 0, self.config.num_rings - 1)
        turn = 2.0 * np.pi * place / self._counts[inside] + np.radians(self.config.ra_start)
        ra = np.degrees(np.mod(turn, 2.0 * np.pi))
        dec = np.degrees(self._height * (ring + 1) - 0.5 * np.pi)
        cap = (ring < 0) | (ring == self.config.num_rings)
        return np.where(cap, 0.0, ra), np.where(cap, np.where(ring < 0, -90.0, 90.0), dec)

    def find_tract(self, ra, dec) -> np.ndarray:
        """Number of the one tract whose inner region holds each position; -1 for positions that are not finite."""
        ra, dec = np.broadcast_arrays(np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float)))
        finite = np.isfinite(ra) & np.isfinite(dec)
        ra, dec = np.where(finite, ra, 0.0), np.where(finite, dec, 0.0)
        lowest = 0.5 * self._height - 0.5 * np.pi
        ring = np.clip(((dec - lowest) / self._height).astype(int), 0, self.config.num_rings - 1)
        count = self._counts[ring]
        turn = np.mod(ra - np.radians(self.config.ra_start), 2.0 * np.pi)
        place = (turn / (2.0 * np.pi / count) + 0.5).astype(int) % count
        if self.config.version == 0:
            ring = np.where((place == 0) & (ring > 0), ring + 1, ring)
        tract = self._first[ring] + place + 1
        tract = np.where(dec < lowest, 0, np.where(dec > -lowest, len(self) - 1, tract))
        return np.where(finite, tract, -1)

    @lru_cache(maxsize=4096)
    def tract(self, number: int) -> Tract:
        """The tract of this number."""
        ra, dec = self.centers(number)
        return Tract(self, int(number), (float(ra), float(dec)))

    def is_primary(self, ra, dec, tract: int, patch: int) -> np.ndarray:
        """Whether positions belong to this tract and patch: true for exactly one (tract, patch) of the sky."""
        home = self.tract(tract)
        return home.contains(ra, dec) & (home.find_patch(*home.wcs.sky_to_pixel(ra, dec)) == patch)

    def overlaps(self, ra, dec, margin: float = 0.0) -> np.ndarray:
        """Which patches convex polygons touch, for many polygons at once.

        The sides are great circles, which the tangent plane shows as straight lines: a polygon and a patch are apart
        exactly if a side of one of them separates them.

        Parameters
        ----------
        ra, dec : (n, k) degrees, corners in order, either way round; a polygon smaller than 30 degrees
        margin : arcsec, by how much the patches are grown first (pointing errors)

        Returns
        -------
        (m, 3) int64 rows (polygon, tract, patch), sorted; a patch counts with its border
        """
        ra, dec = np.atleast_2d(np.asarray(ra, float)), np.atleast_2d(np.asarray(dec, float))
        polygon, tract = self._candidates(ra, dec, margin / 3600.0)
        if not len(polygon):
            return np.zeros((0, 3), np.int64)
        ra0, dec0 = self.centers(tract)
        xi, eta = project(ra[polygon], dec[polygon], np.where(dec0 >= 90.0, ra0 + 180.0, ra0)[:, None], dec0[:, None])
        scale, origin = self.config.pixel_scale / 3600.0, self._origin
        pair, patch = self._touched(np.stack([origin - xi / scale, origin + eta / scale], -1),
                                    margin / self.config.pixel_scale)
        return np.unique(np.stack([polygon[pair], tract[pair], patch], -1).astype(np.int64), axis=0)

    def tracts_overlapping(self, ra, dec, margin: float = 0.0) -> list[int]:
        """Numbers of the tracts with a patch that one convex polygon (corner ra, dec in degrees) touches."""
        return np.unique(self.overlaps(ra, dec, margin)[:, 1]).tolist()

    def patches_overlapping(self, tract: int, ra, dec, margin: float = 0.0) -> list[int]:
        """Numbers of the patches of a tract that one convex polygon (corner ra, dec in degrees) touches."""
        rows = self.overlaps(ra, dec, margin)
        return rows[rows[:, 1] == tract, 2].tolist()

    @cached_property
    def _origin(self) -> float:
        """Pixel, in x and y, of the tangent point: the box around the tract's reach, grown to whole patches."""
        half = np.tan(0.5 * self._height + np.radians(self.config.tract_overlap))
        half = int(np.ceil(half / np.radians(self.config.pixel_scale / 3600.0) - 0.5))
        return float(half + (self._tract_patches * self.config.patch_inner - (2 * half + 1)) // 2)

    def _candidates(self, ra: np.ndarray, dec: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (polygon, tract) whose bounding circles meet: ring by ring, since a ring's tracts are evenly spaced."""
        corners = unit_vectors(ra, dec)
        middle = corners.mean(axis=1)
        center_ra, center_dec = sky_of_vectors(middle)
        middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
        size = np.degrees(np.arccos(np.clip((corners * middle[:, None]).sum(-1).min(axis=1), -1.0, 1.0)))
        if not np.all(size < 30.0):
            raise ValueError("a polygon has corners that are not finite or further than 30 degrees from its middle")
        reach, rings = size + self._tract_reach + margin, self.config.num_rings
        height = np.degrees(self._height)
        lowest = np.floor((center_dec + 90.0 - reach) / height).astype(int) - 1
        found = []
        for step in range(int(2 * reach.max() / height) + 4):
            ring = lowest + step
            inside = (ring >= -1) & (ring <= rings)
            ring_dec = height * (ring + 1) - 90.0
            inside &= np.abs(ring_dec - center_dec) <= reach
            which = np.flatnonzero(inside)
            cap = (ring[which] < 0) | (ring[which] == rings)
            caps, others = which[cap], which[~cap]
            found.append(np.stack([caps, np.where(ring[caps] < 0, 0, len(self) - 1)], -1))
            found.append(self._near_in_ring(others, ring[others], center_ra[others], center_dec[others], reach[others]))
        pairs = np.concatenate(found)
        return pairs[:, 0], pairs[:, 1]

    def _near_in_ring(self, which, ring, ra, dec, reach) -> np.ndarray:
        """(m, 2) pairs of the polygons `which` with the tracts of a ring nearer than reach (all 1-D, degrees)."""
        ring_dec, dec = self._height * (ring + 1) - 0.5 * np.pi, np.radians(dec)
        room = np.sin(np.radians(0.5 * reach)) ** 2 - np.sin(0.5 * (ring_dec - dec)) ** 2
        width = 2.0 * np.arcsin(np.sqrt(np.clip(room / np.maximum(np.cos(dec) * np.cos(ring_dec), 1e-12), 0.0, 1.0)))
        count = self._counts[ring]
        spacing = 2.0 * np.pi / count
        turn = np.radians(ra - self.config.ra_start)
        low = np.ceil((turn - width) / spacing).astype(int)
        number = np.minimum(np.floor((turn + width) / spacing).astype(int) - low + 1, count)
        row, step = _expand(number)
        place = (low[row] + step) % count[row]
        if self.config.version == 0:  # the tract at ra_start is counted as the last of its ring
            place = np.where((place == 0) & (ring[row] > 0), count[row], place)
        return np.stack([which[row], self._first[ring[row]] + place + 1], -1)

    def _touched(self, corners: np.ndarray, grow: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows (polygon, patch) that touch; corners (n, k, 2) in tract pixels, patches grown by `grow` pixels."""
        inner, border, side = self.config.patch_inner, self.config.patch_border, self._tract_patches
        low, high = corners.min(axis=1), corners.max(axis=1)
        first = np.clip(np.ceil((low + 0.5 - border - grow) / inner - 1.0), 0, side).astype(int)
        last = np.clip(np.floor((high + 0.5 + border + grow) / inner), -1, side - 1).astype(int)
        if self.config.clip_patches:
            edge = side * inner - 0.5 + grow
            first = np.where((high < -0.5 - grow) | (low > edge), side, first)
        extent = np.maximum(last - first + 1, 0)
        row, step = _expand(extent[:, 0] * extent[:, 1])
        x, y = first[row, 0] + step % extent[row, 0], first[row, 1] + step // extent[row, 0]
        middle = np.stack([x, y], -1) * inner + 0.5 * (inner - 1)
        half = 0.5 * inner + border + grow
        touch = np.ones(len(row), bool)
        turn = np.sign(_cross(corners[:, 1:-1] - corners[:, :1], corners[:, 2:] - corners[:, :1]).sum(axis=1))
        for k in range(corners.shape[1]):
            start, edge = corners[:, k], np.roll(corners, -1, axis=1)[:, k] - corners[:, k]
            outward = np.stack([edge[:, 1], -edge[:, 0]], -1) * turn[:, None]
            nearest = ((middle - start[row]) * outward[row]).sum(-1) - half * np.abs(outward).sum(-1)[row]
            touch &= nearest <= 0.0
        return row[touch], (y * side + x)[touch]


@dataclass(frozen=True, eq=False)
class Tract:
    """One tract: `number`, `center` (ra, dec) degrees; pixels (0, 0) are the lower left of its first patch."""

    skymap: RingsSkyMap
    number: int
    center: tuple[float, float]

    @property
    def config(self) -> SkyMapConfig:
        """The sky map's configuration."""
        return self.skymap.config

    @cached_property
    def wcs(self) -> Wcs:
        """TAN about the centre, x towards west, y towards north."""
        scale = self.config.pixel_scale / 3600.0
        return Wcs(self.center, (self.skymap._origin, self.skymap._origin), ((-scale, 0.0), (0.0, scale)))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.skymap.patches_per_side, self.skymap.patches_per_side

    @property
    def box(self) -> Box:
        """All inner patches."""
        return Box(0, 0, self.shape[1] * self.config.patch_inner, self.shape[0] * self.config.patch_inner)

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def patch(self, index: int) -> Patch:
        """The patch of this number (row-major from the south-east corner); IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"tract {self.number} has patches 0 to {len(self) - 1}, not {index}")
        y, x = divmod(int(index), self.shape[1])
        inner = Box(x * self.config.patch_inner, y * self.config.patch_inner, self.config.patch_inner,
                    self.config.patch_inner)
        outer = inner.grow(self.config.patch_border)
        return Patch(int(index), x, y, inner, outer.intersect(self.box) if self.config.clip_patches else outer)

    def find_patch(self, x, y) -> np.ndarray:
        """Number of the patch whose inner box holds each pixel position; -1 outside the tract and for NaN."""
        column, row = (np.floor((np.asarray(value, float) + 0.5) / self.config.patch_inner) for value in (x, y))
        good = (column >= 0) & (column < self.shape[1]) & (row >= 0) & (row < self.shape[0])
        return np.where(good, np.where(good, row, 0) * self.shape[1] + np.where(good, column, 0), -1).astype(int)

    def contains(self, ra, dec) -> np.ndarray:
        """Whether positions are in this tract's inner region: the RA-Dec cell that no other tract shares."""
        return self.skymap.find_tract(ra, dec) == self.number

    def corners(self, box: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(ra, dec), each (4,) degrees, of the outer pixel corners of a box; of the whole tract by default."""
        return self.wcs.pixel_to_sky(*(self.box if box is None else box).corners().T)

    def primary_patches(self) -> list[int]:
        """Numbers of the patches whose inner box may hold a part of the inner region; no others have primary objects.

        The inner region's edge is sampled 32 times per patch and each sample stands for its neighbourhood, so that a
        patch may be listed for nothing, but none is missed.
        """
        inner = self.config.patch_inner
        x, y = self.wcs.sky_to_pixel(*self._inner_edge(32 * self.shape[0]))
        step = inner / 16.0
        found = [self.find_patch(x + dx, y + dy) for dx in (-step, 0.0, step) for dy in (-step, 0.0, step)]
        columns, rows = (grid.ravel() * inner + 0.5 * (inner - 1) for grid in np.meshgrid(*map(np.arange, self.shape)))
        inside = self.contains(*self.wcs.pixel_to_sky(columns, rows))
        found.append(np.where(inside, self.find_patch(columns, rows), -1))
        return [int(index) for index in np.unique(np.concatenate(found)) if index >= 0]

    def _inner_edge(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """(ra, dec) along the edge of the inner region, `samples` on each side."""
        skymap, (ra, dec) = self.skymap, self.center
        ring, _ = skymap.ring_of(self.number)
        half = 0.5 * np.degrees(skymap._height)
        along = np.linspace(-1.0, 1.0, samples)
        if ring < 0 or ring == self.config.num_rings:
            return ra + 180.0 * np.linspace(-1.0, 1.0, 4 * samples), np.full(4 * samples, dec - np.sign(dec) * half)
        width = 180.0 / skymap._counts[ring]
        one = np.ones(samples)
        return (np.concatenate([ra + width * along, ra + width * one, ra + width * along, ra - width * one]),
                np.concatenate([dec - half * one, dec + half * along, dec + half * one, dec + half * along]))


def _expand(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows 0, 0, 1, 1, 1, ... with number[i] times i, and the count 0, 1, 0, 1, 2, ... within each."""
    row = np.repeat(np.arange(len(number)), number)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
