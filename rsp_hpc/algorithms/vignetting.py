"""vignetting: pixels outside the camera's unvignetted field get the plane VIGNETTED."""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.camera import Detector
from ..products.focalplane import place_on_focal_plane
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["VignettingConfig", "mask_vignetted"]


class VignettingConfig(Config):
    """Where the camera's unvignetted field ends."""

    radius: float = parameter(0.0, "its radius on the focal plane; 0: all of it is unvignetted", unit="mm", low=0.0)
    center: tuple[float, float] = parameter((0.0, 0.0), "its centre on the focal plane", unit="mm")


def mask_vignetted(image: MaskedImage, detector: Detector, pixel_size: float, config: VignettingConfig) -> int:
    """Set VIGNETTED in pixels whose centre lies outside the field, in place; how many that are.

    Parameters
    ----------
    image : MaskedImage of the detector, or a part of it
    pixel_size : micron

    Raises
    ------
    BadData
        A radius is given and the pixel size is not known.
    """
    if config.radius == 0.0:
        return 0
    if not 0.0 < pixel_size < np.inf:
        raise BadData(f"vignetting: the pixel size of detector {detector.name} is {pixel_size} micron; give pixel_size in the camera")
    box = image.box
    x, y = place_on_focal_plane(detector, pixel_size, box.x0 + np.arange(box.nx)[None, :], box.y0 + np.arange(box.ny)[:, None])
    outside = (x - config.center[0]) ** 2 + (y - config.center[1]) ** 2 > config.radius**2
    if outside.any():
        image.mask[outside] |= np.uint32(bits("VIGNETTED"))
    return int(outside.sum())
