"""sky: one sky for the whole focal plane of a visit, so that light larger than a mesh cell, or than a detector, stays.

Every detector gives super-bins of its empty pixels. Steps between detectors (gains, flats) are told from light by being steps: a
spline that is continuous over the focal plane and one piston per detector are fitted together. What is subtracted in the end is much
smoother: pistons and a Chebyshev polynomial of low order, times the sky frame; bins that stand above it together with their
neighbours are light and are left out with their wings, and the order rises only where that explains most of what stood out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels import background as kernel
from ..products.background import Background
from ..products.camera import Detector
from ..products.focalplane import place_on_focal_plane
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.sky import SkyBins, VisitSky
from ..products.visit import VisitDetector
from .background import evaluate_background

__all__ = ["SkyModelConfig", "fit_visit_sky", "sky_bins", "sky_on_mesh", "solve_sky", "with_visit_sky"]

_SMOOTHNESS = 1e-3  # of the spline against the data: enough for knots without any
_FEWEST = 4  # bins along a side, where the detector is small
_EXTENDED = 16  # bins of a patch of light that has wings of its own; smaller ones lose their neighbours only
_NEIGHBOURS = 1.6  # bins: how far those reach that must stand out together, and those that are left out with them


class SkyModelConfig(Config):
    """How the sky of all detectors of a visit is modelled as one."""

    bin: int = parameter(512, "side of a super-bin", unit="pixel", low=8)
    min_fraction: float = parameter(0.2, "bins with a smaller share of empty pixels are left out", low=0.0, high=1.0)
    cut: float = parameter(2.5, "pixels further from the sky of their bin are left out", unit="sigma", above=0.5)
    bad_planes: tuple[str, ...] = parameter(("BAD", "SAT", "CR", "NO_DATA", "UNMASKEDNAN", "VIGNETTED", "SUSPECT", "DETECTED"),
                                            "mask planes whose pixels are no sky")
    max_order: int = parameter(4, "highest total order of the Chebyshev polynomial over the focal plane", low=0, high=8)
    gain: float = parameter(0.5, "a higher order must lower the misfit by this share", low=0.0, high=1.0)
    grow: float = parameter(2.0, "wings of light that are left out, in radii of what stands out", low=0.0)
    min_sky: float = parameter(0.3, "share of the bins that are sky at least: wings are cut where less would be left", low=0.0, high=0.9)
    pistons: bool = parameter(True, "a level of its own for each detector")
    knots: float = parameter(0.7, "distance of the knots of the spline that pistons are told from", unit="detector", low=0.3)
    clip: float = parameter(3.0, "bins above the sky, with their neighbours, by more than this are light", unit="sigma", above=1.0)
    min_bins: int = parameter(4, "bins needed for a model", low=1)


def sky_bins(image: MaskedImage, background: Background, place: tuple[Detector, float], frame: np.ndarray | None,
             config: SkyModelConfig) -> SkyBins:
    """The sky of a detector in super-bins.

    Parameters
    ----------
    image : background subtracted, sources in the plane DETECTED
    background : what was subtracted; it is put back
    place : the detector, and the size of a pixel in micron
    frame : (ny, nx) sky frame; None: flat
    """
    detector, pixel_size = place
    ny, nx = image.box.shape
    cells = tuple(max(1, round(n / config.bin), min(_FEWEST, n // 32)) for n in (ny, nx))
    level, noise, fraction = kernel.cell_statistics(np.ascontiguousarray(image.image), np.ascontiguousarray(image.mask),
                                                    bits(*config.bad_planes), cells, (config.cut, config.cut))
    good = image.good(*config.bad_planes)
    mesh = evaluate_background(background)
    level = level + _cell_means(mesh, good, cells)
    use = np.isfinite(level) & (fraction >= config.min_fraction)
    number = fraction * (ny * nx / (cells[0] * cells[1]))
    error = np.where(use, noise / np.sqrt(np.maximum(number, 1.0)), np.nan)
    frames = [np.ones(shape, np.float32) if frame is None else
              _cell_means(frame, np.isfinite(frame) & (empty if empty is not None else True), shape)
              for shape, empty in ((cells, good), (background.level.shape, None))]
    frames = [np.where(np.isfinite(values), values, 1.0).astype(np.float32) for values in frames]
    corner, right, up = (place_on_focal_plane(detector, pixel_size, x + image.box.x0, y + image.box.y0)
                         for x, y in ((0, 0), (1, 0), (0, 1)))
    step = tuple((float(right[k] - corner[k]), float(up[k] - corner[k])) for k in range(2))
    return SkyBins(np.where(use, level, np.nan).astype(np.float32), error.astype(np.float32), *frames, (ny, nx),
                   (float(corner[0]), float(corner[1])), step)  # type: ignore[arg-type]


def _cell_means(values: np.ndarray, good: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Means of the good pixels in equal cells; NaN where there is none."""
    starts = [np.arange(n) * size // n for n, size in zip(cells, values.shape)]

    def total(plane):
        return np.add.reduceat(np.add.reduceat(plane, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)

    count = total(good)
    return np.where(count > 0, total(np.where(good, values, 0.0)) / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class _Rows:
    """Bins of all detectors: place in units of the focal plane's radius, sky over frame, its error, detector, size of a bin."""

    u: np.ndarray
    v: np.ndarray
    value: np.ndarray
    error: np.ndarray
    detector: np.ndarray
    bin: float
    detector_size: float

    def __len__(self) -> int:
        return len(self.value)


def fit_visit_sky(parts: Sequence[tuple[int, SkyBins]], config: SkyModelConfig) -> VisitSky:
    """The focal plane's sky from the super-bins of all detectors.

    Parameters
    ----------
    parts : (detector number, bins), in the order of the numbers; a detector without a single bin gets the sky of the others

    Raises
    ------
    BadData
        Too few bins on all detectors together.
    """
    rows, center, radius = _collect(parts)
    if len(rows) < config.min_bins:
        raise BadData(f"sky: {len(rows)} bins of the visit show an empty sky, {config.min_bins} are needed; the field is too full or "
                      "masked: lower visits.sky.min_fraction or visits.sky.bin")
    pistons, errors, noise = _pistons(rows, len(parts), config)
    rows = replace(rows, value=rows.value - pistons[rows.detector], error=np.hypot(rows.error, noise))
    near = _near(rows)
    order = _choose_order(rows, config, near)
    coefficients, covariance, keep = _without_light(rows, order, config, near)
    left = rows.value - _chebyshev(rows.u, rows.v, order) @ coefficients
    table = np.zeros((order + 1, order + 1))
    table[_terms(order)] = coefficients
    scatter = float(np.sqrt(max(0.0, np.mean(left[keep] ** 2) - np.mean(rows.error[keep] ** 2 - noise**2))))
    return VisitSky(table, covariance, center, radius, np.array([number for number, _ in parts]), pistons, errors, scatter, len(rows),
                    int(keep.sum()))


def _collect(parts: Sequence[tuple[int, SkyBins]]) -> tuple[_Rows, tuple[float, float], float]:
    columns, places, sizes = [], [], []
    for k, (_, bins) in enumerate(parts):
        x, y = bins.places(bins.level.shape)
        use = np.isfinite(bins.level) & (bins.error > 0)
        frame = bins.frame[use].astype(float)
        columns.append((x[use], y[use], bins.level[use] / frame, bins.error[use] / frame, np.full(use.sum(), k)))
        places.append(bins.corners())
        pixel = float(np.hypot(bins.step[0][0], bins.step[1][0]))
        sizes.append((pixel * max(n / m for n, m in zip(bins.shape, bins.level.shape)), pixel * float(np.sqrt(np.prod(bins.shape)))))
    corners = np.concatenate(places) if places else np.zeros((1, 2))
    low, high = corners.min(axis=0), corners.max(axis=0)
    center, radius = 0.5 * (low + high), max(float(np.max(0.5 * (high - low))), 1e-9)
    x, y, value, error, detector = (np.concatenate(column) for column in zip(*columns)) if columns else (np.zeros(0),) * 5
    bin_size, detector_size = (float(np.median(side)) / radius for side in zip(*sizes)) if sizes else (1.0, 1.0)
    rows = _Rows((x - center[0]) / radius, (y - center[1]) / radius, value, error, detector.astype(int), bin_size, detector_size)
    return rows, (float(center[0]), float(center[1])), radius


def _pistons(rows: _Rows, n: int, config: SkyModelConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps between detectors, their errors, and the noise of the bins beyond their errors.

    A cubic spline over the focal plane takes what is continuous. The width of the pistons' prior comes from themselves, so that
    they vanish where there are no steps; bins with compact light weigh little.
    """
    seen = np.bincount(rows.detector, minlength=n) >= 2
    if not config.pistons or seen.sum() < 2:
        return np.zeros(n), np.zeros(n), 0.0
    from scipy import sparse

    spline, penalty = _spline(rows, config.knots * rows.detector_size)
    k = spline.shape[1]
    design = sparse.hstack([spline, sparse.csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), rows.detector)),
                                                      (len(rows), n))]).tocsr()
    level = float(np.median(rows.value))
    noise, tau2, left = 0.0, (1e-3 * max(abs(level), 1.0)) ** 2, np.zeros(len(rows))
    for turn in range(12):
        weight = 1.0 / (rows.error**2 + noise**2)
        if turn:
            weight /= 1.0 + (left / (3.0 * width)) ** 2
        core = (design.T @ design.multiply(weight[:, None])).toarray()
        matrix = core.copy()
        matrix[:k, :k] += _SMOOTHNESS * np.mean(np.diag(matrix)[:k]) * penalty
        matrix[k:, k:] += np.eye(n) / tau2
        inverse = np.linalg.inv(matrix)
        found = inverse @ (design.T @ (weight * (rows.value - level)))
        left = rows.value - level - design @ found
        free = max(1.0 - float(np.sum(inverse * core)) / len(rows), 0.05)
        width = 1.4826 * float(np.median(np.abs(left))) / np.sqrt(free) + 1e-12
        noise = float(np.sqrt(max(0.0, width**2 - np.median(rows.error) ** 2)))
        variance = np.diag(inverse)[k:]
        tau2 = float(np.mean(found[k:][seen] ** 2 + variance[seen])) + 1e-12
    return np.where(seen, found[k:], 0.0), np.sqrt(np.where(seen, variance, tau2)), noise


def _spline(rows: _Rows, spacing: float):
    """(n, k) sparse design of a uniform bicubic B-spline, and the (k, k) penalty of its second differences."""
    from scipy import sparse

    factors, sizes = [], []
    for place in (rows.u, rows.v):
        t = (place - place.min()) / spacing
        first = np.floor(t).astype(int)
        f = t - first
        weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], -1) / 6.0
        factors.append((first, weights))
        sizes.append(int(first.max()) + 4)
    (i, wx), (j, wy) = factors
    columns = ((j[:, None, None] + np.arange(4)[:, None]) * sizes[0] + i[:, None, None] + np.arange(4)).reshape(len(rows), 16)
    values = (wy[:, :, None] * wx[:, None, :]).reshape(len(rows), 16)
    index = np.repeat(np.arange(len(rows)), 16)
    design = sparse.csr_matrix((values.ravel(), (index, columns.ravel())), (len(rows), sizes[0] * sizes[1]))
    bends = [np.diff(np.eye(size), 2, axis=0) for size in sizes]
    across, along = (bend.T @ bend for bend in bends)
    return design, np.kron(np.eye(sizes[1]), across) + np.kron(along, np.eye(sizes[0]))


def _terms(order: int) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero(np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order)


def _chebyshev(u: np.ndarray, v: np.ndarray, order: int) -> np.ndarray:
    """(n, k): T_i(u) T_j(v) with i + j <= order."""
    i, j = _terms(order)
    basis = [np.polynomial.chebyshev.chebvander(np.clip(place, -1.5, 1.5), order) for place in (u, v)]
    return basis[0][:, i] * basis[1][:, j]


def _solve(rows: _Rows, order: int, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares, the rows weighted besides their errors: coefficients, covariance. Terms that these cannot tell stay small."""
    root = np.sqrt(weight) / rows.error
    design = _chebyshev(rows.u, rows.v, order) * root[:, None]
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    return inverse @ (design.T @ (root * rows.value)), inverse


def _robust(rows: _Rows, order: int, config: SkyModelConfig, near) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, covariance, and the bins that are light: what stands above the sky, alone or with its neighbours. Where
    nearly all would be light, none is.

    Light only adds: the fit begins below all bins (asymmetric least squares: Newey & Powell 1987, Econometrica 55, 819) and takes
    in from there what is near enough.
    """
    weight = rows.error**-2.0
    total = near @ weight
    design = _chebyshev(rows.u, rows.v, order)
    share = np.ones(len(rows))
    for positive in (0.3, 0.1, 0.03, 0.01, 0.01, 0.01):
        left = rows.value - design @ _solve(rows, order, share)[0]
        share = np.where((near @ (weight * left)) / total > 0.0, positive, 1.0)
    before = None
    for _ in range(15):
        coefficients, covariance = _solve(rows, order, share)
        left = rows.value - design @ coefficients
        mean = (near @ (weight * left)) / total
        light = (mean > config.clip / np.sqrt(total)) | (left > 2.0 * config.clip * rows.error)
        near_light = near @ light.astype(float) > 0.0
        if (~near_light).sum() < max(config.min_bins, 2 * len(coefficients), config.min_sky * len(rows)):
            return *_solve(rows, order, np.ones(len(rows))), np.zeros(len(rows), bool)  # type: ignore[return-value]
        if np.array_equal(before, light):
            break
        before, share = light, (~near_light).astype(float)
    return coefficients, covariance, light


def _without_light(rows: _Rows, order: int, config: SkyModelConfig, near) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The final fit: coefficients, covariance, and the bins that are sky. The wings of light reach the further the larger it is."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    light = _robust(rows, order, config, near)[2]
    place, where = np.stack([rows.u, rows.v], -1), np.flatnonzero(light)
    label = connected_components(near[where][:, where], directed=False)[1] if len(where) else where
    count, grow, least = np.bincount(label), config.grow, max(config.min_bins, config.min_sky * len(rows))
    keep = near @ light.astype(float) == 0.0
    while len(where):
        wings = np.zeros(len(rows), bool)
        for k in np.flatnonzero(count >= _EXTENDED):
            reach = grow * rows.bin * float(np.sqrt(count[k] / np.pi))
            wings |= np.isfinite(cKDTree(place[where[label == k]]).query(place, distance_upper_bound=reach)[0])
        if (keep & ~wings).sum() >= least or grow < 0.1:
            keep = keep & ~wings if (keep & ~wings).sum() >= least else keep
            break
        grow *= 0.7
    return *_solve(rows, order, keep.astype(float)), keep  # type: ignore[return-value]


def _near(rows: _Rows):
    """Sparse (n, n): one for each bin and its neighbours, also those on the next detector."""
    from scipy import sparse
    from scipy.spatial import cKDTree

    pairs = cKDTree(np.stack([rows.u, rows.v], -1)).query_pairs(_NEIGHBOURS * rows.bin, output_type="ndarray")
    near = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), (len(rows), len(rows)))
    return (near + near.T + sparse.identity(len(rows))).tocsr()


def _choose_order(rows: _Rows, config: SkyModelConfig, near) -> int:
    """The lowest order that higher ones do not beat clearly: what stands out is rather light than sky."""
    highest = max((m for m in range(config.max_order + 1) if 3 * len(_terms(m)[0]) <= len(rows)), default=0)
    misfit = [_misfit(rows, order, config, near) for order in range(highest + 1)]
    order = 0
    while better := [m for m in range(order + 1, min(order + 3, highest + 1)) if misfit[m] < (1.0 - config.gain) * misfit[order]]:
        order = better[0]
    return order


def _misfit(rows: _Rows, order: int, config: SkyModelConfig, near) -> float:
    """Mean square of the best seven tenths of all bins beyond that of noise: light, which is on few, has no say in the order."""
    coefficients = _robust(rows, order, config, near)[0]
    left = np.sort(np.abs(rows.value - _chebyshev(rows.u, rows.v, order) @ coefficients) / rows.error)
    best = left[:max(1, round(0.7 * len(rows)))]
    return max(float(np.mean(best**2)) / 0.31 * len(rows) / (len(rows) - len(coefficients)) - 1.0, 0.2)


def sky_on_mesh(model: VisitSky, detector: int, bins: SkyBins, background: Background) -> Background:
    """The focal plane's sky of one detector on the cells of its own mesh: level, and the model's error as noise; electron."""
    x, y = bins.places(background.level.shape)
    u, v = ((place.ravel() - middle) / model.radius for place, middle in zip((x, y), model.center))
    design = _chebyshev(u, v, model.order)
    number = int(np.flatnonzero(model.detectors == detector)[0])
    level = design @ model.coefficients[_terms(model.order)] + model.pistons[number]
    variance = np.einsum("ni,ij,nj->n", design, model.covariance, design) + model.piston_err[number] ** 2
    frame = bins.frame_mesh.astype(float)
    shape = background.level.shape
    return Background((frame * level.reshape(shape)).astype(np.float32), (frame * np.sqrt(variance).reshape(shape)).astype(np.float32),
                      background.mesh, background.box)


def solve_sky(visits: Sequence[VisitDetector], config: SkyModelConfig) -> tuple[list[VisitDetector], VisitSky | None]:
    """All detectors of a visit with the sky of the focal plane, and its model; None, and no such sky, where too little is empty."""
    parts = [(visit.detector_id, visit.sky_bins) for visit in visits if visit.sky_bins is not None]
    try:
        model = fit_visit_sky(parts, config)
    except BadData as error:
        problem = str(error)
        return [replace(visit, sky=None, problem=visit.problem or problem) for visit in visits], None
    numbers = dict(zip(model.detectors.tolist(), model.pistons.tolist()))
    result = []
    for visit in visits:
        if visit.sky_bins is None:
            result.append(visit)
            continue
        sky = sky_on_mesh(model, visit.detector_id, visit.sky_bins, visit.background)
        summary = {**visit.summary, "sky_model_electron": float(np.median(sky.level)), "sky_piston_electron": numbers[visit.detector_id],
                   "sky_residual_electron": float(np.sqrt(np.mean((visit.background.level - sky.level) ** 2))),
                   "n_sky_bins": float(np.isfinite(visit.sky_bins.level).sum())}
        result.append(replace(visit, sky=sky, summary=summary))
    return result, model


def with_visit_sky(visit: VisitDetector) -> VisitDetector:
    """The detector with its own mesh put back and the focal plane's sky subtracted instead.

    Raises
    ------
    BadData
        The visit has no such sky.
    """
    if visit.sky is None:
        raise BadData(f"visit {visit.exposure.visit} {visit.detector}: has no sky of the focal plane; use coadds.sky: detector")
    image = visit.image.image.copy()
    difference = Background(visit.background.level - visit.sky.level, visit.sky.noise, visit.background.mesh, visit.background.box)
    image += evaluate_background(difference)
    return replace(visit, background=visit.sky, image=MaskedImage(image, visit.image.mask, visit.image.variance, visit.image.box,
                                                                  visit.image.unit))
