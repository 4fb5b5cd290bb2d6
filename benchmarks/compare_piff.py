"""Our PSF fit against Piff on the same stamps of simulated Kolmogorov fields: time, prediction of reserved stars, truth.

    python benchmarks/compare_piff.py [FIELDS [PIFF_FIELDS]]     # 12 fields, Piff on the first 3

Both are fitted to the same 80 % of the stars and judged by all others (no outlier is taken away), each refitting their flux and
position. Needs galsim; Piff is left out where it is not installed. `rho` are Rowe's statistics of the reserved stars' shapes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from kolmogorov import SKY, Truth, shape_of, size_of, star_field  # noqa: E402
from rsp_hpc.algorithms.psf import PsfConfig  # noqa: E402
from rsp_hpc.algorithms.psf.config import BAD_PLANES  # noqa: E402
from rsp_hpc.algorithms.psf.fit import fit_psf, reserve  # noqa: E402
from rsp_hpc.algorithms.psf.stamps import StarStamps  # noqa: E402
from rsp_hpc.products.psf import shift_matrix, stamp_moments  # noqa: E402

CONFIG = PsfConfig()
NAMES = ("ours", "Piff")


def ours(image, x, y, flux):
    """Seconds, stamps of the model at the truth's places, chi2 and dof of the reserved stars, their residual shapes."""
    start = time.process_time()
    psf = fit_psf(image, x, y, flux, CONFIG)
    seconds = time.process_time() - start
    held = reserve(x, y, CONFIG.reserve)
    stars = StarStamps.cut(image, x[held], y[held], flux[held], psf.size, BAD_PLANES)
    terms = psf.terms(stars.x, stars.y)
    stars.sky_prior[:] = 0.0, 1e12  # the sky is known here, to Piff as well
    stars.sky[:] = 0.0
    stars.refit(psf.coefficients, terms, stars.weights(psf.coefficients, terms, 0.0), 4)
    chi2, dof = stars.refit(psf.coefficients, terms, stars.weights(psf.coefficients, terms, 0.0), 2)
    return seconds, psf.stamps(TRUTH.x, TRUTH.y), chi2, dof, residuals(stars, stars.model(psf.coefficients, terms))


def residuals(stars: StarStamps, model: np.ndarray) -> tuple[np.ndarray, ...]:
    """Places, shapes of the stars and of the model, relative size residuals: what Rowe's statistics need."""
    shift = np.stack([stars.x - stars.column, stars.y - stars.row])
    light = stars.data / stars.flux[:, None, None]
    seen, predicted = (moments_at(planes, shift) for planes in (light, model))
    return stars.x, stars.y, shape_of(seen), shape_of(predicted), size_of(seen) ** 2 / size_of(predicted) ** 2 - 1.0


def moments_at(planes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moments of stamps after they were moved onto their middle pixels."""
    size = planes.shape[-1]
    return stamp_moments(shift_matrix(-shift[1], size, size) @ planes @ shift_matrix(-shift[0], size, size).swapaxes(1, 2))


def piff_fit(image, x, y, flux, size: int = 25):
    """The same of Piff: pixel grid of 25, Lanczos 11, order 2, its own outlier rejection."""
    import galsim
    import piff

    stars, half = [], 20
    for cx, cy in zip(x, y):
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        if not (half <= ix < image.image.shape[1] - half and half <= iy < image.image.shape[0] - half):
            continue
        part = np.s_[iy - half:iy + half + 1, ix - half:ix + half + 1]
        cut, weight = (galsim.Image(plane.astype(float), xmin=ix - half, ymin=iy - half, scale=1.0)
                       for plane in (image.image[part], 1.0 / image.variance[part]))
        stars.append(piff.Star(piff.StarData(cut, galsim.PositionD(cx, cy), weight=weight), None))
    held = reserve(x, y, CONFIG.reserve)
    held = held[[np.argmin(np.hypot(x - s.image_pos.x, y - s.image_pos.y)) for s in stars]]
    start = time.process_time()
    interp = piff.BasisPolynomial(order=2)
    psf = piff.SimplePSF(piff.PixelGrid(1.0, size, interp="Lanczos(11)"), interp,
                         outliers=[piff.ChisqOutliers(nsigma=4, max_remove=0.05)])
    psf.fit([s for s, h in zip(stars, held) if not h], {0: galsim.PixelScale(1.0)}, None)
    seconds = time.process_time() - start
    drawn = np.array([psf.draw(cx, cy, stamp_size=33, center=True).array for cx, cy in zip(TRUTH.x, TRUTH.y)])
    chi2, dof = [], []
    for star in psf.initialize_flux_center([s for s, h in zip(stars, held) if h]):
        star = psf.interpolateStar(star)
        for _ in range(3):
            star = psf.reflux(star)
        chi2.append(star.fit.chisq)
        dof.append(star.fit.dof)
    return seconds, drawn, np.array(chi2), np.array(dof), None


def rho(samples: list) -> str:
    """Rowe statistics 1 to 5 of all pairs of a field closer than 600 pixels, in units of their error over the fields."""
    rows = []
    for x, y, star, model, size in samples:
        de, dt = star - model, size
        i, j = np.nonzero(np.triu(np.hypot(x[:, None] - x, y[:, None] - y) < 600.0, 1))
        pairs = [(de, de), (model, de), (dt[:, None] * model, dt[:, None] * model), (de, dt[:, None] * model),
                 (model, dt[:, None] * model)]
        rows.append([0.5 * np.mean(np.sum(a[i] * b[j] + b[i] * a[j], axis=1)) for a, b in pairs])
    rows = np.array(rows)
    mean, error = rows.mean(axis=0), rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    return "  ".join(f"rho{k} {m:+.1e} ({m / e:+.1f} sigma)" for k, m, e in zip((1, 2, 3, 4, 5), mean, error))


def summary(name: str, results: list) -> str:
    """One line: best and median seconds, reserve chi2, errors of the truth."""
    seconds, stamps, chi2, dof, _ = zip(*results)
    size, shape = (np.array(part) for part in zip(*(TRUTH.compare(found) for found in stamps)))
    each = np.array([c.sum() / d.sum() for c, d in zip(chi2, dof)])
    n = np.sqrt(len(results))
    e_mean, e_error = shape.mean(axis=(0, 1)), shape.mean(axis=1).std(axis=0) / n
    return (f"{name:5} {len(results):3} fields  {min(seconds):.3f} s (median {np.median(seconds):.3f})  reserve chi2/dof "
            f"{sum(map(np.sum, chi2)) / sum(map(np.sum, dof)):.4f} (fields {each.min():.3f} to {each.max():.3f})  size rms "
            f"{np.sqrt((size**2).mean()):.5f} mean {size.mean():+.5f} +- {size.mean(axis=1).std() / n:.5f}  e rms "
            f"{np.sqrt((shape**2).mean()):.5f} mean {e_mean[0]:+.5f} {e_mean[1]:+.5f} +- {e_error.max():.5f}")


def main(fields: int = 12, piff_fields: int = 3) -> None:
    results: dict[str, list] = {name: [] for name in NAMES}
    for seed in range(fields):
        image, x, y, flux = star_field(seed)
        rng = np.random.default_rng(seed)
        x, y, flux = x + rng.normal(0, 0.1, len(x)), y + rng.normal(0, 0.1, len(x)), flux * rng.normal(1, 0.03, len(x))
        results["ours"].append(ours(image, x, y, flux))
        if seed < piff_fields:
            results["Piff"].append(piff_fit(image, x, y, flux))
    for name in NAMES:
        if results[name]:
            print(summary(name, results[name]))
    if results["Piff"]:
        print(summary("ours", results["ours"][:piff_fields]), " (the same fields)")
        ratio = min(r[0] for r in results["Piff"]) / min(r[0] for r in results["ours"][:piff_fields])
        print(f"Piff / ours in time: {ratio:.0f}")
    print(f"sky {SKY:g} electron;", rho([result[4] for result in results["ours"]]))


TRUTH = Truth()

if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
