"""Metrics of the visits: zero points and positions against truth and reference, PSF residuals, repeated epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .config import ReportConfig
from .figure import in_order
from .images import BlankSky, PsfSample
from .metrics import Metric, metric
from .robust import Estimate, median, weighted_mean, width

__all__ = ["VisitRow", "depth_metrics", "epoch_metrics", "psf_metrics", "visit_metrics"]


@dataclass(frozen=True)
class VisitRow:
    """One detector of one visit, as the report shows it; NaN for what is unknown.

    Attributes
    ----------
    visit, detector, band : identity
    mjd : float
    corners : (4, 2) float64, ICRS degrees, or None
    center : (x, y) of the detector on the focal plane, mm, or None
    values : seeing [arcsec], sky [electron], sky_noise [electron], zero_point, zero_point_err, zero_point_scatter,
        true_zero_point, depth [mag], n_sources, n_stars, astrometric_rms_east, astrometric_rms_north [mas]
    psf : PsfSample or None
    """

    visit: int
    detector: str
    band: str
    mjd: float = float("nan")
    corners: np.ndarray | None = None
    center: tuple[float, float] | None = None
    values: dict[str, float] = field(default_factory=dict)
    psf: PsfSample | None = None

    def __getitem__(self, name: str) -> float:
        return float(self.values.get(name, float("nan")))


def column(rows: list[VisitRow], name: str) -> np.ndarray:
    """(n,) float64 of one value of the rows."""
    return np.array([row[name] for row in rows], float)


def visit_metrics(rows: list[VisitRow], config: ReportConfig) -> list[Metric]:
    """Zero points against the truth, scatter about them, astrometric residuals, per band."""
    result = []
    for band in in_order(row.band for row in rows):
        some = [row for row in rows if row.band == band]
        residual = 1000.0 * (column(some, "zero_point") - column(some, "true_zero_point"))
        if np.isfinite(residual).any():
            pulls = residual / (1000.0 * column(some, "zero_point_err"))
            result += [metric("zero_point_bias", "zero point - truth", median(residual), config, unit="mmag", band=band,
                              note="median over the detectors of all visits"),
                       metric("zero_point_pull_width", "width of zero-point pulls", width(pulls), config, band=band)]
        for key, label, name, unit, scale in (
                ("zero_point_scatter", "scatter of stars about the zero point", "zero_point_scatter", "mmag", 1000.0),
                ("astrometric_rms_east", "stars - reference, rms east", "astrometric_rms_east", "mas", 1.0),
                ("astrometric_rms_north", "stars - reference, rms north", "astrometric_rms_north", "mas", 1.0),
                ("seeing", "seeing (FWHM)", "seeing", "arcsec", 1.0)):
            values = scale * column(some, name)
            if np.isfinite(values).any():
                result.append(metric(key, label, median(values), config, unit=unit, band=band,
                                     note="median over the detectors of all visits"))
    return result


def psf_metrics(rows: list[VisitRow], config: ReportConfig) -> list[Metric]:
    """Size and shape of stars less those of the PSF model, over all visits of a band."""
    result = []
    for band in in_order(row.band for row in rows):
        samples = [row.psf for row in rows if row.band == band and row.psf is not None]
        if not samples:
            continue
        size = np.concatenate([sample.size_residual for sample in samples])
        shape = np.concatenate([sample.shape_star - sample.shape_model for sample in samples])
        note = "reserved stars where there are any, else the PSF's own, or stars of S/N > 50"
        result.append(metric("psf_size_residual", "PSF size residual, dT/T", median(100.0 * size), config, unit="%",
                             band=band,
                             note=note))
        result += [metric(f"psf_shape_residual_e{axis + 1}", f"PSF shape residual, e{axis + 1}", median(shape[:, axis]),
                          config,
                          band=band) for axis in range(2)]
    return result


def depth_metrics(errors: dict[str, np.ndarray], skies: list[BlankSky], config: ReportConfig) -> list[Metric]:
    """5 sigma depth of stars per band, from errors of faint objects and from blank sky, and the ratio of both noises.

    Parameters
    ----------
    errors : band -> PSF flux errors of objects fainter than 20 sigma, nJy
    skies : blank sky of the coadds
    """
    factor = 2.5 / np.log(10.0)
    result = []
    for band in in_order([*errors, *(sky.band for sky in skies)]):
        error = median(errors.get(band, np.empty(0)))
        if error.n:
            depth = Estimate(31.4 - 2.5 * np.log10(5.0 * error.value), factor * error.error / error.value, error.n)
            result.append(metric("depth", "5 sigma depth, stars", depth, config, unit="mag", band=band,
                                 note="from the median error of PSF fluxes of objects with S/N < 20"))
        some = [sky for sky in skies if sky.band == band]
        if some:
            scatter = Estimate(*_average([sky.scatter for sky in some]))
            depth = Estimate(31.4 - 2.5 * np.log10(5.0 * scatter.value), factor * scatter.error / scatter.value,
                             scatter.n)
            result += [metric("depth_sky", "5 sigma depth, blank sky", depth, config, unit="mag", band=band,
                              note="from the scatter of PSF fluxes at random places without a detection"),
                       metric("noise_ratio", "noise of blank sky / its error",
                              Estimate(*_average([sky.ratio for sky in some])),
                              config, band=band, note="variance plane with noise correlation, mean over the coadds")]
    return result


def _average(estimates: list[Estimate]) -> tuple[float, float, int]:
    value = np.array([item.value for item in estimates])
    error = np.array([item.error for item in estimates])
    n = sum(item.n for item in estimates)
    return float(value.mean()), float(np.sqrt((error**2).sum()) / len(value)), n


def epoch_metrics(first, second, both, config: ReportConfig, band: str = "") -> list[Metric]:
    """Two epochs of the same stars, and the coadd of both.

    Parameters
    ----------
    first, second : (flux, error) arrays of the same objects, nJy
    both : (flux, error) in the coadd of the two, or None
    """
    (flux1, error1), (flux2, error2) = ((np.asarray(a, float), np.asarray(b, float)) for a, b in (first, second))
    pulls = (flux2 - flux1) / np.hypot(error1, error2)
    ratio = weighted_mean(flux2 / flux1, np.hypot(error1, error2) / np.abs(flux1))
    scale = 2500.0 / np.log(10.0)
    result = [metric("epoch_pull_width", "second epoch - first, width of pulls", width(pulls), config, band=band),
              metric("epoch_offset", "second epoch - first",
                     Estimate(-scale * (ratio.value - 1.0), scale * ratio.error, ratio.n), config, unit="mmag",
                     band=band)]
    if both is not None:
        expected = (error1**-2 + error2**-2) ** -0.5
        result.append(metric("epoch_depth", "noise of the coadd / expected of two epochs",
                             median(np.asarray(both[1], float) / expected), config, band=band))
    return result
