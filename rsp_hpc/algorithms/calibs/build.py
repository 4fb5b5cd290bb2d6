"""build: which function makes which kind of calibration product, and the configuration of all of them.

Every entry of `BUILDERS` takes a `Request` and returns the content of the product and its verdict; a builder's module is
imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import field_validator

from ...config import Config, effective, parameter
from ...errors import BadData, ConfigError
from ...products.calibration import Calibration, CombinedFrames, Defects
from ...products.camera import Detector
from ...products.electronics import Verdict
from ...products.kinds import KINDS, kinds_in_order
from . import frames as frames_module
from .frames import CalibsConfig as FramesConfig
from .frames import Frame

__all__ = ["CalibsConfig", "Request", "build", "section_of"]


class CalibsConfig(FramesConfig):
    """Which calibration products are built, and how."""

    kinds: tuple[str, ...] = parameter(
        ("bias", "dark", "flat", "defects"), f"what `rsp-hpc calibs` and `run` build, of {', '.join(KINDS)}", neutral=True)
    label: str = parameter("", "name of the set that is built, a folder in the library; '': the survey's name", neutral=True)
    bands: dict[str, tuple[str, ...]] = parameter({}, "kind -> bands whose frames it is made of, e.g. {fringe: [z, y]}; others: all",
                                                  neutral=True)
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
    return BUILDERS[request.kind](request)


def section_of(kind: str, config: CalibsConfig) -> dict[str, Any]:
    """The values that a product of this kind depends on: its own section, and how frames are detrended."""
    plain = effective(config)
    own = plain.pop(kind, None)
    common = {name: value for name, value in plain.items() if name not in KINDS}
    return common if own is None else {"detrend": plain["detrend"], kind: own}


def _combined(request: Request, mean, variance, noise, used) -> CombinedFrames:
    times = [frame.exposure.dark_time for frame in used]
    names = tuple(f"{' '.join(filter(None, (request.kind, request.band)))} {frame.exposure.visit}" for frame in used)
    return CombinedFrames(request.kind, mean, variance, float(noise), float(np.mean(times)), names, request.band)


def _loaded(request: Request) -> list:
    found = frames_module._load(list(request.frames), request.detector.box.shape, request.config, request.scratch, request.leave_out)
    if not found:
        raise BadData(f"{request.kind} of {request.detector.name}: none of its {len(request.frames)} frames can be used; replace them")
    return found


def _bias(request: Request) -> tuple[Any, Verdict]:
    used = _loaded(request)
    return _combined(request, *frames_module._combine(used, request.config, lambda frame, at: frame.plane[at], lambda frame: 1.0),
                     used), Verdict()


def _dark(request: Request) -> tuple[Any, Verdict]:
    used, bias = _loaded(request), request.calibration.bias
    return _combined(request, *frames_module._combine(
        used, request.config, lambda frame, at: frame.plane[at] - frames_module._part(bias, at),
        lambda frame: frame.exposure.dark_time), used), Verdict()


def _flat(request: Request) -> tuple[Any, Verdict]:
    used = _loaded(request)
    image = frames_module._combine_flat(used, request.config, request.calibration.bias, request.calibration.dark)
    return _combined(request, image, np.full(image.shape, np.inf, np.float32), np.nan, used), Verdict()


def _defects(request: Request) -> tuple[Any, Verdict]:
    bias, dark = request.made.get("bias"), request.made.get("dark")
    flats = {name.partition(" ")[2]: content.image for name, content in request.made.items() if name.startswith("flat")}
    image = frames_module.find_defects((bias and bias.image, dark and dark.image, flats),
                                       (bias.noise if bias else np.nan, np.sqrt(dark.variance) if dark else np.nan), request.config)
    return Defects(image, tuple(request.made)), Verdict()


BUILDERS: dict[str, Callable[[Request], tuple[Any, Verdict]]] = {"bias": _bias, "dark": _dark, "flat": _flat, "defects": _defects}
