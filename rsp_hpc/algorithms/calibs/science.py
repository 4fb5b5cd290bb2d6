"""science: science frames as fringe and sky frames are made of them: detrended, cosmic rays and sources masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...config import Config
from ...errors import BadData
from ...products.calibration import Calibration
from ...products.image import MaskedImage
from ..background import BackgroundConfig, evaluate_background, fit_background, subtract_background
from ..cosmic import CosmicConfig, find_cosmic_rays
from ..detect import DetectConfig, detect
from ..detrend import DetrendConfig, detrend
from ..interpolate import InterpolateConfig, interpolate
from ..psf import PsfConfig, guess_psf
from .stack import Frame

__all__ = ["ScienceConfig", "empty_skies"]


class ScienceConfig(Config):
    """How science frames are detrended and their sources found."""

    cosmic: CosmicConfig = CosmicConfig()
    interpolate: InterpolateConfig = InterpolateConfig()
    background: BackgroundConfig = BackgroundConfig(mesh=16, filter_size=1)  # follows fringes, which are no sources
    psf: PsfConfig = PsfConfig()
    detect: DetectConfig = DetectConfig(threshold=10.0)


def empty_skies(frames: Iterable[Frame], calibration: Calibration, configs: tuple[DetrendConfig, ScienceConfig],
                leave_out: Callable[[str, BadData], None]) -> Iterator[tuple[str, MaskedImage]]:
    """(visit, image) of each frame that can be used: divided by the flat, with its sky, sources in the plane DETECTED; read one at
    a time.
    """
    for frame in frames:
        try:
            image = detrend(frame.load(), calibration, configs[0])
            _mask_sources(image, configs[1])
        except BadData as error:
            leave_out(frame.name, error)
            continue
        yield str(frame.exposure.visit), image


def _mask_sources(image: MaskedImage, config: ScienceConfig) -> None:
    """Mask cosmic rays and sources."""
    interpolate(image, ("BAD",), config.interpolate)
    guess = guess_psf(image, config.psf)
    background = fit_background(image, config.background)
    width = min(guess.moments(0.5 * image.box.nx, 0.5 * image.box.ny)[0][:2]) ** 0.5
    find_cosmic_rays(image, float(width), background, config.cosmic)
    interpolate(image, ("BAD", "CR"), config.interpolate)
    subtract_background(image, background)
    detect(image, guess, config.detect)
    image.image += evaluate_background(background)
