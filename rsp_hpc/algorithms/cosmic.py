"""cosmic: pixels hit by cosmic rays in a single exposure, found as steeper than the PSF allows.

A directional form of the Laplacian edge detection of van Dokkum (2001, PASP 113, 1420). A pixel is compared with the
mean of two opposite neighbours; through optics with a Gaussian PSF of width s their ratio never falls below
exp(-d^2 / (2 s^2)), wherever in the pixel the star lies, and since that bound is linear it holds for any sum of stars
and galaxies. What falls below it by more than the noise, and by a factor that finer structure of real PSFs does not
reach, is a hit. Neighbours of hits are then tried with lower thresholds.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import cosmic as kernel
from ..products.background import Background
from ..products.image import MaskedImage
from ..products.mask import bits
from .background import BackgroundConfig, evaluate_background, fit_background

__all__ = ["CosmicConfig", "find_cosmic_rays", "find_stuck_pixels"]

SKIPPED = ("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")
WIDEST = 4.0
"""Pixel; a wider PSF is taken as this wide, which is safe and costs nothing: any hit is steeper."""


class CosmicConfig(Config):
    """How cosmic rays are found."""

    peak: float = parameter(5.0, "a hit stands this far above the sky", unit="sigma", low=2.0)
    edge: float = parameter(4.0, "and this far above what the PSF allows next to its neighbours", unit="sigma", low=1.0)
    grow_peak: float = parameter(3.0, "the same above the sky for a neighbour of a hit", unit="sigma", low=1.0)
    grow_edge: float = parameter(1.0, "the same above the PSF for a neighbour of a hit", unit="sigma", low=0.5)
    sharpness: float = parameter(0.95, "the width taken for the PSF, over the one given: the PSF changes over "
                                 "the field", low=0.5, high=1.0)
    contrast: float = parameter(0.55, "what the PSF allows next to its neighbours is less than this fraction of a hit: "
                                "PSFs of short exposures are no Gaussians, but reach 0.6 at the least", above=0.0,
                                high=1.0)
    grow_contrast: float = parameter(0.75, "the same for a neighbour of a hit that is not brighter: tracks in thick sensors are wide", above=0.0,
                                     high=1.0)
    relative: float = parameter(0.01, "noise added to a bright pixel, as a fraction of it: errors of the flat", low=0.0,
                                high=0.5)
    rounds: int = parameter(20, "rounds of growing to neighbours", low=0, high=1000)
    saturated_margin: int = parameter(2, "pixels this near to saturated ones are left alone: bleed ends abruptly",
                                      unit="pixel", low=0, high=50)


def find_cosmic_rays(image: MaskedImage, psf_sigma: float, background: Background | None, config: CosmicConfig) -> int:
    """Set CR where a cosmic ray hit, in place, and tell how many pixels that are. Image and variance stay.

    Parameters
    ----------
    image : MaskedImage, electron, its sky not subtracted; BAD, SAT, NO_DATA and UNMASKEDNAN pixels are skipped
    psf_sigma : Gaussian width of the PSF as it is seen in the pixels (FWHM / 2.3548), pixel
    background : the sky's level; None: fitted here
    config : CosmicConfig

    Raises
    ------
    BadData
        The width of the PSF is no positive number, the background belongs to another box, or there is no sky to fit.
    """
    if not 0.0 < psf_sigma < np.inf:
        raise BadData(f"cosmic rays cannot be told from stars with a PSF of sigma {psf_sigma} pixel; "
                      "measure the PSF first")
    background = background or fit_background(image, BackgroundConfig())
    if background.box != image.box:
        raise BadData(f"background of {background.box} does not belong to an image on {image.box}; fit it there")
    options = kernel.CosmicOptions(
        sigma=config.sharpness * min(psf_sigma, WIDEST), peak=config.peak, edge=config.edge, grow_peak=config.grow_peak,
        grow_edge=config.grow_edge, contrast=config.contrast, grow_contrast=config.grow_contrast, relative=config.relative, rounds=config.rounds,
        margin=config.saturated_margin, skip_bits=bits(*SKIPPED), saturated_bit=bits("SAT"), hit_bit=bits("CR"))
    planes = image.image, image.mask, image.variance
    if all(plane.flags.c_contiguous for plane in planes):
        return kernel.find_hits(*planes, evaluate_background(background), options)
    mask = np.ascontiguousarray(image.mask)
    hits = kernel.find_hits(np.ascontiguousarray(image.image), mask, np.ascontiguousarray(image.variance),
                            evaluate_background(background), options)
    image.mask[...] = mask
    return hits


def find_stuck_pixels(image: MaskedImage, psf_sigma: float, background: Background, config: CosmicConfig) -> int:
    """Turn SAT into BAD, in place, where up to 3 x 3 saturated pixels stand alone, and tell how many: hot pixels, or hits.

    A saturated star is bright two pixels further, by exp(-2 / s^2) of its peak at the least; half of that is asked for. The
    image, its sky not subtracted, stays.
    """
    saturated = np.uint32(bits("SAT"))
    y, x = np.nonzero(image.mask & saturated)
    if not len(y):
        return 0
    ring = [(j, i) for j in range(-2, 3) for i in range(-2, 3) if max(abs(i), abs(j)) == 2]
    rows = np.clip(y[:, None] + [j for j, _ in ring], 0, image.box.ny - 1)
    columns = np.clip(x[:, None] + [i for _, i in ring], 0, image.box.nx - 1)
    alone = ~(image.mask[rows, columns] & saturated).any(axis=1)
    width = config.sharpness * min(psf_sigma, WIDEST)
    sky = float(np.median(background.level))
    light = np.nanmax(np.where(np.isfinite(image.image[rows, columns]), image.image[rows, columns], -np.inf), axis=1) - sky
    alone &= light < 0.5 * np.exp(-2.0 / width**2) * (image.image[y, x] - sky)
    at = y[alone], x[alone]
    image.mask[at] = image.mask[at] & ~saturated | np.uint32(bits("BAD"))
    return int(alone.sum())
