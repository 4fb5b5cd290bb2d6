"""charge_transfer: what trails a row of pixels into its overscan, from flats of many levels (extended pixel edge response).

Per amplifier the mean row of each flat gives its last data pixels and its overscan. The model that `products.electronics.
ChargeTransfer` documents (Snyder & Roodman 2021, JATIS 7, 048002) is run on such rows and fitted to the trails: the share lost in
each transfer, then the amplifier's memory and a trap if the data ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.camera import Amplifier, Detector
from ...products.electronics import ChargeTransfer, Verdict
from ...products.exposure import RawDetector
from .stack import Frame, alike, clipped_mean_of, raise_it

__all__ = ["ChargeTransferConfig", "build_charge_transfer", "trail_model"]


class ChargeTransferConfig(Config):
    """How deferred charge is measured."""

    columns: int = parameter(13, "overscan columns of the trail; at most half of the overscan, the rest gives its level",
                             unit="pixel", low=3)
    min_overscan: int = parameter(8, "overscan columns needed", unit="pixel", low=6)
    min_levels: int = parameter(4, "flats of different level needed", low=3)
    min_signal: float = parameter(50.0, "flats with less signal are left out", unit="electron", above=0.0)
    max_signal: float = parameter(100000.0, "flats with more signal are left out", unit="electron", above=0.0)
    significance: float = parameter(25.0, "memory and trap are kept if they lower chi^2 by more than this", low=0.0)
    max_inefficiency: float = parameter(1e-4, "suspect: a larger share lost per transfer", above=0.0)


class _Trail(NamedTuple):
    """One flat of one amplifier, electron: level of the last pixels, overscan columns (w,) less the level of the far ones, errors."""

    signal: float
    overscan: np.ndarray
    error: np.ndarray


def build_charge_transfer(frames: Iterable[Frame], detector: Detector, config: ChargeTransferConfig,
                          leave_out: Callable[[str, BadData], None] = raise_it) -> tuple[ChargeTransfer, Verdict]:
    """Deferred charge of each amplifier of a detector.

    Parameters
    ----------
    frames : flats of several levels, best between 100 and 100,000 electrons; read one at a time

    Raises
    ------
    BadData
        No serial overscan, or hardly any; too few levels; frames of different gain or binning.
    """
    for amplifier in detector.amplifiers:
        width = amplifier.serial_overscan[2] if amplifier.serial_overscan else 0
        if width < config.min_overscan:
            raise BadData(f"detector {detector.name}: amplifier {amplifier.name} has {width} overscan columns, charge transfer needs "
                          f"{config.min_overscan}; leave it out")
    trails: list[list[_Trail]] = [[] for _ in detector.amplifiers]
    first = ""
    for frame in frames:
        try:
            raw = frame.load()
        except BadData as error:
            leave_out(frame.name, error)
            continue
        alike(detector, raw, first or f"the description of {detector.name}", frame.name)
        detector, first = raw.detector, first or frame.name
        for number in range(len(detector.amplifiers)):
            trail = _trail_of(raw, number)
            if config.min_signal <= trail.signal <= config.max_signal and np.isfinite(trail.overscan).all():
                trails[number].append(trail)
    for amplifier, found in zip(detector.amplifiers, trails):
        levels = _distinct([trail.signal for trail in found])
        if levels < config.min_levels:
            raise BadData(f"detector {detector.name}: amplifier {amplifier.name} has flats of {levels} levels between "
                          f"{config.min_signal:g} electrons and saturation, charge transfer needs {config.min_levels}; take more levels")
    return _assembled(detector, trails, config)


def _distinct(signals: list[float]) -> int:
    """Levels that differ by a tenth at least."""
    number, last = 0, 0.0
    for signal in sorted(signals):
        if signal > 1.1 * last:
            number, last = number + 1, signal
    return number


def _readout_order(region: tuple[int, int, int, int], segment: np.ndarray, backwards: bool) -> np.ndarray:
    x0, y0, nx, ny = region
    part = segment[y0:y0 + ny, x0:x0 + nx]
    return part[:, ::-1] if backwards else part


def _backwards(amplifier: Amplifier) -> bool:
    """Whether the file has the last pixel read of each row first."""
    return amplifier.serial_overscan[0] < amplifier.data[0]


def _trail_of(raw: RawDetector, number: int) -> _Trail:
    """The mean row of an amplifier: clipped over the rows that data and overscan share."""
    amplifier, segment = raw.detector.amplifiers[number], raw.segments[number]
    y0 = max(amplifier.data[1], amplifier.serial_overscan[1])
    y1 = min(amplifier.data[1] + amplifier.data[3], amplifier.serial_overscan[1] + amplifier.serial_overscan[3])
    data, over = (_readout_order((region[0], y0, region[2], y1 - y0), segment, _backwards(amplifier))
                  for region in (amplifier.data, amplifier.serial_overscan))
    last, over = data[:, -10:].astype(np.float32), over.astype(np.float32)
    if np.mean(last >= amplifier.saturation) > 0.001:  # saturated: the charge that trails is not known
        return _Trail(np.inf, np.full(over.shape[1], np.nan), np.ones(over.shape[1]))
    base = over[:, over.shape[1] // 2:].mean(axis=1, keepdims=True)
    columns = clipped_mean_of((over - base).T) * amplifier.gain
    signal = float(np.median(clipped_mean_of((last - base).T))) * amplifier.gain
    half = over.shape[1] - over.shape[1] // 2
    scatter = float(np.median(np.std(over - base, axis=0))) * amplifier.gain
    return _Trail(signal, columns, np.full(len(columns), max(scatter, 0.05) / np.sqrt(len(over)) * np.sqrt(1.0 + 1.0 / half)))


def trail_model(parameters: np.ndarray, signal: np.ndarray, transfers: int, columns: int) -> np.ndarray:
    """(n, columns) electron in the overscan after rows of a steady signal, by the model of `products.electronics.ChargeTransfer`.

    Parameters
    ----------
    parameters : inefficiency, offset_scale, offset_decay, trap_size, trap_level, trap_decay
    signal : (n,) electron in each data pixel
    transfers : of the last data pixel: its column, with the prescan, plus one
    """
    loss, scale, decay, size, level, keep_for = parameters
    before = 6  # data pixels: what started earlier does not reach the overscan; trap and memory are full already
    charge = np.zeros((before + columns, len(signal)))
    charge[:before] = signal
    number = transfers - before + 1 + np.arange(before)  # transfers of each data pixel
    share = (1.0 - loss) ** number
    for late in range(1, before):  # comes so many pixels late: negative binomial
        share = share * loss * (number + late - 1) / late
        for start in range(before - late, before):
            charge[start + late] += share[start] * signal
    held, memory = size * np.minimum(signal / level, 1.0), scale * signal
    keep, fade = np.exp(-1.0 / keep_for), np.exp(-1.0 / decay)
    for packet in charge:
        packet += held * (1.0 - keep)
        held = held * keep
        taken = np.maximum(size * np.minimum(packet / level, 1.0) - held, 0.0)
        packet -= taken
        held = held + taken
        memory = np.maximum(memory * fade, scale * packet)
        packet += memory
    return charge[before:].T


START = np.array([1e-6, 1e-5, 3.0, 1.0, 2000.0, 1.5])
LOW = np.array([0.0, 0.0, 0.3, 0.0, 20.0, 0.2])
HIGH = np.array([1e-2, 0.1, 50.0, 1000.0, 2e5, 50.0])
STEPS = ((0,), (0, 1, 2), (0, 1, 2, 3, 4, 5))  # what is fitted: loss alone, with the memory, with the trap too


def _fit(trails: list[_Trail], transfers: int, config: ChargeTransferConfig) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Parameters, their errors, chi^2 per degree of freedom, model of the overscan (n, w)."""
    from scipy.optimize import least_squares

    signal = np.array([trail.signal for trail in trails])
    seen, error = np.array([trail.overscan for trail in trails]), np.array([trail.error for trail in trails])
    width = seen.shape[1]

    def model(values: np.ndarray) -> np.ndarray:
        whole = trail_model(values, signal, transfers, width)
        return whole - whole[:, width // 2:].mean(axis=1, keepdims=True)

    best = None
    for free in (*STEPS, (0, 3, 4, 5)):
        for factor in (1.0, 20.0):
            values = START.copy() * np.isin(np.arange(6), (*free, 2, 4, 5))
            values[[index for index in free if index in (0, 1, 3)]] *= factor
            index = np.array(free)

            def residual(x, values=values, index=index):
                trial = values.copy()
                trial[index] = x
                return ((model(trial) - seen) / error).ravel()

            fit = least_squares(residual, np.clip(values[index], LOW[index], HIGH[index]), bounds=(LOW[index], HIGH[index]),
                                x_scale=np.maximum(np.abs(values[index]), 1e-9), loss="soft_l1", f_scale=4.0)
            cost = 2.0 * fit.cost + config.significance * (len(free) - 1) / 2.0
            if best is None or cost < best[0] - 1e-9:
                values[index] = fit.x
                best = cost, values, index, fit.jac
    _, values, index, jacobian = best
    errors = np.zeros(6)
    errors[index] = np.sqrt(np.maximum(np.diag(np.linalg.pinv(jacobian.T @ jacobian)), 0.0))
    shown = model(values)
    chi2 = float((((shown - seen) / error) ** 2).sum() / max(1, seen.size - len(index)))
    return values, errors, chi2, shown


def _assembled(detector: Detector, trails: list[list[_Trail]], config: ChargeTransferConfig) -> tuple[ChargeTransfer, Verdict]:
    n = len(detector.amplifiers)
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    values, errors, chi2 = np.zeros((n, 6)), np.zeros((n, 6)), np.zeros(n)
    most = max(len(found) for found in trails)
    shown = min(config.columns, min(amplifier.serial_overscan[2] // 2 for amplifier in detector.amplifiers))
    signal, trail, model = (np.full(shape, np.nan) for shape in ((n, most), (n, most, shown), (n, most, shown)))
    for number, (amplifier, found) in enumerate(zip(detector.amplifiers, trails)):
        found = sorted(found, key=lambda one: one.signal)
        before = amplifier.section[2] - amplifier.data[0] - amplifier.data[2] if _backwards(amplifier) else amplifier.data[0]
        values[number], errors[number], chi2[number], fitted = _fit(found, before + amplifier.data[2], config)
        signal[number, :len(found)] = [one.signal for one in found]
        trail[number, :len(found)] = [one.overscan[:shown] for one in found]
        model[number, :len(found)] = fitted[:, :shown]
    verdict = Verdict(statistics={"largest_inefficiency": float(values[:, 0].max()), "median_inefficiency": float(np.median(values[:, 0])),
                                  "largest_offset_scale": float(values[:, 1].max()), "largest_trap": float(values[:, 3].max()),
                                  "chi2_dof": float(np.median(chi2)), "flats": float(most)})
    for name, loss, fit in zip(names, values[:, 0], chi2):
        if loss > config.max_inefficiency:
            verdict = verdict.but("suspect", f"amplifier {name} loses {loss:.1e} of the charge in each transfer")
        if fit > 5.0:
            verdict = verdict.but("suspect", f"amplifier {name}: the model does not follow its trails (chi^2 / dof {fit:.1f})")
    product = ChargeTransfer(names, values[:, 0], errors[:, 0], values[:, 1], values[:, 2], values[:, 3], values[:, 4], values[:, 5],
                             signal, trail, model)
    return product, verdict
