"""Lanczos-3 warp of image, variance and mask: ours, a plain-C AVX2 bound, and SWarp's LANCZOS3 where it is installed.

python benchmarks/bench_warp.py

The bound has the same arithmetic and nothing else: an affine map, weights without interpolation of their table, no bad
pixels, no edges, no fluxes. SWarp resamples image and weight. Ours is also timed with 0.1 % of bad pixels in clumps.
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

from rsp_hpc.kernels.warp import STEP, warp

BOUND = """
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
static float sum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
/* table [512][8]: six weights and two zeros; out pixel (u, v) is at (x0 + c u - s v, y0 + s u + c v) */
void bound(const float *image, const float *variance, const uint32_t *mask, int64_t nx, const float *table, double x0,
           double y0, double c, double s, int64_t ny, int64_t n, float *oi, float *ov, uint32_t *om) {
    for (int64_t v = 0; v < ny; v++)
        for (int64_t u = 0; u < n; u++) {
            double x = x0 + c * u - s * v, y = y0 + s * u + c * v;
            int64_t ix = (int64_t)x, iy = (int64_t)y, at = (iy - 2) * nx + ix - 2;
            const float *ty = table + 8 * (int64_t)((y - iy) * 512);
            __m256 wx = _mm256_loadu_ps(table + 8 * (int64_t)((x - ix) * 512)), a = _mm256_setzero_ps(), b = a;
            for (int j = 0; j < 6; j++) {
                __m256 w = _mm256_broadcast_ss(ty + j);
                a = _mm256_fmadd_ps(w, _mm256_loadu_ps(image + at + j * nx), a);
                b = _mm256_fmadd_ps(_mm256_mul_ps(w, w), _mm256_loadu_ps(variance + at + j * nx), b);
            }
            oi[v * n + u] = sum(_mm256_mul_ps(a, wx));
            ov[v * n + u] = sum(_mm256_mul_ps(b, _mm256_mul_ps(wx, wx)));
            const uint32_t *m = mask + at + 2 * nx + 2;
            om[v * n + u] = m[0] | m[1] | m[nx] | m[nx + 1];
        }
}
"""
RULES = {"bad": 1, "interpolated": 2, "no_data": 4, "rejected": 8, "edge": 16, "max_bad": 0.1}
SOURCE, OUT = 2300, 2048


def weight_table() -> np.ndarray:
    """(512, 8) float32: Lanczos-3 weights of unit sum by phase."""
    offset = np.arange(-2, 4) - (np.arange(512) / 512)[:, None]
    weight = np.where(np.abs(offset) < 3, np.sinc(offset) * np.sinc(offset / 3), 0.0)
    return np.pad(weight / weight.sum(axis=1, keepdims=True), ((0, 0), (0, 2))).astype(np.float32)


def swarp(image: np.ndarray, variance: np.ndarray, angle: float) -> float | None:
    """Seconds of SWarp's resampling of image and weight, disk to disk; None where it is not installed."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return None
    from astropy.io import fits
    scale = 0.2 / 3600
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    header = fits.Header([("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 10.0), ("CRVAL2", 0.0),
                          ("CRPIX1", SOURCE / 2), ("CRPIX2", SOURCE / 2), ("CD1_1", -c), ("CD1_2", s), ("CD2_1", s),
                          ("CD2_2", c)])
    with tempfile.TemporaryDirectory() as folder:
        fits.writeto(Path(folder) / "image.fits", image, header)
        fits.writeto(Path(folder) / "image.weight.fits", 1 / variance, header)
        start = time.perf_counter()
        subprocess.run([program, "image.fits", "-WEIGHT_TYPE", "MAP_WEIGHT", "-SUBTRACT_BACK", "N", "-PIXELSCALE_TYPE",
                        "MANUAL", "-PIXEL_SCALE", "0.2", "-NTHREADS", "1", "-COMBINE", "N", "-VERBOSE_TYPE", "QUIET"],
                       cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def a_grid(angle: float) -> tuple[np.ndarray, ...]:
    """Positions and factors at the nodes of a rotation about the middle."""
    nodes = OUT // STEP + 4
    v, u = (STEP * (q - 1.0) - OUT / 2 for q in np.mgrid[:nodes, :nodes])
    c, s = np.cos(angle), np.sin(angle)
    return SOURCE / 2 + 0.3 + c * u - s * v, SOURCE / 2 + 0.6 + s * u + c * v, np.full(u.shape, 1.1)


def bound(library, given: list, corner: tuple) -> None:
    """The bound, into new arrays as ours."""
    out = np.empty((OUT, OUT), np.float32), np.empty((OUT, OUT), np.float32), np.empty((OUT, OUT), np.uint32)
    size = ctypes.c_int64(OUT)
    library.bound(*given[:3], ctypes.c_int64(SOURCE), given[3], *corner, size, size,
                  *(ctypes.c_void_p(array.ctypes.data) for array in out))


def main() -> None:
    pin()
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (SOURCE, SOURCE)).astype(np.float32)
    variance, clean = np.full_like(image, 25), np.zeros(image.shape, np.uint32)
    dirty = clean.copy()
    for x, y in rng.integers(10, SOURCE - 10, (SOURCE**2 // 6000, 2)):
        dirty[y:y + 2, x:x + 3] = 3
    library, table = bound_library(BOUND), weight_table()
    given = [ctypes.c_void_p(array.ctypes.data) for array in (image, variance, clean, table)]
    real = ctypes.c_double
    pixels = OUT * OUT / 1e6
    for degrees in (0.5, 5.0):
        angle = np.radians(degrees)
        grid = a_grid(angle)
        corner = real(grid[0][1, 1]), real(grid[1][1, 1]), real(np.cos(angle)), real(np.sin(angle))
        best = interleave({
            "bound": lambda: bound(library, given, corner),
            "clean": lambda: warp((image, variance, clean), grid, RULES, (0, 0), (OUT, OUT)),
            "0.1 % bad": lambda: warp((image, variance, dirty), grid, RULES, (0, 0), (OUT, OUT)),
        })
        seconds = swarp(image, variance, angle)
        peer = None if seconds is None else SOURCE**2 / seconds / 1e6
        for name in ("clean", "0.1 % bad"):
            line(f"warp of 3 planes, {degrees} deg, {name}", pixels / best[name], pixels / best["bound"], peer,
                 peer_name="SWarp")


if __name__ == "__main__":
    main()
