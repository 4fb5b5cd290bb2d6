"""Calibration products of one detector: what detrending needs. All assembled, in electrons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .electronics import BrighterFatter, ChargeTransfer, Crosstalk, Linearity, PhotonTransfer, Verdict

__all__ = ["Calibration", "CombinedFrames", "Defects"]


@dataclass(frozen=True)
class CombinedFrames:
    """Frames of one kind and detector combined.

    Attributes
    ----------
    kind : 'bias', 'dark', 'flat', 'fringe', 'sky' or 'illumination'
    image : (ny, nx) float32; bias: electron; dark: electron/s; flat, sky, illumination: mean one; fringe: rms one; NaN: unknown
    variance : (ny, nx) float32, of the image; inf where unknown
    noise : float, electron, of one frame at zero light; NaN where it was not measured
    dark_time : float, s, mean of the frames
    inputs : their names
    band : '' for bias and dark
    """

    kind: str
    image: np.ndarray
    variance: np.ndarray
    noise: float = float("nan")
    dark_time: float = 0.0
    inputs: tuple[str, ...] = ()
    band: str = ""

    @property
    def typical_variance(self) -> float:
        """Mean of the variance without the highest hundredth, which are defects; 0 if nothing is finite."""
        finite = self.variance[np.isfinite(self.variance)]
        return float(finite[finite <= np.quantile(finite, 0.99)].mean(dtype=np.float64)) if finite.size else 0.0


@dataclass(frozen=True)
class Defects:
    """Pixels of a detector that must not be used.

    Attributes
    ----------
    image : (ny, nx) bool
    inputs : the products that it was made of
    """

    image: np.ndarray
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Combined frames of one detector; None where the camera has none (the step is then left out and said so).

    Attributes
    ----------
    bias : (ny, nx) float32, electron, after overscan correction
    dark : (ny, nx) float32, electron/s
    flat : (ny, nx) float32, relative response, mean one over the camera's good pixels; <= 0 or NaN is bad
    defects : (ny, nx) bool
    inputs : names of the files that went in
    bias_variance : float, electron^2, of the bias itself, mean over the detector: few frames are noisy frames
    dark_variance : float, (electron/s)^2, of the dark's own frames, bias noise apart
    dark_time : float, s, mean of the dark's frames; 0 without dark
    ptc, linearity, crosstalk, charge_transfer, brighter_fatter : see `products.electronics`
    fringe : (ny, nx) float32, pattern of the band, mean zero, rms one over the good pixels
    illumination : (ny, nx) float32, flux of a star over that of the flat's light, mean one; divides like a flat
    sky : (ny, nx) float32, how an empty sky looks after the flat, mean one over the camera (used by the visit's sky model)
    verdicts : kind ('bias', 'flat', 'ptc', ...) -> Verdict, where one was given
    """

    bias: np.ndarray | None = None
    dark: np.ndarray | None = None
    flat: np.ndarray | None = None
    defects: np.ndarray | None = None
    inputs: tuple[str, ...] = ()
    bias_variance: float = 0.0
    dark_variance: float = 0.0
    dark_time: float = 0.0
    ptc: PhotonTransfer | None = None
    linearity: Linearity | None = None
    crosstalk: Crosstalk | None = None
    charge_transfer: ChargeTransfer | None = None
    brighter_fatter: BrighterFatter | None = None
    fringe: np.ndarray | None = None
    illumination: np.ndarray | None = None
    sky: np.ndarray | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    @cached_property
    def response(self) -> np.ndarray | None:
        """(ny, nx) float32: what detrending divides by, flat times illumination correction; None without either."""
        if self.flat is None or self.illumination is None:
            return self.illumination if self.flat is None else self.flat
        return np.multiply(self.flat, self.illumination, dtype=np.float32)

    def noise_variance(self, dark_time: float) -> float:
        """Variance (electron^2) that the noise of bias and dark adds to a frame of this dark time.

        The bias was also subtracted from the frames of the dark: its noise cancels where the times are equal.
        """
        left = 1.0 - dark_time / self.dark_time if self.dark_time > 0.0 else 1.0
        return self.bias_variance * left**2 + self.dark_variance * dark_time**2
