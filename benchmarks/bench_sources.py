"""Background, detection, deblending, measuring on the same pixels: ours, sep, and SExtractor where it is installed.

python benchmarks/bench_sources.py [size [repeats]]

A normal field (stars and galaxies) and a crowded one (stars), simulated with known truth: speed of each step, and of all;
completeness of isolated objects by their optimal S/N, and purity. Settings of the peers are those of their defaults with
the 3x3 filter, 1.5 sigma, 5 pixels (and sep with the matched filter of the PSF's width at our threshold).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from timing import interleave, line, pin

from rsp_hpc.algorithms.background import BackgroundConfig, fit_background, subtract_background
from rsp_hpc.algorithms.deblend import DeblendConfig, deblend
from rsp_hpc.algorithms.detect import DetectConfig, detect
from rsp_hpc.algorithms.measure import MeasureConfig, measure
from rsp_hpc.products.box import Box
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.psf import PolynomialPsf
from rsp_hpc.simulate.render import convolve, galaxy_mixture, psf_mixture, render, shear_matrix

SKY, READ_NOISE, FWHM = 800.0, 6.0, 3.5
RADII = (6.0, 12.0, 20.0)


def make_field(size: int, n_stars: int, n_galaxies: int, seed: int):
    """An image in electrons with sky, and its truth: x, y, optimal S/N, is a star."""
    rng, n = np.random.default_rng(seed), n_stars + n_galaxies
    x, y = rng.uniform(5, size - 5, (2, n))
    flux = 200.0 * rng.uniform(size=n) ** (-1.0 / 0.75)
    flux = np.minimum(flux, 5e5)
    light, variance, signal = np.zeros((size, size)), SKY + READ_NOISE**2, np.empty(n)
    ones = np.ones(n)
    psf = psf_mixture(FWHM * ones, 0.0 * ones, 0.0 * ones)
    radius = rng.lognormal(np.log(1.6), 0.4, n)
    galaxy = convolve(galaxy_mixture(radius, rng.uniform(size=n) < 0.3, shear_matrix(*(0.2 * rng.standard_normal((2, n))))), psf)
    for rows, mixture in ((np.arange(n_stars), psf), (np.arange(n_stars, n), galaxy)):
        if len(rows):
            part = mixture.rows(rows)
            render(light, x[rows], y[rows], flux[rows], part)
            signal[rows] = flux[rows] * np.sqrt(_squared_integral(part) / variance)
    image = rng.poisson(light + SKY) + READ_NOISE * rng.standard_normal(light.shape)
    plane = np.maximum(image, 0.5 * SKY) + READ_NOISE**2
    masked = MaskedImage(image.astype(np.float32), np.zeros(light.shape, np.uint32), plane.astype(np.float32))
    return masked, {"x": x, "y": y, "snr": signal, "star": np.arange(n) < n_stars}


def _squared_integral(mixture) -> np.ndarray:
    """Integral of the squared profile of each object, pixel response included."""
    xx, yy, xy = (part[:, :, None] + part[:, None, :] for part in mixture[1:])
    determinant = (xx + 1 / 6) * (yy + 1 / 6) - xy**2
    return (mixture.weight[:, :, None] * mixture.weight[:, None, :] / (2 * np.pi * np.sqrt(determinant))).sum((1, 2))


def make_psf(size: int) -> PolynomialPsf:
    """The field's PSF."""
    stamp = np.zeros((25, 25))
    render(stamp, np.array([12.0]), np.array([12.0]), np.array([1e6]), psf_mixture(*np.array([[FWHM], [0.0], [0.0]])))
    return PolynomialPsf(stamp[None] / 1e6, 0, Box(0, 0, size, size))


class Ours:
    """Our four steps; each keeps its result for the next."""

    def __init__(self, image: MaskedImage, psf):
        self.raw, self.psf, self.image = image, psf, image.copy()
        self.configs = BackgroundConfig(), DetectConfig(), DeblendConfig(), MeasureConfig(radii=RADII, local_background=False)  # peers have no ring

    def background(self):
        self.image.image[:] = self.raw.image
        subtract_background(self.image, fit_background(self.raw, self.configs[0]))

    def detect(self):
        self.found = detect(self.image, self.psf, self.configs[1])

    def deblend(self):
        self.children = deblend(self.image, self.found, self.psf, self.configs[2])

    def measure(self):
        self.table = measure(self.image, self.found, self.children, self.psf, self.configs[3])

    def positions(self):
        return self.table["x"], self.table["y"]


class Sep:
    """sep's steps: its fast way (one noise value, 3x3 filter), or the matched filter with the variance plane."""

    def __init__(self, image: MaskedImage, matched: bool = False):
        import sep

        sep.set_extract_pixstack(3_000_000)
        self.sep, self.raw, self.matched, self.work = sep, image.image, matched, image.image.copy()
        self.variance, self.mask = image.variance, np.zeros(image.box.shape, bool)
        r2 = np.add.outer(np.arange(-3, 4)**2, np.arange(-3, 4)**2)
        self.kernel = np.exp(-0.5 * r2 / (FWHM / 2.3548)**2).astype(np.float32)

    def background(self):
        self.work[:] = self.raw
        sky = self.sep.Background(self.raw, mask=self.mask, bw=128, bh=128)
        sky.subfrom(self.work)
        self.noise = sky.globalrms

    def detect(self):
        if self.matched:
            self.found = self.sep.extract(self.work, 4.5, var=self.variance, mask=self.mask, minarea=3,
                                          filter_kernel=self.kernel, clean=False)
        else:
            self.found = self.sep.extract(self.work, 1.5, err=self.noise, minarea=5, filter_type="conv")

    def measure(self):
        x, y, a, b, theta = (self.found[name] for name in ("x", "y", "a", "b", "theta"))
        theta = np.clip(theta, -np.pi / 2, np.pi / 2)
        for radius in RADII:
            self.sep.sum_circle(self.work, x, y, radius, var=self.variance)
        kron, _ = self.sep.kron_radius(self.work, x, y, a, b, theta, 6.0)
        kron = np.where(np.isfinite(kron), np.clip(kron, 1.0, 10.0), 1.0)
        flux, _, _ = self.sep.sum_ellipse(self.work, x, y, a, b, theta, 2.5 * kron, var=self.variance)
        half, _ = self.sep.flux_radius(self.work, x, y, 6.0 * a, 0.5, normflux=flux)
        self.x, self.y, _ = self.sep.winpos(self.work, x, y, np.where(np.isfinite(half), np.maximum(half, 0.5), 1.5) / 1.1774)

    def positions(self):
        return self.x, self.y


class Sextractor:
    """SExtractor from disk to disk, all steps in one process."""

    def __init__(self, image: MaskedImage):
        from astropy.io import fits

        self.folder = Path(tempfile.mkdtemp(prefix="rsp-sextractor-"))
        fits.writeto(self.folder / "image.fits", image.image)
        fits.writeto(self.folder / "weight.fits", (1.0 / image.variance).astype(np.float32))
        names = ("NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "FLUX_APER(3)", "FLUXERR_APER(3)", "FLUX_AUTO",
                 "FLUXERR_AUTO", "FLAGS", "A_IMAGE", "B_IMAGE", "THETA_IMAGE")
        (self.folder / "names").write_text("\n".join(names))
        share = Path("/usr/share/source-extractor")
        (self.folder / "filter").write_text((share / "default.conv").read_text() if share.is_dir() else
                                            "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        self.command = [shutil.which("source-extractor"), "image.fits", "-c", "none", "-PARAMETERS_NAME", "names",
                        "-FILTER_NAME", "filter", "-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "weight.fits",
                        "-DETECT_THRESH", "1.5", "-ANALYSIS_THRESH", "1.5", "-DETECT_MINAREA", "5", "-BACK_SIZE", "128",
                        "-PHOT_APERTURES", "12,24,40", "-GAIN", "0", "-NTHREADS", "1", "-CATALOG_TYPE", "ASCII",
                        "-VERBOSE_TYPE", "QUIET", "-CATALOG_NAME", "out.cat"]
        (self.folder / "none").write_text("")

    def everything(self):
        subprocess.run(self.command, cwd=self.folder, check=True)

    def positions(self):
        table = np.loadtxt(self.folder / "out.cat")
        return table[:, 3] - 1.0, table[:, 4] - 1.0


def judge(name: str, truth: dict, x, y) -> np.ndarray:
    """Print completeness of isolated objects in bins of S/N, and purity; returns which sources are real, in their order."""
    from scipy.spatial import cKDTree

    true, good = np.stack([truth["x"], truth["y"]], axis=1), np.isfinite(x) & np.isfinite(y)
    found = np.stack([x, y], axis=1)[good]
    visible = truth["snr"] > 3.0
    isolated = cKDTree(true[visible]).query(true, k=2)[0][:, 1] > 15.0
    inside = (true > 10).all(axis=1) & (true < true.max() - 10).all(axis=1)
    near = cKDTree(found).query(true)[0] < 2.5
    real = cKDTree(true[truth["snr"] > 2.0]).query(found)[0] < 3.0
    text = []
    for low, high in ((5, 7), (7, 10), (10, 20), (20, 1e9)):
        chosen = isolated & inside & (truth["snr"] > low) & (truth["snr"] < high)
        blended = ~isolated & inside & (truth["snr"] > low) & (truth["snr"] < high)
        text.append(f"{near[chosen].mean():.3f} ({near[blended].mean():.2f})")
    print(f"  {name:22s} {len(found):6d} sources; complete at S/N 5-7, 7-10, 10-20, > 20 (not isolated): "
          f"{', '.join(text)}; purity {real.mean():.4f}", flush=True)
    return real


def run(kind: str, size: int, n_stars: int, n_galaxies: int, repeats: int) -> None:
    """One field: speeds, then quality."""
    image, truth = make_field(size, n_stars, n_galaxies, seed=7)
    ours, million = Ours(image, make_psf(size)), size * size / 1e6
    ways = {f"ours {step}": getattr(ours, step) for step in ("background", "detect", "deblend", "measure")}
    peers = {}
    try:
        peers["sep"], peers["sep matched"] = Sep(image), Sep(image, matched=True)
    except ImportError:
        print("  sep is missing: pip install sep")
    for name, peer in peers.items():
        ways |= {f"{name} {step}": getattr(peer, step) for step in ("background", "detect", "measure")}
    if shutil.which("source-extractor"):
        peers["SExtractor"] = Sextractor(image)
        ways["SExtractor all"] = peers["SExtractor"].everything
    else:
        print("  SExtractor is missing: apt install source-extractor")
    print(f"{kind}: {size} x {size} pixels, {n_stars} stars, {n_galaxies} galaxies")
    seconds = interleave(ways, repeats)
    seconds["ours deblend, detect"] = seconds["ours deblend"] + seconds["ours detect"]
    total = {name: sum(value for way, value in seconds.items() if way.rsplit(" ", 1)[0] == name) for name in ("ours", *peers)}
    for step, mine in (("background", "ours background"), ("detect", "ours deblend, detect"), ("measure", "ours measure")):
        other = seconds.get(f"sep {step}")
        line(f"{kind} {step}", million / seconds[mine], peer=other and million / other, peer_name="sep")
    line(f"{kind} measure per source", len(ours.table) / seconds["ours measure"] / 1e3, unit="k src/s", peer_name="sep",
         peer=len(peers["sep"].found) / seconds["sep measure"] / 1e3 if "sep" in peers else None)
    total["ours"] = sum(seconds[f"ours {step}"] for step in ("background", "detect", "deblend", "measure"))
    for name in ("sep", "sep matched", "SExtractor"):
        line(f"{kind} all steps", million / total["ours"], peer=name in total and million / total[name] or None, peer_name=name)
    real = {name: judge(name, truth, *way.positions()) for name, way in {"ours": ours, **peers}.items()}
    ranked = real["ours"][np.argsort(-ours.table["detect_snr"][np.isfinite(ours.positions()[0])])]
    for name in peers:  # a deeper list has sources that noise moved by more than the judge allows
        count = min(len(real[name]), len(ranked))
        print(f"  purity of the {count} best of ours, as many as {name} has: {ranked[:count].mean():.4f} against {real[name].mean():.4f}")


def main() -> None:
    pin()
    size, repeats = (int(value) for value in (sys.argv[1:] + ["2048", "5"][len(sys.argv) - 1:])[:2])
    area = (size / 2048)**2
    run("visit", size, round(600 * area), round(1200 * area), repeats)
    run("crowded", size, round(6000 * area), 0, repeats)


if __name__ == "__main__":
    main()
