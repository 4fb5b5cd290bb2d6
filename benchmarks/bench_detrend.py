"""Fused detrend of a 4k detector: ours against the machine's bound, numba (where installed) and numpy in place.

python benchmarks/bench_detrend.py

bound = min(plain C AVX2 loop on tiles in cache, copy bandwidth of the same minute / bytes per pixel).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from timing import bound_library, interleave, line, pin

from rsp_hpc.kernels.detrend import AmplifierGeometry, DetrendBits, Planes, detrend_amplifier, prepare

BOUND = """
#include <math.h>
#include <stdint.h>
/* bias and dark, multiplication by 1/flat, variance, mask from saturation and defects; nothing else */
void bound(long n, const uint16_t *restrict raw, const float *restrict bias, const float *restrict dark,
           const float *restrict inverse, const uint8_t *restrict defect, float level, float gain, float time, float noise,
           float *restrict image, float *restrict variance, uint32_t *restrict mask) {
    for (long i = 0; i < n; i++) {
        float d = time * dark[i], e = (raw[i] - level) * gain - bias[i] - d;
        image[i] = e * inverse[i];
        variance[i] = (fmaxf(e, 0.0f) + d + noise) * inverse[i] * inverse[i];
        mask[i] = (raw[i] >= 60000 ? 2u : 0u) | defect[i];
    }
}
"""
GAIN, LEVEL, NOISE, TIME = 1.6, 1000.0, 25.0, 15.0
SHAPE = (4096, 4096)


def numba_detrend():
    """The same loop in numba; None where it is not installed."""
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(fastmath=False)
    def run(raw, bias, dark, inverse, defect, image, variance, mask):
        for i in range(raw.size):
            d = np.float32(TIME) * dark[i]
            e = (np.float32(raw[i]) - np.float32(LEVEL)) * np.float32(GAIN) - bias[i] - d
            image[i] = e * inverse[i]
            variance[i] = (max(e, np.float32(0)) + d + np.float32(NOISE)) * inverse[i] * inverse[i]
            mask[i] = np.uint32(2 if raw[i] >= 60000 else 0) | np.uint32(defect[i])

    return run


def numpy_detrend(raw, bias, dark, inverse, defect, image, variance, mask, scratch) -> None:
    """numpy in place."""
    np.subtract(raw, np.float32(LEVEL), out=image, casting="unsafe")
    image *= np.float32(GAIN)
    image -= bias
    np.multiply(dark, np.float32(TIME), out=scratch)
    image -= scratch
    np.maximum(image, 0, out=variance)
    variance += scratch
    variance += np.float32(NOISE)
    image *= inverse
    variance *= inverse
    variance *= inverse
    np.greater_equal(raw, 60000, out=mask, casting="unsafe")
    mask *= np.uint32(2)
    mask |= defect


def main() -> None:
    pin()
    rng = np.random.default_rng(0)
    ny, nx = SHAPE
    raw = rng.integers(1200, 3000, SHAPE, dtype=np.uint16)
    bias, dark = rng.normal(0, 2, SHAPE).astype(np.float32), rng.uniform(0, 0.1, SHAPE).astype(np.float32)
    flat, defects = rng.normal(1, 0.02, SHAPE).astype(np.float32), rng.random(SHAPE) < 1e-4
    inverse = 1 / flat
    image, variance, mask = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint32)
    scratch = np.zeros(SHAPE, np.float32)
    options = DetrendBits(TIME, 0.1, 2, 1, 2048)
    geometry = AmplifierGeometry((0, 0, nx, ny), (0, 0), False, False, GAIN, NOISE, 60000.0)
    levels = (np.full(ny, LEVEL, np.float32), None)
    planes = Planes(bias, dark, flat, defects)
    library = bound_library(BOUND)

    def bound(n: int, times: int) -> None:
        arrays = [a.ctypes.data for a in (raw, bias, dark, inverse, defects)]
        outs = [a.ctypes.data for a in (image, variance, mask)]
        for _ in range(times):
            library.bound(ctypes.c_long(n), *map(ctypes.c_void_p, arrays), *map(ctypes.c_float, (LEVEL, GAIN, TIME, NOISE)),
                          *map(ctypes.c_void_p, outs))

    flat_arrays = [a.ravel() for a in (raw, bias, dark, inverse, defects, image, variance, mask)]
    n, tile = raw.size, 128 * 128
    copies = [np.zeros(n, np.float32), np.ones(n, np.float32)]
    ways = {
        "copy": lambda: np.copyto(*copies),
        "in cache": lambda: bound(tile, n // tile),
        "plain C": lambda: bound(n, 1),
        "numpy": lambda: numpy_detrend(raw, bias, dark, inverse, defects, image, variance, mask, scratch),
        "ours": lambda: detrend_amplifier(raw, geometry, levels, planes, options, (image, variance, mask)),
    }
    for name, step in (("prepared, dark noise", 0.01), ("prepared", 0.0)):
        ready, _ = prepare(planes, options, SHAPE, step)
        ways[name] = lambda ready=ready: detrend_amplifier(raw, geometry, levels, ready, options, (image, variance, mask))
    numba = numba_detrend()
    if numba is not None:
        ways["numba"] = lambda: numba(*flat_arrays)
    best = interleave(ways, 5)
    speed = {name: n / seconds / 1e6 for name, seconds in best.items()}
    bandwidth = 8 * speed["copy"] / 1e3
    print(f"copy {bandwidth:.1f} GB/s; in cache {speed['in cache']:.0f} Mpix/s; plain C from memory {speed['plain C']:.0f} Mpix/s")
    for name, bytes_per_pixel in (("ours", 27), ("prepared, dark noise", 24), ("prepared", 22)):
        limit = min(speed["in cache"], bandwidth * 1e3 / bytes_per_pixel)
        line(f"detrend {name} ({bytes_per_pixel} B/pixel)", speed[name], limit, speed.get("numba"), peer_name="numba")
        line(f"detrend {name}", speed[name], limit, speed["numpy"], peer_name="numpy in place")


if __name__ == "__main__":
    main()
