"""linearity: what is added to the charge that an amplifier reports so that it grows in proportion to the light.

From flats at rising exposure times before a steady lamp. In two steps, the idea of the double spline: amplifiers are compared
with the mean of all in the same frame, where the lamp's drifts cancel, which gives the shape of each on fine nodes; the mean of
all is compared with the exposure times, on coarse nodes. A frame is kept as one number per amplifier.

Two things no ramp can tell, and they are fixed: the correction is 0 at charge 0, and the scale. By default the correction has no
slope at charge 0 either, so that the gain remains that of faint light (which photon transfer gives).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.camera import Amplifier, Detector
from ...products.electronics import Linearity, Verdict
from ...products.mask import bits
from ..detrend import DetrendConfig
from .ramps import Flat, check_mode

__all__ = ["LinearityConfig", "build_linearity"]


def _natural_spline(nodes: np.ndarray, values: np.ndarray):
    from scipy.interpolate import CubicSpline  # heavy: imported on first use

    return CubicSpline(nodes, values, bc_type="natural")


class LinearityConfig(Config):
    """How the non-linearity of amplifiers is measured."""

    detrend: DetrendConfig = DetrendConfig()
    method: Literal["spline", "polynomial"] = parameter("spline", "what is fitted")
    nodes: int = parameter(12, "nodes of the common spline, zero and the highest level included", low=4, high=50)
    relative_nodes: int = parameter(12, "nodes of each amplifier's difference from the mean of all", low=4, high=100)
    order: int = parameter(4, "of the polynomial", low=2, high=8)
    gauge: Literal["zero", "reference"] = parameter(
        "zero", "what fixes the scale: no slope at charge 0, or no correction at `reference`"
    )
    reference: float = parameter(10000.0, "level without correction, for that gauge", unit="electron", above=0.0)
    max_level: float = parameter(np.inf, "frames above are left out: the full well less a margin", unit="electron", above=0.0)
    max_saturated: float = parameter(0.001, "frames with a larger share of saturated pixels are left out", low=0.0, high=1.0)
    border: int = parameter(5, "pixels left out along the amplifier's edges", unit="pixel", low=0)
    clip: float = parameter(
        5.0, "frames farther from the fit are left out: the lamp or the shutter failed", unit="sigma", above=2.0
    )
    lamp: float = parameter(1e-4, "relative error of the light that is expected at least", above=0.0)
    max_residual: float = parameter(0.002, "a product with larger residuals (relative, rms) is suspect", above=0.0)


class _Frame(NamedTuple):
    """What is kept of one flat; level, error, used: (n,) per amplifier, electron."""

    visit: int
    time: float
    level: np.ndarray
    error: np.ndarray


class _Basis(NamedTuple):
    """A linear family of corrections: values of the free parameters -> values at the nodes."""

    nodes: np.ndarray
    free: np.ndarray

    def at(self, level: np.ndarray) -> np.ndarray:
        """(len(level), parameters): what each parameter adds to the correction there."""
        return _natural_spline(self.nodes, self.free)(np.clip(level, self.nodes[0], self.nodes[-1]))


def build_linearity(frames: Iterable[Flat], detector: Detector, config: LinearityConfig) -> tuple[Linearity, Verdict]:
    """Linearity of a detector's amplifiers from flats of known exposure times.

    Parameters
    ----------
    frames : from `ramps.load_flat`, read one after the other, of one lamp and band, with bias subtracted and defects masked;
        frames that are no flats are passed over
    detector : whose gains made electrons of ADU; the product's levels are in these electrons, corrections for
        another gain have to be scaled with it

    Raises
    ------
    BadData
        Too few frames (says how many are needed), all saturated, no exposure times, other read-out modes.
    """
    rows: list[_Frame] = []
    bands, saturated = set(), 0
    for flat in frames:
        check_mode(flat, detector)
        if flat.exposure.kind != "flat":
            continue
        bands.add(flat.exposure.band)
        values = [_level(flat, amplifier, config) for amplifier in detector.amplifiers]
        level, error = np.array(values).T
        saturated += bool(np.isnan(level).all())
        rows.append(_Frame(flat.exposure.visit, flat.exposure.exposure_time, level, error))
    if len(bands) > 1:
        raise BadData(
            f"detector {detector.name}: flats of bands {', '.join(sorted(bands))}, whose lights differ; give those of one"
        )
    time, level, error = (np.array([getattr(row, key) for row in rows]) for key in ("time", "level", "error"))
    _check_enough(time, level, saturated, detector, config)
    return _solve(time, level, error, (rows, detector), config)


def _level(flat: Flat, amplifier: Amplifier, config: LinearityConfig) -> tuple[float, float]:
    """Mean of the good pixels and its error, electron; NaN where saturated or above the highest level."""
    box = amplifier.assembled_box
    edge = min(config.border, (min(box.nx, box.ny) - 1) // 4)
    y0, x0 = box.y0 - flat.image.box.y0 + edge, box.x0 - flat.image.box.x0 + edge
    at = np.s_[y0 : y0 + box.ny - 2 * edge, x0 : x0 + box.nx - 2 * edge]
    image, mask = flat.image.image[at], flat.image.mask[at]
    good = (mask & np.uint32(bits("SAT", "BAD", "NO_DATA", "UNMASKEDNAN", "CR")) == 0) & np.isfinite(image)
    if np.count_nonzero(mask & np.uint32(bits("SAT"))) > config.max_saturated * mask.size or good.sum() < 100:
        return np.nan, np.nan
    values = image[good]
    middle = np.median(values)
    values = values[np.abs(values - middle) <= 0.5 * abs(middle) + 10.0 * (amplifier.read_noise + 1.0)]
    mean = float(values.mean(dtype=np.float64))
    if mean > config.max_level:
        return np.nan, np.nan
    return mean, float(np.sqrt((max(mean, 0.0) + amplifier.read_noise**2) / len(values)))


def _check_enough(time: np.ndarray, level: np.ndarray, saturated: int, detector: Detector, config: LinearityConfig) -> None:
    needed = (
        max(config.nodes, config.relative_nodes if len(detector.amplifiers) > 1 else 0)
        if config.method == "spline"
        else config.order
    )
    needed += 2
    name = f"detector {detector.name}: linearity by a {config.method}"
    if len(time) and not ((time > 0) & np.isfinite(time)).all():
        raise BadData(f"{name}: a flat has no exposure time; it is the standard: give header.exposure_time in the camera")
    usable = np.isfinite(level).all(axis=1) if len(time) else np.zeros(0, bool)
    distinct = len(np.unique(np.round(np.log(time[usable]), 3)))
    if distinct < needed:
        raise BadData(
            f"{name} needs flats at {needed} exposure times, there are {distinct} ({len(time)} flats, {saturated} of them "
            "saturated or masked); take a longer ramp, or lower linearity.nodes"
        )


# ---- the fits


def _solve(time, level, error, what, config: LinearityConfig) -> tuple[Linearity, Verdict]:
    """The common shape and each amplifier's own, joined; what: (rows, detector)."""
    rows, detector = what
    n = level.shape[1]
    use = np.isfinite(level).all(axis=1)
    mean, scale = np.where(use, level.mean(axis=1), np.nan), np.ones(n)
    own, lamp = [], config.lamp
    for k in range(n if n > 1 else 0):  # against the mean of all amplifiers: the lamp cancels
        basis = _basis(level[use, k], config.relative_nodes, config)
        fitted, _ = _fit(level[:, k], mean, np.hypot(error[:, k], 1e-5 * mean), use, basis, np.inf)
        scale[k] = fitted[0][0]
        own.append((basis, fitted))
    straight = np.mean([_corrected(level[:, k], *own[k]) / scale[k] for k in range(n)], axis=0) if n > 1 else level[:, 0]
    basis = _basis(straight[use], config.nodes, config)
    noise = np.hypot(error.mean(axis=1) / np.sqrt(n), lamp * straight)
    common, kept = _fit(straight, time, noise, use, basis, config.clip)
    node, corrections, errors = [], [], []
    for k in range(n):
        top = float(np.max(level[kept, k]))
        at = np.linspace(0.0, top, 4 * max(config.nodes, config.relative_nodes) + 1)
        mine = _corrected(at, *own[k]) / scale[k] if n > 1 else at
        both = scale[k] * _corrected(mine, basis, common)
        spread = (scale[k] * _error(mine, basis, common)) ** 2 + (_error(at, *own[k]) ** 2 if n > 1 else 0.0)
        node.append(at), corrections.append(both - at), errors.append(np.sqrt(spread))
    product = Linearity(
        tuple(a.name for a in detector.amplifiers), np.array(node), np.array(corrections), np.array(errors), config.method
    )
    return _with_residuals(product, time, level, kept, rows, config)


def _basis(level: np.ndarray, n_nodes: int, config: LinearityConfig) -> _Basis:
    """Corrections that are 0 at charge 0 and obey the gauge; nodes up to the highest level, closer together at low ones.

    Between two nodes there is a measured level: where the ramp leaves gaps there are fewer nodes.
    """
    top = float(level.max())
    wanted = top * np.linspace(0.0, 1.0, n_nodes) ** 1.3
    kept = [top]
    for node in wanted[-2:0:-1]:
        if ((level >= node) & (level < 0.99 * kept[-1])).any() and (level < node).any():
            kept.append(node)
    nodes = np.array([0.0, *kept[::-1]])
    if config.method == "polynomial":
        nodes = np.linspace(0.0, top, 65)
        free = (nodes[:, None] / top) ** np.arange(1, config.order + 1)
    else:
        free = np.eye(len(nodes))[:, 1:]
    spline = _natural_spline(nodes, free)
    rule = spline(0.0, 1) * top if config.gauge == "zero" else spline(min(config.reference, top))
    _, _, rotation = np.linalg.svd(rule[None, :])
    return _Basis(nodes, free @ rotation[1:].T)  # the parameters that leave the rule at 0


def _fit(level, light, noise, use, basis: _Basis, clip: float):
    """level + correction(level) = scale * light, least squares with outliers left out.

    Returns
    -------
    ((scale, parameters), covariance of the parameters with the scale last), frames kept
    """
    kept = use.copy()
    for _ in range(10):
        terms = np.column_stack([-basis.at(level[kept]), light[kept]])
        weight = 1.0 / noise[kept]
        scaled = terms * weight[:, None]
        norm = np.sqrt((scaled**2).sum(axis=0))
        norm[norm == 0] = 1.0
        values = np.linalg.lstsq(scaled / norm, level[kept] * weight, rcond=None)[0] / norm
        residual = np.full(len(level), np.nan)
        residual[use] = (level[use] - np.column_stack([-basis.at(level[use]), light[use]]) @ values) / noise[use]
        width = max(1.0, 1.4826 * np.median(np.abs(residual[kept])))
        new = use & (np.abs(residual) <= clip * width)
        if (new == kept).all() or new.sum() <= len(values):
            break
        kept = new
    chi2 = float((residual[kept] ** 2).sum() / max(1, kept.sum() - len(values)))
    covariance = np.linalg.pinv((scaled / norm).T @ (scaled / norm)) * max(1.0, chi2) / np.outer(norm, norm)
    return ((float(values[-1]), values[:-1]), covariance), kept


def _corrected(level: np.ndarray, basis: _Basis, fitted) -> np.ndarray:
    return level + basis.at(level) @ fitted[0][1]


def _error(level: np.ndarray, basis: _Basis, fitted) -> np.ndarray:
    terms = basis.at(level)
    return np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", terms, fitted[1][:-1, :-1], terms), 0.0))


# ---- residuals and verdict


def _with_residuals(
    product: Linearity, time, level, kept, rows: list[_Frame], config: LinearityConfig
) -> tuple[Linearity, Verdict]:
    n = level.shape[1]
    residual = np.full((n, len(time)), np.nan)
    before = np.empty(n)
    for k in range(n):
        spline = _natural_spline(product.level[k], product.correction[k])
        fixed = level[:, k] + spline(np.clip(level[:, k], product.level[k, 0], product.level[k, -1]))
        weight = kept / np.maximum(fixed, 1.0)  # equal relative errors
        ratio = np.nansum(np.where(kept, fixed / time, 0.0) * weight * fixed) / np.nansum(np.where(kept, weight * fixed, 0.0))
        residual[k] = fixed / (time * ratio) - 1.0
        before[k] = np.max(np.abs(product.correction[k][1:] / product.level[k][1:]))
    product = Linearity(
        product.amplifiers, product.level, product.correction, product.correction_err, product.method, residual, level.T
    )
    rms = float(np.sqrt(np.nanmean(residual[:, kept] ** 2)))
    verdict = Verdict(
        statistics={
            "frames": float(len(time)),
            "frames_used": float(kept.sum()),
            "residual_rms": rms,
            "largest_correction_relative": float(before.max()),
            "highest_level_electron": float(product.level[:, -1].min()),
        }
    )
    lost = [rows[k].visit for k in range(len(rows)) if np.isfinite(level[k]).all() and not kept[k]]
    if lost:
        verdict = verdict.but(
            "suspect",
            f"frames left out, light off the exposure time: visits {', '.join(map(str, lost[:5]))}"
            f"{f' and {len(lost) - 5} more' if len(lost) > 5 else ''}",
        )
    if rms > config.max_residual:
        verdict = verdict.but("suspect", f"residuals are {rms:.2%} rms: the lamp drifts, or the shape needs more nodes")
    if before.max() > 0.2:
        verdict = verdict.but(
            "bad", f"a correction reaches {before.max():.0%} of the level: saturated or badly timed frames are among them"
        )
    return product, verdict
