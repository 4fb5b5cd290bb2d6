"""charge_transfer: serial deferred charge given back to the pixels that it came from (the model: products/electronics.py).

Each of the three parts is undone exactly, in the opposite order: the output amplifier's memory, the trap at the register's end,
the transfers (to the third order of inefficiency times transfers); `kernels.electronics` does it.
"""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.camera import Detector
from ..products.electronics import ChargeTransfer

__all__ = ["ChargeTransferConfig", "transfer_values"]

PARTS = {"inefficiency": (), "offset_scale": ("offset_decay",), "trap_size": ("trap_level", "trap_decay")}
"""What makes each part of the model, and what else it needs."""

LIMITS = {"inefficiency": 1e-4, "offset_scale": 0.1}
"""Larger values are those of no detector."""


class ChargeTransferConfig(Config):
    """How deferred charge is given back."""

    apply: bool = parameter(True, "give it back, where it was measured")


def transfer_values(product: ChargeTransfer | None, detector: Detector, config: ChargeTransferConfig) -> list[dict[str, float]]:
    """The members of `kernels.electronics.Electronics` of each amplifier; empty where nothing is to be done.

    Raises
    ------
    BadData
        The product is of another camera, or a value is not a number or that of no detector.
    """
    if product is None or not config.apply:
        return []
    missing = sorted({amplifier.name for amplifier in detector.amplifiers} - set(product.amplifiers))
    if missing:
        raise BadData(f"detector {detector.name}: the charge transfer has no amplifier {missing[0]}, its own are "
                      f"{', '.join(product.amplifiers[:4])}...; certify that of this camera")
    return [_values(product, product.amplifiers.index(amplifier.name), f"detector {detector.name}: amplifier {amplifier.name}")
            for amplifier in detector.amplifiers]


def _values(product: ChargeTransfer, number: int, who: str) -> dict[str, float]:
    """The values of one amplifier; those of a part that it has not are neutral."""
    cure = "; build the charge transfer again or set detrend.charge_transfer.apply: false"
    found = dict.fromkeys(("inefficiency", "offset_scale", "offset_decay", "trap_size", "trap_decay"), 0.0) | {"trap_level": 1.0}
    for part, others in PARTS.items():
        if getattr(product, part)[number] == 0.0:
            continue
        for name in (part, *others):
            found[name] = float(getattr(product, name)[number])
            if not (np.isfinite(found[name]) and 0.0 < found[name] <= LIMITS.get(name, np.inf)):
                raise BadData(f"{who}: {name} of its charge transfer is {found[name]:g}{cure}")
    if found["trap_size"] >= found["trap_level"]:
        raise BadData(f"{who}: its trap of {found['trap_size']:g} electrons is filled by only {found['trap_level']:g}{cure}")
    found["offset_fade"], found["trap_keep"] = _kept(found.pop("offset_decay")), _kept(found.pop("trap_decay"))
    return found


def _kept(decay: float) -> float:
    """What is left after one pixel of a memory that decays over so many."""
    return float(np.exp(-1.0 / decay)) if decay > 0.0 else 0.0
