"""A flat from 20 real FITS files of 4k x 4k, reading included: input Mpix/s and peak memory of the process, by memory setting.

python benchmarks/bench_calibs.py [SIDE [FRAMES]]

The files were just written, so that reading comes from the system's cache; the bound is reading them alone, as raw 16-bit numbers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from timing import line, pin

KINDS = {"flat": 7, "flat, frames in a scratch file": 0, "reading alone": None}


def camera(side: int):
    """One CCD read through two amplifiers side by side, each with 32 columns of overscan."""
    from rsp_hpc.products.camera import load_camera

    half, wide = side // 2, side // 2 + 32
    amplifiers = [{"name": name, "section": [k * wide, 0, wide, side], "data": [0, 0, half, side], "origin": [k * half, 0],
                   "serial_overscan": [half, 0, 32, side], "gain": 1.5, "read_noise": 6.0} for k, name in enumerate("AB")]
    header = {"visit": {"key": "VISIT"}, "kind": {"value": "flat"}, "band": {"value": "r"}, "mjd": {"value": 60000.0},
              "exposure_time": {"value": 10.0}, "detector": {"value": "CCD"}}
    return load_camera({"name": "big", "pixel_scale": 0.2, "bands": ["r"], "header": header, "wcs": "none",
                        "layout": {"kind": "detector", "pattern": r"^flat_(?P<visit>\d+)\.fits$"},
                        "detectors": [{"name": "CCD", "id": 0, "size": [side, side], "amplifiers": amplifiers}]})


def write(folder: Path, side: int, n: int) -> None:
    """Flats of 20,000 electrons whose lamp drifts in level and in gradient."""
    from rsp_hpc.io.raw import write_raw

    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 100.0, (side, side + 64)).astype(np.float32)
    response = 1.0 + 0.01 * rng.standard_normal((side, side), np.float32)
    u = np.linspace(-1.0, 1.0, side, dtype=np.float32)
    for k in range(n):
        light = 13000.0 * (1.0 + 0.1 * np.sin(k)) * response * (1.0 + 0.02 * np.cos(k) * u[None, :])
        raw = np.roll(noise, (977 * k, 331 * k), (0, 1)) + 1000.0
        raw[:, :side // 2] += light[:, :side // 2]
        raw[:, side // 2 + 32:side + 32] += light[:, side // 2:]
        raw[:, side // 2:side // 2 + 32] = 1000.0 + 0.04 * noise[:, :32]
        raw[:, side + 32:] = 1000.0 + 0.04 * noise[:, 32:64]
        write_raw(folder / f"flat_{k + 1}.fits", [(raw.astype(np.uint16), {"VISIT": k + 1})])


def child(folder: str, side: int, memory: int | None) -> None:
    """Print seconds, processor seconds and peak MB of this process."""
    from rsp_hpc.algorithms.calibs.frames import CalibsConfig, Frame, build_flat
    from rsp_hpc.io.raw import read_raw_detector, scan
    from rsp_hpc.io.scratch import scratch_plane
    from rsp_hpc.products.calibration import Calibration

    pin()
    big = camera(side)
    files = scan([folder], big)
    frames = [Frame(file.exposure, lambda file=file: read_raw_detector([file], big, "CCD")) for file in files]
    planes = np.ones((side, side), np.float32), np.full((side, side), 0.01, np.float32)  # a bias and a dark, as in real life
    start, used = time.perf_counter(), time.process_time()
    if memory is None:
        for file in files:
            np.fromfile(file.path, ">i2")
    else:
        settings = {"memory": 100} if memory == 0 else {}
        flat, verdict = build_flat(iter(frames), Calibration(bias=planes[0], dark=planes[1]), CalibsConfig(**settings), scratch_plane)
        print(verdict.state, *verdict.reasons, file=sys.stderr)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024.0
    print(seconds, used, peak)


def main() -> None:
    side, n = (int(value) for value in (sys.argv[1:] + ["4096", "20"][len(sys.argv) - 1:])[:2])
    with tempfile.TemporaryDirectory(prefix="rsp-bench-") as folder:
        write(Path(folder), side, n)
        best = {name: np.full(3, np.inf) for name in KINDS}
        for _ in range(3):
            for name, memory in KINDS.items():
                found = subprocess.run([sys.executable, __file__, "--child", folder, str(side), str(memory)], check=True,
                                       capture_output=True, text=True)
                best[name] = np.minimum(best[name], [float(value) for value in found.stdout.split()])
        pixels = n * side * side / 1e6
        print(f"{n} frames of {side} x {side}, input Mpix/s:")
        for name, (seconds, used, peak) in best.items():
            line(name, pixels / seconds, pixels / best["reading alone"][0], unit="Mpix/s")
            print(f"{'':34s} of a core of one's own (processor time) {pixels / used:9.1f} Mpix/s  peak {peak:7.0f} MB", flush=True)


if __name__ == "__main__":
    if "--child" in sys.argv:
        at = sys.argv.index("--child")
        child(sys.argv[at + 1], int(sys.argv[at + 2]), None if sys.argv[at + 3] == "None" else int(sys.argv[at + 3]))
    else:
        main()
