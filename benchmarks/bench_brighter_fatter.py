"""Brighter-fatter: ours against the multiplications it needs, scipy and numpy; fringe and offsets too.

python benchmarks/bench_brighter_fatter.py [side]

bound = multiply-add rate of this core in the same minute / multiply-adds per pixel of the sums of products (rows and columns
filtered one after the other, symmetric columns folded). scipy: the same products with ndimage.correlate1d; FFT: one real
transform pair of the image and numpy for the rest, one pass.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy import fft, ndimage
from timing import bound_library, interleave, line, pin

from rsp_hpc.algorithms.brighter_fatter import BrighterFatterConfig, _kernels, correct_brighter_fatter
from rsp_hpc.algorithms.fringe import FringeConfig, subtract_fringe
from rsp_hpc.algorithms.offsets import OffsetsConfig, subtract_offsets
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.electronics import BrighterFatter
from rsp_hpc.products.image import MaskedImage

PEAK = """
typedef float v __attribute__((vector_size(32)));
float multiply_add(long n) {
    v sum[12], a = (v){0} + 0.999f, b = (v){0} + 1e-3f;
    for (int k = 0; k < 12; k++) sum[k] = (v){0} + (float)k;
    for (long i = 0; i < n; i++)
        for (int k = 0; k < 12; k++) sum[k] = sum[k] * a + b;
    float out = 0;
    for (int k = 0; k < 12; k++) out += sum[k][0];
    return out;
}
"""
LANES, ROUNDS = 12 * 8, 2_000_000


def products(half: int) -> dict[str, BrighterFatter]:
    """A potential that falls as 1/r^1.5, and the shifts of its borders, north ones 5 % more."""
    y, x = np.mgrid[-half - 1:half + 1, -half - 1:half + 1]
    potential = -8e-7 * (x**2 + y**2 + 0.8) ** -0.75
    north, east = 1.05 * np.diff(potential, axis=0)[:, 1:], np.diff(potential, axis=1)[1:]
    return {"scalar": BrighterFatter("scalar", potential[1:, 1:]), "electrostatic": BrighterFatter("electrostatic", None, north, east)}


def border_charge(image: np.ndarray, potential: np.ndarray) -> None:
    """numpy: charge back across the borders, in place."""
    east = 0.25 * (potential[:, :-1] - potential[:, 1:]) * (image[:, :-1] + image[:, 1:])
    north = 0.25 * (potential[:-1] - potential[1:]) * (image[:-1] + image[1:])
    image[:, :-1] -= east
    image[:, 1:] += east
    image[:-1] -= north
    image[1:] += north


def by_fft(image: np.ndarray, kernel: np.ndarray) -> None:
    shape = tuple(fft.next_fast_len(side + len(kernel), real=True) for side in image.shape)
    spectrum = fft.rfft2(kernel.astype(np.float32), shape)
    potential = fft.irfft2(fft.rfft2(image, shape) * spectrum, shape)
    half = len(kernel) // 2
    border_charge(image, potential[half:half + image.shape[0], half:half + image.shape[1]])


def by_scipy(image: np.ndarray, parts) -> None:
    potential = np.zeros_like(image)
    for column, row in zip(parts.column, parts.row):
        potential += ndimage.correlate1d(ndimage.correlate1d(image, column, axis=0, mode="nearest"), row, axis=1, mode="nearest")
    border_charge(image, potential)


def work(part) -> float:
    """Multiply-adds (or adds) per pixel of a sum of products."""
    n, ny = part.column.shape
    pairs = (ny + 1) // 2
    return n * part.row.shape[1] + (n * pairs + pairs if part.symmetry else n * ny)


def a_sky(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Sky of 1000 electrons with a star per 10^4 pixels, fluxes to saturation."""
    rng = np.random.default_rng(0)
    image = rng.normal(1000.0, 31.6, (side, side)).astype(np.float32)
    y, x = np.mgrid[-12:13, -12:13]
    profile = np.exp(-0.5 * (x**2 + y**2) / 1.7**2)
    for _ in range(side * side // 10_000):
        cy, cx = rng.integers(12, side - 12, 2)
        image[cy - 12:cy + 13, cx - 12:cx + 13] += (min(200.0 * rng.random() ** -0.75, 1e5) * profile).astype(np.float32)
    return image, np.sin(np.arange(side) / 20.0)[None, :].astype(np.float32) * np.cos(np.arange(side) / 33.0)[:, None].astype(np.float32)


def main() -> None:
    pin()
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    sky, pattern = a_sky(side)
    library = bound_library(PEAK)
    image = MaskedImage(sky.copy(), np.zeros(sky.shape, np.uint32), sky.copy())
    once, config = BrighterFatterConfig(passes=1), BrighterFatterConfig()

    def ours(product, settings):
        image.image[...] = sky
        return correct_brighter_fatter(image, product, settings)

    detector = Detector(name="A", id=0, size=(side, side), amplifiers=tuple(
        Amplifier(name=f"{i}{j}", section=(0, 0, side // 8, side // 2), data=(0, 0, side // 8, side // 2),
                  origin=(i * side // 8, j * side // 2)) for j in range(2) for i in range(8)))
    ways = {"peak": lambda: library.multiply_add(ctypes.c_long(ROUNDS)), "copy": lambda: np.copyto(image.image, sky),
            "fringe": lambda: subtract_fringe(image, pattern, FringeConfig()),
            "offsets": lambda: subtract_offsets(image, detector, OffsetsConfig())}
    parts, n = {}, side * side
    for half in (8, 10):
        for method, product in products(half).items():
            name = f"{method} {2 * half + 1} x {2 * half + 1}"
            parts[name] = [part for part in _kernels(product, config.precision) if part is not None]
            ways[name] = lambda product=product: ours(product, once)
            ways[f"{name}, all passes"] = lambda product=product: ours(product, config)
    scalar = products(8)["scalar"]
    scratch = sky.copy()
    ways["fft"] = lambda: (np.copyto(scratch, sky), by_fft(scratch, scalar.kernel))
    ways["scipy"] = lambda: (np.copyto(scratch, sky), by_scipy(scratch, parts["scalar 17 x 17"][0]))
    best = interleave(ways, 3)
    rate = ROUNDS * LANES / best["peak"] / 1e6
    peers = {name: n / (best[name] - best["copy"]) / 1e6 for name in ("fft", "scipy")}
    done = ours(scalar, config)
    print(f"multiply-adds {rate / 1e3:.0f} G/s; numpy and scipy.fft {peers['fft']:.1f}, scipy.ndimage {peers['scipy']:.1f} Mpix/s; "
          f"{done.passes} passes where needed")
    for name, kernels in parts.items():
        operations = sum(map(work, kernels))
        print(f"{name}: {'+'.join(str(len(part.column)) for part in kernels)} products, {operations:.0f} operations per pixel")
        for suffix in ("", ", all passes"):
            line(name + suffix, n / (best[name + suffix] - best["copy"]) / 1e6, rate / operations, peers["fft"], peer_name="FFT")
    for name in ("fringe", "offsets"):
        line(name, n / best[name] / 1e6, n / best["copy"] / 1e6, None)


if __name__ == "__main__":
    main()
