"""deblend: shares out the light of blended peaks so that in every pixel the children sum to the image.

Each peak has a template: the PSF where it is faint or point-like (fluxes from a joint fit of all peaks), else the image
made symmetric about the peak and falling outwards (Lupton 2005, "SDSS image processing I: the deblender"). A pixel's
light is divided in proportion to the templates. Footprints with one peak cost nothing. For several bands, call it for
each with the same detections.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import deblend as kernel
from ..products.footprints import Children, Detections
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import Psf

__all__ = ["DeblendConfig", "deblend"]


class DeblendConfig(Config):
    """How blends are shared out."""

    max_peaks: int = parameter(10000, "a footprint with more peaks is left blended", low=1)
    max_area: int = parameter(4000000, "a larger footprint is left blended", unit="pixel", low=1)
    faint: float = parameter(15.0, "less significant peaks are shared as point sources", unit="sigma", low=0.0)
    misfit: float = parameter(0.2, "peaks that the PSF fits to this rms fraction are shared as point sources", low=0.0)


def deblend(image: MaskedImage, detections: Detections, psf: Psf, config: DeblendConfig) -> Children:
    """Share out the light of all footprints with several peaks; sets NOT_DEBLENDED where they are left as they are.

    Parameters
    ----------
    image : MaskedImage, sky subtracted
    detections : Detections on the same box (of this image, or of several bands together)
    psf : Psf of this image
    config : DeblendConfig

    Raises
    ------
    BadData
        The detections belong to another box.
    """
    if detections.box != image.box:
        raise BadData(f"deblend: detections on {detections.box} do not belong to an image on {image.box}; detect on it")
    blends = detections.boxes[detections.n_peaks > 1]
    if len(blends) == 0:
        return Children.none(len(detections))
    centre = 0.5 * (blends[:, :2] + blends[:, 2:] - 1.0)
    psfs = np.ascontiguousarray(psf.stamps(centre[:, 0] + image.box.x0, centre[:, 1] + image.box.y0), np.float32)
    footprints = {"boxes": np.ascontiguousarray(detections.boxes), "areas": np.ascontiguousarray(detections.areas),
                  "starts": detections.starts, "owners": detections.owners,
                  "xy": np.stack([detections.x - image.box.x0, detections.y - image.box.y0], axis=1),
                  "snr": np.ascontiguousarray(detections.snr, np.float32)}
    planes = tuple(np.ascontiguousarray(plane) for plane in (image.image, image.variance, image.mask))
    children = Children(*kernel.share_light((*planes, detections.labels), footprints, psfs,
                                            (config.max_peaks, config.max_area, config.faint, config.misfit)))
    _mark_left(image, detections, children)
    return children


def _mark_left(image: MaskedImage, detections: Detections, children: Children) -> None:
    """Set NOT_DEBLENDED in footprints that were left blended."""
    left = np.unique(detections.footprint[(children.flags & Children.NOT_DEBLENDED) != 0])
    for footprint in left:
        x0, y0, x1, y1 = detections.boxes[footprint]
        inside = detections.labels[y0:y1, x0:x1] == footprint + 1
        image.mask[y0:y1, x0:x1][inside] |= np.uint32(bits("NOT_DEBLENDED"))
