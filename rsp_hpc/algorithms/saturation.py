"""saturation: what lies around saturated pixels: their neighbours, bleed trails, and the serial register that a trail floods.

A pixel that is full spills into its neighbours along the column, and these spill before the raw level reaches the saturation that
the camera states; the ends of a trail are blooming that looks like light.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import saturation as kernel
from ..products.camera import Detector
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["SaturationConfig", "grow", "grow_saturation"]


class SaturationConfig(Config):
    """How far around saturated pixels others are masked SAT too."""

    grow: int = parameter(1, "pixels within so far of a saturated one are saturated", unit="pixel", low=0, high=32)
    trail_length: int = parameter(30, "so many saturated pixels in a column are a bleed trail; 0: trails are not looked for",
                                  unit="pixel", low=0)
    trail_beyond: int = parameter(8, "pixels masked beyond both ends of a trail", unit="pixel", low=0, high=1000)
    trail_beside: int = parameter(2, "pixels masked on both sides of a trail", unit="pixel", low=0, high=100)
    edge_rows: int = parameter(0, "rows masked at the read-out's edge where a trail reaches it; 0: none", unit="pixel", low=0,
                               high=1000)
    edge_reach: int = parameter(100, "so far to both sides of the trail, in its amplifier", unit="pixel", low=0)


def grow(image: MaskedImage, planes: tuple[str, ...], radius: int, plane: str) -> int:
    """Set a plane within `radius` pixels of pixels that have one of `planes`, in place; the number newly set."""
    if not planes or radius < 0:
        return 0
    mask = np.ascontiguousarray(image.mask)
    count = kernel.grow(mask, bits(*planes), radius, bits(plane))
    if mask is not image.mask:
        image.mask[...] = mask
    return count


def grow_saturation(image: MaskedImage, detector: Detector, config: SaturationConfig) -> int:
    """Set SAT around saturated pixels, along bleed trails, and where a trail floods the serial register, in place.

    Trails run along the columns and end where their amplifier does.

    Returns
    -------
    number of pixels newly masked

    Raises
    ------
    BadData
        The image is not that of the whole detector.
    """
    if image.box != detector.box:
        raise BadData(f"saturation is grown on the whole detector {detector.name} of {detector.size[0]} x {detector.size[1]} pixels, "
                      f"the image is {image.box}; give the detector's image")
    mask, saturated = np.ascontiguousarray(image.mask), bits("SAT")
    count = 0
    for amplifier in detector.amplifiers if config.trail_length else ():
        box = amplifier.assembled_box
        count += kernel.trails(mask, kernel.TrailOptions(
            box.x0, box.y0, box.x1, box.y1, config.trail_length, config.trail_beyond, config.trail_beside, config.edge_rows,
            config.edge_reach, amplifier.flip_y, saturated, saturated))
    count += kernel.grow(mask, saturated, config.grow, saturated)
    if mask is not image.mask:
        image.mask[...] = mask
    return count
