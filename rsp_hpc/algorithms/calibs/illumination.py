"""illumination: what the flux of a star is over the light of the flat, from stars seen at several places of the focal plane.

The magnitude of star s in visit v at the focal-plane position (x, y) is m_s + z_v + P(x, y) (+ a step of the detector): the stars'
own magnitudes are marginalised, so that only visits, polynomial and steps are solved for (a star flat: Manfroid 1995, A&AS 113, 587;
Regnault et al. 2009, A&A 506, 999). Where visits are only shifted, not rotated, a gradient looks like a zero point that depends on
the shift: then it is what is known of the zero points beforehand that determines it, and its error says so. Small-scale structure can be taken from the sky frame over its own smooth surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import CombinedFrames
from ...products.camera import Camera, Detector
from ...products.electronics import Verdict
from ...products.focalplane import pixel_to_focal_plane
from ...products.image import MaskedImage
from ..background import BackgroundConfig, evaluate_background, fit_background

__all__ = ["IlluminationConfig", "IlluminationFit", "StarTable", "accumulate", "build_illumination", "illumination_plane", "solve"]


class IlluminationConfig(Config):
    """How the illumination correction is fitted."""

    order: int = parameter(4, "of the polynomial over the focal plane", low=1, high=10)
    steps: bool = parameter(False, "also a step for each detector")
    zero_point: float = parameter(0.02, "how well the visits' zero points are known beforehand; 0: not at all, and only visits that are "
                                        "rotated against each other determine a gradient", unit="mag", low=0.0)
    min_stars: int = parameter(100, "stars seen at least twice that are needed", low=10)
    floor: float = parameter(0.003, "added in quadrature to the stars' errors", unit="mag", low=0.0)
    clip: float = parameter(4.0, "detections further off are left out", unit="sigma", above=1.0)
    iterations: int = parameter(5, "rounds of clipping", low=1, high=20)
    small_scale: int = parameter(256, "sky structure smaller than this is taken over", unit="pixel", low=16)
    scatter: float = parameter(0.02, "suspect: a larger scatter of the residuals", unit="mag", above=0.0)
    largest: float = parameter(0.3, "suspect: a larger correction", unit="mag", above=0.0)


class StarTable(NamedTuple):
    """Detections of stars, n each: star and visit (int, from 0), detector (int, place in the camera), focal-plane x and y (mm),
    instrumental magnitude after the flat and its error.
    """

    star: np.ndarray
    visit: np.ndarray
    detector: np.ndarray
    x: np.ndarray
    y: np.ndarray
    magnitude: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class IlluminationFit:
    """The solution.

    Attributes
    ----------
    order, radius : of the polynomial; mm by which positions are divided
    coefficients : (k,) mag, of x^i y^j, 1 <= i + j <= order
    covariance : (k, k) mag^2
    steps, steps_err : (detectors,) mag, mean zero; zeros where not fitted
    zero_points : (visits,) mag
    scatter : mag, robust, of the residuals; stars, detections : that were used
    """

    order: int
    radius: float
    coefficients: np.ndarray
    covariance: np.ndarray
    steps: np.ndarray
    steps_err: np.ndarray
    zero_points: np.ndarray
    scatter: float = float("nan")
    stars: int = 0
    detections: int = 0

    def magnitude(self, x: np.ndarray, y: np.ndarray, detector: int = 0) -> np.ndarray:
        """The polynomial and the detector's step, at focal-plane positions."""
        return _basis(np.asarray(x), np.asarray(y), self.order, self.radius) @ self.coefficients + self.steps[detector]


def _powers(order: int) -> list[tuple[int, int]]:
    return [(i, total - i) for total in range(1, order + 1) for i in range(total + 1)]


def _basis(x: np.ndarray, y: np.ndarray, order: int, radius: float) -> np.ndarray:
    u, v = np.asarray(x) / radius, np.asarray(y) / radius
    return np.stack([u**i * v**j for i, j in _powers(order)], axis=-1)


def _design(stars: StarTable, sizes, config: IlluminationConfig, radius: float) -> np.ndarray:
    """(n, p): visits, polynomial, detectors' steps if wanted."""
    n_visits, n_detectors = sizes
    shape = _basis(stars.x, stars.y, config.order, radius)
    columns = np.zeros((len(stars.star), n_visits + shape.shape[1] + n_detectors * config.steps))
    rows = np.arange(len(stars.star))
    columns[rows, stars.visit] = 1.0
    columns[:, n_visits:n_visits + shape.shape[1]] = shape
    if config.steps:
        columns[rows, n_visits + shape.shape[1] + stars.detector] = 1.0
    return columns


def accumulate(stars: StarTable, sizes: tuple[int, int], config: IlluminationConfig, radius: float,
               keep: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix (p, p) and right side (p,) of some stars, their magnitudes marginalised; sums over ranks are those of all.

    Parameters
    ----------
    stars : all detections of these stars
    sizes : visits, detectors
    keep : (n,) bool, detections to use
    """
    chosen = np.arange(len(stars.star)) if keep is None else np.nonzero(keep)[0]
    order = chosen[np.argsort(stars.star[chosen], kind="stable")]
    p = sizes[0] + len(_powers(config.order)) + sizes[1] * config.steps
    normal, right = np.zeros((p, p)), np.zeros(p)
    if not len(order):
        return normal, right
    first = np.concatenate([[0], np.nonzero(np.diff(stars.star[order]))[0] + 1, [len(order)]])
    for start in range(0, len(first) - 1, 2000):  # in bunches of stars, for the memory
        edges = first[start:start + 2001]
        part = StarTable(*(column[order[edges[0]:edges[-1]]] for column in stars))
        weight = 1.0 / (part.error**2 + config.floor**2)
        design = _design(part, sizes, config, radius)
        weighted = design * weight[:, None]
        groups = edges[:-1] - edges[0]
        total, mean = np.add.reduceat(weight, groups), np.add.reduceat(weighted, groups, axis=0)
        value = np.add.reduceat(weight * part.magnitude, groups)
        normal += design.T @ weighted - (mean / total[:, None]).T @ mean
        right += weighted.T @ part.magnitude - mean.T @ (value / total)
    return normal, right


def solve(normal: np.ndarray, right: np.ndarray, sizes: tuple[int, int], config: IlluminationConfig, radius: float) -> IlluminationFit:
    """The solution of least norm in what cannot be known (the mean of all zero points, of all steps).

    Raises
    ------
    BadData
        Some visit or term is not determined: the visits are not dithered or not rotated, or share no stars.
    """
    normal = normal.copy()
    if config.zero_point > 0.0:
        normal[np.arange(sizes[0]), np.arange(sizes[0])] += 1.0 / config.zero_point**2
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    values, vectors = np.linalg.eigh(normal / np.outer(scale, scale))
    small = values < 1e-9 * values.max()
    free = (config.zero_point == 0.0) + config.steps
    if small.sum() > free:
        raise BadData(f"illumination: {int(small.sum()) - free} of {len(right)} terms are not determined: visits share no stars, or were "
                      "not dithered and rotated; add such visits, or give calibs.illumination.zero_point")
    inverse = np.where(small, 0.0, 1.0 / np.where(small, 1.0, values))
    covariance = (vectors * inverse) @ vectors.T / np.outer(scale, scale)
    solution, k, n_visits = covariance @ right, len(_powers(config.order)), sizes[0]
    shape, rest = slice(n_visits, n_visits + k), slice(n_visits + k, None)
    steps = solution[rest] - solution[rest].mean() if config.steps else np.zeros(sizes[1])
    steps_err = np.sqrt(np.maximum(np.diag(covariance)[rest], 0.0)) if config.steps else np.zeros(sizes[1])
    zero_points = solution[:n_visits]
    return IlluminationFit(config.order, radius, solution[shape], covariance[shape, shape], steps, steps_err,
                           zero_points - zero_points.mean())


def _residuals(stars: StarTable, fit: IlluminationFit, config: IlluminationConfig, keep: np.ndarray) -> np.ndarray:
    """(n,) mag: of each detection against the mean of its star's used ones."""
    model = _basis(stars.x, stars.y, fit.order, fit.radius) @ fit.coefficients + fit.steps[stars.detector] + fit.zero_points[stars.visit]
    left, weight = stars.magnitude - model, keep / (stars.error**2 + config.floor**2)
    total = np.bincount(stars.star, weight)
    mean = np.bincount(stars.star, weight * left) / np.maximum(total, 1e-300)
    return left - mean[stars.star]


def build_illumination(stars: StarTable, n_visits: int, camera: Camera, config: IlluminationConfig,
                       combine: Callable[[np.ndarray], np.ndarray] = lambda array: array) -> tuple[IlluminationFit, Verdict]:
    """Fit the star flat.

    Parameters
    ----------
    stars : this rank's stars, with all detections of each; star numbers may be any, visits are counted from 0
    n_visits : of all ranks
    combine : sum over ranks; the identity on one

    Raises
    ------
    BadData
        Too few stars, or visits that were not dithered.
    """
    finite = np.isfinite(stars.magnitude) & np.isfinite(stars.error) & (stars.error > 0.0)
    stars = StarTable(*(column[finite] for column in stars))
    stars = stars._replace(star=np.unique(stars.star, return_inverse=True)[1].reshape(-1))
    sizes, radius = (n_visits, len(camera.detectors)), _radius(camera)
    keep = _seen_twice(stars, np.ones(len(stars.star), bool))
    enough = int(combine(np.array([float(len(np.unique(stars.star[keep])))]))[0])
    if enough < config.min_stars:
        raise BadData(f"illumination: {enough} stars were seen at least twice, {config.min_stars} are needed; add dithered visits")
    spread = 0.0
    for _ in range(config.iterations):
        fit = solve(*(combine(part) for part in accumulate(stars, sizes, config, radius, keep)), sizes, config, radius)
        residual = _residuals(stars, fit, config, keep)
        pull = residual / np.sqrt(stars.error**2 + config.floor**2)
        moments = combine(np.array([float(keep.sum()), (np.minimum(np.abs(pull), config.clip)[keep] ** 2).sum(),
                                    (residual[keep] ** 2).sum(), float(len(np.unique(stars.star[keep])))]))
        width = max(1.0, float(np.sqrt(moments[1] / max(moments[0], 1.0))))
        spread = float(np.sqrt(moments[2] / max(moments[0], 1.0)))
        keep = _seen_twice(stars, np.abs(pull) <= config.clip * width)
    fit = IlluminationFit(**{**vars(fit), "scatter": spread, "stars": int(moments[3]), "detections": int(moments[0])})
    return fit, _judge(fit, camera, config)


def _seen_twice(stars: StarTable, keep: np.ndarray) -> np.ndarray:
    """Of the detections to keep, those of stars that have two at least."""
    return keep & (np.bincount(stars.star, keep)[stars.star] >= 2) if len(stars.star) else keep


def _radius(camera: Camera) -> float:
    corners = [np.hypot(*pixel_to_focal_plane(camera, detector, *detector.box.corners().T)).max() for detector in camera.detectors]
    return float(max(corners))


def _grid(camera: Camera, detector: Detector, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    nx, ny = detector.size
    x, y = ((np.arange(size) + 0.5) / size * side - 0.5 for side in (nx, ny))
    return pixel_to_focal_plane(camera, detector, x[None, :] + 0.0 * y[:, None], y[:, None] + 0.0 * x[None, :])


def _judge(fit: IlluminationFit, camera: Camera, config: IlluminationConfig) -> Verdict:
    values, errors = [], []
    for number, detector in enumerate(camera.detectors):
        x, y = (np.ravel(part) for part in _grid(camera, detector, 4))
        basis = _basis(x, y, fit.order, fit.radius)
        values.append(fit.magnitude(x, y, number))
        errors.append(np.sqrt(np.maximum(((basis @ fit.covariance) * basis).sum(axis=1), 0.0)))
    span, error = float(np.ptp(values)), float(np.median(errors))
    verdict = Verdict(statistics={"stars": float(fit.stars), "detections": float(fit.detections), "scatter": fit.scatter,
                                  "range": span, "error": error})
    if fit.scatter > config.scatter:
        verdict = verdict.but("suspect", f"stars scatter by {fit.scatter:.3f} mag about the fit")
    if span > config.largest:
        verdict = verdict.but("suspect", f"the correction spans {span:.2f} mag over the camera")
    if error > 0.3 * span and error > 0.002:
        verdict = verdict.but("suspect", f"the correction's error, {error:.4f} mag, is as large as itself")
    return verdict


def illumination_plane(fit: IlluminationFit, camera: Camera, detector: Detector, config: IlluminationConfig,
                       sky: np.ndarray | None = None) -> CombinedFrames:
    """The correction of one detector: flux of a star over the flat's light, mean one over the camera; divides like a flat.

    Parameters
    ----------
    sky : (ny, nx) the detector's sky frame pixel by pixel (`SkyConfig.mesh` 0), whose structure below `small_scale` is taken over
    """
    numbers = {other.name: number for number, other in enumerate(camera.detectors)}
    means = [np.mean(10.0 ** (-0.4 * fit.magnitude(*_grid(camera, other), numbers[other.name]))) for other in camera.detectors]
    areas = [other.box.area for other in camera.detectors]
    mean = float(np.average(means, weights=areas))
    ny, nx = detector.box.shape
    image, variance = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    for first in range(0, ny, 64):
        rows = slice(first, min(ny, first + 64))
        x, y = pixel_to_focal_plane(camera, detector, np.arange(nx)[None, :], np.arange(rows.start, rows.stop)[:, None])
        basis = _basis(x, y, fit.order, fit.radius)
        image[rows] = 10.0 ** (-0.4 * (basis @ fit.coefficients + fit.steps[numbers[detector.name]])) / mean
        error = ((basis @ fit.covariance) * basis).sum(axis=-1) + fit.steps_err[numbers[detector.name]] ** 2
        variance[rows] = np.maximum(error, 0.0) * (0.4 * np.log(10.0) * image[rows]) ** 2
    if sky is not None:
        image *= _small_scale(sky, config)
    return CombinedFrames("illumination", image, variance)


def _small_scale(sky: np.ndarray, config: IlluminationConfig) -> np.ndarray:
    """The sky over its own smooth surface; one where it is not known."""
    known = np.isfinite(sky) & (sky > 0.0)
    image = MaskedImage(np.where(known, sky, np.float32(0.0)).astype(np.float32), np.zeros(sky.shape, np.uint32),
                        np.where(known, np.float32(1.0), np.float32(np.inf)))
    surface = fit_background(image, BackgroundConfig(mesh=config.small_scale, upper_cut=3.0, upper_cut_excluded=3.0), exclude=~known)
    return np.where(known, sky / evaluate_background(surface), np.float32(1.0)).astype(np.float32)
