"""Detrend of a 4k detector: ours against the machine's bound, numba and ccdproc (where installed) and numpy in place.

python benchmarks/bench_detrend.py

Plain chain: bound = min(plain C AVX2 loop on tiles in cache, copy bandwidth of the same minute / bytes per pixel). Then the whole
chain (`fullchain`), whose bound is that of the memory that its passes move and of crosstalk's sums in cache, one after the other.
Processor seconds, each way on one thread.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from fullchain import PIXELS, Chain
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
CROSSTALK = """
/* sums of 16 sources and their squares into 16 targets, [16][512] each, again and again */
void crosstalk(long times, const float *restrict m, const float *restrict q, const float *restrict in, float *restrict out) {
    for (long turn = 0; turn < times; turn++)
        for (int i = 0; i < 16; i += 4)
            for (int x = 0; x < 512; x++) {
                float sum[4] = {0};
                for (int j = 0; j < 16; j++) {
                    float e = in[j * 512 + x], s = e * e;
                    for (int k = 0; k < 4; k++) sum[k] += m[(i + k) * 16 + j] * e + q[(i + k) * 16 + j] * s;
                }
                for (int k = 0; k < 4; k++) out[(i + k) * 512 + x] += sum[k];
            }
}
"""
GAIN, LEVEL, NOISE, TIME = 1.6, 1000.0, 25.0, 15.0
SHAPE = (4096, 4096)


def numba_detrend():
    """The loop in numba on a ready 1/flat without any check, and with the flat and our checks; None where it is not installed."""
    try:
        import numba
    except ImportError:
        return None
    limit, infinite = np.float32(0.1), np.float32(np.inf)

    @numba.njit(fastmath=False)
    def checked(raw, bias, dark, flat, defect, image, variance, mask):
        good = 0
        for i in range(raw.size):
            d = np.float32(TIME) * dark[i]
            e = (np.float32(raw[i]) - np.float32(LEVEL)) * np.float32(GAIN) - bias[i] - d
            usable = flat[i] > limit
            inverse = np.float32(1) / flat[i] if usable else np.float32(1)
            bad = defect[i] or not usable or not np.isfinite(e)
            image[i] = e * inverse
            variance[i] = infinite if bad else (max(e, np.float32(0)) + max(d, np.float32(0)) + np.float32(NOISE)) * inverse * inverse
            mask[i] = np.uint32(2 if raw[i] >= 60000 else 0) | np.uint32(1 if bad else 0)
            good += mask[i] == 0
        return good

    @numba.njit(fastmath=False)
    def run(raw, bias, dark, inverse, defect, image, variance, mask):
        for i in range(raw.size):
            d = np.float32(TIME) * dark[i]
            e = (np.float32(raw[i]) - np.float32(LEVEL)) * np.float32(GAIN) - bias[i] - d
            image[i] = e * inverse[i]
            variance[i] = (max(e, np.float32(0)) + d + np.float32(NOISE)) * inverse[i] * inverse[i]
            mask[i] = np.uint32(2 if raw[i] >= 60000 else 0) | np.uint32(defect[i])

    return run, checked


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


def ccdproc_detrend(raw, bias, dark, flat):
    """The same steps by ccdproc; None where it is not installed."""
    try:
        import ccdproc
        from astropy import units
        from astropy.nddata import CCDData
    except ImportError:
        return None
    frame, master = CCDData(raw.astype(np.float32), unit="adu"), CCDData(bias, unit="electron")
    masters = [CCDData(plane, unit="electron", meta={"exposure": TIME}) for plane in (dark * np.float32(TIME), flat)]

    def run():
        return ccdproc.ccd_process(frame, oscan=frame[:, -52:], oscan_median=True, gain=GAIN * units.electron / units.adu,
                                   readnoise=5.0 * units.electron, error=False, master_bias=master, dark_frame=masters[0],
                                   master_flat=masters[1], exposure_key=None, data_exposure=TIME * units.s,
                                   dark_exposure=TIME * units.s)

    return run


def whole_chain() -> None:
    """The chain with crosstalk, linearity, charge transfer, and with brighter-fatter, fringe and offsets too."""
    chain, rng = Chain(), np.random.default_rng(1)
    library = bound_library(CROSSTALK)
    matrices = [rng.normal(0, 1e-4, (16, 16)).astype(np.float32) for _ in range(2)] + [np.ones((16, 512), np.float32)] * 2
    addresses = [ctypes.c_void_p(plane.ctypes.data) for plane in matrices]
    copies, times = [np.zeros(PIXELS, np.float32), np.ones(PIXELS, np.float32)], PIXELS // (16 * 512)
    ways = {"copy": lambda: np.copyto(*copies),
            "crosstalk in cache": lambda: library.crosstalk(ctypes.c_long(times), *addresses),
            "ours, through flat": chain.ours_through_flat, "numpy, through flat": chain.numpy_through_flat,
            "ours": chain.ours, "numpy": chain.numpy}
    if (numba := chain.numba_through_flat()) is not None:
        ways["numba, through flat"] = numba
    best = interleave(ways, 4, time.process_time)
    sums, byte = best["crosstalk in cache"], best["copy"] / 8.0  # of one byte per pixel
    print(f"copy {PIXELS * 8 / best['copy'] / 1e9:.1f} GB/s; crosstalk in cache {PIXELS / sums / 1e6:.0f} Mpix/s")
    speed = {name: PIXELS / seconds / 1e6 for name, seconds in best.items()}
    # 27 as the plain chain; brighter-fatter: one pass over image and variance, the flat another; fringe: image twice, pattern twice
    for name, moved in ((", through flat", 27), ("", 27 + 24 + 16 + 16 + 16)):
        bound, title = PIXELS / (sums + moved * byte) / 1e6, f"detrend whole{name or ' with bf, fringe, offsets'}"
        line(title, speed[f"ours{name}"], bound, speed[f"numpy{name}"], peer_name="numpy in place")
        if f"numba{name}" in speed:
            line(title, speed[f"ours{name}"], bound, speed[f"numba{name}"], peer_name="numba")


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
        plain, checked = numba
        direct = [a.ravel() for a in (raw, bias, dark, flat, defects, image, variance, mask)]
        ways |= {"numba": lambda: plain(*flat_arrays), "numba checked": lambda: checked(*direct)}
    ccdproc = ccdproc_detrend(raw, bias, dark, flat)
    if ccdproc is not None:
        ways["ccdproc"] = ccdproc
    best = interleave(ways, 7, time.process_time)
    speed = {name: n / seconds / 1e6 for name, seconds in best.items()}
    bandwidth = 8 * speed["copy"] / 1e3
    print(f"copy {bandwidth:.1f} GB/s; in cache {speed['in cache']:.0f} Mpix/s; plain C from memory {speed['plain C']:.0f} Mpix/s")
    for name, bytes_per_pixel in (("ours", 27), ("prepared, dark noise", 24), ("prepared", 22)):
        limit = min(speed["in cache"], bandwidth * 1e3 / bytes_per_pixel)
        line(f"detrend {name} ({bytes_per_pixel} B/pixel)", speed[name], limit, speed.get("numba"), peer_name="numba")
        line(f"detrend {name}", speed[name], limit, speed.get("numba checked"), peer_name="numba with our checks")
        line(f"detrend {name}", speed[name], limit, speed["numpy"], peer_name="numpy in place")
        line(f"detrend {name}", speed[name], limit, speed.get("ccdproc"), peer_name="ccdproc")
    ways.clear()
    del ready, raw, bias, dark, flat, inverse, image, variance, mask, scratch, flat_arrays, copies, planes
    whole_chain()


if __name__ == "__main__":
    main()
