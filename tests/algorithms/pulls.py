"""Are the errors true? Isolated stars of S/N 5 to 500 and empty positions on simulated visits: `make pulls`.

python tests/algorithms/pulls.py [VISITS]

Every star is on a list, at the pixel it lies in, so that no star is lost for its noise: at S/N 5 detection keeps the lucky
ones. Positions are fitted from there. Forced fluxes are at the true positions. What detection itself finds is compared above
S/N 8 only. Pulls are (measured - true) / error; the width is half of the central 68.27 %.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

from algorithms.sources import flux_of, grid, psf_of, pull_width, star_image

from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.algorithms.measure import MeasureConfig, measure, measure_forced
from rsp_hpc.algorithms.psf import PsfConfig, fit_psf
from rsp_hpc.products.box import Box
from rsp_hpc.products.footprints import Detections

FWHM, STEP = 3.5, 48.0
CONFIG = MeasureConfig(radii=(3.0, 6.0, 12.0))
BINS = (5.0, 7.0, 10.0, 20.0, 50.0, 150.0, 500.0)
SHAPES = ("ixx", "iyy", "ixy")


def listed(box: Box, x, y) -> Detections:
    """A list of positions as if they were peaks, each alone in its footprint."""
    n, nothing = len(x), np.zeros(box.shape, np.int32)
    rows = np.arange(n, dtype=np.int32)
    return Detections(box, nothing, nothing, np.rint(x), np.rint(y), np.full(n, np.nan, np.float32), rows,
                      np.zeros((n, 4), np.int32), np.zeros(n, np.int64), np.arange(n + 1))


def empty_positions(rng, box: Box, x, y, n: int):
    """n positions further than 26 pixels from all stars, and from the border."""
    at = rng.uniform([20.0, 20.0], [box.nx - 20.0, box.ny - 20.0], (20 * n, 2))
    return at[cKDTree(np.stack([x, y], axis=1)).query(at)[0] > 26.0][:n].T


def visit(seed: int, side: int = 18, fitted_psf: bool = False) -> dict[str, np.ndarray]:
    """Pulls of one simulated visit: snr (n,), and by name (n,) each; `sky` is of empty positions."""
    rng = np.random.default_rng((17, seed))
    x, y = grid(side, STEP, seed=1000 + seed)
    box = Box.of_shape((int(STEP * (side + 0.4)),) * 2)
    psf = psf_of(FWHM, box)
    snr = np.exp(rng.uniform(np.log(BINS[0]), np.log(BINS[-1]), len(x)))
    flux = flux_of(snr, psf)
    image = star_image(box.shape, x, y, flux, fwhm=FWHM, seed=int(rng.integers(1 << 30)))
    truth = psf
    if fitted_psf:
        stars = measure_forced(image, None, None, x[snr > 30], y[snr > 30], psf, CONFIG)
        psf = fit_psf(image, stars["x"], stars["y"], stars["psfFlux"], PsfConfig())
    table, forced = measure(image, listed(box, x, y), None, psf, CONFIG), measure_forced(image, None, None, x, y, psf, CONFIG)
    if fitted_psf:  # the scale of a fitted PSF is the zero point's matter: its error is common to all stars
        flux = flux * np.median((forced["psfFlux"] / flux)[snr > 100])
    sky = measure_forced(image, None, None, *empty_positions(rng, box, x, y, len(x)), psf, CONFIG)
    moments = measure_forced(star_image(box.shape, [], [], [], seed=0), None, None, x, y, truth, CONFIG)
    pulls = {"snr": snr, "forced flux": (forced["psfFlux"] - flux) / forced["psfFluxErr"],
             "flux": (table["psfFlux"] - flux) / table["psfFluxErr"]}
    pulls |= {axis: (table[axis] - true) / table[axis + "Err"] for axis, true in (("x", x), ("y", y))}
    pulls |= {name: (table[name] - moments[name + "PSF"]) / table[name + "Err"] for name in SHAPES}
    pulls["excess"] = table["sizeExcess"] / table["sizeExcessErr"]
    pulls["no position"], pulls["no shape"] = table["centroid_flag"].astype(float), table["i_flag"].astype(float)
    found = measure(image, detect(image, psf, DetectConfig()), None, psf, CONFIG)
    distance, row = cKDTree(np.stack([found["x"], found["y"]], axis=1)).query(np.stack([x, y], axis=1))
    good = (distance < 3.0) & (snr > 8.0)
    pulls["detected flux"] = np.where(good, (found["psfFlux"][row] - flux) / found["psfFluxErr"][row], np.nan)
    return pulls | {f"sky {name}": sky[name] / sky[name + "Err"] for name in ("psfFlux", "ap03Flux", "ap06Flux", "ap12Flux")}


def together(visits: list[dict]) -> dict[str, np.ndarray]:
    """Pulls of all visits in one."""
    return {name: np.concatenate([pulls[name] for pulls in visits]) for name in visits[0]}


def numbers(values: np.ndarray) -> tuple[float, float, float, float]:
    """Width, its error, mean without outliers beyond 5, its error."""
    values = values[np.isfinite(values)]
    n, core = max(len(values), 1), values[np.abs(values) < 5.0]
    return pull_width(values), 0.82 / np.sqrt(n), float(core.mean()), float(core.std() / np.sqrt(n))


def table_of(pulls: dict[str, np.ndarray]) -> str:
    """Widths and means by S/N, as text."""
    lines = [f"{'':14s}" + "".join(f"S/N {low:3.0f}-{high:3.0f}{'':13s}" for low, high in zip(BINS, BINS[1:])) + "all"]
    names = [name for name in pulls if name != "snr" and not name.startswith(("sky", "no "))]
    for name in names:
        rows = [(pulls["snr"] >= low) & (pulls["snr"] < high) for low, high in [*zip(BINS, BINS[1:]), (BINS[0], BINS[-1])]]
        parts = [numbers(pulls[name][some]) for some in rows if np.isfinite(pulls[name][some]).sum() > 9]
        text = "  ".join(f"{width:5.3f}({1e3 * error:2.0f}) {mean:+6.3f}({1e3 * mean_error:2.0f})" for width, error, mean, mean_error in parts)
        lines.append(f"{name:14s}" + "  ".join([""] * (len(rows) - len(parts))) + text)
    for name in ("no position", "no shape"):
        lines.append(f"{name}: " + ", ".join(f"{pulls[name][(pulls['snr'] >= low) & (pulls['snr'] < high)].mean():.3f}"
                                             for low, high in zip(BINS, BINS[1:])))
    for name in (name for name in pulls if name.startswith("sky")):
        width, error, mean, mean_error = numbers(pulls[name])
        lines.append(f"{name}: width {width:.3f} +- {error:.3f}, mean {mean:+.3f} +- {mean_error:.3f}")
    return "\n".join(lines)


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    for fitted in (False, True):
        print("PSF fitted to the stars" if fitted else "true PSF", f"({n} visits; width and mean, errors of the last digits)")
        print(table_of(together([visit(seed, fitted_psf=fitted) for seed in range(n)])), flush=True)


if __name__ == "__main__":
    main()
