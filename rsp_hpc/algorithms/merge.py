"""merge: one list of peaks from the lists of several bands, each band in turn adding what the others before it lack.

Bands are taken in order of priority. A peak within `radius_same` of a merged one is that object; further than
`radius_new` from all of them it is a new object; in between it is ambiguous and adds nothing (Bosch et al. 2018, PASJ
70, S5, section 4.6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..products.footprints import Detections

__all__ = ["MergeConfig", "MergedPeaks", "merge_peaks"]


class MergeConfig(Config):
    """When peaks of two bands are the same object."""

    radius_same: float = parameter(1.5, "peaks nearer than this are the same object", unit="pixel", above=0.0)
    radius_new: float = parameter(4.0, "peaks further than this from all objects are new", unit="pixel", above=0.0)


class MergedPeaks(NamedTuple):
    """x, y: (n,) float64, pixel, from the first band that has the peak; snr: (n, n_bands) float32, NaN where a band has
    no peak of its own; first: (n,) int, the band that gave the position."""

    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    first: np.ndarray

    @property
    def detected(self) -> np.ndarray:
        """(n, n_bands) bool: the band has a peak of its own there."""
        return np.isfinite(self.snr)


def merge_peaks(bands: list, config: MergeConfig) -> MergedPeaks:
    """Merge the peaks of several bands.

    Parameters
    ----------
    bands : list of Detections, or of (x, y, snr) arrays, in order of priority
    config : MergeConfig

    Returns
    -------
    MergedPeaks
        Objects of the first band in its order, then those the second adds, and so on.
    """
    from scipy.spatial import cKDTree

    lists = [(peaks.x, peaks.y, peaks.snr) if isinstance(peaks, Detections) else peaks for peaks in bands]
    where, snr, first = np.empty((0, 2)), np.empty((0, len(lists)), np.float32), np.empty(0, int)
    for band, (x, y, significance) in enumerate(lists):
        new = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=1).reshape(-1, 2)
        significance = np.asarray(significance, np.float32)
        distance, nearest = cKDTree(where).query(new) if len(where) else (np.full(len(new), np.inf), None)
        for peak in np.flatnonzero(distance <= config.radius_same):  # the more significant of two near one object wins
            known = snr[nearest[peak], band]
            snr[nearest[peak], band] = np.fmax(known, significance[peak])
        added = distance > config.radius_new
        rows = np.full((int(added.sum()), len(lists)), np.nan, np.float32)
        rows[:, band] = significance[added]
        where, snr = np.concatenate([where, new[added]]), np.concatenate([snr, rows])
        first = np.concatenate([first, np.full(len(rows), band)])
    return MergedPeaks(where[:, 0], where[:, 1], snr, first)
