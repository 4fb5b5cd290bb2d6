"""Metrics of the objects against the truth: pure functions on arrays and catalogues.

Definitions, where the truth does not bring its own: true S/N of a star is its flux over the error of an optimal PSF
flux at its place in the coadd; of a galaxy the same for a Gaussian of the summed second moments. The best S/N is the
highest of the bands. An object is isolated if its neighbours bias an optimal flux by less than max(0.2 %, 0.1 sigma).
Fractions carry Wilson's one-sigma interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..products.catalogue import Catalogue
from .config import SNR_BINS, ReportConfig, bin_name
from .robust import Estimate, fraction, match_sky, median, neighbours, offsets, weighted_mean, width

__all__ = ["Comparison", "Metric", "Truth", "compare", "completeness", "duplicate_pairs", "isolated", "metric",
           "object_metrics", "roc_area"]

MILLIMAG = 2500.0 / np.log(10.0)
"""Millimagnitudes of a relative flux change of one."""


@dataclass(frozen=True)
class Metric:
    """One number of the report.

    Attributes
    ----------
    key : str, name in metrics.json and in the configuration's targets; label : str, words for people
    value, error : float, NaN if not measured
    unit, band : str
    n : int, data that it rests on
    low, high : float or None, the target's limits
    note : str, how it was measured, or why it was not
    """

    key: str
    label: str
    value: float
    error: float
    unit: str = ""
    band: str = ""
    n: int = 0
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the value meets its target; None without a target or without a value."""
        if (self.low is None and self.high is None) or not np.isfinite(self.value):
            return None
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    @property
    def target(self) -> str:
        """The limits as text."""
        if self.low is None and self.high is None:
            return ""
        if self.low is None:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"

    def as_row(self) -> dict:
        """Plain values for JSON: no NaN, None instead."""
        numbers = {name: float(getattr(self, name)) if np.isfinite(getattr(self, name)) else None
                   for name in ("value", "error")}
        return {"key": self.key, "band": self.band, "label": self.label, **numbers, "unit": self.unit, "n": int(self.n),
                "target": self.target or None, "ok": None if self.ok is None else bool(self.ok), "note": self.note}


def metric(key: str, label: str, estimate: Estimate, config: ReportConfig, **more) -> Metric:
    """A metric of an estimate, with the configuration's target; `more` are unit, band, note."""
    low, high = config.target(key)
    return Metric(key, label, *estimate[:2], n=estimate.n, low=low, high=high, **more)


@dataclass(frozen=True)
class Truth:
    """What is really on the sky.

    Attributes
    ----------
    ra, dec : (n,) float64, ICRS degrees
    is_star : (n,) bool
    sigma : (n,) float64, arcsec: root of half the trace of the second moments before the PSF; 0 for stars
    flux : band -> (n,) float64, nJy
    noise : band -> (n,) float64, nJy: error of a star's optimal PSF flux at that place; NaN outside the coadd
    psf_sigma : band -> float, arcsec
    usable : (n,) bool, on good pixels of a coadd
    known_snr, known_isolated : band -> (n,), where the truth brings them; they replace what is computed here
    """

    ra: np.ndarray
    dec: np.ndarray
    is_star: np.ndarray
    sigma: np.ndarray
    flux: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    psf_sigma: dict[str, float]
    usable: np.ndarray
    known_snr: dict[str, np.ndarray] = field(default_factory=dict)
    known_isolated: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ra)

    def snr(self, band: str) -> np.ndarray:
        """(n,) true S/N in a band; NaN outside the coadd."""
        if band in self.known_snr:
            return self.known_snr[band]
        psf = self.psf_sigma[band]
        return self.flux[band] / self.noise[band] * psf / np.hypot(psf, self.sigma)

    def together(self) -> np.ndarray:
        """(n,) S/N of all bands together: the root of the sum of squares."""
        table = [np.nan_to_num(self.snr(band)) for band in self.flux]
        return np.sqrt(np.sum(np.square(table), axis=0)) if table else np.zeros(len(self))

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) highest S/N of all bands (0 where there is no coadd), and the index of that band in `flux`."""
        if not self.flux:
            return np.zeros(len(self)), np.zeros(len(self), int)
        table = np.nan_to_num(np.stack([self.snr(band) for band in self.flux]))
        return table.max(axis=0), table.argmax(axis=0)


def true_pairs(truth: Truth, config: ReportConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j) and (j, i) of true objects that may disturb each other, and their distances in arcsec."""
    i, j, distance = neighbours(truth.ra, truth.dec, truth.ra, truth.dec, config.isolation_radius)
    return i[i != j], j[i != j], distance[i != j]


def isolated(truth: Truth, band: str, config: ReportConfig, pairs=None) -> np.ndarray:
    """(n,) bool: neighbours bias the optimal flux in a band by less than max(0.2 %, 0.1 sigma).

    The overlap of two profiles is that of Gaussians of their sizes in the core, with Moffat wings of exponent 2.5,
    wider than the atmosphere's: it errs on the side of calling an object blended. `pairs` are those of `true_pairs`.
    """
    if band in truth.known_isolated:
        return truth.known_isolated[band]
    psf, flux = truth.psf_sigma[band], np.nan_to_num(truth.flux[band])
    i, j, distance = pairs or true_pairs(truth, config)
    square = psf**2 + truth.sigma**2
    total = square[i] + square[j]
    overlap = 2.0 * square[i] / total * (1.0 + distance**2 / (5.0 * total)) ** -2.5
    bias = np.bincount(i, flux[j] * overlap, minlength=len(truth))
    snr = np.nan_to_num(truth.snr(band))
    allowed = np.maximum(config.isolation_relative, config.isolation_sigma / np.maximum(snr, 1e-9))
    return bias < allowed * flux


@dataclass(frozen=True)
class Comparison:
    """Objects matched with the truth.

    Attributes
    ----------
    objects : Catalogue of the primary objects
    truth : Truth
    row, true : (m,) indices of the matched objects and of their true counterparts
    spurious : (n_objects,) bool, without any true object within the match radius
    best_snr : (n_true,) float64; best_isolated : (n_true,) bool, isolation in the band of the best S/N
    isolated : band -> (n_true,) bool
    """

    objects: Catalogue
    truth: Truth
    row: np.ndarray
    true: np.ndarray
    spurious: np.ndarray
    best_snr: np.ndarray
    best_isolated: np.ndarray
    isolated: dict[str, np.ndarray]

    @property
    def bands(self) -> list[str]:
        """Bands that both the objects and the truth have."""
        return [band for band in self.truth.flux if f"{band}_psfFlux" in self.objects]

    @property
    def found(self) -> np.ndarray:
        """(n_true,) bool."""
        found = np.zeros(len(self.truth), bool)
        found[self.true] = True
        return found

    def stars(self, band: str, low: float, high: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """(rows, true rows) of matched isolated stars with true S/N in [low, high), whose PSF flux has no flag, an
        exact PSF and no saturated core."""
        snr = self.truth.snr(band)[self.true]
        good = self.truth.is_star & self.truth.usable & self.isolated[band]
        keep = good[self.true] & (snr >= low) & (snr < high)
        for flag in ("psfFlux_flag", "pixelFlags_inexact_psfCenter", "pixelFlags_saturatedCenter"):
            if f"{band}_{flag}" in self.objects:
                keep &= self.objects[f"{band}_{flag}"][self.row] == 0
        return self.row[keep], self.true[keep]

    def flux_residual(self, band: str, low: float, high: float = np.inf) -> tuple[np.ndarray, ...]:
        """(true S/N, PSF flux - true flux, its error) of isolated stars, nJy."""
        row, true = self.stars(band, low, high)
        return (self.truth.snr(band)[true], self.objects[f"{band}_psfFlux"][row] - self.truth.flux[band][true],
                self.objects[f"{band}_psfFluxErr"][row].astype(float))

    def position_residual(self, low: float, high: float = np.inf) -> tuple[np.ndarray, ...]:
        """(best S/N, east, north, east error, north error) of isolated stars: offsets from the truth, arcsec."""
        good = self.truth.is_star & self.truth.usable & self.best_isolated
        keep = good[self.true] & (self.best_snr[self.true] >= low) & (self.best_snr[self.true] < high)
        row, true = self.row[keep], self.true[keep]
        east, north = offsets(self.objects["coord_ra"][row], self.objects["coord_dec"][row],
                              self.truth.ra[true], self.truth.dec[true])
        errors = [3600.0 * self.objects[name][row].astype(float) if name in self.objects else np.full(len(row), np.nan)
                  for name in ("coord_raErr", "coord_decErr")]
        return self.best_snr[true], east, north, *errors


def primary(objects: Catalogue) -> Catalogue:
    """The rows that count once: those with `detect_isPrimary`, or all where there is no such column."""
    return objects.rows(objects["detect_isPrimary"].astype(bool)) if "detect_isPrimary" in objects else objects


def compare(objects: Catalogue, truth: Truth, config: ReportConfig) -> Comparison:
    """Match the primary objects with the truth: first with what could be detected (S/N >= 5), then with the fainter."""
    objects = primary(objects)
    best, band = truth.best()
    ra, dec = objects["coord_ra"], objects["coord_dec"]
    row, true = np.empty(0, np.int64), np.empty(0, np.int64)
    for low, high in ((5.0, np.inf), (config.faintest_truth, 5.0)):
        left = np.setdiff1d(np.arange(len(objects)), row)
        tier = np.nonzero((best >= low) & (best < high))[0]
        i, j, _ = match_sky(ra[left], dec[left], truth.ra[tier], truth.dec[tier], config.match_radius)
        row, true = np.concatenate([row, left[i]]), np.concatenate([true, tier[j]])
    known = np.nonzero(best >= config.faintest_truth)[0]
    near = neighbours(ra, dec, truth.ra[known], truth.dec[known], config.match_radius)[0]
    spurious = np.ones(len(objects), bool)
    spurious[near] = False
    pairs = true_pairs(truth, config) if set(truth.flux) - set(truth.known_isolated) else None
    alone = {name: isolated(truth, name, config, pairs) for name in truth.flux}
    best_alone = np.stack(list(alone.values()))[band, np.arange(len(truth))] if alone else np.zeros(len(truth), bool)
    return Comparison(objects, truth, row, true, spurious, best, best_alone, alone)


def completeness(snr, found, use, bins) -> list[Estimate]:
    """Fraction found of the objects in `use`, in bins [low, high) of true S/N."""
    result = []
    for low, high in bins:
        inside = use & (snr >= low) & (snr < high)
        result.append(fraction(int((found & inside).sum()), int(inside.sum())))
    return result


def completeness_metrics(comparison: Comparison, config: ReportConfig) -> list[Metric]:
    """Of isolated stars and galaxies on good pixels, by best S/N."""
    truth = comparison.truth
    use = truth.usable & comparison.best_isolated
    values = completeness(comparison.best_snr, comparison.found, use, SNR_BINS)
    result = [metric(f"completeness_{bin_name(*edges)}", f"completeness, S/N {range_text(*edges)}", value, config,
                     note="isolated stars and galaxies on good coadd pixels, by the true S/N of their best band")
              for edges, value in zip(SNR_BINS, values)]
    values = completeness(truth.together(), comparison.found, use, SNR_BINS)
    return result + [metric(f"completeness_together_{bin_name(*edges)}",
                            f"completeness, S/N {range_text(*edges)} in all bands together",
                            value, config,
                            note="the same by the root of the sum of squares over the bands: the stricter measure")
                     for edges, value in zip(SNR_BINS, values)]


def purity_metrics(comparison: Comparison, config: ReportConfig) -> list[Metric]:
    """Spurious detections, and how many true counterparts are chance."""
    spurious = comparison.spurious
    rule = (f"primary objects without a true object of S/N >= {config.faintest_truth:g} within {config.match_radius:g} "
            "arcsec; nothing is excluded: halos of bright stars count")
    known = comparison.best_snr >= config.faintest_truth
    density = _density(comparison.truth.ra[known], comparison.truth.dec[known])
    chance = -np.expm1(-density * np.pi * config.match_radius**2)
    return [metric("spurious", "spurious detections", fraction(int(spurious.sum()), len(spurious)), config, note=rule),
            metric("chance_match", "chance of a random place to have a true object",
                   Estimate(chance, np.nan, int(known.sum())),
                   config, note="so many spurious detections go unseen, as a fraction")]


def _density(ra, dec) -> float:
    """Objects per square arcsec in the box that holds them; 0 for fewer than three."""
    if len(ra) < 3:
        return 0.0
    east, north = offsets(ra, dec, np.median(ra), np.median(dec))
    area = np.ptp(east) * np.ptp(north)
    return len(ra) / area if area > 0 else 0.0


def flux_metrics(comparison: Comparison, band: str, config: ReportConfig) -> list[Metric]:
    """Bias and pulls of the PSF flux of isolated stars in one band; positive bias: measured too faint."""
    result = []
    for low, high in ((10.0, 20.0), (20.0, 50.0), (50.0, np.inf)):
        row, true = comparison.stars(band, low, high)
        ratio = comparison.objects[f"{band}_psfFlux"][row] / comparison.truth.flux[band][true]
        result.append(metric(f"star_flux_bias_{bin_name(low, high)}", f"star flux bias, S/N {range_text(low, high)}",
                             median(-MILLIMAG * (ratio - 1.0)), config, unit="mmag", band=band,
                             note="median of PSF flux over true flux of isolated stars, as magnitudes"))
    pulls = flux_pulls(comparison, band, config)
    note = f"(flux - truth) / error of isolated stars, S/N {range_text(*config.pull_snr)}"
    return result + [metric("flux_pull_width", "width of flux pulls", width(pulls), config, band=band, note=note),
                     metric("flux_pull_mean", "median of flux pulls", median(pulls), config, band=band, note=note)]


def flux_pulls(comparison: Comparison, band: str, config: ReportConfig) -> np.ndarray:
    """(flux - truth) / error of the isolated stars of a band whose S/N is in `pull_snr`."""
    _, residual, error = comparison.flux_residual(band, *config.pull_snr)
    return residual / error


def overall_pull(comparison: Comparison, config: ReportConfig) -> Metric:
    """Width of the flux pulls of all bands together: one band of a small survey has too few stars to be judged."""
    pulls = np.concatenate([flux_pulls(comparison, band, config) for band in comparison.bands])
    return metric("flux_pull_width_all", "width of flux pulls, all bands", width(pulls), config,
                  note=f"(flux - truth) / error of isolated stars, S/N {range_text(*config.pull_snr)}")


def position_metrics(comparison: Comparison, config: ReportConfig) -> list[Metric]:
    """Bias and pulls of the positions of isolated stars, per axis."""
    result = []
    low, high = config.pull_snr
    _, *pulled = comparison.position_residual(low, high)
    _, *biased = comparison.position_residual(config.position_snr)
    for axis, name in enumerate(("east", "north")):
        pulls = pulled[axis] / pulled[axis + 2]
        bias = weighted_mean(1000.0 * biased[axis], 1000.0 * biased[axis + 2])
        result += [
            metric(f"position_bias_{name}", f"position bias, {name}", bias, config, unit="mas",
                   note=f"weighted mean of isolated stars, S/N > {config.position_snr:g}, 4 sigma clipped"),
            metric(f"position_pull_width_{name}", f"width of position pulls, {name}", width(pulls), config,
                   note=f"(position - truth) / error of isolated stars, S/N {range_text(low, high)}"),
            metric(f"position_pull_mean_{name}", f"median of position pulls, {name}", median(pulls), config)]
    return result


def duplicate_pairs(objects: Catalogue, radius: float, true_of=None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of objects across a patch or tract border that are one and the same.

    Parameters
    ----------
    objects : Catalogue with coord_ra, coord_dec, tract, patch; only primary rows
    radius : float, arcsec
    true_of : (n_objects,) int, index of the true counterpart (each used once), -1 for none. A pair whose two objects
        have a counterpart each is real. None (no truth known): every such pair counts.

    Returns
    -------
    i, j : indices of the objects of each pair, i < j
    """
    i, j, _ = neighbours(*(objects[name] for name in ("coord_ra", "coord_dec") * 2), radius)
    pair = (i < j) & ((objects["tract"][i] != objects["tract"][j]) | (objects["patch"][i] != objects["patch"][j]))
    i, j = i[pair], j[pair]
    if true_of is not None:
        real = (np.asarray(true_of)[i] >= 0) & (np.asarray(true_of)[j] >= 0)
        i, j = i[~real], j[~real]
    return i, j


def duplicate_metric(objects: Catalogue, comparison: Comparison | None, config: ReportConfig) -> Metric:
    """Number of duplicates over patch and tract borders."""
    objects, true_of = primary(objects), None
    note = f"pairs within {config.duplicate_radius:g} arcsec from different patches or tracts"
    if comparison is not None:
        true_of = np.full(len(objects), -1)
        true_of[comparison.row] = comparison.true
        note += " that are not two true objects"
    else:
        note += "; real close pairs are among them"
    i, _ = duplicate_pairs(objects, config.duplicate_radius, true_of)
    made = metric("duplicates", "duplicates over borders", Estimate(float(len(i)), np.nan, len(objects)), config,
                  note=note)
    return made if comparison is not None else replace(made, low=None, high=None)


def roc_area(score, positive) -> Estimate:
    """Area under the ROC curve of a score that is higher for positives, ties half; error of Hanley & McNeil (1982)."""
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    good = np.isfinite(score)
    score, positive = score[good], positive[good]
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return Estimate(np.nan, np.nan, n + m)
    from scipy.stats import rankdata

    area = (rankdata(score)[positive].sum() - 0.5 * n * (n + 1)) / (n * m)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    return Estimate(float(area), float(np.sqrt(max(variance, 0.0))), n + m)


def separation_metrics(comparison: Comparison, band: str, config: ReportConfig) -> list[Metric]:
    """Star/galaxy separation in one band: ROC area by S/N, and confusion at extendedness 0.5 for S/N > 20."""
    columns = [name for name in (f"{band}_sizeExtendedness", f"{band}_extendedness") if name in comparison.objects]
    if not columns:
        return []
    truth, true = comparison.truth, comparison.true
    use = (truth.usable & comparison.isolated[band])[true]
    snr, galaxy = truth.snr(band)[true], ~truth.is_star[true]
    score = comparison.objects[columns[0]][comparison.row].astype(float)
    result = []
    for low, high in ((5.0, 10.0), (10.0, 20.0), (20.0, 50.0)):
        inside = use & (snr >= low) & (snr < high)
        result.append(metric(f"roc_area_{bin_name(low, high)}", f"star/galaxy ROC area, S/N {range_text(low, high)}",
                             roc_area(score[inside], galaxy[inside]), config, band=band,
                             note=f"of {columns[0]}, isolated objects"))
    inside = use & (snr >= 20.0) & np.isfinite(score)
    for key, label, which, wrong in (("stars_as_galaxies", "stars called galaxies", ~galaxy, score > 0.5),
                                     ("galaxies_as_stars", "galaxies called stars", galaxy, score <= 0.5)):
        value = fraction(int((inside & which & wrong).sum()), int((inside & which).sum()))
        result.append(metric(key, label, value, config, band=band,
                             note=f"{columns[0]} > 0.5 is a galaxy; S/N > 20, isolated"))
    return result


def object_metrics(objects: Catalogue, comparison: Comparison | None, config: ReportConfig) -> list[Metric]:
    """All metrics of the objects; without a truth only those that need none."""
    result = [] if comparison is None else completeness_metrics(comparison, config) + purity_metrics(comparison, config)
    if len(objects):
        result.append(duplicate_metric(objects, comparison, config))
    if comparison is not None:
        for band in comparison.bands:
            result += flux_metrics(comparison, band, config)
        if comparison.bands:
            result.append(overall_pull(comparison, config))
        result += position_metrics(comparison, config)
        for band in comparison.bands:
            result += separation_metrics(comparison, band, config)
    return result


def range_text(low: float, high: float) -> str:
    """'5-7' or '> 20'."""
    return f"> {low:g}" if np.isinf(high) else f"{low:g}-{high:g}"
