"""crosstalk: the ghosts that amplifiers leave in each other, subtracted from charges that were read at the same moment.

What is read of amplifier i is e_i = q_i + sum_j (c_ij + d_ij q_j) q_j. The linear part among the amplifiers of one detector is
inverted exactly, q = (1 + C)^-1 (e - D q^2 - ghosts of other detectors); in the small terms q is what was read: what is left is
of second order in the coupling, 1e-7 of the source where the coupling is 3e-4.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.electronics import Mixing
from ..products.camera import Detector
from ..products.electronics import Crosstalk
from ..products.mask import bits

__all__ = ["CrosstalkConfig", "foreign_detectors", "mixing_of"]


class CrosstalkConfig(Config):
    """How ghosts of other amplifiers are removed."""

    apply: bool = parameter(True, "subtract them, where there is a matrix of coefficients")
    quadratic: bool = parameter(True, "with the term that grows with the square of the source")
    mask_above: float = parameter(1.0, "where the source is saturated, pixels with a larger ghost are CROSSTALK", unit="electron",
                                  low=0.0)


def mixing_of(product: Crosstalk, detector: Detector, config: CrosstalkConfig) -> tuple[Mixing, tuple[tuple[str, str], ...]]:
    """What is to be added to each amplifier of a detector per electron (and electron^2) of each source.

    Returns
    -------
    Mixing, whose sources are the detector's amplifiers in its order and then the others; (detector, amplifier) of these others

    Raises
    ------
    BadData
        The matrix is of another camera, is not one of numbers, or is so large that it is none of crosstalk.
    """
    names = [amplifier.name for amplifier in detector.amplifiers]
    own = {name: number for number, name in enumerate(names)}
    if set(product.amplifiers) != set(names):
        raise BadData(f"detector {detector.name}: the crosstalk matrix is of amplifiers {_some(product.amplifiers)}, the detector "
                      f"has {_some(names)}; certify the matrix of this camera")
    shape = (len(product.amplifiers), len(product.sources))
    places, foreign = [], []
    for source in product.sources:
        where, _, name = source.rpartition("/")
        if where in ("", detector.name) and name not in own:
            raise BadData(f"detector {detector.name}: the crosstalk matrix has a source {source}, the detector has {_some(names)}; "
                          "certify the matrix of this camera")
        if where in ("", detector.name):
            places.append(own[name])
        else:
            places.append(len(names) + len(foreign))
            foreign.append((where, name))
    rows = np.array([own[name] for name in product.amplifiers])
    tables = []
    for what, values in (("coefficient", product.coefficient), ("quadratic", product.quadratic)):
        values = np.asarray(values, float)
        if values.shape != shape or not np.isfinite(values).all():
            what = f"{what} is {values.shape}, not {shape}" if values.shape != shape else f"a {what} is not a number"
            raise BadData(f"detector {detector.name}: crosstalk: {what}; build the matrix again or set "
                          "detrend.crosstalk.apply: false")
        table = np.zeros((len(names), len(names) + len(foreign)))
        table[np.ix_(rows, places)] = values
        np.fill_diagonal(table, 0.0)
        tables.append(table)
    coefficient, quadratic = tables
    if np.abs(coefficient).sum(axis=1).max() > 0.5:
        raise BadData(f"detector {detector.name}: crosstalk coefficients up to {np.abs(coefficient).max():.2g} are no crosstalk; "
                      "their unit is electrons per electron: correct the matrix")
    n = len(names)
    inverse = np.linalg.inv(np.eye(n) + coefficient[:, :n])
    linear = np.hstack([inverse - np.eye(n), -inverse @ coefficient[:, n:]])
    quadratic = -inverse @ quadratic * float(config.quadratic)
    return Mixing(np.ascontiguousarray(linear, np.float32), np.ascontiguousarray(quadratic, np.float32), config.mask_above,
                  bits("CROSSTALK")), tuple(foreign)


def foreign_detectors(product: Crosstalk | None, detector: str) -> tuple[str, ...]:
    """The names of the other detectors that speak into one: their raw pixels are needed too."""
    sources = () if product is None else product.sources
    return tuple(sorted({source.rpartition("/")[0] for source in sources} - {"", detector}))


def _some(names) -> str:
    """A few names, for a message."""
    return ", ".join(names[:4]) + (f" ... ({len(names)})" if len(names) > 4 else "")
