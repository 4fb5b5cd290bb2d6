"""sky: how an empty sky looks after the flat, per detector, with one scale for the whole camera.

Per detector, frames of many visits over their levels are combined, sources masked. What the levels of a detector are relative to the
camera's comes from all detectors at once: the level of visit v on detector d is s_v * r_d, solved as a fit of rank one of the table
of levels, which the ranks put together (`combine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import CombinedFrames
from ...products.electronics import Verdict
from ...products.image import MaskedImage
from ..background import BackgroundConfig, evaluate_background, fit_background
from .planes import USABLE, PlaneStack
from .stack import clipped_mean_of

__all__ = ["SkyConfig", "SkyPart", "build_sky", "camera_scales", "scaled_sky"]


class SkyConfig(Config):
    """How the sky frame is made."""

    memory: int = parameter(700, "memory for the frames; more of them are kept in a scratch file", unit="MB", low=1, neutral=True)
    min_frames: int = parameter(5, "frames of a detector needed", low=3)
    min_level: float = parameter(50.0, "frames with a fainter sky are left out", unit="electron", above=0.0)
    min_empty: float = parameter(0.2, "frames with a smaller fraction of empty pixels are left out", low=0.0, high=1.0)
    kappa: float = parameter(3.0, "values further from the centre are clipped", unit="sigma", above=1.0)
    mesh: int = parameter(128, "the sky frame is the smooth surface of meshes of this side; 0: pixel by pixel", unit="pixel", low=0)
    scatter: float = parameter(0.02, "suspect: levels that a detector's share of the sky predicts worse, relative rms", above=0.0)


class SkyPart(NamedTuple):
    """One detector's part: frame with mean one over the detector, level of each visit (electron), verdict."""

    frame: CombinedFrames
    levels: dict[str, float]
    verdict: Verdict


def build_sky(images: Iterable[tuple[str, MaskedImage]], config: SkyConfig, band: str = "",
              scratch=np.empty) -> SkyPart:
    """The empty sky of one detector, on its own scale; `camera_scales` and `scaled_sky` put it on the camera's.

    Parameters
    ----------
    images : (name of the visit, image after the flat with its sky, sources in the planes DETECTED); read one at a time

    Raises
    ------
    BadData
        Too few frames with an empty sky.
    """
    stack, levels, seen = PlaneStack(config.memory, scratch), {}, 0
    for name, image in images:
        seen += 1
        good = image.good(*USABLE)
        if good.mean() < config.min_empty:
            continue
        values = image.image[good]
        level = float(clipped_mean_of(values[::max(1, values.size // 500_000)]))
        if level < config.min_level:
            continue
        levels[name] = level
        stack.add(image)
    if len(stack) < config.min_frames:
        raise BadData(f"sky: {len(stack)} of {seen} frames have an empty sky of {config.min_level:g} electrons, {config.min_frames} are "
                      "needed; add visits or lower calibs.sky.min_level")
    level = np.array(list(levels.values()))
    mean, variance = stack.combine(1.0 / level, (level / np.array(stack.noise)) ** 2, config.kappa)
    known = np.isfinite(mean)
    if config.mesh:
        image = MaskedImage(np.nan_to_num(mean), np.zeros(mean.shape, np.uint32), np.where(known, variance, np.float32(np.inf)))
        surface = fit_background(image, BackgroundConfig(mesh=config.mesh, lower_cut=3.0, upper_cut=3.0, upper_cut_excluded=3.0),
                                 exclude=~known)
        mean, variance = evaluate_background(surface), variance * np.float32(2.0 / config.mesh**2)
        known = np.isfinite(mean)
    scale = float(mean[known].mean(dtype=np.float64))
    mean, variance = mean / np.float32(scale), variance / np.float32(scale**2)
    levels = {name: value * scale for name, value in levels.items()}
    frame = CombinedFrames("sky", mean, variance, inputs=tuple(levels), band=band)
    sample = mean[known]
    verdict = Verdict(statistics={"frames": float(len(stack)), "level": float(np.median(level)), "lowest": float(sample.min()),
                                  "highest": float(sample.max()), "unknown_fraction": float(1.0 - known.mean())})
    if known.mean() < 0.95:
        verdict = verdict.but("suspect", f"{1.0 - known.mean():.1%} of the pixels have no value: add dithered visits")
    return SkyPart(frame, levels, verdict)


def camera_scales(levels: dict[str, dict[str, float]], areas: dict[str, float], config: SkyConfig,
                  combine: Callable[[dict], dict] = lambda table: table) -> tuple[dict[str, float], Verdict]:
    """What each detector's sky is over the camera's mean.

    Parameters
    ----------
    levels : detector -> visit -> level, of this rank's detectors
    areas : detector -> pixels, of all detectors
    combine : puts the tables of all ranks together; the same on each

    Returns
    -------
    detector -> scale, mean one over the area; Verdict

    Raises
    ------
    BadData
        A detector shares no visit with the others.
    """
    levels = combine(levels)
    detectors = sorted(levels)
    visits = sorted({visit for table in levels.values() for visit in table})
    table = np.log([[levels[detector].get(visit, np.nan) for visit in visits] for detector in detectors])
    _check_joined(np.isfinite(table), detectors)
    share, weight = np.zeros(len(detectors)), np.isfinite(table).astype(float)
    for _ in range(5):  # reweighted: a cloud or a bright star on one detector must not shift it
        share, residual = _solve(table, weight)
        spread = 1.4826 * float(np.median(np.abs(residual[weight > 0.0]))) + 1e-9
        weight = np.where(np.isfinite(table), 1.0 / (1.0 + (np.nan_to_num(residual) / (3.0 * spread)) ** 2), 0.0)
    factors = np.exp(share)
    area = np.array([areas[detector] for detector in detectors], float)
    factors *= area.sum() / (area * factors).sum()
    verdict = Verdict(statistics={"detectors": float(len(detectors)), "visits": float(len(visits)), "scatter": spread,
                                  "lowest_scale": float(factors.min()), "highest_scale": float(factors.max())})
    if spread > config.scatter:
        verdict = verdict.but("suspect", f"the sky's level on the detectors changes by {spread:.1%} between visits: moonlight or clouds")
    return dict(zip(detectors, factors.tolist())), verdict


def _check_joined(known: np.ndarray, detectors: list[str]) -> None:
    """That all detectors are joined by common visits."""
    reached, frontier = {0}, [0]
    while frontier:
        visits = known[frontier.pop()]
        fresh = [other for other in range(len(known)) if other not in reached and (known[other] & visits).any()]
        reached.update(fresh)
        frontier += fresh
    for number, name in enumerate(detectors):
        if number not in reached:
            raise BadData(f"sky: detector {name} shares no visit with {detectors[0]}: their scales cannot be compared; add visits that "
                          "both saw")


def _solve(table: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of table[d, v] = share[d] + sky[v], visits eliminated; (share, residuals)."""
    values = np.nan_to_num(table)
    total = np.maximum(weight.sum(axis=0), 1e-12)
    normal = np.diag(weight.sum(axis=1)) - (weight / total) @ weight.T
    right = (weight * values).sum(axis=1) - weight @ ((weight * values).sum(axis=0) / total)
    share = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
    sky = (weight * (values - share[:, None])).sum(axis=0) / total
    return share, values - share[:, None] - sky


def scaled_sky(part: SkyPart, scale: float) -> tuple[CombinedFrames, Verdict]:
    """A detector's sky frame on the camera's scale: mean one over the camera."""
    frame = part.frame
    product = CombinedFrames(frame.kind, frame.image * np.float32(scale), frame.variance * np.float32(scale**2), frame.noise,
                             frame.dark_time, frame.inputs, frame.band)
    return product, part.verdict.and_(Verdict(statistics={"scale": scale}))
