"""One 4k x 4k detector from raw file to products, end to end on one core: seconds by step, and the peak of memory.

python benchmarks/bench_visit.py [SOURCES]

Simulates one science exposure of a detector of 16 amplifiers and its calibration frames, then runs `rsp-hpc run --until
visits` as a user would. Bound: writing nothing and computing nothing, the time to copy the raw pixels once.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import yaml

ROOT = Path(__file__).resolve().parents[1]
DETECTED_PER_ARCMIN2 = 0.264  # of the objects simulated per square arcmin, from a run
WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


def camera() -> dict:
    """A detector of 4096 x 4096 pixels, 16 amplifiers of 512 x 2048; header keys and layout of simcam."""
    values = yaml.safe_load((ROOT / "configs/cameras/simcam.yaml").read_text())
    rows = [{"name": f"C{y}{x}", "hdu": 1 + 8 * y + x, "origin": [512 * x, 2048 * y], "flip_y": y == 1, "gain": 1.5,
             "read_noise": 6.0} for y in range(2) for x in range(8)]
    common = {"section": [0, 0, 556, 2064], "prescan": [0, 0, 8, 2048], "data": [8, 0, 512, 2048],
              "serial_overscan": [520, 0, 36, 2048], "parallel_overscan": [8, 2048, 512, 16], "saturation": 61000.0}
    values["name"] = "fourk"
    values["detector_types"] = {"ccd": {"size": [4096, 4096], "amplifier": common, "amplifiers": rows}}
    values["detectors"] = [{"name": "D00", "id": 0, "type": "ccd", "center": [0.0, 0.0]}]
    values["layout"]["pattern"] = values["layout"]["pattern"].replace("simcam", "fourk")
    return values


def survey(sources: int) -> dict:
    """The demo's configuration with one visit of this detector and about so many sources."""
    values = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    density = sources / (4096 * 0.2 / 60) ** 2 / DETECTED_PER_ARCMIN2
    values |= {"camera": "camera.yaml", "data": "raw", "output": "run", "bands": ["r"]}
    values["reference"] |= {"bands": {"r": "flux_r"}, "errors": {"r": "flux_r_err"}}
    values["simulate"] = {
        "bands": ["r"], "sky": {"ra": 149.504, "dec": 2.2, "radius": 8.0, "star_density": density / 3, "galaxy_density": density / 1.5},
        "observing": {"visits_per_band": 1, "dither": 0.0, "bias_frames": 3, "dark_frames": 3, "flat_frames": 3}}
    return values


def command(folder: Path, *words: str) -> tuple[float, float]:
    """Run rsp-hpc; its peak of memory (MB) and seconds of processor time."""
    run = subprocess.run([sys.executable, "-c", WATCH, sys.executable, "-m", "rsp_hpc", *words], cwd=folder, text=True,
                         capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    peak, seconds = run.stderr.splitlines()[-1].split()
    return float(peak), float(seconds)


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sources = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "camera.yaml").write_text(yaml.safe_dump(camera()))
        (folder / "survey.yaml").write_text(yaml.safe_dump(survey(sources)))
        command(folder, "simulate", "survey.yaml")
        command(folder, "run", "survey.yaml", "--until", "ingest")
        calibs, calibs_s = command(folder, "calibs", "survey.yaml")
        visits, visits_s = command(folder, "visits", "survey.yaml")
        with open(folder / "run/timing.csv") as file:
            row = next(row for row in csv.DictReader(file) if row["stage"] == "visits" and row["compute_s"])
        product = next((folder / "run/visits").glob("*.h5"))
        with h5py.File(product) as file:
            found = len(file["sources/x"])
        print(f"calibs of 9 frames 4k x 4k: {calibs_s:.2f} core-seconds, {calibs:.0f} MB at most")
        print(f"visit stage of a 4k x 4k detector: {visits_s:.2f} core-seconds with start-up (bar 6), {visits:.0f} MB at most (bar 1500)")
        print("  " + ", ".join(f"{key} {value}" for key, value in row.items() if key.endswith("_s") and value))
        print(f"  {found} sources, {product.stat().st_size / 4096**2:.2f} bytes per pixel written")


if __name__ == "__main__":
    main()
