"""build: which function makes which kind of calibration product, and the configuration of all of them.

Every entry of `BUILDERS` takes a `Request` and returns the content of the product and its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import field_validator

from ...config import Config, effective, parameter
from ...errors import BadData, ConfigError
from ...products.calibration import Calibration, Defects
from ...products.camera import Detector
from ...products.electronics import Verdict
from ...products.kinds import KINDS, kinds_in_order
from . import frames
from .brighter_fatter import BrighterFatterConfig, build_brighter_fatter
from .charge_transfer import ChargeTransferConfig, build_charge_transfer
from .corrected import bare, corrected_frames, with_gains, without_overscan
from .crosstalk import CrosstalkConfig, build_crosstalk
from .defects import build_defects
from .fringe import FringeConfig, build_fringe
from .illumination import IlluminationConfig
from .linearity import LinearityConfig, build_linearity
from .ptc import PtcConfig, build_ptc
from .ramps import load_flat, load_pairs, pair_up
from .science import ScienceConfig, empty_skies
from .sky import SkyConfig, build_sky
from .stack import Frame

__all__ = ["CalibsConfig", "Request", "build", "section_of"]


class CalibsConfig(frames.CalibsConfig):
    """Which calibration products are built, and how."""

    kinds: tuple[str, ...] = parameter(
        ("bias", "dark", "flat", "defects"), f"what `rsp-hpc calibs` and `run` build, of {', '.join(KINDS)}", neutral=True)
    label: str = parameter("", "name of the set that is built, a folder in the library; '': the survey's name", neutral=True)
    bands: dict[str, tuple[str, ...]] = parameter({}, "kind -> bands whose frames it is made of, e.g. {fringe: [z, y]}; others: all",
                                                  neutral=True)
    ptc: PtcConfig = PtcConfig()
    linearity: LinearityConfig = LinearityConfig()
    brighter_fatter: BrighterFatterConfig = BrighterFatterConfig()
    charge_transfer: ChargeTransferConfig = ChargeTransferConfig()
    crosstalk: CrosstalkConfig = CrosstalkConfig()
    science: ScienceConfig = ScienceConfig()
    fringe: FringeConfig = FringeConfig()
    sky: SkyConfig = SkyConfig()
    illumination: IlluminationConfig = IlluminationConfig()
    visits: tuple[int, ...] = parameter((), "exposures that are used, of those that fit; (): all", neutral=True)
    first: str = parameter("", "frames before this date (YYYY-MM-DD or MJD) are left out", neutral=True)
    last: str = parameter("", "frames from this date on are left out", neutral=True)

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return kinds_in_order(kinds)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, bands: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        try:
            return {kinds_in_order([kind])[0]: names for kind, names in bands.items()}
        except ConfigError as error:
            raise ValueError(str(error)) from None


def _raise(name: str, error: BadData) -> None:
    raise error


def _in_memory(shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    return np.empty(shape, dtype)


@dataclass(frozen=True)
class Request:
    """What a builder gets.

    Attributes
    ----------
    kind, band : what is wanted
    frames : raw frames of the kinds that `KINDS` says, by date
    detector : from the camera's description, in the band
    config : of all builders
    calibration : the products that the kind needs, as detrending takes them
    made : 'kind' or 'kind band' -> content of the products that it is made of, with all their planes
    scratch : shape, dtype -> array, for frames beyond `config.memory`
    leave_out : is told of a frame that cannot be used
    """

    kind: str
    band: str
    frames: Sequence[Frame]
    detector: Detector
    config: CalibsConfig
    calibration: Calibration = Calibration()
    made: Mapping[str, Any] = field(default_factory=dict)
    scratch: Callable[..., np.ndarray] = _in_memory
    leave_out: Callable[[str, BadData], None] = _raise


def build(request: Request) -> tuple[Any, Verdict]:
    """The content of a product and its verdict.

    Raises
    ------
    BadData
        The frames do not allow it; the message says what is missing.
    """
    if request.kind not in BUILDERS:
        raise BadData(f"{request.kind}: is not built from frames; those that are: {', '.join(BUILDERS)}")
    if request.kind in ("fringe", "sky") or not request.frames:
        return BUILDERS[request.kind](request)
    known, config, keep = request.calibration, request.config, request.kind in MEASURE_THE_READOUT
    there = corrected_frames(list(request.frames), known, config.detrend, keep)
    detector = with_gains(request.detector, known, config.detrend)
    if there != list(request.frames) and not keep:
        config, detector = without_overscan(config), bare(detector)
    return BUILDERS[request.kind](replace(request, frames=there, detector=detector, config=config))


def section_of(kind: str, config: CalibsConfig) -> dict[str, Any]:
    """The values that a product of this kind depends on: its own section, and how frames are detrended."""
    plain = effective(config)
    own = plain.pop(kind, None)
    science = plain.pop("science")
    common = {name: value for name, value in plain.items() if name not in KINDS}
    if own is None:
        return common
    return {"detrend": plain["detrend"], kind: own} | ({"science": science} if "science" in KINDS[kind].frames else {})


def _frames(builder: str) -> Callable[[Request], tuple[Any, Verdict]]:
    """The builders of bias, dark and flat are called alike."""
    def made(request: Request) -> tuple[Any, Verdict]:
        return getattr(frames, builder)(request.frames, request.calibration, request.config, request.scratch, request.leave_out)
    return made


def _defects(request: Request) -> tuple[Any, Verdict]:
    flats = [content for name, content in request.made.items() if name.startswith("flat")]
    image, verdict = build_defects(request.made.get("bias"), request.made.get("dark"), flats, request.config.defects)
    return Defects(image, tuple(request.made)), verdict


def _with_bias(request: Request) -> Calibration:
    """A bias of the request's own bias frames, in the same gains: levels of cameras without overscan count from it."""
    biases = [frame for frame in request.frames if frame.exposure.kind == "bias"]
    if len(biases) < request.config.min_frames:
        return Calibration()
    return Calibration(bias=frames.build_bias(biases, Calibration(), request.config, request.scratch, request.leave_out)[0].image)


def _ptc(request: Request) -> tuple[Any, Verdict]:
    config = request.config.ptc
    pairs = pair_up(request.frames, config.pair_tolerance)
    return build_ptc(load_pairs(pairs, config.detrend, _with_bias(request)), request.detector, config)


def _linearity(request: Request) -> tuple[Any, Verdict]:
    config, calibration = request.config.linearity, _with_bias(request)
    flats = (load_flat(frame, config.detrend, calibration) for frame in request.frames if frame.exposure.kind == "flat")
    product, verdict = build_linearity(flats, request.detector, config)
    return replace(product, gain=np.array([amplifier.gain for amplifier in request.detector.amplifiers])), verdict


def _brighter_fatter(request: Request) -> tuple[Any, Verdict]:
    return build_brighter_fatter(request.made["ptc"], request.config.brighter_fatter)


def _charge_transfer(request: Request) -> tuple[Any, Verdict]:
    return build_charge_transfer(request.frames, request.detector, request.config.charge_transfer, request.leave_out)


def _crosstalk(request: Request) -> tuple[Any, Verdict]:
    sources = [frame for frame in request.frames if frame.exposure.kind != "bias"]
    return build_crosstalk(sources, request.detector, request.config.crosstalk, _with_bias(request), request.leave_out)


def _fringe(request: Request) -> tuple[Any, Verdict]:
    images = empty_skies(request.frames, request.calibration, (request.config.detrend, request.config.science), request.leave_out)
    names: list[str] = []  # of the frames that are used, known once all are read
    product, verdict = build_fringe(_noting(images, names), request.config.fringe, (), request.band, request.scratch)
    return replace(product, inputs=tuple(names)), verdict


def _noting(images: Iterable[tuple[str, Any]], names: list[str]) -> Iterator[Any]:
    for name, image in images:
        names.append(f"science {name}")
        yield image


def _sky(request: Request) -> tuple[Any, Verdict]:
    images = empty_skies(request.frames, request.calibration, (request.config.detrend, request.config.science), request.leave_out)
    part = build_sky(images, request.config.sky, request.band, request.scratch)
    levels = {f"level {visit} [electron]": level for visit, level in part.levels.items()}
    return part.frame, part.verdict.and_(Verdict(statistics=levels))


BUILDERS: dict[str, Callable[[Request], tuple[Any, Verdict]]] = {
    "bias": _frames("build_bias"), "dark": _frames("build_dark"), "flat": _frames("build_flat"), "defects": _defects, "ptc": _ptc,
    "linearity": _linearity, "brighter_fatter": _brighter_fatter, "charge_transfer": _charge_transfer, "crosstalk": _crosstalk,
    "fringe": _fringe, "sky": _sky}
MEASURE_THE_READOUT = ("linearity", "charge_transfer", "crosstalk")
"""Kinds that are measured on frames as they are read out; of what is known before, only the gains are used."""
