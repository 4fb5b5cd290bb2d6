"""From the pixels of a raw amplifier to those of the assembled detector: the WCS of one, and one WCS out of many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .camera import Amplifier, Detector
from .geometry import sky_of_vectors, unit_vectors
from .wcs import Wcs

__all__ = ["mean_wcs", "wcs_of_amplifier"]


def wcs_of_amplifier(wcs: Wcs, amplifier: Amplifier) -> Wcs:
    """A WCS that counts the raw pixels of the image that holds an amplifier, in pixels of the assembled detector.

    A flipped axis changes the sign of its column of the matrix and of its odd powers in the distortion.
    """
    crpix, signs = [], []
    for axis, flip in ((0, amplifier.flip_x), (1, amplifier.flip_y)):
        place = wcs.crpix[axis] - amplifier.section[axis] - amplifier.data[axis]  # in the data region
        crpix.append(amplifier.origin[axis] + (amplifier.data[2 + axis] - 1 - place if flip else place))
        signs.append(-1.0 if flip else 1.0)
    cd = np.asarray(wcs.cd) * signs
    tables = []
    for axis, table in enumerate((wcs.a, wcs.b)):
        if table is None:
            tables.append(None)
            continue
        powers = np.arange(len(table))
        tables.append(signs[axis] * table * signs[0] ** powers[:, None] * signs[1] ** powers[None, :])
    return Wcs(wcs.crval, (crpix[0], crpix[1]), tuple(map(tuple, cd.tolist())), *tables)  # type: ignore[arg-type]


def mean_wcs(solutions: Sequence[Wcs], detector: Detector) -> Wcs:
    """One WCS of an assembled detector out of several rough ones: the mean position and matrix at its centre.

    A single one is returned as it is; of several, distortion enters only through its slope at the centre.
    """
    if len(solutions) == 1:
        return solutions[0]
    x, y = 0.5 * (detector.size[0] - 1), 0.5 * (detector.size[1] - 1)
    places = np.array([wcs.pixel_to_sky(x, y) for wcs in solutions])
    ra, dec = sky_of_vectors(unit_vectors(places[:, 0], places[:, 1]).mean(axis=0))
    cd = np.mean([wcs.local_jacobian(x, y) for wcs in solutions], axis=0) / 3600.0
    return Wcs((float(ra), float(dec)), (x, y), tuple(map(tuple, cd.tolist())))  # type: ignore[arg-type]
