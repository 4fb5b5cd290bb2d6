"""Blank sky in real images: where it is, and the noise of point-source fluxes there."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.products.coadd import Coadd
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

BAD = ("BAD", "SAT", "CR", "INTRP", "NO_DATA", "UNMASKEDNAN", "EDGE", "SENSOR_EDGE", "INEXACT_PSF", "CLIPPED", "REJECTED")


def blank(image: MaskedImage, margin: int, planes: tuple[str, ...] = BAD) -> np.ndarray:
    """(ny, nx) bool: good pixels further than a margin (pixels) from detected sources."""
    bad = (image.mask & np.uint32(bits(*planes)) != 0) | ~np.isfinite(image.variance) | ~np.isfinite(image.image)
    source = image.mask & np.uint32(bits("DETECTED", "SAT")) != 0
    return ~bad & (ndimage.distance_transform_edt(~source) > margin)


def with_sources(combined: Coadd, threshold: float = 4.0) -> Coadd:
    """A coadd with DETECTED set in its mask, which the stored one lacks."""
    correlation = float(np.nanmedian(combined.noise_correlation))
    detect(combined.image, combined.psf, DetectConfig(threshold=threshold, isophote=1.5), correlation)
    return combined


def stamp_of(stamp: np.ndarray, half: int) -> np.ndarray:
    """The middle of a PSF stamp, (2 half + 1) pixels a side, float64."""
    middle = stamp.shape[0] // 2
    return np.asarray(stamp[middle - half:middle + half + 1, middle - half:middle + half + 1], float)


def psf_fluxes(image: MaskedImage, stamp: np.ndarray) -> np.ndarray:
    """(ny, nx) float64: flux of a PSF fitted on each pixel with equal weights, in the image's unit; gaps count as zero."""
    values = np.nan_to_num(image.image.astype(float), posinf=0.0, neginf=0.0)
    return signal.fftconvolve(values, stamp[::-1, ::-1], mode="same") / (stamp**2).sum()


def room(good: np.ndarray, half: int) -> np.ndarray:
    """(ny, nx) bool: pixels whose square of (2 half + 1) pixels is good and inside."""
    return ndimage.minimum_filter(good.astype(np.uint8), 2 * half + 1, mode="constant", cval=0).astype(bool)
