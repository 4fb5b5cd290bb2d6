"""Covariances of a pair of flats at 8 x 8 lags (120 counting both sides): ours, numpy's FFT, a plain-C bound, and the memory.

python benchmarks/bench_covariance.py
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from timing import bound_library, interleave, line, pin

from rsp_hpc.kernels.covariance import pair_sums

LAGS = 8
BOUND = """
#include <stdint.h>
/* Plain C: the difference of a row once, then one loop per lag over rows that lie in the nearest cache; nothing masked or counted. */
void bound(int64_t ny, int64_t nx, const float *restrict a, const float *restrict b, float *restrict d, double *restrict out) {
    for (int64_t y = 0; y < ny; y++) {
        for (int64_t x = 0; x < nx; x++) d[y * nx + x] = a[y * nx + x] - b[y * nx + x];
        for (int64_t j = 0; j < 8 && j <= y; j++)
            for (int64_t i = -7; i < 8; i++) {
                const float *one = d + (y - j) * nx, *other = d + y * nx + i;
                float sum = 0.0f;
                for (int64_t x = 8; x < nx - 8; x++) sum += one[x] * other[x];
                out[j * 15 + i + 7] += sum;
            }
    }
}
void copy(int64_t n, const float *restrict a, const float *restrict b, float *restrict d) {
    for (int64_t x = 0; x < n; x++) d[x] = a[x] - b[x];
}
"""


def by_fft(first: np.ndarray, second: np.ndarray, good: np.ndarray) -> np.ndarray:
    """As it is done everywhere: transforms of the padded difference and of its mask."""
    d = np.where(good, first - second, 0.0)
    shape = tuple(size + LAGS for size in d.shape)
    sums, counts = (np.fft.irfft2(np.abs(np.fft.rfft2(plane, shape)) ** 2, shape) for plane in (d, good.astype(float)))
    return sums[:LAGS, :LAGS] / np.maximum(np.rint(counts[:LAGS, :LAGS]), 1)


def main() -> None:
    pin()
    rng = np.random.default_rng(0)
    shape = (2000, 512)  # an amplifier of LSST
    first, second = (rng.normal(5e4, 200.0, shape).astype(np.float32) for _ in range(2))
    clean, defects = np.zeros(shape, np.uint32), (rng.random(shape) < 1e-3).astype(np.uint32)
    options = (np.array([1.0, 0, 0, 0, 0, 0]), 5000.0, 1)
    library, work, out = bound_library(BOUND), np.empty(shape, np.float32), np.zeros(8 * 15)
    address = [ctypes.c_void_p(array.ctypes.data) for array in (first, second, work, out)]
    size = [ctypes.c_int64(value) for value in (*shape, first.size)]
    best = interleave({
        "memory": lambda: library.copy(size[2], *address[:3]),
        "bound": lambda: library.bound(*size[:2], *address),
        "fft": lambda: by_fft(first, second, defects == 0),
        "8 lags": lambda: pair_sums(first, second, (clean, clean), options, LAGS),
        "8 lags, 0.1 % masked": lambda: pair_sums(first, second, (clean, defects), options, LAGS),
        "1 lag: variance and means": lambda: pair_sums(first, second, (clean, clean), options, 1),
    }, repeats=5)
    speed = {name: first.size / seconds / 1e6 for name, seconds in best.items()}
    print(f"difference of two images, written: {speed['memory']:.0f} Mpix/s")
    for name in list(best)[3:]:
        line(f"covariances, {name}", speed[name], speed["memory"] if "1 lag" in name else speed["bound"], speed["fft"], peer_name="numpy FFT")


if __name__ == "__main__":
    main()
