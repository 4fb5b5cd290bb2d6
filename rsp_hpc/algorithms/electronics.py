"""electronics: the numbers of a detector's amplifiers for one exposure, from its calibration products where there are any.

Gain, read noise and full well from the photon transfer, else from the camera; then what `kernels.electronics` undoes between the
converter and the pixels: crosstalk, non-linearity, deferred charge (a file each), and the order in which pixels were read.
"""

from __future__ import annotations


import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..kernels.electronics import Electronics
from ..products.calibration import Calibration
from ..products.camera import Amplifier, Detector
from ..products.electronics import PhotonTransfer
from ..products.exposure import RawDetector
from .charge_transfer import ChargeTransferConfig, transfer_values
from .crosstalk import CrosstalkConfig
from .linearity import LinearityConfig, linearity_tables

__all__ = ["ElectronicsConfig", "electronics_of", "with_photon_transfer"]


class ElectronicsConfig(Config):
    """Which products of the electronics are used, where there are any (part of the section `detrend`)."""

    dither: bool = parameter(
        False, "uniform random numbers of one ADU are added to raw integers: levels lose their steps, the noise grows by gain^2 / 12")
    dither_seed: int = parameter(0, "their seed; each exposure, detector and amplifier has its own numbers", low=0)
    photon_transfer: bool = parameter(True, "gain, read noise and full well come from the photon transfer where there is one")
    suspect: float = parameter(1.0, "pixels above this fraction of the charge that saturates are SUSPECT; 1: only those that the "
                                    "camera says", above=0.0, high=1.0)
    crosstalk: CrosstalkConfig = CrosstalkConfig()
    linearity: LinearityConfig = LinearityConfig()
    charge_transfer: ChargeTransferConfig = ChargeTransferConfig()


def with_photon_transfer(detector: Detector, ptc: PhotonTransfer | None, config: ElectronicsConfig) -> tuple[Amplifier, ...]:
    """The amplifiers with gain and read noise of the photon transfer.

    Raises
    ------
    BadData
        It is of another camera, or a gain or read noise is not a positive number.
    """
    if ptc is None or not config.photon_transfer:
        return detector.amplifiers
    found = {name: number for number, name in enumerate(ptc.amplifiers)}
    changed = []
    for amplifier in detector.amplifiers:
        if amplifier.name not in found:
            raise BadData(f"detector {detector.name}: the photon transfer has no amplifier {amplifier.name}, its own are "
                          f"{', '.join(ptc.amplifiers[:4])}...; certify that of this camera")
        values = {name: float(getattr(ptc, name)[found[amplifier.name]]) for name in ("gain", "read_noise")}
        for name, value in values.items():
            if not (np.isfinite(value) and value > 0.0):
                raise BadData(f"detector {detector.name}: {name} of amplifier {amplifier.name} is {value:g} in the photon "
                              "transfer; build it again or set detrend.photon_transfer: false")
        changed.append(amplifier.model_copy(update=values))
    return tuple(changed)


def saturation_levels(amplifier: Amplifier, ptc: PhotonTransfer | None, level: float,
                      config: ElectronicsConfig) -> tuple[float, float]:
    """Raw ADU at and above which a pixel is saturated, suspect (inf: none), for an amplifier whose overscan is at `level`.

    The lower of the camera's saturation and of the full well of the photon transfer where its curve turns off.

    Raises
    ------
    BadData
        Saturation is not above the overscan.
    """
    saturation, full_well = amplifier.saturation, np.nan
    if ptc is not None and config.photon_transfer:
        full_well = float(ptc.full_well[ptc.amplifiers.index(amplifier.name)])
    if np.isfinite(full_well):
        saturation = min(saturation, level + full_well)
    if not saturation > level:
        raise BadData(f"amplifier {amplifier.name}: saturation at {saturation:g} ADU is not above its overscan at {level:g} ADU; "
                      f"mend {'the photon transfer' if np.isfinite(full_well) else 'saturation in the camera or its header'}")
    suspect = np.inf if amplifier.suspect is None else amplifier.suspect
    return saturation, min(suspect, level + config.suspect * (saturation - level)) if config.suspect < 1.0 else suspect


def electronics_of(raw: RawDetector, calibration: Calibration, config: ElectronicsConfig) -> tuple[list[Electronics], bool]:
    """What is undone for each amplifier, and whether that is anything at all (crosstalk apart).

    Raises
    ------
    BadData
        A product is of another camera or holds what is not a number.
    """
    detector = raw.detector
    readings = [_read_order(amplifier) for amplifier in detector.amplifiers]
    if config.dither:
        readings = [electronics._replace(dither=_key(raw, number, config)) for number, electronics in enumerate(readings)]
    tables = linearity_tables(calibration.linearity, detector, config.linearity)
    if tables:
        readings = [electronics._replace(linearity=table, linearity_step=step) for electronics, (table, step)
                    in zip(readings, tables)]
    transfer = transfer_values(calibration.charge_transfer, detector, config.charge_transfer)
    if transfer:
        readings = [electronics._replace(**values) for electronics, values in zip(readings, transfer)]
    return readings, bool(config.dither or tables or transfer)


def _read_order(amplifier: Amplifier) -> Electronics:
    """Whether rows and columns stand backwards in the file, and the number of pixels read before those of the data region."""
    reverse_x, reverse_y = amplifier.read_backwards
    before = amplifier.section[2] - amplifier.data[0] - amplifier.data[2] if reverse_x else amplifier.data[0]
    return Electronics(reverse_x=reverse_x, reverse_y=reverse_y, prescan=before)


def _key(raw: RawDetector, number: int, config: ElectronicsConfig) -> int:
    """The key of an amplifier's random numbers, never 0."""
    words = np.random.SeedSequence([config.dither_seed, raw.exposure.visit, raw.detector.id, number])
    return int(words.generate_state(1)[0]) or 1
