"""gains: relative gains of a detector's amplifiers from the sky at their borders, for frames that come without a flat.

The sky is continuous where two amplifiers meet. The ratio of its levels in strips on both sides of each border gives one
equation per border for the logarithms of the factors; together they are solved by weighted least squares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.box import Box
from ..products.camera import Detector
from ..products.image import MaskedImage
from .statistics import robust_sigma

__all__ = ["Border", "GainsConfig", "borders", "match_gains"]

BAD = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN")


class GainsConfig(Config):
    """How amplifiers are made to agree on the sky."""

    depth: int = parameter(0, "depth of the strips along the borders; 0: gains are taken as they are", unit="pixel", low=0)


class Border(NamedTuple):
    """Where two amplifiers meet: their numbers, and the strips on the first's and the second's side."""

    first: int
    second: int
    near: Box
    far: Box


def borders(detector: Detector, depth: int) -> list[Border]:
    """All borders between amplifiers, with strips of this depth (or of half the amplifier, where that is less)."""
    boxes = [amplifier.assembled_box for amplifier in detector.amplifiers]
    found = []
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes):
            y0, y1, x0, x1 = max(a.y0, b.y0), min(a.y1, b.y1), max(a.x0, b.x0), min(a.x1, b.x1)
            if a.x1 == b.x0 and y0 < y1:
                deep = min(depth, a.nx // 2, b.nx // 2)
                found.append(Border(i, j, Box(a.x1 - deep, y0, deep, y1 - y0), Box(b.x0, y0, deep, y1 - y0)))
            if a.y1 == b.y0 and x0 < x1:
                deep = min(depth, a.ny // 2, b.ny // 2)
                found.append(Border(i, j, Box(x0, a.y1 - deep, x1 - x0, deep), Box(x0, b.y0, x1 - x0, deep)))
    return found


def match_gains(image: MaskedImage, detector: Detector, sources: np.ndarray, config: GainsConfig) -> np.ndarray:
    """Multiply each amplifier of an image by a factor, in place, so that the sky continues across borders.

    Parameters
    ----------
    image : MaskedImage, the sky in it
    sources : (ny, nx) bool, pixels that are not sky

    Returns
    -------
    (n_amplifiers,) float64: the factors, with a mean of one over the area; ones if there is nothing to match

    Raises
    ------
    BadData
        There is no sky at a border, or it is not positive.
    """
    n = len(detector.amplifiers)
    meetings = borders(detector, config.depth)
    if config.depth == 0 or not meetings:
        return np.ones(n)
    good = image.good(*BAD) & ~sources
    design, steps = np.zeros((len(meetings), n)), np.zeros(len(meetings))
    for row, border in enumerate(meetings):
        (near, near_err), (far, far_err) = (_level(image, good, side) for side in (border.near, border.far))
        if not min(near, far) > 0.0:
            names = (detector.amplifiers[number].name for number in (border.first, border.second))
            raise BadData(f"no sky, or not a positive one, at the border of amplifiers {' and '.join(names)}; give bias frames, "
                          "or set visits.gains.depth to 0")
        weight = 1.0 / np.hypot(near_err / near, far_err / far)
        design[row, [border.first, border.second]] = -weight, weight
        steps[row] = weight * np.log(far / near)
    above = np.linalg.lstsq(design, steps, rcond=None)[0]  # of least norm: amplifiers without a common border are left alone
    area = np.array([amplifier.assembled_box.area for amplifier in detector.amplifiers], float)
    factors = np.exp(-above)
    factors *= area.sum() / (area * factors).sum()
    for amplifier, factor in zip(detector.amplifiers, factors):
        at = amplifier.assembled_box.slices(image.box)
        image.image[at] *= np.float32(factor)
        image.variance[at] *= np.float32(factor**2)
    return factors


def _level(image: MaskedImage, good: np.ndarray, strip: Box) -> tuple[float, float]:
    """Mean of a strip's good pixels without those beyond three sigma, and its error; NaN if there are too few."""
    at = strip.slices(image.box)
    values = image.image[at][good[at]].astype(np.float64)
    if len(values) < 16:
        return float("nan"), float("nan")
    middle, spread = np.median(values), robust_sigma(values)
    for _ in range(5):
        kept = values[np.abs(values - middle) <= 3.0 * spread]
        if len(kept) < 16:
            return float("nan"), float("nan")
        middle, spread = kept.mean(), max(kept.std(), 1e-12) / 0.9866  # of a normal distribution cut at three sigma
    return float(middle), float(spread / np.sqrt(len(kept)))
