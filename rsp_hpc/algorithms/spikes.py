"""spikes: diffraction spikes of stars with saturated cores, and of bright reference stars; their pixels get the plane SPIKE.

The spider's arms fix the directions. Along each, stretch by stretch from the star outwards, the light on the arm is compared with
that beside it at the same radius; the spike ends where two stretches in a row show none.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..products.image import MaskedImage
from ..products.mask import bits
from .streaks import mask_segment

__all__ = ["SpikesConfig", "find_spikes", "saturated_cores"]

UNUSABLE = ("BAD", "NO_DATA", "UNMASKEDNAN", "SAT")
STRETCH = 16
"""Pixels along an arm that are judged together."""


class SpikesConfig(Config):
    """Where diffraction spikes lie."""

    apply: bool = parameter(False, "whether spikes are looked for")
    angles: tuple[float, ...] = parameter((45.0, 135.0, 225.0, 315.0), "directions of the arms on the detector, from +x to +y",
                                          unit="deg")
    half_width: float = parameter(4.0, "half of a spike's masked width", unit="pixel", above=0.0, high=100.0)
    longest: float = parameter(600.0, "farthest from the star", unit="pixel", above=0.0)
    beside: float = parameter(12.0, "distance from the arm of the light that it is compared with", unit="pixel", above=1.0)
    min_core: int = parameter(12, "cores of fewer saturated pixels have no spike worth masking", unit="pixel", low=1)
    threshold: float = parameter(3.0, "light of a stretch over that beside it", unit="sigma", low=1.0)


def find_spikes(image: MaskedImage, config: SpikesConfig, stars: np.ndarray | None = None) -> int:
    """Set SPIKE along the spikes, in place; the number of spikes.

    Parameters
    ----------
    image : MaskedImage, electron
    stars : (n, 2) x, y of further bright stars, pixel, such as those of a reference catalogue; a spike needs light here too
    """
    places = [(x, y, radius) for x, y, radius in saturated_cores(image, config.min_core)]
    if stars is not None:
        places += [(float(x), float(y), config.half_width) for x, y in stars]
    count = 0
    for x, y, radius in places:
        for angle in config.angles:
            direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
            length = _length(image, (x, y), radius + config.half_width, direction, config)
            if length > 0.0:
                mask_segment(image, (x, y), (x + length * direction[0], y + length * direction[1]), config.half_width, "SPIKE")
                count += 1
    return count


def saturated_cores(image: MaskedImage, min_pixels: int) -> list[tuple[float, float, float]]:
    """x, y and radius (pixel) of the groups of saturated pixels; bleed trails do not count: a core is where its rows are widest."""
    from scipy.ndimage import find_objects, label

    labels, n = label(image.mask & np.uint32(bits("SAT")) != 0, structure=np.ones((3, 3)))
    found = []
    for number, at in enumerate(find_objects(labels), 1) if n else ():
        part = labels[at] == number
        if part.sum() < min_pixels:
            continue
        widths = part.sum(axis=1)
        rows = np.nonzero(widths >= 0.7 * widths.max())[0]
        columns = np.nonzero(part[rows].any(axis=0))[0]
        found.append((image.box.x0 + at[1].start + float(columns.mean()), image.box.y0 + at[0].start + float(rows.mean()),
                      0.5 * float(widths.max())))
    return found


def _length(image: MaskedImage, place: tuple[float, float], first: float, direction: np.ndarray, config: SpikesConfig) -> float:
    """How far a spike can be seen, pixel; 0: not at all."""
    normal = np.array([-direction[1], direction[0]])
    wide = np.arange(-int(config.half_width / 2.0), int(config.half_width / 2.0) + 1)
    length, dark, start, n_lit = 0.0, 0, first, 0
    while start < config.longest and dark < 2:
        along = start + np.arange(STRETCH)
        on = _values(image, place, direction, normal, along, wide)
        off = np.concatenate([_values(image, place, direction, normal, along, wide + side * config.beside) for side in (-1.0, 1.0)])
        start += STRETCH
        if len(on) < 8 or len(off) < 8:
            dark += len(on) == 0 and not _inside(image, place, direction, start)
            continue
        spread = 1.4826 * np.median(np.abs(off - np.median(off)))
        error = 1.2533 * spread * np.hypot(len(on) ** -0.5, len(off) ** -0.5) + 1e-12
        lit = np.median(on) - np.median(off) > config.threshold * error
        dark = 0 if lit else dark + 1
        n_lit += int(lit)
        length = start if lit else length
    return length if n_lit > 1 else 0.0


def _inside(image: MaskedImage, place, direction, distance: float) -> bool:
    x, y = place[0] + distance * direction[0] - image.box.x0, place[1] + distance * direction[1] - image.box.y0
    return 0 <= x < image.box.nx and 0 <= y < image.box.ny


def _values(image: MaskedImage, place, direction, normal, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Usable pixels nearest to points along an arm and across it."""
    x = np.rint(place[0] + along[:, None] * direction[0] + across[None, :] * normal[0]).astype(np.int64) - image.box.x0
    y = np.rint(place[1] + along[:, None] * direction[1] + across[None, :] * normal[1]).astype(np.int64) - image.box.y0
    inside = (x >= 0) & (x < image.box.nx) & (y >= 0) & (y < image.box.ny)
    x, y = x[inside], y[inside]
    values = image.image[y, x]
    return values[(image.mask[y, x] & np.uint32(bits(*UNUSABLE)) == 0) & np.isfinite(values)].astype(np.float64)
