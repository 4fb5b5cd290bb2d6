"""The electronics of the simulated amplifiers: charge transfer, non-linearity, crosstalk, true gains, offsets.

In the order of a read-out: charge trails along the serial register into the overscan, the output amplifier bends the scale,
neighbouring channels couple. What is drawn for a detector is kept in `Electronics`, whose parts are the very products that
a correction wants (`products.electronics`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import yaml

from ..config import Config, parameter
from ..errors import ConfigError
from ..products.camera import Amplifier, Detector
from ..products.electronics import ChargeTransfer, Crosstalk, Linearity
from .seeds import generator

__all__ = ["Electronics", "ElectronicsConfig", "add_crosstalk", "amplifier_offsets", "bend", "electronics_of", "natural_spline",
           "trail"]


class ElectronicsConfig(Config):
    """What the amplifiers do to the charge; all off by default."""

    gain_spread: float = parameter(0.0, "rms by which true gains differ from the camera's description, relative", low=0.0,
                                   high=0.2)
    offset: float = parameter(0.0, "rms of each amplifier's offset against its overscan, new in each science exposure",
                              unit="electron", low=0.0)
    crosstalk_matrix: tuple[tuple[float, ...], ...] = parameter(
        (), "coupling of the amplifiers of each detector, a row per target, a column per source; (): see the other keys")
    crosstalk_table: str = parameter(
        "", "file with the coupling: YAML {coefficient: [[...]], quadratic: [[...]]} or LSST's ECSV; $NAME is expanded")
    crosstalk_neighbour: float = parameter(0.0, "coupling of neighbours in the detector; a sixth of it two amplifiers away, ...",
                                           low=0.0, high=0.01)
    crosstalk_quadratic: float = parameter(0.0, "rms of the coupling's change per electron of the source, over the coupling",
                                           unit="1/electron", low=0.0, high=1e-4)
    nonlinearity: float = parameter(0.0, "correction at the full well over the charge, mean of the amplifiers", low=0.0, high=0.1)
    nonlinearity_kind: Literal["spline", "polynomial"] = parameter("spline", "shape of the non-linearity")
    nonlinearity_nodes: int = parameter(9, "levels between which the correction is a cubic spline", low=4, high=50)
    cti: float = parameter(0.0, "charge left behind by each serial transfer", low=0.0, high=1e-3)
    cti_offset: float = parameter(0.0, "local offset: what the amplifier remembers of the charge", low=0.0, high=0.01)
    cti_offset_decay: float = parameter(3.0, "and for how long", unit="pixel", above=0.0)
    cti_trap: float = parameter(0.0, "size of the trap at the amplifier's end of the register", unit="electron", low=0.0)
    cti_trap_level: float = parameter(2000.0, "charge that fills it", unit="electron", above=0.0)
    cti_trap_decay: float = parameter(1.5, "how long it keeps it", unit="pixel", above=0.0)
    spread: float = parameter(0.2, "rms of the differences between amplifiers in all these, relative", low=0.0, high=0.3)


class Electronics(NamedTuple):
    """What was drawn for a detector; None where an effect is off.

    gain : (n,) electron/ADU, true
    """

    gain: np.ndarray
    linearity: Linearity | None
    crosstalk: Crosstalk
    charge_transfer: ChargeTransfer | None


def electronics_of(config: ElectronicsConfig, detector: Detector, seed: int, full_well: float,
                   coupling: np.ndarray) -> Electronics:
    """Draw the electronics of a detector.

    Parameters
    ----------
    detector : with the gains of the band
    full_well : electron, where the scale of the non-linearity ends
    coupling : (n, n) coupling of the amplifiers without the effects of this configuration

    Raises
    ------
    ConfigError
        The crosstalk table cannot be read, or has another number of amplifiers.
    """
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    n = len(names)
    gain = np.array([amplifier.gain for amplifier in detector.amplifiers])
    gain = gain * (1.0 + config.gain_spread * generator(seed, "gains", detector.id).standard_normal(n))
    return Electronics(gain, _draw_linearity(config, names, full_well, generator(seed, "linearity", detector.id)),
                       _draw_crosstalk(config, detector, coupling, generator(seed, "crosstalk", detector.id)),
                       _draw_transfer(config, names, generator(seed, "transfer", detector.id)))


def amplifier_offsets(config: ElectronicsConfig, detector: Detector, seed: int, visit: int) -> np.ndarray:
    """(n,) electron: by how much the data pixels of each amplifier of a science exposure stand above its overscan, besides light."""
    return config.offset * generator(seed, "offsets", visit, detector.id).standard_normal(len(detector.amplifiers))


def _scattered(value: float, spread: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) values about one, none below a fifth of it."""
    return value * np.maximum(1.0 + spread * rng.standard_normal(n), 0.2)


# ---- non-linearity


def _draw_linearity(config: ElectronicsConfig, names: tuple[str, ...], full_well: float,
                    rng: np.random.Generator) -> Linearity | None:
    """The correction at levels from 0 to 1.2 full wells; zero and without slope at 0, so that the gain is that of faint light."""
    if config.nonlinearity == 0.0:
        return None
    n, share = len(names), np.linspace(0.0, 1.0, config.nonlinearity_nodes)
    shape = share**2 - 0.4 * _scattered(1.0, config.spread, n, rng)[:, None] * share**3
    if config.nonlinearity_kind == "spline":  # a wiggle that no parabola follows
        shape += 0.1 * np.sin(2.0 * np.pi * share * rng.uniform(1.0, 1.6, (n, 1))) * share * (2.0 - share)
    level, size = 1.2 * full_well * share, config.nonlinearity * full_well * _scattered(1.0, config.spread, n, rng)
    correction = np.empty_like(shape)
    for number in range(n):
        slope = float(natural_spline(level, shape[number], np.array([1.0]))[0])
        straight = shape[number] - slope * level
        correction[number] = size[number] * straight / natural_spline(level, straight, np.array([full_well]))[0]
    return Linearity(names, np.tile(level, (n, 1)), correction, np.zeros_like(correction), config.nonlinearity_kind)


def natural_spline(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The natural cubic spline through (x, y), ascending, at other places; outside, the end values hold."""
    step, at = np.diff(x), np.clip(at, x[0], x[-1])
    system = np.diag(np.concatenate([[1.0], 2.0 * (step[1:] + step[:-1]), [1.0]]))
    inner = np.arange(1, len(x) - 1)
    system[inner, inner - 1], system[inner, inner + 1] = step[:-1], step[1:]
    slopes = np.diff(y) / step
    curvature = np.linalg.solve(system, np.concatenate([[0.0], 6.0 * np.diff(slopes), [0.0]]))
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(step) - 1)
    t = at - x[k]
    slope = slopes[k] - step[k] * (2.0 * curvature[k] + curvature[k + 1]) / 6.0
    return y[k] + t * (slope + t * (0.5 * curvature[k] + t * (curvature[k + 1] - curvature[k]) / (6.0 * step[k])))


def bend(signal: np.ndarray, linearity: Linearity, number: int) -> np.ndarray:
    """What amplifier `number` reports of a charge (electron): the level whose correction leads back to the charge.

    Levels read 4 electrons apart are inverted exactly, those between by straight lines: errors below 1e-4 electron.
    """
    top = float(linearity.level[number, -1])
    read = np.linspace(0.0, top, int(top / 4.0) + 2)
    charge = read + natural_spline(linearity.level[number], linearity.correction[number], read)
    bent = np.interp(signal, charge, read)
    beyond, below = signal > charge[-1], signal < 0.0
    bent[beyond] = signal[beyond] - (charge[-1] - read[-1])
    bent[below] = signal[below] - charge[0]
    return bent.astype(np.float32)


# ---- crosstalk


def _draw_crosstalk(config: ElectronicsConfig, detector: Detector, coupling: np.ndarray, rng: np.random.Generator) -> Crosstalk:
    names = tuple(amplifier.name for amplifier in detector.amplifiers)
    n, quadratic = len(names), None
    if config.crosstalk_matrix:
        coupling = np.array(_square(config.crosstalk_matrix, n, "crosstalk_matrix"))
    elif config.crosstalk_table:
        coupling, quadratic = _read_table(config.crosstalk_table, n)
    elif config.crosstalk_neighbour:
        coupling = coupling + _neighbours(config, detector, rng)
    if config.crosstalk_quadratic and (quadratic is None or not quadratic.any()):
        quadratic = coupling * config.crosstalk_quadratic * rng.standard_normal((n, n))
    away = 1.0 - np.eye(n)
    quadratic = np.zeros((n, n)) if quadratic is None else quadratic * away
    return Crosstalk(names, names, coupling * away, np.zeros((n, n)), quadratic, np.zeros((n, n), np.int64))


def _neighbours(config: ElectronicsConfig, detector: Detector, rng: np.random.Generator) -> np.ndarray:
    """(n, n): e-fold per 0.56 amplifiers of distance, as between the neighbouring channels of LSSTCam; rows hardly couple."""
    boxes = [amplifier.assembled_box for amplifier in detector.amplifiers]
    x, y = (np.array([getattr(box, key) / getattr(box, size) for box in boxes]) for key, size in (("x0", "nx"), ("y0", "ny")))
    distance = np.abs(x[:, None] - x) + 4.0 * np.abs(y[:, None] - y)
    n = len(boxes)
    scatter = np.maximum(1.0 + config.spread * rng.standard_normal((n, n)), 0.2)
    return config.crosstalk_neighbour * 6.0 ** (1.0 - distance) * scatter


def _read_table(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(coefficient, quadratic), (n, n), of a YAML mapping or of LSST's ECSV (one row of lists)."""
    path = Path(os.path.expandvars(name)).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"crosstalk_table: {path} cannot be read ({error.strerror}); give a YAML or ECSV file") from None
    try:
        if text.startswith("# %ECSV"):
            columns, row = [line for line in text.splitlines() if line and not line.startswith("#")][:2]
            fields = dict(zip(columns.split(), (json.loads(item) for item in row.split(" "))))
            values = {ours: np.reshape(fields[theirs], (-1, int(len(fields[theirs]) ** 0.5)))
                      for ours, theirs in (("coefficient", "CT_COEFFS"), ("quadratic", "CT_COEFFS_SQR"))}
        else:
            values = yaml.safe_load(text)
        coefficient = values["coefficient"]
        quadratic = values.get("quadratic", np.zeros(np.shape(coefficient)))
    except (ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
        raise ConfigError(f"crosstalk_table: {path} has no table of coefficients; give coefficient: [[...], ...]") from None
    return _square(coefficient, n, "crosstalk_table"), _square(quadratic, n, "crosstalk_table")


def _square(values, n: int, key: str) -> np.ndarray:
    try:
        matrix = np.array(values, float)
    except (ValueError, TypeError):
        matrix = np.empty(0)
    if matrix.shape != (n, n) or not np.isfinite(matrix).all():
        raise ConfigError(f"{key}: is not {n} x {n} numbers, for the {n} amplifiers of a detector; take the table of this camera")
    return matrix


def add_crosstalk(section: np.ndarray, signals: list[np.ndarray], crosstalk: Crosstalk, number: int) -> None:
    """Add the ghosts of all other amplifiers to the section of amplifier `number`, in place: pixels read at the same moment."""
    for other, signal in enumerate(signals):
        linear, quadratic = (np.float32(table[number, other]) for table in (crosstalk.coefficient, crosstalk.quadratic))
        if signal.shape != section.shape or not (linear or quadratic):
            continue
        section += (linear + quadratic * signal) * signal if quadratic else linear * signal


# ---- charge transfer


def _draw_transfer(config: ElectronicsConfig, names: tuple[str, ...], rng: np.random.Generator) -> ChargeTransfer | None:
    if not (config.cti or config.cti_offset or config.cti_trap):
        return None
    n = len(names)
    inefficiency, scale, decay, trap, level, keep = (
        _scattered(value, config.spread, n, rng) for value in
        (config.cti, config.cti_offset, config.cti_offset_decay, config.cti_trap, config.cti_trap_level, config.cti_trap_decay))
    return ChargeTransfer(names, inefficiency, np.zeros(n), scale, decay, trap, level, keep)


def trail(section: np.ndarray, amplifier: Amplifier, transfer: ChargeTransfer, number: int) -> np.ndarray:
    """Read a section through its serial register and output amplifier, as `products.electronics.ChargeTransfer` says.

    Parameters
    ----------
    section : (ny, nx) electron in the order of the file, zero in prescan and overscan
    number : of the amplifier in `transfer`

    Returns
    -------
    (ny, nx) float32, with the trails in the overscan
    """
    backwards = amplifier.serial_overscan is not None and amplifier.serial_overscan[0] < amplifier.data[0]
    charge = np.ascontiguousarray((section[:, ::-1] if backwards else section).T, np.float64)  # a row per column: read-out order
    charge = _leave_behind(charge, float(transfer.inefficiency[number]))
    if transfer.trap_size[number] > 0.0:
        _trap(charge, *(float(values[number]) for values in (transfer.trap_size, transfer.trap_level, transfer.trap_decay)))
    if transfer.offset_scale[number] > 0.0:
        remembered, fading = np.zeros(charge.shape[1]), np.exp(-1.0 / float(transfer.offset_decay[number]))
        for column in charge:
            np.maximum(remembered * fading, float(transfer.offset_scale[number]) * column, out=remembered)
            column += remembered
    read = charge.T
    return np.ascontiguousarray(read[:, ::-1] if backwards else read, np.float32)


def _leave_behind(charge: np.ndarray, inefficiency: float) -> np.ndarray:
    """Each transfer leaves a share behind: what started in column j is read k columns later with the negative binomial's
    probability of k failures before j + 1 successes (the prescan is part of the section).
    """
    transfers, share = np.arange(1, len(charge) + 1), 1.0
    arrived = np.zeros_like(charge)
    for late in range(6):
        probability = share * (1.0 - inefficiency) ** transfers
        arrived[late:] += (charge * probability[:, None])[:len(charge) - late]
        share = share * inefficiency * (transfers + late) / (late + 1)
    return arrived


def _trap(charge: np.ndarray, size: float, level: float, decay: float) -> None:
    """One trap, in place: gives back to a pixel what it lost since the last one, then fills up from it."""
    held, keep = np.zeros(charge.shape[1]), np.exp(-1.0 / decay)
    for column in charge:
        column += held * (1.0 - keep)
        held *= keep
        taken = np.maximum(size * np.minimum(column / level, 1.0) - held, 0.0)
        column -= taken
        held += taken
