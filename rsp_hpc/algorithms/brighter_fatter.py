"""brighter_fatter: bright stars are wider than faint ones, since collected charge pushes the borders of its pixel outwards.

The charge that crossed a border is half its final shift (it moved while the charge came) times the mean charge of the two pixels;
it goes back, so that the sum stays exactly. The shifts are either those of a potential (scalar kernel: Coulton et al. 2018, AJ
155, 258, in the form that conserves charge) or given for the upper and right borders of a pixel (Astier & Regnault 2023, A&A 670,
A118). Coulton et al. repeat the correction, with shifts from the corrected image. Shifts grow with the charge that has come,
though: to second order they are those of 2/3 of the measured and 1/3 of the corrected charge, which is the default here.

The kernels are broken up into sums of products of a column and a row (singular values), which filters with a sixth of the
operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import brighter_fatter as kernel
from ..products.electronics import BrighterFatter
from ..products.image import MaskedImage
from ..products.mask import bits
from .saturation import grow

__all__ = ["BrighterFatterConfig", "Corrected", "correct_brighter_fatter"]

LARGEST = 64
"""Pixels, side of the largest kernel."""


class BrighterFatterConfig(Config):
    """How charge that crossed the borders of pixels goes back."""

    apply: bool = parameter(True, "whether it is corrected, where there is a kernel")
    passes: int = parameter(4, "corrections at most, each with the charges of the one before; all but the first only where the last "
                            "one changed much", low=1, high=100)
    tolerance: float = parameter(25.0, "change of a pixel in one pass that asks for another around it: what is left then is its "
                                 "square over the charge", unit="electron", low=0.0)
    measured_share: float = parameter(0.667, "from the second pass on, borders are shifted by this share of the charge as measured "
                                      "and for the rest as corrected; 0: Coulton et al.", low=0.0, high=1.0)
    precision: float = parameter(5e-3, "of the differences of the kernel (rms): products of a row and a column are added until it is "
                                 "reached; the correction is then right to 1e-4", above=0.0, high=0.1)
    exclude: tuple[str, ...] = parameter(("BAD", "NO_DATA", "UNMASKEDNAN"), "planes whose pixels are taken as the mean of their "
                                         "neighbours, and are left as they are")
    grow_planes: tuple[str, ...] = parameter(("SAT",), "planes around which pixels become SUSPECT: charges there are not known")
    grow: int = parameter(2, "so far around", unit="pixel", low=0, high=32)


class Corrected(NamedTuple):
    """What was done: pixels that were left out, convolutions made, largest change of the last one (electron)."""

    excluded: int
    passes: int
    change: float


def correct_brighter_fatter(image: MaskedImage, product: BrighterFatter, config: BrighterFatterConfig,
                            defects: np.ndarray | None = None) -> Corrected:
    """Move charge back, in place: image and variance (by as much) change, SUSPECT is set around saturated pixels.

    Parameters
    ----------
    image : MaskedImage, electron, bias and dark subtracted, not yet divided by the flat
    product : BrighterFatter
    defects : (ny, nx) bool, pixels to leave out that the mask does not know yet

    Raises
    ------
    BadData
        The kernel is missing, not square, of even side, not finite, larger than 63 pixels, or defects are of another size.
    """
    east, north = _kernels(product, config.precision)
    if defects is not None and defects.shape != image.box.shape:
        raise BadData(f"defects are {defects.shape[1]} x {defects.shape[0]} pixels, the image {image.box.nx} x {image.box.ny}; "
                      "make the calibration for this camera")
    options = kernel.TransportOptions(bits(*config.exclude), _level(image), config.passes, config.tolerance,
                                      config.measured_share)
    planes = image.image, image.mask, image.variance
    whole = tuple(np.ascontiguousarray(plane) for plane in planes)
    done = kernel.correct(whole, None if defects is None else np.ascontiguousarray(defects, np.bool_), east, north, options)
    if whole[0] is not image.image:
        image.image[...] = whole[0]
    if whole[2] is not image.variance:
        image.variance[...] = whole[2]
    grow(image, config.grow_planes, config.grow, "SUSPECT")
    return Corrected(*done)


def _level(image: MaskedImage) -> float:
    """Median of some rows' finite pixels, electron; 0 if there is none."""
    some = image.image[::max(1, image.box.ny // 16)]
    some = some[np.isfinite(some)]
    return float(np.median(some)) if len(some) else 0.0


def _kernels(product: BrighterFatter, precision: float) -> tuple[kernel.Separable, kernel.Separable | None]:
    """The potential, or the shifts to the right and up, as sums of products.

    Raises
    ------
    BadData
    """
    if product.method == "scalar":
        potential = _checked(product.kernel, "kernel")
        middle = len(potential) // 2
        return _products(potential, (middle, middle), precision), None
    if product.method != "electrostatic":
        raise BadData(f"brighter-fatter method '{product.method}' is unknown; build the kernel as scalar or electrostatic")
    east, north = _antisymmetric(_checked(product.east, "east")), _antisymmetric(_checked(product.north, "north").T).T
    middle = len(east) // 2
    return _products(east, (middle, middle), precision), _products(north, (middle, middle), precision)


def _checked(values: np.ndarray | None, name: str) -> np.ndarray:
    """A square kernel of odd side, float64."""
    if values is None:
        raise BadData(f"brighter-fatter product has no {name}; build it again")
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) % 2 == 0 or not 3 <= len(values) < LARGEST:
        raise BadData(f"brighter-fatter {name} has shape {values.shape}; it must be square with an odd side from 3 to "
                      f"{LARGEST - 1}: build it again")
    if not np.isfinite(values).all():
        raise BadData(f"brighter-fatter {name} has {np.count_nonzero(~np.isfinite(values))} values that are not finite; build it "
                      "again from more flats")
    return values


def _antisymmetric(east: np.ndarray) -> np.ndarray:
    """(n, n + 1): one column more, and made antisymmetric about the border, which lies half a pixel right of the centre.

    An equal charge everywhere then shifts nothing, to the last bit of the kernel.
    """
    wide = np.concatenate([east, -east[:, :1]], axis=1)
    return 0.5 * (wide - wide[:, ::-1])


def _products(values: np.ndarray, centre: tuple[int, int], precision: float) -> kernel.Separable:
    """The fewest products of a column and a row whose sum differs from a kernel by a fraction of its differences (rms)."""
    left, size, right = np.linalg.svd(values)
    n = min(values.shape)
    terms = np.arange(1, n + 1)
    goal = precision * _roughness(values)
    number = next((int(k) for k in terms if _roughness(values - (left[:, :k] * size[:k]) @ right[:k]) <= goal), n)
    root = np.sqrt(size[:number])
    columns, rows = (left[:, :number] * root).T, right[:number] * root[:, None]
    return kernel.Separable(columns.astype(np.float32), rows.astype(np.float32), centre, _symmetry(columns))


def _symmetry(columns: np.ndarray) -> int:
    """1 or -1 if all columns are, to rounding, the same or the opposite upside down; else 0."""
    small = 1e-9 * np.abs(columns).max()
    return next((sign for sign in (1, -1) if (np.abs(columns - sign * columns[:, ::-1]) <= small).all()), 0)


def _roughness(values: np.ndarray) -> float:
    """Root of the summed squares of the differences between neighbours, along both axes."""
    return float(np.sqrt(sum((np.diff(values, axis=axis) ** 2).sum() for axis in (0, 1))))
