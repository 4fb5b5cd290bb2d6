"""interpolate: values for masked pixels from their good neighbours, so that filters and warps do not see holes."""

from __future__ import annotations

from ..config import Config, parameter
from ..kernels import interpolate as kernel
from ..products.image import MaskedImage
from ..products.mask import bits

__all__ = ["InterpolateConfig", "interpolate"]

UNUSABLE = ("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN")


class InterpolateConfig(Config):
    """How bad pixels are filled: a parabolic surface through the good ones around, with Gaussian weights."""

    sigma: float = parameter(0.8, "width of the Gaussian weight", unit="pixel", above=0.0)
    radius: int = parameter(1, "half side of the window; it grows where the good pixels do not determine a surface", unit="pixel", low=1, high=64)
    max_radius: int = parameter(3, "largest half side; pixels further inside a hole stay as they are", unit="pixel", low=1, high=64)
    inflation: float = parameter(2.0, "the variance of a filled pixel is that of its neighbours times this", low=1.0)


def interpolate(image: MaskedImage, planes: tuple[str, ...], config: InterpolateConfig) -> int:
    """Fill the pixels of these planes in place, set INTRP there, and tell how many.

    Their own bits stay; what cannot be filled (no four good pixels within `max_radius`) keeps value and variance.
    """
    options = kernel.FillOptions(config.radius, max(config.radius, config.max_radius), config.sigma, config.inflation,
                                 bits(*planes), bits(*UNUSABLE, *planes), bits("INTRP"))
    return kernel.interpolate(image.image, image.mask, image.variance, options)
