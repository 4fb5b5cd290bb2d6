"""Flats of a detector whose pixels' borders move with the charge: a small forward model for photon transfer and
brighter-fatter.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft2, rfft2

from rsp_hpc.algorithms.calibs.ramps import Flat
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.exposure import Exposure
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits


def detector(n_amplifiers: int = 1, nx: int = 256, ny: int = 256, gain: float = 1.0, read_noise: float = 6.0) -> Detector:
    """Amplifiers side by side; `gain` is what the camera's description says."""
    return Detector(
        name="D",
        id=0,
        size=(n_amplifiers * nx, ny),
        amplifiers=tuple(
            Amplifier(
                name=f"A{k}",
                section=(k * nx, 0, nx, ny),
                data=(0, 0, nx, ny),
                origin=(k * nx, 0),
                gain=gain,
                read_noise=read_noise,
            )
            for k in range(n_amplifiers)
        ),
    )


def borders(reach: int = 5, strength: float = 3e-7) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (north, east) as in products.BrighterFatter: away from the charge, vertical ones 1.2 times as large."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)

    def shift(ahead, aside):
        u = ahead - 0.5
        return strength * u / (u * u + aside * aside + 0.3) ** 1.6

    return 1.2 * shift(y, x), shift(x, y)


def areas(north: np.ndarray, east: np.ndarray, n: int) -> np.ndarray:
    """(n, n) a_ij of border shifts: what enters a pixel over its four borders."""
    pad = np.pad(np.stack([north, east]), ((0, 0), (n + 1, n + 1), (n + 1, n + 1)))
    reach = len(pad[0]) // 2
    at = np.s_[reach : reach + n]
    after = np.s_[reach + 1 : reach + 1 + n]
    return pad[0][at, at] - pad[0][after, at] + pad[1][at, at] - pad[1][at, after]


class Sensor:
    """Collects light in steps, in which the borders move with the charge that is there half-way: right to second order in the
    step.
    """

    def __init__(self, shape, north, east, dtype=np.float32):
        self.shape = shape
        self.dtype = dtype
        self.kernels = [rfft2(self._wrapped(shift).astype(dtype)) for shift in (north, east)]

    def _wrapped(self, shift):
        """sum over k of shift[k] Q(p + k), as a periodic convolution: the kernel is mirrored."""
        whole, reach = np.zeros(self.shape), len(shift) // 2
        for j in range(-reach, reach + 1):
            for i in range(-reach, reach + 1):
                whole[-j, -i] += shift[reach + j, reach + i]
        return whole

    def expose(self, light, steps, rng=None):
        """Charge (electron) from an expected light; without rng no noise. Charge is conserved (the sensor is periodic)."""
        part = np.broadcast_to(np.asarray(light, self.dtype) / self.dtype(steps), self.shape)
        charge, root = np.zeros(self.shape, self.dtype), np.sqrt(part)
        for _ in range(steps):
            fresh = part if rng is None else part + root * rng.standard_normal(self.shape, self.dtype)
            half = charge + self.dtype(0.5) * fresh
            moved = cross(None, self.shifts(half), part)
            charge += fresh + cross(None, self.shifts(half + self.dtype(0.5) * moved), part)
        return charge

    def shifts(self, charge):
        """(north, east) shift of each pixel's borders, fraction of a pixel."""
        field = rfft2(charge)
        return [irfft2(field * kernel, self.shape) for kernel in self.kernels]

    def corrected(self, charge, rounds=3):
        """The charge where light fell: half of the final shift times the mean of both pixels goes back over each border."""
        shifts, found = self.shifts(charge), charge
        for _ in range(rounds):
            found = cross(charge, [self.dtype(-0.5) * shift for shift in shifts], found)
        return found


def cross(charge, shifts, light):
    """Charge (None: zero) after light has crossed the borders by these shifts."""
    moved = np.zeros_like(light) if charge is None else charge.copy()
    for axis, shift in enumerate(shifts):
        share = 0.5 * shift * (light + np.roll(light, -1, axis))
        moved += share - np.roll(share, 1, axis)
    return moved


def flat(detector, charge, visit, time, gains, read_noise, rng, kind="flat", saturation=np.inf) -> Flat:
    """Read out: `gains` are the true ones; ADU are whole; electrons as the camera's description has them."""
    image = np.empty(detector.box.shape, np.float32)
    mask = np.zeros(image.shape, np.uint32)
    for amplifier, gain in zip(detector.amplifiers, gains):
        x0, nx = amplifier.origin[0], amplifier.data[2]
        part = charge[:, x0 : x0 + nx] + read_noise * rng.standard_normal((image.shape[0], nx))
        counts = np.rint(part / gain)
        mask[:, x0 : x0 + nx][counts >= saturation] |= bits("SAT")
        image[:, x0 : x0 + nx] = counts * amplifier.gain
    exposure = Exposure(visit, kind, "r" * (kind == "flat"), 6e4 + 1e-4 * visit, time, time)
    return Flat(exposure, detector, MaskedImage(image, mask, np.ones_like(image)))
