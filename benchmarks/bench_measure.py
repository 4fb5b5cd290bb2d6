"""Measuring judged: seconds per source, width over the floor, crowded bias, star-galaxy separation.

python benchmarks/bench_measure.py [SIZE]

The fields of bench_sources with flux as truth. Floor: the error of a matched filter on the noise of sky and object. The
width is half of the central 68 % of (flux - true), in units of the floor, or of the error given (pull). Speeds are in
seconds of processor time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from bench_sources import FWHM, READ_NOISE, SKY, Ours, make_field, make_psf
from scipy.spatial import cKDTree
from timing import pin

from rsp_hpc.algorithms.measure import MeasureConfig, measure_forced
from rsp_hpc.simulate.render import psf_mixture, render


def stamp_of(size: int = 61) -> np.ndarray:
    """The PSF with its wings."""
    stamp = np.zeros((size, size))
    middle = np.array([size // 2], float)
    render(stamp, middle, middle, np.array([1e6]), psf_mixture(*np.array([[FWHM], [0.0], [0.0]])))
    return stamp / 1e6


def width(values: np.ndarray) -> float:
    low, high = np.percentile(values, [15.87, 84.13])
    return 0.5 * (high - low)


def matched(ours: Ours, truth: dict):
    """Rows (source, true object) that are each other's nearest within two pixels."""
    true, found = np.stack([truth["x"], truth["y"]], axis=1), np.stack([ours.table["x"], ours.table["y"]], axis=1)
    visible = np.flatnonzero(truth["snr"] > 2.0)
    distance, near = cKDTree(true[visible]).query(found)
    back = cKDTree(found).query(true[visible])[1]
    good = np.flatnonzero((distance < 2.0) & (back[near] == np.arange(len(found))))
    return good, visible[near[good]]


def fluxes(kind: str, ours: Ours, truth: dict) -> None:
    """Bias, width over the floor, pull of isolated stars by S/N."""
    rows, true = matched(ours, truth)
    visible = np.flatnonzero(truth["snr"] > 3.0)
    at = np.stack([truth["x"], truth["y"]], axis=1)
    alone = cKDTree(at[visible]).query(at[true], k=2)[0][:, 1] > 8.0
    keep = truth["star"][true] & alone
    rows, true = rows[keep], true[keep]
    psf, sky = stamp_of(), SKY + READ_NOISE**2
    optimal = truth["snr"][true] * np.sqrt(sky / (psf**2).sum())  # the flux: S/N is that on the sky's noise
    floor = np.array([1.0 / np.sqrt((psf**2 / (sky + f * psf)).sum()) for f in optimal])
    difference, snr = ours.table["psfFlux"][rows] - optimal, optimal / floor
    for low, high in ((10, 20), (20, 50), (50, 100), (100, 500)):
        some = (snr > low) & (snr < high)
        if some.sum() > 20:
            d = difference[some] / optimal[some]
            print(f"  {kind} S/N {low:3d}-{high:3d}: {some.sum():4d} stars, bias {1086 * np.median(d):+6.1f} +- "
                  f"{1361 * width(d) / np.sqrt(some.sum()):.1f} mmag, width / floor {width(difference[some] / floor[some]):.3f}, "
                  f"pull {width(difference[some] / ours.table['psfFluxErr'][rows][some]):.3f}")


def separation(ours: Ours, truth: dict) -> None:
    """Area under the ROC curve of sizeExtendedness for galaxies against stars."""
    rows, true = matched(ours, truth)
    score, galaxy = ours.table["sizeExtendedness"][rows], ~truth["star"][true]
    for low, high in ((5, 10), (10, 20), (20, 50)):
        some = (truth["snr"][true] > low) & (truth["snr"][true] < high) & np.isfinite(score)
        one, zero = score[some & galaxy], score[some & ~galaxy]
        area = np.mean((one[:, None] > zero[None, :]) + 0.5 * (one[:, None] == zero[None, :])) if len(one) and len(zero) else np.nan
        print(f"  star-galaxy ROC area S/N {low}-{high}: {area:.3f} ({len(zero)} stars, {len(one)} galaxies)")


def speed(ours: Ours) -> None:
    """Sources per second of everything that is measured, one small aperture."""
    x, y = ours.table["x"], ours.table["y"]
    config = MeasureConfig(radii=(3.0,))
    best = np.inf
    for _ in range(4):
        start = time.process_time()
        measure_forced(ours.image, None, None, x, y, ours.psf, config)
        best = min(best, time.process_time() - start)
    print(f"  PSF flux, moments, Kron, sky ring and one aperture together: {len(x) / best:.0f} sources/s")


def main() -> None:
    pin()
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1536
    area = (size / 2048)**2
    for kind, stars, galaxies in (("visit", 600, 1200), ("crowded", 6000, 0)):
        image, truth = make_field(size, round(stars * area), round(galaxies * area), seed=7)
        ours = Ours(image, make_psf(size))
        for step in (ours.background, ours.detect, ours.deblend, ours.measure):
            step()
        fluxes(kind, ours, truth)
        if galaxies:
            separation(ours, truth)
        speed(ours)


if __name__ == "__main__":
    main()
