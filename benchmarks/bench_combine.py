"""Clipped mean of 20 images: ours, a plain-C bound, and SWarp's CLIPPED combine where it is installed.

python benchmarks/bench_combine.py
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from timing import bound_library, interleave, line, pin

from rsp_hpc.kernels.combine import ClipOptions, clipped_mean

BOUND = """
#include <immintrin.h>
#include <stdint.h>
/* Plain C, AVX2: mean and standard deviation, two rounds of 3-sigma clipping; no masks, no missing data, nothing robust. */
void bound(int64_t n, int64_t pixels, const float *const *x, float *restrict out) {
    for (int64_t p = 0; p < pixels; p += 16) {
        __m256 c0 = _mm256_loadu_ps(x[0] + p), c1 = _mm256_loadu_ps(x[0] + p + 8), k0 = _mm256_set1_ps(1e30f), k1 = k0;
        for (int round = 0; round < 3; round++) {
            __m256 z = _mm256_setzero_ps(), s0 = z, s1 = z, q0 = z, q1 = z, m0 = z, m1 = z, one = _mm256_set1_ps(1.0f);
            for (int64_t i = 0; i < n; i++) {
                __m256 d0 = _mm256_sub_ps(_mm256_loadu_ps(x[i] + p), c0), d1 = _mm256_sub_ps(_mm256_loadu_ps(x[i] + p + 8), c1);
                __m256 e0 = _mm256_mul_ps(d0, d0), e1 = _mm256_mul_ps(d1, d1);
                __m256 w0 = _mm256_cmp_ps(e0, k0, _CMP_LE_OQ), w1 = _mm256_cmp_ps(e1, k1, _CMP_LE_OQ);
                s0 = _mm256_add_ps(s0, _mm256_and_ps(w0, d0)), s1 = _mm256_add_ps(s1, _mm256_and_ps(w1, d1));
                q0 = _mm256_add_ps(q0, _mm256_and_ps(w0, e0)), q1 = _mm256_add_ps(q1, _mm256_and_ps(w1, e1));
                m0 = _mm256_add_ps(m0, _mm256_and_ps(w0, one)), m1 = _mm256_add_ps(m1, _mm256_and_ps(w1, one));
            }
            s0 = _mm256_div_ps(s0, m0), s1 = _mm256_div_ps(s1, m1);
            k0 = _mm256_mul_ps(_mm256_set1_ps(9), _mm256_sub_ps(_mm256_div_ps(q0, m0), _mm256_mul_ps(s0, s0)));
            k1 = _mm256_mul_ps(_mm256_set1_ps(9), _mm256_sub_ps(_mm256_div_ps(q1, m1), _mm256_mul_ps(s1, s1)));
            c0 = _mm256_add_ps(c0, s0), c1 = _mm256_add_ps(c1, s1);
        }
        _mm256_storeu_ps(out + p, c0), _mm256_storeu_ps(out + p + 8, c1);
    }
}
"""


def swarp(images: np.ndarray) -> float | None:
    """Seconds of SWarp's CLIPPED combine of images that are already resampled; None where it is not installed."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return None
    from astropy.io import fits
    with tempfile.TemporaryDirectory() as folder:
        header = fits.Header([("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 10.0), ("CRVAL2", 0.0),
                              ("CRPIX1", 500.0), ("CRPIX2", 500.0), ("CD1_1", -5.5e-5), ("CD2_2", 5.5e-5)])
        names = [f"{i:02d}.resamp.fits" for i in range(len(images))]
        for name, image in zip(names, images):
            fits.writeto(Path(folder) / name, image, header)
        start = time.perf_counter()
        subprocess.run([program, *names, "-RESAMPLE", "N", "-COMBINE_TYPE", "CLIPPED", "-SUBTRACT_BACK", "N", "-NTHREADS", "1",
                        "-VERBOSE_TYPE", "QUIET"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    pin()
    rng = np.random.default_rng(0)
    n, shape = 20, (500, 1024)
    images = rng.normal(100, 5, (n, *shape)).astype(np.float32)
    images[3, ::7, ::11] = 1e4
    variances, masks = np.full_like(images, 25), np.zeros(images.shape, np.uint32)
    out, pixels = np.empty(shape, np.float32), shape[0] * shape[1]
    pointers = (ctypes.c_void_p * n)(*(image.ctypes.data for image in images))
    library = bound_library(BOUND)
    noise = np.full((n, 2), (25.0, 0.0))
    options = ClipOptions(kappa_low=3, kappa_high=3)
    best = interleave({
        "bound": lambda: library.bound(ctypes.c_int64(n), ctypes.c_int64(pixels), pointers, ctypes.c_void_p(out.ctypes.data)),
        "noise model": lambda: clipped_mean(images, options, noise=noise),
        "estimated": lambda: clipped_mean(images, options),
        "variance planes": lambda: clipped_mean(images, options, variances=variances),
        "variance, masks, weights": lambda: clipped_mean(images, options, variances=variances, masks=masks, weights=np.ones(n)),
    })
    seconds = swarp(images)
    peer = None if seconds is None else pixels / seconds / 1e6
    for name in list(best)[1:]:
        line(f"clipped mean of 20, {name}", pixels / best[name] / 1e6, pixels / best["bound"] / 1e6, peer, peer_name="SWarp")


if __name__ == "__main__":
    main()
