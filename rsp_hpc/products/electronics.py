"""What is known of a detector's electronics: photon transfer, linearity, crosstalk, charge transfer, brighter-fatter.

Arrays have one row per amplifier, in the order of `amplifiers` (names as in the camera's description). Charges are in
electrons of the amplifier's data pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["BrighterFatter", "ChargeTransfer", "Crosstalk", "Linearity", "PhotonTransfer", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether a calibration product may be used.

    Attributes
    ----------
    state : 'good'; 'suspect': used, and said so; 'bad': never used unless asked for by name
    reasons : one line each, empty where good
    statistics : the numbers that it rests on, name -> value; the unit stands in the name where it is not obvious
    """

    state: str = "good"
    reasons: tuple[str, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)

    STATES = ("good", "suspect", "bad")

    def and_(self, other: Verdict) -> Verdict:
        """The worse of two, with the reasons and statistics of both."""
        state = max(self.state, other.state, key=self.STATES.index)
        return Verdict(state, self.reasons + other.reasons, {**self.statistics, **other.statistics})

    def but(self, state: str, reason: str) -> Verdict:
        """With one reason more, and at best this state."""
        return self.and_(Verdict(state, (reason,)))


@dataclass(frozen=True)
class PhotonTransfer:
    """Photon transfer curves of flat pairs and their fit (Astier et al. 2019, A&A 629, A36).

    Attributes
    ----------
    amplifiers : names, n of them
    gain, gain_err : (n,) electron/ADU
    read_noise, read_noise_err : (n,) electron
    full_well, full_well_err : (n,) ADU above overscan, where the variance turns off; NaN if the ramp does not reach it
    a, a_err : (n, L, L) 1/electron: relative change of pixel area per electron at lag [j, i] (rows, columns); a[0, 0] is negative.
        NaN where the levels do not tell it
    b, b_err : (n, L, L) 1/electron, second order: a becomes a * (1 + b * level); zero where not fitted
    noise, noise_err : (n, L, L) electron^2, covariance of the read-out at each lag
    chi2_dof : (n,) of the fit to all covariances
    mean : (n, M) ADU, mean level of each pair; pairs of biases are at 0
    covariance : (n, M, L, L) ADU^2, [0, 0] is the variance; of one frame (half that of the difference)
    model : (n, M, L, L) ADU^2, the fit at the same levels
    used : (n, M) bool, pairs that went into the fit
    """

    amplifiers: tuple[str, ...]
    gain: np.ndarray
    gain_err: np.ndarray
    read_noise: np.ndarray
    read_noise_err: np.ndarray
    full_well: np.ndarray
    full_well_err: np.ndarray
    a: np.ndarray
    a_err: np.ndarray
    b: np.ndarray
    b_err: np.ndarray
    noise: np.ndarray
    noise_err: np.ndarray
    chi2_dof: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    model: np.ndarray
    used: np.ndarray


@dataclass(frozen=True)
class Linearity:
    """What is added to the charge that an amplifier reports so that it is proportional to light.

    Attributes
    ----------
    amplifiers : names, n of them
    level : (n, K) electron as read, ascending, from 0; outside, the end values hold
    correction : (n, K) electron, added to the charge at these levels; a natural cubic spline between them
    correction_err : (n, K) electron
    gain : (n,) electron/ADU that made electrons of the ramps' ADU; (0,) unknown: those of the frame that is corrected
    method : 'spline' or 'polynomial': what was fitted to the ramps (a polynomial is kept as its values at the levels)
    residual : (n, M) relative residual of each flat after the correction, for people to look at; measured : (n, M) electron
    """

    amplifiers: tuple[str, ...]
    level: np.ndarray
    correction: np.ndarray
    correction_err: np.ndarray
    method: str = "spline"
    residual: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    measured: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    gain: np.ndarray = field(default_factory=lambda: np.empty(0))

    def at_gain(self, gain: np.ndarray) -> Linearity:
        """The same for charges that another gain (n,) makes of the same ADU."""
        if not len(self.gain):
            return self
        ratio = (np.asarray(gain) / self.gain)[:, None]
        return replace(self, level=self.level * ratio, correction=self.correction * ratio,
                       correction_err=self.correction_err * ratio, gain=np.asarray(gain))


@dataclass(frozen=True)
class Crosstalk:
    """The ghost that each amplifier (source) leaves in each other one (target) at the same read-out moment.

    Attributes
    ----------
    amplifiers : names of the n targets, of one detector
    sources : names of the m sources: those of the same detector, or 'DETECTOR/AMPLIFIER' of another one
    coefficient, error : (n, m) dimensionless: ghost in electrons per electron of the source; 0 on the own amplifier
    quadratic : (n, m) 1/electron: ghost = (coefficient + quadratic * charge) * charge
    used : (n, m) int64, source pixels behind each coefficient; zeros where the numbers come from a table
    """

    amplifiers: tuple[str, ...]
    sources: tuple[str, ...]
    coefficient: np.ndarray
    error: np.ndarray
    quadratic: np.ndarray
    used: np.ndarray


@dataclass(frozen=True)
class ChargeTransfer:
    """Serial deferred charge of each amplifier (Snyder & Roodman 2021, JATIS 7, 048002): what trails a pixel in read-out order.

    The charge of a pixel in column i (0 is read first) of a row with charges q:
      global loss:     each transfer leaves behind `inefficiency` of the charge for the next packet; i + prescan + 1 transfers;
      trap:            one trap at the amplifier's end of the register. When a packet passes, the trap first gives it the share
                       1 - exp(-1 / trap_decay) of what it holds; then it takes from the packet, now of charge q, until it holds
                       trap_size * min(q / trap_level, 1), if that is more than it has;
      local offset:    the amplifier remembers: o_i = max(o_{i-1} * exp(-1 / offset_decay), offset_scale * q_i) is added to what is read.
    In this order; the charge that the offset remembers is what is left after the trap. Prescan and overscan are packets of no charge.

    Attributes
    ----------
    amplifiers : names, n of them
    inefficiency, inefficiency_err : (n,) per transfer
    offset_scale, offset_decay : (n,) dimensionless, pixels
    trap_size, trap_level, trap_decay : (n,) electron, electron, pixels
    signal, trail : (n, M) electron level of the flats; (n, M, P) electron found in the first P overscan columns
    model : (n, M, P) electron, the fit
    """

    amplifiers: tuple[str, ...]
    inefficiency: np.ndarray
    inefficiency_err: np.ndarray
    offset_scale: np.ndarray
    offset_decay: np.ndarray
    trap_size: np.ndarray
    trap_level: np.ndarray
    trap_decay: np.ndarray
    signal: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    trail: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    model: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))


@dataclass(frozen=True)
class BrighterFatter:
    """How collected charge moves the borders of pixels.

    Attributes
    ----------
    method : 'scalar': Coulton et al. 2018 (AJ 155, 258), Q' = Q + 1/2 div(Q grad(kernel * Q)), iterated;
        'electrostatic': Astier & Regnault 2023 (A&A 670, A118), charge crosses each border as its shift says, once
    kernel : (2L-1, 2L-1) 1/electron, scalar; None for electrostatic
    north, east : (2L-1, 2L-1) 1/electron, electrostatic: shift, as a fraction of the pixel, of the border between a pixel and the next
        one up (north) or right (east), by one electron at the kernel's [L-1 + dy, L-1 + dx] from that pixel; None for scalar.
        Positive: the border moves up or right, the pixel grows. At the end of the exposure the border has moved by the sum over the
        charges; on average over the exposure by half of that: half of the shift times the mean of the two pixels has crossed it.
        The scalar kernel is the case east[dy, dx] = kernel[dy, dx] - kernel[dy, dx - 1], north likewise
    error : (2L-1, 2L-1) of `kernel` or of `north`
    """

    method: str
    kernel: np.ndarray | None = None
    north: np.ndarray | None = None
    east: np.ndarray | None = None
    error: np.ndarray | None = None
