"""MaskedImages in HDF5: compressed on any rank, appended by the leader, read back with planes by name."""

from __future__ import annotations

import numpy as np

from ..products.box import Box
from ..products.image import MaskedImage
from .attributes import get, put
from .pixels import EncodedDataset, append, encode, noise_of, read_pixels
from .product import mask_planes, with_planes

__all__ = ["EncodedImage", "append_image", "encode_image", "noise_level", "read_image", "without_pixels"]

EncodedImage = tuple[EncodedDataset, EncodedDataset, EncodedDataset]


def encode_image(image: MaskedImage, *, exact: bool, seed: int = 0, q: float = 4.0) -> EncodedImage:
    """Compress the planes: exactly, or the image to 1/q of its noise and the variance to 10 bits."""
    step = float("nan") if exact else noise_level(image) / q
    return (encode(image.image, "exact" if exact else "noise", step=step, seed=seed, unit=image.unit, doc="image"),
            encode(image.variance, "exact" if exact else "variance", unit=f"{image.unit}^2", doc="inf is unknown"),
            encode(image.mask, doc="mask planes: see the attribute mask_planes of the file"))


def noise_level(image: MaskedImage) -> float:
    """The smaller of what differences of neighbours and the variance plane say: stars make the first too large."""
    rows = image.variance[::max(1, min(16, len(image.variance) // 16))]
    known = rows[np.isfinite(rows) & (rows > 0)]
    levels = [noise_of(image.image), float(np.sqrt(np.median(known))) if known.size else float("nan")]
    return min((level for level in levels if level > 0), default=float("nan"))


def append_image(group, image: MaskedImage, planes: EncodedImage) -> None:
    """Write the planes into an h5py group; unit and origin (of `image`, whose pixels may be gone) as its attributes."""
    for name, pixels in zip(("image", "variance", "mask"), planes):
        append(group, name, pixels)
    put(group, unit=image.unit, x0=image.box.x0, y0=image.box.y0)


def read_image(group, pixels: bool = True) -> MaskedImage:
    """The MaskedImage of a group; without its pixels if they are not asked for (a box of size zero)."""
    origin, unit = (int(get(group, "x0")), int(get(group, "y0"))), str(get(group, "unit"))
    if not pixels:
        return MaskedImage.empty(Box(*origin, 0, 0), unit)
    image, variance, mask = (read_pixels(group[name]) for name in ("image", "variance", "mask"))
    return MaskedImage(image, with_planes(mask.astype(np.uint32, copy=False), mask_planes(group.file)), variance,
                       Box.of_shape(image.shape, origin), unit)


def without_pixels(image: MaskedImage) -> MaskedImage:
    """Unit and origin alone: what travels beside the compressed planes."""
    return MaskedImage.empty(Box(image.box.x0, image.box.y0, 0, 0), image.unit)
