"""What could be measured at best: S/N of the optimal filter per object, and whether neighbours disturb it."""

from __future__ import annotations

import numpy as np

from ..products.catalogue import Catalogue, Column
from ..products.geometry import project, unit_vectors
from .render import Mixture, convolve, galaxy_mixture, psf_mixture, shear_matrix

__all__ = ["overlap", "point_source_snr", "survey_truth"]

NEIGHBOUR_RADIUS = 12.0
"""Arcsec; beyond it a neighbour's share in the optimal flux is below 1e-4 of its own flux."""


def overlap(first: Mixture, second: Mixture, dx, dy) -> np.ndarray:
    """(n,) sum over pixels of the product of two pixelated profiles of unit flux whose centres are (dx, dy) pixels apart.

    The pixel's response widens either profile by 1/12 pixel^2.
    """
    xx, yy, xy = (a[:, :, None] + b[:, None, :] for a, b in zip(first[1:], second[1:]))
    xx, yy = xx + 1.0 / 6.0, yy + 1.0 / 6.0
    determinant = xx * yy - xy**2
    dx, dy = np.asarray(dx, float)[:, None, None], np.asarray(dy, float)[:, None, None]
    chi2 = (yy * dx**2 - 2.0 * xy * dx * dy + xx * dy**2) / determinant
    weight = first.weight[:, :, None] * second.weight[:, None, :]
    return (weight * np.exp(-0.5 * chi2) / (2.0 * np.pi * np.sqrt(determinant))).sum(axis=(1, 2))


def _all_overlaps(profile: Mixture, i: np.ndarray, j: np.ndarray, dx, dy) -> np.ndarray:
    """`overlap` of the objects i with the objects j, in pieces that fit a cache, without Gaussians of weight zero."""
    used = profile.weight.shape[1] - np.argmax(profile.weight[:, ::-1] != 0.0, axis=1)
    result = np.zeros(len(i))
    for first in np.unique(used):
        for second in np.unique(used):
            some = np.nonzero((used[i] == first) & (used[j] == second))[0]
            step = max(1, 32768 // int(first * second))
            for rows in (some[start:start + step] for start in range(0, len(some), step)):
                a, b = (Mixture(*(table[which[rows], :n] for table in profile)) for which, n in ((i, first), (j, second)))
                result[rows] = overlap(a, b, dx[rows], dy[rows])
    return result


def _self_overlap(profile: Mixture) -> np.ndarray:
    """(n,) sum over pixels of the square of each profile."""
    every, nowhere = np.arange(len(profile.weight)), np.zeros(len(profile.weight))
    return _all_overlaps(profile, every, every, nowhere, nowhere)


def point_source_snr(flux, profile: Mixture, variance) -> np.ndarray:
    """(n,) S/N of the filter with the true profile: F / sqrt(variance / sum(p^2) + F).

    `variance` is that of the background, electron^2 per pixel; the object's own photons count as a white addition.
    """
    flux = np.asarray(flux, float)
    return flux / np.sqrt(variance / _self_overlap(profile) + np.abs(flux))


def survey_truth(sky: Catalogue, truths: list[Catalogue], bands: dict[int, str], psf_fwhm: dict[str, float],
                 pixel_scale: float = 0.2) -> Catalogue:
    """The sky with what all visits together could measure.

    Parameters
    ----------
    sky : Catalogue of `sky_of`
    truths : catalogues of `simulate_detector`, of all science exposures and detectors
    bands : visit -> band
    psf_fwhm : band -> typical FWHM, arcsec, for the neighbours
    pixel_scale : arcsec per pixel

    Returns
    -------
    Catalogue of the sky with, per band, `<band>_n` (visits that cover the object), `<band>_snr` (their optimal S/N added in
    squares) and `<band>_isolated` (neighbours change the optimal flux by less than max(0.2 %, 0.1 / snr))
    """
    columns, arrays = [], {}
    position = {int(number): row for row, number in enumerate(sky["id"])}
    for band, fwhm in psf_fwhm.items():
        count, square = np.zeros(len(sky), "i4"), np.zeros(len(sky))
        for truth in truths:
            here = np.array([bands[int(visit)] == band for visit in truth["visit"]], bool)
            rows = np.array([position[int(number)] for number in truth["id"][here]], int)
            np.add.at(count, rows, 1)
            np.add.at(square, rows, truth["snr"][here] ** 2)
        snr = np.sqrt(square)
        contamination = neighbour_bias(sky, f"flux_{band}", fwhm, pixel_scale)
        with np.errstate(divide="ignore"):
            alone = contamination < np.maximum(0.002, 0.1 / snr)
        arrays.update({f"{band}_n": count, f"{band}_snr": snr, f"{band}_isolated": alone & (count > 0)})
        columns += [Column(f"{band}_n", "i4", "", "visits that cover the object"),
                    Column(f"{band}_snr", "f8", "", "optimal S/N of all visits together; 0: not covered"),
                    Column(f"{band}_isolated", "?", "", "neighbours bias the optimal flux by less than max(0.2 %, 0.1 / snr)")]
    return sky.with_columns(columns, arrays)


def neighbour_bias(sky: Catalogue, flux_column: str, fwhm: float, pixel_scale: float = 0.2) -> np.ndarray:
    """(n,) relative bias of each object's optimal flux by all neighbours together, in a round PSF of a FWHM in arcsec.

    The optimal flux is sum(p d) / sum(p^2): a neighbour of profile q adds F_q sum(p q) / sum(p^2).
    """
    from scipy.spatial import cKDTree

    n = len(sky)
    xi, eta = project(sky["ra"], sky["dec"], *_middle(sky))
    x, y = 3600.0 / pixel_scale * xi, 3600.0 / pixel_scale * eta
    psf = psf_mixture(np.full(n, fwhm / pixel_scale), 0.0, 0.0)
    matrix = shear_matrix(-sky["g1"], sky["g2"]) / pixel_scale
    profile = convolve(galaxy_mixture(sky["radius"], sky["is_dev"], matrix), psf)
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(NEIGHBOUR_RADIUS / pixel_scale, output_type="ndarray")
    flux, bias, own = sky[flux_column], np.zeros(n), _self_overlap(profile)
    i, j = pairs.T
    shared = _all_overlaps(profile, i, j, x[j] - x[i], y[j] - y[i])
    np.add.at(bias, i, flux[j] * shared / (own[i] * flux[i]))
    np.add.at(bias, j, flux[i] * shared / (own[j] * flux[j]))
    return bias


def _middle(sky: Catalogue) -> tuple[float, float]:
    """(ra, dec) of the mean direction."""
    mean = unit_vectors(sky["ra"], sky["dec"]).mean(axis=0)
    return float(np.degrees(np.arctan2(mean[1], mean[0]))), float(np.degrees(np.arcsin(mean[2] / np.linalg.norm(mean))))
