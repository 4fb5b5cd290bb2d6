"""detect: footprints and peaks of sources in a matched-filtered image, of one band or of several together.

Each pixel's significance is that of a point source there: S/N = sum(P I) / sqrt(sum(P^2 V)), with the PSF P as a short
sum of separable terms (its singular value decomposition) and the variance plane V, so that the noise of bright sources
and of unequally deep regions counts. Footprints are pixels above a low level that hold one above the threshold; peaks
are local maxima of the filtered image that stand out from their saddle by noise and by contrast (topological
persistence); not of the S/N, whose dips between bright neighbours are filled by the noise of their light.

Bands are united by the root of the sum of the squares of their positive S/N, with levels that blank sky passes
as often as one band's (Szalay, Connolly & Szokoly 1999).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import detect as kernel
from ..products.footprints import Detections
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.psf import Psf

__all__ = ["DetectConfig", "detect", "detect_multiband", "mark_sources", "matched_filter", "significance"]


class DetectConfig(Config):
    """How sources are found."""

    threshold: float = parameter(4.75, "a footprint needs a pixel of this significance", unit="sigma", above=0.0)
    isophote: float = parameter(2.5, "pixels of a footprint are more significant than this", unit="sigma", above=0.0)
    min_area: int = parameter(3, "smallest footprint", unit="pixel", low=1)
    min_drop: float = parameter(2.5, "a further peak stands out from its saddle by this", unit="sigma", low=0.0)
    contrast: float = parameter(0.03, "and by this fraction of the saddle's significance", low=0.0)
    filter_quality: float = parameter(0.99, "terms are added to the separable filter until its S/N is this share of "
                                            "the exact one's", low=0.5, high=1.0)
    filter_radius: float = parameter(1.5, "half side of the filter, at least two pixels", unit="FWHM", above=0.0)
    reject_planes: tuple[str, ...] = parameter(("BAD", "CR"), "pixels left out unless they were interpolated")
    never_planes: tuple[str, ...] = parameter(("NO_DATA", "UNMASKEDNAN"), "pixels left out in any case")


def detect(image: MaskedImage, psf: Psf, config: DetectConfig, noise_correlation=1.0) -> Detections:
    """Find sources; sets DETECTED (and EDGE along the border) in the image's mask.

    Parameters
    ----------
    image : MaskedImage, sky subtracted
    psf : Psf of the image; its shape at the centre is the filter
    config : DetectConfig
    noise_correlation : float or (gy, gx) array on a grid that tiles the image, factor on the variance of smooth sums

    Raises
    ------
    BadData
        No pixel of the image can be used, or the PSF is not finite.
    """
    found = _find(_filtered(image, psf, config, noise_correlation), (config.isophote, config.threshold), image, config)
    _mark_border(image, psf, config)
    return found


def mark_sources(image: MaskedImage, psf: Psf, config: DetectConfig) -> None:
    """Set DETECTED and EDGE in the mask as `detect` does, without looking for peaks.

    Raises
    ------
    BadData
        No pixel of the image can be used, or the PSF is not finite.
    """
    _footprints(_filtered(image, psf, config, 1.0)[1], (config.isophote, config.threshold), image, config)
    _mark_border(image, psf, config)


def detect_multiband(images: dict[str, MaskedImage], psfs: dict[str, Psf], config: DetectConfig,
                     noise_correlation: dict | None = None) -> Detections:
    """Find sources in several images of one box together; `bands` of the result tells where each peak is significant.

    The combined significance, `snr` of the result, is chi = sqrt(sum over bands of max(S/N, 0)^2). DETECTED is set in all masks. Bands without usable pixels are skipped.

    Raises
    ------
    BadData
        No image has a usable pixel, or their boxes differ.
    """
    boxes = {image.box for image in images.values()}
    if len(boxes) != 1:
        raise BadData(f"detect: the bands {', '.join(images)} cover {len(boxes)} boxes; give images of one box")
    planes = []
    for band, image in images.items():
        try:
            planes.append(_filtered(image, psfs[band], config, (noise_correlation or {}).get(band, 1.0)))
        except BadData:
            planes.append(None)
    present = [plane for plane in planes if plane is not None]
    if not present:
        raise BadData(f"detect: no usable pixel in any of the bands {', '.join(images)}; leave this patch out")
    levels = tuple(_chi_level(level, len(present)) for level in (config.isophote, config.threshold))
    first, detected = next(iter(images.values())), np.uint32(bits("DETECTED"))
    found = _find(_chi(present), levels, first, config)
    for (band, image), plane in zip(images.items(), planes):
        image.mask[:] = image.mask & ~detected | first.mask & detected
        if plane is not None:
            _mark_border(image, psfs[band], config)
    column, row = np.rint(found.x).astype(int) - first.box.x0, np.rint(found.y).astype(int) - first.box.y0
    bands = np.stack([np.zeros(len(found), bool) if plane is None else plane[1][row, column] > config.threshold
                      for plane in planes], axis=1)
    return replace(found, bands=bands)


def significance(image: MaskedImage, psf: Psf, config: DetectConfig, noise_correlation=1.0) -> np.ndarray:
    """(ny, nx) float32: signal to noise of a point source at each pixel; 0 where no pixel can be used."""
    return _filtered(image, psf, config, noise_correlation)[1]


def _filtered(image: MaskedImage, psf: Psf, config: DetectConfig, noise_correlation) -> tuple[np.ndarray, np.ndarray]:
    """Filtered image, whose maxima are the peaks, and its signal to noise; both (ny, nx) float32."""
    signal, noise = matched_filter(_stamp(psf, image), config)
    correlation = np.atleast_2d(np.asarray(noise_correlation, np.float32))
    correlation = np.ascontiguousarray(np.where(np.isfinite(correlation), correlation, 1.0), np.float32)
    planes = (np.ascontiguousarray(image.image), np.ascontiguousarray(image.mask), np.ascontiguousarray(image.variance))
    level, snr = kernel.filter_image(planes, (bits(*config.reject_planes), bits("INTRP"), bits(*config.never_planes)),
                                     signal, noise, correlation)
    if not snr.any():
        raise BadData("detect: no usable pixel (all masked, not finite, or without variance); leave this image out")
    return level, snr


def matched_filter(stamp: np.ndarray, config: DetectConfig):
    """The separable terms of the filter and of its square.

    Parameters
    ----------
    stamp : (k, k) float, the PSF

    Returns
    -------
    (rows, columns), (rows, columns) : each (n_terms, 2 half + 1) float32
    """
    total = np.sqrt((stamp**2).sum())
    width = np.sqrt(stamp.sum() / (np.pi * stamp.max())) * 1.665  # FWHM of the Gaussian with this peak and sum
    half = int(min(stamp.shape[0] // 2, max(2, np.ceil(config.filter_radius * width))))
    middle = stamp.shape[0] // 2
    core = stamp[middle - half:middle + half + 1, middle - half:middle + half + 1]
    left, values, right = np.linalg.svd(core)
    quality = np.sqrt(np.cumsum(values**2)) / total
    n = 1 + int(np.argmax(quality >= min(config.filter_quality, quality[-1] * 0.9999)))
    columns, rows = (left[:, :n] * values[:n]).T / total, right[:n]
    pairs = [(a, b) for a in range(n) for b in range(a, n)]
    noise_rows = np.array([rows[a] * rows[b] for a, b in pairs])
    noise_columns = np.array([columns[a] * columns[b] * (1.0 if a == b else 2.0) for a, b in pairs])
    as_kernel = [np.ascontiguousarray(part, np.float32) for part in (rows, columns, noise_rows, noise_columns)]
    return tuple(as_kernel[:2]), tuple(as_kernel[2:])


def _stamp(psf: Psf, image: MaskedImage) -> np.ndarray:
    """(k, k) float64: the PSF nearest to the image's centre that is finite, on a coarse grid."""
    u, v = (part.ravel() for part in np.meshgrid(np.linspace(0.0, 1.0, 15), np.linspace(0.0, 1.0, 15)))
    order = np.argsort((u - 0.5)**2 + (v - 0.5)**2, kind="stable")
    x, y = image.box.x0 + u[order] * (image.box.nx - 1), image.box.y0 + v[order] * (image.box.ny - 1)
    centre = psf.stamps(x[:1], y[:1])[0]
    if np.isfinite(centre).all():
        return centre.astype(float)
    stamps = psf.stamps(x, y)
    finite = np.isfinite(stamps).all(axis=(1, 2))
    if not finite.any():
        raise BadData("detect: the PSF is not finite anywhere on this image; leave it out or fit the PSF again")
    return stamps[np.argmax(finite)].astype(float)


def _find(planes: tuple[np.ndarray, np.ndarray], levels: tuple[float, float], image: MaskedImage,
          config: DetectConfig) -> Detections:
    """Footprints of the significance between (isophote, threshold), and the peaks of the filtered image in them."""
    light, snr = planes
    labels, boxes, areas = _footprints(snr, levels, image, config)
    owners, xy, peak_snr, starts = kernel.find_peaks(light, snr, labels, boxes,
                                                     (levels[1], config.min_drop, config.contrast))
    footprint = np.repeat(np.arange(len(boxes), dtype=np.int32), np.diff(starts))
    return Detections(image.box, labels, owners, xy[:, 0] + image.box.x0, xy[:, 1] + image.box.y0, peak_snr, footprint,
                      boxes, areas, starts)


def _footprints(snr: np.ndarray, levels: tuple[float, float], image: MaskedImage, config: DetectConfig):
    """Labels, boxes and areas of the footprints; sets DETECTED."""
    whole = np.ascontiguousarray(image.mask)
    found = kernel.find_footprints(snr, whole, levels, config.min_area, bits("DETECTED"))
    if whole is not image.mask:
        image.mask[:] = whole
    return found


def _mark_border(image: MaskedImage, psf: Psf, config: DetectConfig) -> None:
    """Set EDGE where the filter reaches over the border."""
    half, edge = matched_filter(_stamp(psf, image), config)[0][0].shape[1] // 2, np.uint32(bits("EDGE"))
    for part in (np.s_[:half], np.s_[-half:], np.s_[:, :half], np.s_[:, -half:]):
        image.mask[part] |= edge


def _chi(planes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Roots of the sums of the squares of what is positive: of the light over each band's typical noise, and of the S/N."""
    if len(planes) == 1:
        return planes[0]
    totals = [np.zeros_like(planes[0][0]), np.zeros_like(planes[0][0])]
    for light, snr in planes:
        sample = np.abs(light[::7, ::7][snr[::7, ::7] != 0] / snr[::7, ::7][snr[::7, ::7] != 0])
        noise = np.float32(np.median(sample)) if len(sample) else np.float32(1.0)
        for total, plane, scale in zip(totals, (light, snr), (1.0 / noise, 1.0)):
            positive = np.maximum(plane, np.float32(0.0))
            positive *= np.float32(scale)
            positive *= positive
            total += positive
    return tuple(np.sqrt(total, out=total) for total in totals)


def _chi_level(level: float, n_bands: int) -> float:
    """The chi of n bands that blank sky exceeds as often as one band exceeds `level` sigma.

    Each band is positive half of the time, so chi^2 is a binomial mixture of chi^2 distributions.
    """
    from scipy.special import gammaincc, log_ndtr
    from scipy.optimize import brentq

    def excess(chi):
        tail = sum(math.comb(n_bands, k) * gammaincc(0.5 * k, 0.5 * chi * chi) for k in range(1, n_bands + 1))
        return math.log(tail / 2.0**n_bands) - log_ndtr(-level)

    return level if n_bands == 1 else brentq(excess, 0.1, level + 2.0 * n_bands, xtol=1e-6)
