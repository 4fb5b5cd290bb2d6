"""crosstalk: the ghosts that bright sources of one amplifier leave in the others, from any frames that have such sources.

At the moment when a source pixel is read, each other amplifier reads a pixel too: its charge above the local background is
regressed on the charges of all others at once, linearly and quadratically, in rounds of clipping, since stars of its own stand
among the ghosts. Charges are as read, before linearity, in which order they are corrected too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.calibration import Calibration
from ...products.camera import Amplifier, Detector
from ...products.electronics import Crosstalk, Verdict
from ...products.exposure import RawDetector
from ...products.image import MaskedImage
from ...products.mask import bits
from ..background import BackgroundConfig, evaluate_background, fit_background
from ..overscan import OverscanConfig, overscan_levels
from .stack import Frame, alike, raise_it

__all__ = ["CrosstalkConfig", "build_crosstalk"]


class CrosstalkConfig(Config):
    """How crosstalk is measured."""

    detrend: OverscanConfig = OverscanConfig()
    background: BackgroundConfig = BackgroundConfig(mesh=64)
    threshold: float = parameter(30000.0, "sources: pixels with more charge", unit="electron", above=0.0)
    largest: float = parameter(0.01, "ghosts of a larger fraction of the source are the target's own stars", above=0.0, high=1.0)
    clip: float = parameter(2.5, "residuals beyond this are left out", unit="sigma", above=1.0)
    iterations: int = parameter(4, "rounds of clipping", low=1, high=20)
    quadratic: float = parameter(2.0, "quadratic terms less significant than this are left at zero; 0: all are fitted", unit="sigma",
                                 low=0.0)
    min_pixels: int = parameter(200, "source pixels that each amplifier needs", low=10)
    samples: int = parameter(40000, "pixels kept at most; of more, every n-th", low=1000)


def build_crosstalk(frames: Iterable[Frame], detector: Detector, config: CrosstalkConfig, calibration: Calibration = Calibration(),
                    leave_out: Callable[[str, BadData], None] = raise_it) -> tuple[Crosstalk, Verdict]:
    """The coupling of all pairs of amplifiers of a detector.

    Parameters
    ----------
    frames : of any kind, with sources on dark or smooth ground; read one at a time
    calibration : whose bias is subtracted, if it has one

    Returns
    -------
    Crosstalk; amplifiers that never had sources enough leave no ghosts: coefficient 0, error inf, used 0. `error` is that of the
    coefficient where the quadratic term is significant, else of the ghost over the charge at the brightness of the sources

    Raises
    ------
    BadData
        A single amplifier; amplifiers of different sizes; no source is bright enough; frames of different gain or binning.
    """
    amplifiers = detector.amplifiers
    if len(amplifiers) < 2 or len({amplifier.data[2:] for amplifier in amplifiers}) > 1:
        raise BadData(f"detector {detector.name}: crosstalk needs at least two amplifiers, of one size; leave it out")
    kept: list[np.ndarray] = []
    number, step, first = 0, 1, ""
    for frame in frames:
        try:
            raw = frame.load()
        except BadData as error:
            leave_out(frame.name, error)
            continue
        alike(detector, raw, first or f"the description of {detector.name}", frame.name)
        detector, first, number = raw.detector, first or frame.name, number + 1
        kept.append(_samples_of(raw, config, calibration.bias)[::step])
        while sum(len(part) for part in kept) > config.samples:
            step *= 2
            kept = [part[::2] for part in kept]
    samples = np.concatenate(kept) if kept else np.empty((0, 2, len(amplifiers)), np.float32)
    sources = (samples[:, 0] > config.threshold).sum(axis=0)
    if sources.max(initial=0) * step < config.min_pixels:
        raise BadData(f"detector {detector.name}: crosstalk needs {config.min_pixels} pixels above {config.threshold:g} electrons in an "
                      f"amplifier, the most in {number} frame{'s' * (number != 1)} is {sources.max(initial=0) * step}; add frames with "
                      "brighter sources or lower calibs.crosstalk.threshold")
    return _solve(samples, sources * step >= config.min_pixels, detector, config, (number, step))


def _electrons(raw: RawDetector, number: int, config: CrosstalkConfig, bias: np.ndarray | None) -> np.ndarray:
    """(ny, nx) float32 electron of an amplifier's data pixels in the order of the file; NaN where saturated."""
    amplifier: Amplifier = raw.detector.amplifiers[number]
    segment = np.ascontiguousarray(raw.segments[number])
    rows, columns, _ = overscan_levels(segment, amplifier, config.detrend, amplifier.offset)
    x0, y0, nx, ny = amplifier.data
    values = segment[y0:y0 + ny, x0:x0 + nx].astype(np.float32)
    values[~(values < amplifier.saturation)] = np.nan
    values -= rows[:, None]
    if columns is not None:
        values -= columns
    values *= np.float32(amplifier.gain)
    if bias is not None:
        part = bias[amplifier.assembled_box.slices(raw.detector.box)]
        part = part[:, ::-1] if amplifier.flip_x else part
        values -= part[::-1] if amplifier.flip_y else part
    return values


def _samples_of(raw: RawDetector, config: CrosstalkConfig, bias: np.ndarray | None) -> np.ndarray:
    """(n, 2, amplifiers) float32 at the pixels where some amplifier has a source: charge of each amplifier and its background; NaN
    where it is saturated.
    """
    planes = [_electrons(raw, number, config, bias) for number in range(len(raw.detector.amplifiers))]
    with np.errstate(invalid="ignore"):
        bright = np.logical_or.reduce([~(plane <= config.threshold) for plane in planes])
        ghosts = np.logical_or.reduce([~(plane <= np.nanmedian(plane) + config.threshold / 30.0) for plane in planes])
    found = []
    for plane in planes:
        image = MaskedImage(np.nan_to_num(plane), np.where(np.isnan(plane), np.uint32(bits("SAT")), np.uint32(0)),
                            np.ones_like(plane))
        try:
            level = evaluate_background(fit_background(image, config.background, exclude=ghosts))[bright]
        except BadData:  # sources everywhere
            level = np.full(int(bright.sum()), np.nan, np.float32)
        found.append(np.stack([plane[bright], level], axis=1))
    return np.stack(found, axis=2)


def _solve(samples: np.ndarray, able: np.ndarray, detector: Detector, config: CrosstalkConfig, told) -> tuple[Crosstalk, Verdict]:
    n = len(detector.amplifiers)
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    coefficient, quadratic, error = np.zeros((n, n)), np.zeros((n, n)), np.full((n, n), np.inf)
    used, scatter = np.zeros((n, n), np.int64), []
    charge, ground = np.nan_to_num(samples[:, 0].astype(np.float64)), np.nan_to_num(samples[:, 1].astype(np.float64))
    usable = np.isfinite(samples).all(axis=(1, 2))  # all channels known: a saturated one has ghosts of unknown size
    linear, square = charge - ground, charge**2 - ground**2
    for target in range(n):
        sources = [source for source in range(n) if source != target and able[source]]
        if not sources:
            continue
        rows = usable & (np.abs(linear[:, target]) < config.largest * linear[:, sources].max(axis=1))
        fit = _regress(linear[:, sources], square[:, sources], linear[:, target], rows, config)
        if fit is None:
            continue
        c, q, e, kept, spread = fit
        coefficient[target, sources], quadratic[target, sources], error[target, sources] = c, q, e
        used[target, sources] = [int((kept & (charge[:, source] > config.threshold)).sum()) for source in sources]
        scatter.append(spread)
    np.fill_diagonal(error, 0.0)
    verdict = Verdict(statistics={"frames": float(told[0]), "thinned": float(told[1]), "largest": float(np.abs(coefficient).max()),
                                  "median_error": float(np.median(error[np.isfinite(error) & (error > 0)])) if scatter else np.inf,
                                  "residual": float(np.median(scatter)) if scatter else np.inf})
    if not able.all():
        lacking = ", ".join(name for name, fine in zip(names, able) if not fine)
        verdict = verdict.but("suspect", f"no sources enough in amplifier {lacking}: {config.min_pixels} pixels are needed; "
                                         "their ghosts are not known")
    poor = able & ((used == 0).sum(axis=0) > 1)
    if poor.any():
        verdict = verdict.but("bad", f"sources of amplifier {', '.join(np.array(names)[poor])} always meet stars in other amplifiers; "
                                     "add dithered frames")
    return Crosstalk(names, names, coefficient, error, quadratic, used), verdict


def _regress(linear: np.ndarray, square: np.ndarray, target: np.ndarray, rows: np.ndarray, config: CrosstalkConfig):
    """Clipped least squares of target on all sources; then without the quadratic terms that are not significant.

    Returns
    -------
    coefficient, quadratic, error of the coefficient (k,); rows used; scatter of the residual. None if there are too few rows.
    """
    k = linear.shape[1]
    design = np.concatenate([linear, 1e-5 * square], axis=1)  # squares in units that make the system well conditioned
    active = np.ones(2 * k, bool)
    while True:
        kept = rows
        for _ in range(config.iterations):
            if kept.sum() < 10 + 2 * active.sum():
                return None
            system = design[kept][:, active]
            inverse = np.linalg.pinv(system.T @ system)
            solution = inverse @ (system.T @ target[kept])
            residual = target - design[:, active] @ solution
            spread = 1.4826 * float(np.median(np.abs(residual[kept])))
            kept = rows & (np.abs(residual) <= config.clip * max(spread, 1e-6))
        full, errors = np.zeros(2 * k), np.zeros(2 * k)
        full[active], errors[active] = solution, spread * np.sqrt(np.maximum(np.diag(inverse), 0.0))
        weak = np.concatenate([np.zeros(k, bool), np.abs(full[k:]) < config.quadratic * errors[k:]])
        if not (weak & active).any():
            return full[:k], 1e-5 * full[k:], errors[:k], kept, spread
        active &= ~weak
