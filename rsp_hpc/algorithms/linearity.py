"""linearity: the correction of each amplifier's charges as a fine table for the C core, from the spline through its levels."""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.camera import Detector
from ..products.electronics import Linearity

__all__ = ["LinearityConfig", "linearity_tables", "natural_spline"]

LARGEST_TABLE = 16385


class LinearityConfig(Config):
    """How charges are made proportional to light."""

    apply: bool = parameter(True, "correct them, where there is a measured correction")
    tolerance: float = parameter(0.02, "the table follows the spline to this; finer ones are slower", unit="electron", above=0.0)


def linearity_tables(product: Linearity | None, detector: Detector, config: LinearityConfig) -> list[tuple[np.ndarray, float]]:
    """(values, step) of each amplifier: electrons to be added to charges of 0, step, 2 step, ... electrons; empty without any.

    Straight lines join the values. Their number is doubled until they leave the spline nowhere by more than the tolerance.

    Raises
    ------
    BadData
        The correction is of another camera, is not one of numbers, or its levels do not ascend.
    """
    if product is None or not config.apply:
        return []
    missing = sorted({amplifier.name for amplifier in detector.amplifiers} - set(product.amplifiers))
    if missing:
        raise BadData(f"detector {detector.name}: the linearity has no amplifier {missing[0]}, its own are "
                      f"{', '.join(product.amplifiers[:4])}...; certify that of this camera")
    tables = []
    for amplifier in detector.amplifiers:
        number = product.amplifiers.index(amplifier.name)
        level, correction = (np.asarray(values[number], float) for values in (product.level, product.correction))
        if not (np.isfinite(level).all() and np.isfinite(correction).all() and (np.diff(level) > 0).all() and level[-1] > 0):
            raise BadData(f"detector {detector.name}: the linearity of amplifier {amplifier.name} is not finite, or its levels do "
                          "not ascend from 0; build it again or set detrend.linearity.apply: false")
        tables.append(_table(level, correction, config.tolerance))
    return tables


def _table(level: np.ndarray, correction: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """The spline at equal steps from 0 to the highest level, fine enough."""
    n, spline = 129, natural_spline(level, correction)
    while True:
        at = np.linspace(0.0, level[-1], 2 * n - 1)
        values = spline(at)
        middle = 0.5 * (values[:-2:2] + values[2::2])
        if n >= LARGEST_TABLE or np.abs(middle - values[1::2]).max() <= tolerance:
            return values[::2].astype(np.float32), float(level[-1] / (n - 1))
        n = 2 * n - 1


def natural_spline(x: np.ndarray, y: np.ndarray):
    """The natural cubic spline through (x, y), x ascending, as a function; beyond the ends the end values hold."""
    step, slopes = np.diff(x), np.diff(y) / np.diff(x)
    system, right = np.eye(len(x)), np.zeros(len(x))
    inner = np.arange(1, len(x) - 1)
    system[inner, inner - 1], system[inner, inner], system[inner, inner + 1] = step[:-1], 2.0 * (step[1:] + step[:-1]), step[1:]
    right[inner] = 6.0 * np.diff(slopes)
    curvature = np.linalg.solve(system, right)

    def value(at: np.ndarray) -> np.ndarray:
        at = np.clip(at, x[0], x[-1])
        k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(step) - 1)
        t = at - x[k]
        first = slopes[k] - step[k] * (2.0 * curvature[k] + curvature[k + 1]) / 6.0
        return y[k] + t * (first + t * (0.5 * curvature[k] + t * (curvature[k + 1] - curvature[k]) / (6.0 * step[k])))

    return value
