"""Pixels to and from HDF5: ours, the bound (blosc2 on ready integers; a memory copy), fitsio's Rice, gzip+shuffle.

python benchmarks/bench_io.py [side]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy as np
from timing import interleave, pin

from rsp_hpc.io.pixels import _frame, append, encode, read_pixels


def sky(side: int) -> np.ndarray:
    """Sky noise of 20 electrons with 500 stars."""
    rng = np.random.default_rng(1)
    image = rng.normal(0.0, 20.0, (side, side)).astype(np.float32)
    y, x = np.mgrid[-10:11, -10:11]
    star = np.exp(-0.5 * (x * x + y * y) / 4.0)
    for x0, y0 in rng.integers(10, side - 11, (500, 2)):
        image[y0 - 10:y0 + 11, x0 - 10:x0 + 11] += rng.uniform(100, 30000) * star
    return image


def main() -> None:
    pin()
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    image = sky(side)
    variance = (400.0 + np.maximum(image, 0)).astype(np.float32)
    mask = np.zeros(image.shape, np.uint32)
    mask[np.abs(image) > 60] = 32
    ready = np.rint(image / 5.0).astype(np.int32)
    size = image.nbytes / 1e6
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    files = {name: os.path.join(folder, f"{name}.h5") for name in ("image", "variance", "mask", "exact")}
    made = {"image": (image, "noise"), "variance": (variance, "variance"), "mask": (mask, "exact"),
            "exact": (image, "exact")}

    def write(name):
        array, kind = made[name]
        with h5py.File(files[name], "w", libver=("v110", "v110")) as file:
            append(file, "a", encode(array, kind, seed=3))

    def read(name):
        with h5py.File(files[name], "r") as file:
            return read_pixels(file["a"])

    def gzip():
        with h5py.File(os.path.join(folder, "gzip.h5"), "w") as file:
            file.create_dataset("a", data=ready[:side // 8], chunks=(64, side), compression="gzip", compression_opts=1,
                                shuffle=True)

    copy = np.empty_like(image)
    rows = max(1, (1 << 22) // (4 * side))
    runs = {f"write {name}": lambda name=name: write(name) for name in made}
    runs |= {"bound: compress ready integers": lambda: [_frame(ready[y:y + rows]) for y in range(0, side, rows)],
             "bound: copy": lambda: np.copyto(copy, image), "gzip 1 + shuffle, ready integers": gzip}
    try:
        import fitsio
    except ImportError:
        print("peer: fitsio is not installed")
    else:
        rice = os.path.join(folder, "rice.fits")
        runs["peer: fitsio Rice q=4"] = lambda: fitsio.write(rice, image, compress="RICE", qlevel=4, clobber=True)
    seconds = interleave(runs)
    reads = {f"read {name}": lambda name=name: read(name) for name in made}
    if "peer: fitsio Rice q=4" in runs:
        reads["peer: fitsio Rice, read"] = lambda: fitsio.read(rice)
    seconds |= interleave(reads)
    print(f"{side} x {side} float32, {size:.0f} MB; MB/s of float32 on one core, ratio to the Rice peer, size of file")
    for name, took in seconds.items():
        took = took * 8 if name.startswith("gzip") else took
        peer = seconds.get("peer: fitsio Rice, read" if "read" in name else "peer: fitsio Rice q=4")
        stem = name.split()[-1]
        stored = os.path.getsize(files[stem]) if name.startswith("write") else 0
        stored = os.path.getsize(rice) if name == "peer: fitsio Rice q=4" else stored
        print(f"  {name:36s} {size / took:7.0f} MB/s  {f'{peer / took:6.1f} x' if peer else '':9s}"
              f"{f'  {stored / image.nbytes:.3f} of the size' if stored else ''}")
    lossy = (read("image") - image).astype(float)
    print(f"  noise added: {100 * (np.hypot(20.0, lossy.std()) / 20.0 - 1):.2f} % of the noise (bar 0.6 %)")


if __name__ == "__main__":
    main()
