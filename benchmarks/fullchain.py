"""The whole chain of detrending a 4k detector of 16 amplifiers, ours and as good numpy and numba would have it (for bench_detrend).

overscan, gain, crosstalk 16 x 16 with quadratic terms, linearity, deferred charge, assembly, bias, dark, brighter-fatter, flat,
variance, mask; then fringe and amplifier offsets. `through_flat` leaves out the last two and brighter-fatter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rsp_hpc.algorithms.detrend import DetrendConfig, detrend
from rsp_hpc.algorithms.fringe import FringeConfig, subtract_fringe
from rsp_hpc.algorithms.linearity import linearity_tables
from rsp_hpc.algorithms.offsets import OffsetsConfig, subtract_offsets
from rsp_hpc.products.calibration import Calibration
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.electronics import BrighterFatter, ChargeTransfer, Crosstalk, Linearity
from rsp_hpc.products.exposure import Exposure, RawDetector

__all__ = ["Chain", "PIXELS"]

NX, NY, N, TIME = 512, 2000, 16, 15.0
PIXELS = N * NX * NY
INEFFICIENCY, SCALE, FADE, SIZE, LEVEL, KEEP = 1e-6, 1e-4, float(np.exp(-0.5)), 5.0, 2000.0, float(np.exp(-1 / 1.5))


def _detector() -> Detector:
    amplifiers = tuple(
        Amplifier(name=f"C{i:02d}", section=(0, 0, 576, NY), data=(10, 0, NX, NY), serial_overscan=(522, 0, 54, NY),
                  prescan=(0, 0, 10, NY), origin=(NX * (i % 8), NY * (i // 8)), flip_x=i < 8, flip_y=i >= 8, gain=1.5 + 0.01 * i,
                  read_noise=5.4, saturation=60000.0) for i in range(N))
    return Detector(name="D", id=0, size=(8 * NX, 2 * NY), amplifiers=amplifiers)


def _products(shape, rng) -> Calibration:
    names = tuple(f"C{i:02d}" for i in range(N))
    away, level = 1.0 - np.eye(N), np.tile(np.linspace(0, 1.2e5, 14), (N, 1))
    lag = np.hypot(*np.mgrid[-7:8, -7:8]) + 0.5
    return Calibration(
        bias=rng.normal(0, 2, shape).astype(np.float32), dark=rng.uniform(0, 0.1, shape).astype(np.float32),
        flat=rng.normal(1, 0.02, shape).astype(np.float32), defects=rng.random(shape) < 1e-4,
        crosstalk=Crosstalk(names, names, rng.normal(0, 1e-4, (N, N)) * away, away * 0, rng.normal(0, 1e-10, (N, N)) * away,
                            np.zeros((N, N), np.int64)),
        linearity=Linearity(names, level, 300.0 * (level / 1e5)**2, level * 0),
        charge_transfer=ChargeTransfer(names, *(np.full(N, v) for v in (INEFFICIENCY, 0.0, SCALE, 2.0, SIZE, LEVEL, 1.5))),
        brighter_fatter=BrighterFatter("scalar", kernel=-1e-7 * lag**-2.0),
        fringe=np.sin(np.add.outer(np.arange(shape[0]) / 35.0, np.arange(shape[1]) / 50.0)).astype(np.float32) * np.float32(2**0.5))


class Chain:
    """The same raw frame and calibration, and what each way needs."""

    def __init__(self):
        rng = np.random.default_rng(0)
        detector = _detector()
        self.calibration = _products(detector.box.shape, rng)
        sky, star = rng.poisson(400, (NY, 576)).astype(np.uint16), np.exp(-0.5 * np.add.outer(*2 * [np.arange(-8, 8)**2]) / 2.0**2)
        segments = []
        for i in range(N):
            segment = 1000 + np.roll(sky, 37 * i, axis=1)
            segment[:, 522:] = 1000 + rng.integers(-8, 9, (NY, 54))
            for y, x, flux in zip(rng.integers(8, NY - 8, 60), rng.integers(18, 514, 60), 10.0**rng.uniform(3.5, 5.7, 60)):
                segment[y - 8:y + 8, x - 8:x + 8] += (flux / 40.0 * star).astype(np.uint16)
            segments.append(segment.astype(np.uint16))
        self.raw = RawDetector(Exposure(1, "science", "z", 60000.0, TIME, TIME), detector, tuple(segments))
        self.config = DetrendConfig()
        self.without = replace(self.calibration, brighter_fatter=None)
        self.tables = linearity_tables(self.calibration.linearity, detector, self.config.linearity)
        self.charge, self.square, self.ghost = (np.empty((N, NY, NX), np.float32) for _ in range(3))
        self.turned = np.empty((NX, N, NY), np.float32)
        self.image, self.variance, self.scratch = (np.empty(detector.box.shape, np.float32) for _ in range(3))
        self.mask = np.empty(detector.box.shape, np.uint32)
        self.inverse = 1 / self.calibration.flat

    # ---- ours

    def ours_through_flat(self):
        return detrend(self.raw, self.without, self.config)

    def ours(self):
        image = detrend(self.raw, self.calibration, self.config)
        subtract_fringe(image, self.calibration.fringe, FringeConfig())
        subtract_offsets(image, self.raw.detector, OffsetsConfig(apply=True))
        return image

    # ---- numpy, in place, one step after the other

    def numpy_through_flat(self):
        self._numpy_electrons()
        self._numpy_flat()

    def numpy(self):
        self._numpy_electrons()
        self._numpy_brighter_fatter()
        self._numpy_flat()
        fringe, image = self.calibration.fringe, self.image
        cells = image[:3968, :].reshape(31, 128, 32, 128), fringe[:3968, :].reshape(31, 128, 32, 128)
        pattern = cells[1] - cells[1].mean(axis=(1, 3), keepdims=True)
        for _ in range(3):  # fits with what is 3 sigma off left out
            good = np.abs(cells[0] - np.median(image[::16, ::16])) < 100.0
            amplitude = np.einsum("abcd,abcd,abcd", pattern, cells[0], good) / np.einsum("abcd,abcd,abcd", pattern, pattern, good)
        np.multiply(fringe, np.float32(amplitude), out=self.scratch)
        image -= self.scratch
        for x in range(NX, 8 * NX, NX):
            step = np.median(image[:, x + 4:x + 68]) - np.median(image[:, x - 68:x - 4])
            image[:, x:x + NX] -= np.float32(0.01 * step)

    def _numpy_electrons(self):
        c, charge = self.calibration, self.charge
        for i, (amplifier, segment) in enumerate(zip(self.raw.detector.amplifiers, self.raw.segments)):
            level = segment[:, 524:].mean(axis=1, dtype=np.float32)
            np.subtract(segment[:, 10:522], level[:, None], out=charge[i])
            charge[i] *= np.float32(amplifier.gain)
        flat, square, ghost = (plane.reshape(N, -1) for plane in (charge, self.square, self.ghost))
        np.matmul(c.crosstalk.coefficient.astype(np.float32), flat, out=ghost)
        np.multiply(flat, flat, out=square)
        flat -= ghost
        np.matmul(c.crosstalk.quadratic.astype(np.float32), square, out=ghost)
        flat -= ghost
        for i, (table, step) in enumerate(self.tables):
            at, slope = self.ghost[i], np.diff(table, append=table[-1])
            np.multiply(charge[i], np.float32(1 / step), out=at)
            np.clip(at, 0, len(table) - 1, out=at)
            index = at.astype(np.int32)
            at -= index
            at *= slope[index]
            at += table[index]
            charge[i] += at
        self._numpy_transfer()
        for i, amplifier in enumerate(self.raw.detector.amplifiers):
            part = self.turned[:, i, ::-1 if amplifier.flip_y else 1].T[:, ::-1 if amplifier.flip_x else 1]
            self.image[amplifier.assembled_box.slices(self.raw.detector.box)] = part
        self.image -= c.bias
        np.multiply(c.dark, np.float32(TIME), out=self.scratch)
        self.image -= self.scratch

    def _numpy_transfer(self):
        """Deferred charge, column by column of all amplifiers and rows."""
        self.turned[...] = self.charge.transpose(2, 0, 1)
        held, remembered, given, before = (np.zeros((N, NY), np.float32) for _ in range(4))
        slope = SIZE / LEVEL
        for t, column in enumerate(self.turned):
            remembered *= np.float32(FADE)
            np.maximum(remembered, column * np.float32(SCALE / (1 + SCALE)), out=remembered)
            column -= remembered
            taken = column * np.float32(slope / (1 - slope))
            taken -= held * np.float32(1 / (1 - slope))
            np.clip(taken, 0, SIZE - held, out=taken)
            column += taken
            column -= given
            held += taken
            np.multiply(held, np.float32(1 - KEEP), out=given)
            held *= np.float32(KEEP)
            before *= np.float32((t + 10) * INEFFICIENCY)
            column -= before
            column *= np.float32((1 - INEFFICIENCY)**-(t + 11))
            before[...] = column

    def _numpy_brighter_fatter(self):
        """The scalar correction, in the conserving form: the gradient of kernel * charge moves charge across borders."""
        from scipy.signal import oaconvolve

        q, c = self.image, oaconvolve(self.image, self.calibration.brighter_fatter.kernel.astype(np.float32), mode="same")
        for axis in (0, 1):
            near, far = (slice(None, -1), slice(1, None))
            low, high = ((near, slice(None)), (far, slice(None))) if axis == 0 else ((slice(None), near), (slice(None), far))
            moved = q[low] + q[high]
            moved *= c[high] - c[low]
            moved *= np.float32(0.25)
            q[low] += moved
            q[high] -= moved

    def _numpy_flat(self):
        np.maximum(self.image, 0, out=self.variance)
        self.variance += self.scratch
        self.variance += np.float32(5.4**2)
        self.image *= self.inverse
        self.variance *= self.inverse
        self.variance *= self.inverse
        self.mask[...] = self.calibration.defects

    # ---- numba: one function for everything up to the flat

    def numba_through_flat(self):
        """The function, or None where numba is not installed."""
        try:
            import numba
        except ImportError:
            return None
        c = self.calibration
        inverse = np.linalg.inv(np.eye(N) + c.crosstalk.coefficient)
        linear, quadratic = inverse.astype(np.float32), (-inverse @ c.crosstalk.quadratic).astype(np.float32)
        raw, table = np.stack(self.raw.segments), np.stack([values for values, _ in self.tables])
        gain = np.array([a.gain for a in self.raw.detector.amplifiers], np.float32)
        run, per_step = numba.njit(fastmath=False)(_loops), np.float32(1 / self.tables[0][1])

        def call():
            run(raw, gain, linear, quadratic, table, per_step, c.bias, c.dark, self.inverse, c.defects, self.image, self.variance,
                self.mask)

        return call


def _loops(raw, gain, linear, quadratic, table, per_step, bias, dark, inverse, defects, image, variance, mask):
    """One row of all amplifiers at a time, so that it stays in cache; float32 throughout."""
    f = np.float32
    charge, clean = np.empty((N, NX), np.float32), np.empty((N, NX), np.float32)
    slope = f(SIZE / LEVEL)
    for y in range(NY):
        for i in range(N):
            level = f(0)
            for x in range(524, 576):
                level += f(raw[i, y, x])
            level /= f(52)
            for x in range(NX):
                charge[i, x] = (f(raw[i, y, x + 10]) - level) * gain[i]
        for i in range(N):
            for x in range(NX):
                clean[i, x] = f(0)
            for j in range(N):
                for x in range(NX):
                    clean[i, x] += (linear[i, j] + quadratic[i, j] * charge[j, x]) * charge[j, x]
        for i in range(N):
            held, remembered, given, before = f(0), f(0), f(0), f(0)
            line = y if i < 8 else 2 * NY - 1 - y
            for x in range(NX):
                at = min(max(clean[i, x] * per_step, f(0)), f(table.shape[1] - 1))
                k = min(int(at), table.shape[1] - 2)
                q = clean[i, x] + table[i, k] + (at - f(k)) * (table[i, k + 1] - table[i, k])
                remembered = max(remembered * f(FADE), q * f(SCALE / (1 + SCALE)))
                q -= remembered
                taken = min(max((slope * q - held) / (f(1) - slope), f(0)), f(SIZE) - held)
                q += taken - given
                held += taken
                given = held * f(1 - KEEP)
                held *= f(KEEP)
                number = f(x + 11)
                q = (q - before * (number - f(1)) * f(INEFFICIENCY)) * (f(1) + number * f(INEFFICIENCY))
                before = q
                to = NX * (i % 8) + (NX - 1 - x if i < 8 else x)
                d = f(TIME) * dark[line, to]
                e = q - bias[line, to] - d
                image[line, to] = e * inverse[line, to]
                variance[line, to] = (max(e, f(0)) + d + f(29.16)) * inverse[line, to] * inverse[line, to]
                mask[line, to] = np.uint32(2 if raw[i, y, x + 10] >= 60000 else 0) | np.uint32(defects[line, to])
