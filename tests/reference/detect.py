"""Slow twin of csrc/filter.c and csrc/detect.c: scipy's convolution and labels, persistence by sorted pixels."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label
from scipy.signal import convolve2d


def filter_image(image, usable, variance, kernel):
    """Filtered image and signal to noise of a point source; kernel[j, i] weighs pixel (y + j - half, x + i - half)."""
    flipped = kernel[::-1, ::-1]
    signal = convolve2d(np.where(usable, image, 0.0), flipped, mode="same")
    power = convolve2d(np.where(usable, variance, 0.0), flipped**2, mode="same")
    return signal, np.where(power > 1e-12, signal / np.sqrt(np.maximum(power, 1e-12)), 0.0)


def footprints(snr, low: float, high: float, min_area: int) -> np.ndarray:
    """Labels from 1 in the order of the first pixel."""
    labels, n = label(snr > low, structure=np.ones((3, 3)))
    result, kept = np.zeros(snr.shape, int), 0
    for k in range(1, n + 1):
        inside = labels == k
        if snr[inside].max() >= high and inside.sum() >= min_area:
            kept += 1
            result[inside] = kept
    return result


def peaks(snr, labels, threshold: float, min_drop: float, contrast: float) -> set[tuple[int, int]]:
    """Pixels (y, x) of peaks: components of the pixels above a falling level, merged by the elder rule."""
    found, ny, nx = set(), *snr.shape
    for k in range(1, labels.max() + 1):
        pixels = sorted(zip(*np.nonzero(labels == k)), key=lambda p: -snr[p])
        chief: dict = {}

        def top(p):
            while chief[p] != p:
                p = chief[p]
            return p

        for n, p in enumerate(pixels):
            chief[p] = p
            near = {top((p[0] + j, p[1] + i)) for j in (-1, 0, 1) for i in (-1, 0, 1)
                    if (p[0] + j, p[1] + i) in chief and (j or i)}
            if n == 0:
                found.add(p)
            if not near:
                continue
            best = max(near, key=lambda q: snr[q])
            for lower in near - {best}:
                drop = snr[lower] - snr[p]
                if snr[lower] >= threshold and drop >= min_drop and drop >= contrast * snr[p]:
                    found.add(lower)
                chief[lower] = best
            chief[p] = best
    return found
