"""Clipped mean of 20 warps: ours, a plain-C AVX2 bound, the memory's read speed, and SWarp's CLIPPED where installed.

python benchmarks/bench_coadd.py

The bound reads the same planes once and makes the weighted mean, its variance, the OR of the masks, and tests every
input against kappa sigma; it clips nothing. "read" only sums the planes.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from bench_combine import swarp
from timing import bound_library, interleave, line, pin

from rsp_hpc.kernels.coadd import Input, clipped_mean

BOUND = """
#include <stdint.h>
#define CHUNK 2048
void bound(int64_t n, int64_t pixels, const float *const *v, const float *const *u, const uint32_t *const *m,
           const float *w, float *restrict image, float *restrict variance, uint32_t *restrict mask) {
    static float sv[CHUNK], sw[CHUNK], sq[CHUNK];
    static uint32_t bits[CHUNK], doubt[CHUNK];
    for (int64_t p = 0; p < pixels; p += CHUNK) {
        int64_t c = pixels - p < CHUNK ? pixels - p : CHUNK;
        for (int64_t i = 0; i < c; i++) sv[i] = sw[i] = sq[i] = 0, bits[i] = doubt[i] = 0;
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < c; i++)
                sv[i] += w[k] * v[k][p + i], sw[i] += w[k], sq[i] += w[k] * w[k] * u[k][p + i], bits[i] |= m[k][p + i];
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < c; i++) {
                float d = v[k][p + i] * sw[i] - sv[i];
                doubt[i] |= d * d > 20.25f * (u[k][p + i] * sw[i] * (sw[i] - 2 * w[k]) + sq[i]);
            }
        for (int64_t i = 0; i < c; i++)
            image[p + i] = sv[i] / sw[i], variance[p + i] = sq[i] / (sw[i] * sw[i]), mask[p + i] = bits[i] | doubt[i];
    }
}
double read_all(int64_t n, int64_t pixels, const float *const *v, const float *const *u, const uint32_t *const *m) {
    float s = 0; uint32_t b = 0;
    for (int64_t k = 0; k < n; k++)
        for (int64_t i = 0; i < pixels; i++) s += v[k][i] + u[k][i], b += m[k][i];
    return s + b;
}
"""
RULES = {"kappa": 4.5, "tolerance": 1.0, "max_saturated": 0.2, "min_inputs": 3, "carry": 1, "rejected": 2, "edge": 4,
         "saturated": 8, "clipped": 16, "no_data": 32}


def main() -> None:
    pin()
    rng = np.random.default_rng(0)
    n, shape = 20, (600, 3300)
    images = rng.normal(0, 5, (n, *shape)).astype(np.float32)
    images[3, ::40, ::25] = 1e4  # 0.1 % of artifacts in one input
    variances, masks = np.full_like(images, 25), np.zeros(images.shape, np.uint32)
    inputs = [Input(image, variance, mask, 0, 0, 1.0) for image, variance, mask in zip(images, variances, masks)]
    out = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint32)
    library, pixels = bound_library(BOUND), shape[0] * shape[1]
    library.read_all.restype = ctypes.c_double
    planes = [(ctypes.c_void_p * n)(*(plane.ctypes.data for plane in stack)) for stack in (images, variances, masks)]
    weights = np.ones(n, np.float32)
    counts = ctypes.c_int64(n), ctypes.c_int64(pixels)
    rest = [ctypes.c_void_p(array.ctypes.data) for array in (weights, *out)]
    best = interleave({
        "read": lambda: library.read_all(*counts, *planes),
        "bound": lambda: library.bound(*counts, *planes, *rest),
        "ours": lambda: clipped_mean(inputs, shape, RULES),
    })
    seconds = swarp(images)
    speed = {name: pixels / seconds_ / 1e6 for name, seconds_ in best.items()}
    peer = None if seconds is None else pixels / seconds / 1e6
    line("clipped mean of 20 warps (output)", speed["ours"], speed["bound"], peer, peer_name="SWarp")
    print(f"reading the 12 bytes of 20 inputs alone: {speed['read']:.1f} Mpix/s")


if __name__ == "__main__":
    main()
