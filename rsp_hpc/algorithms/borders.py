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

    radius: float = parameter(0.6, "two measurements nearer than this are one object", unit="arcsec", above=0.0)


def settle_borders(region, owned, ra, dec, config: BordersConfig) -> np.ndarray:
    """Decide which measurement of each object is the primary one.

    Parameters
    ----------
    region : (n,) int, the patch or tract that measured the row
    owned : (n,) bool, the position lies in the region's own inner area
    ra, dec : (n,) float, ICRS degrees

    Returns
    -------
    (n,) bool. As `owned`, but of two rows of different regions that are each other's nearest within `config.radius`
    exactly one is True: the owned one if exactly one is, else that of the lower region. The order of the rows does not
    matter. A row is decided once, with its nearest partner; pairs are settled from the closest to the widest.
    """
    from scipy.spatial import cKDTree

    region, primary = np.asarray(region), np.array(owned, bool)
    position = unit_vectors(ra, dec)
    if len(position) < 2:
        return primary
    pairs = cKDTree(position).query_pairs(config.radius * ARCSEC, output_type="ndarray")
    pairs = pairs[region[pairs[:, 0]] != region[pairs[:, 1]]]
    low_first = np.where(region[pairs[:, 0]] < region[pairs[:, 1]], 0, 1)
    low, high = pairs[np.arange(len(pairs)), low_first], pairs[np.arange(len(pairs)), 1 - low_first]
    separation = np.linalg.norm(position[low] - position[high], axis=1)
    taken = set()
    for k in np.lexsort((region[high], region[low], separation)):
        i, j = int(low[k]), int(high[k])
        if (i, int(region[j])) in taken or (j, int(region[i])) in taken:
            continue  # one of them already has its partner in that region
        taken.update(((i, int(region[j])), (j, int(region[i]))))
        if primary[i] == primary[j]:
            primary[i], primary[j] = True, False
    return primary
