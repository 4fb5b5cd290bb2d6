"""ramps: flats and biases in electrons, read one or two at a time: what photon transfer and linearity are measured from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ...errors import BadData
from ...products.calibration import Calibration
from ...products.camera import Detector
from ...products.exposure import Exposure
from ...products.image import MaskedImage
from ...products.mask import bits
from ..detrend import DetrendConfig, assemble
from .frames import Frame

__all__ = ["Flat", "check_mode", "load_flat", "load_pairs", "pair_up"]


class Flat(NamedTuple):
    """One assembled frame.

    exposure : Exposure, kind 'flat' or 'bias'
    detector : Detector, with the gains that made electrons of ADU
    image : MaskedImage, electron, not divided by a flat; defects are BAD, saturated pixels SAT
    """

    exposure: Exposure
    detector: Detector
    image: MaskedImage


def load_flat(frame: Frame, config: DetrendConfig, calibration: Calibration = Calibration()) -> Flat:
    """Read and assemble one frame; subtract bias and dark and mark the defects where the calibration has them.

    Without overscan the bias is needed: levels count from it.
    """
    raw = frame.load()
    image = assemble(raw, config)
    if calibration.bias is not None:
        image.image -= calibration.bias
    if calibration.dark is not None:
        image.image -= np.float32(frame.exposure.dark_time) * calibration.dark
    if calibration.defects is not None:
        image.mask[calibration.defects] |= np.uint32(bits("BAD"))
    return Flat(frame.exposure, raw.detector, image)


def pair_up(frames: Sequence[Frame], tolerance: float = 0.1) -> list[tuple[Frame, Frame]]:
    """Pairs of biases, and of flats of one band and nearly one exposure time, faintest first; without reading them.

    The last of an odd number is paired with its neighbour once more: each frame that has a partner is used.

    Parameters
    ----------
    tolerance : exposure times of a pair differ by less than this, relative
    """
    pairs = []
    frames = sorted(
        (frame for frame in frames if frame.exposure.kind in ("bias", "flat")),
        key=lambda f: (f.exposure.kind, f.exposure.band, f.exposure.exposure_time, f.exposure.mjd, f.exposure.visit),
    )
    for _, members in groupby(frames, key=lambda f: (f.exposure.kind, f.exposure.band)):
        group = list(members)
        times = [frame.exposure.exposure_time for frame in group]
        near = [later - time <= tolerance * later for time, later in zip(times, times[1:])] + [False]
        at = 0
        while at < len(group):
            if near[at]:
                pairs.append((group[at], group[at + 1]))
                at += 1
            elif at and near[at - 1]:
                pairs.append((group[at - 1], group[at]))
            at += 1
    return pairs


def load_pairs(
    pairs: Iterable[tuple[Frame, Frame]], config: DetrendConfig, calibration: Calibration = Calibration()
) -> Iterator[tuple[Flat, Flat]]:
    """Read the pairs one after the other: two frames are in memory at a time."""
    for first, second in pairs:
        yield load_flat(first, config, calibration), load_flat(second, config, calibration)


def check_mode(flat: Flat, detector: Detector) -> None:
    """The frame was read out like the others.

    Raises
    ------
    BadData
        Another size, other amplifiers, or other gains; names the visit and what differs.
    """
    cure = "it was read out in another mode; leave it out, or build its kind apart"
    name = f"{flat.exposure.kind} of visit {flat.exposure.visit}, detector {detector.name}"
    if flat.image.image.shape != detector.box.shape:
        raise BadData(
            f"{name}: {flat.image.box.nx} x {flat.image.box.ny} pixels, others {detector.box.nx} x {detector.box.ny}: {cure}"
        )
    if [a.name for a in flat.detector.amplifiers] != [a.name for a in detector.amplifiers]:
        raise BadData(
            f"{name}: amplifiers {', '.join(a.name for a in flat.detector.amplifiers)}, others "
            f"{', '.join(a.name for a in detector.amplifiers)}: {cure}"
        )
    for mine, other in zip(flat.detector.amplifiers, detector.amplifiers):
        if not np.isclose(mine.gain, other.gain, rtol=1e-3):
            raise BadData(f"{name}: amplifier {mine.name} has gain {mine.gain:g} electron/ADU, others {other.gain:g}: {cure}")
        if (mine.section, mine.data) != (other.section, other.data):
            raise BadData(
                f"{name}: amplifier {mine.name} is read as {mine.data[2]} x {mine.data[3]} pixels, others "
                f"{other.data[2]} x {other.data[3]}: {cure}"
            )
