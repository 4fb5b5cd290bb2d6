"""Borders: every object that overlapping regions (patches, tracts) measured appears exactly once.

A region owns the objects inside its inner area. Near a border two regions measure the same object at positions that
differ by the noise, so that both may own it, or neither. Such pairs are found by position and given to one of the two.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..products.geometry import unit_vectors

__all__ = ["BordersConfig", "settle_borders"]

ARCSEC = np.pi / 180.0 / 3600.0


class BordersConfig(Config):
    """How objects that two patches or tracts have measured are made one."""

    radius: float = parameter(0.8, "two measurements nearer than this are one object", unit="arcsec", above=0.0)


def settle_borders(region, owned, ra, dec, config: BordersConfig) -> np.ndarray:
    """Decide which measurement of each object is the primary one.

    Parameters
    ----------
    region : (n,) int, the patch or tract that measured the row
    owned : (n,) bool, the position lies in the region's own inner area
    ra, dec : (n,) float, ICRS degrees

    Returns
    -------
    (n,) bool. Rows of different regions within `config.radius` are grouped, the closest first, at most one row of a region in
    a group. In each group of two or more exactly one row is True: of the owned ones (of all, if none is owned) that of the
    lowest region. Single rows are as `owned`. The order of the rows does not matter.
    """
    region, owned = np.asarray(region), np.asarray(owned, bool)
    primary = owned.copy()
    for group in _groups(region, unit_vectors(ra, dec), config.radius * ARCSEC):
        rows = np.array(group)
        candidates = rows[owned[rows]] if owned[rows].any() else rows
        primary[rows] = False
        primary[candidates[np.argmin(region[candidates])]] = True
    return primary


def _groups(region: np.ndarray, position: np.ndarray, radius: float) -> list[list[int]]:
    """Groups of two or more rows that are one object; a row is in one group, a group has one row of a region."""
    from scipy.spatial import cKDTree  # heavy: imported on first use

    if len(position) < 2:
        return []
    pairs = cKDTree(position).query_pairs(radius, output_type="ndarray")
    pairs = pairs[region[pairs[:, 0]] != region[pairs[:, 1]]]
    separation = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)
    regions = np.sort(region[pairs], axis=1)
    member: dict[int, list[int]] = {}
    for i, j in pairs[np.lexsort((regions[:, 1], regions[:, 0], separation))].tolist():
        first, second = member.setdefault(i, [i]), member.setdefault(j, [j])
        if first is second or {region[row] for row in first} & {region[row] for row in second}:
            continue
        first += second
        for row in second:
            member[row] = first
    return [group for row, group in member.items() if group[0] == row and len(group) > 1]
