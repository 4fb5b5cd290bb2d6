"""Configuration of the report: how objects are compared with the truth or the reference, and the targets."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from ..config import Config, parameter

__all__ = ["DEFAULT_TARGETS", "ReportConfig", "SNR_BINS", "TruthConfig", "bin_name"]

SNR_BINS = ((5.0, 7.0), (7.0, 10.0), (10.0, 20.0), (20.0, float("inf")))
"""Bins of true signal-to-noise ratio in which completeness is given."""

DEFAULT_TARGETS: dict[str, tuple[float | None, float | None]] = {
    "completeness_5_7": (0.80, None), "completeness_10_20": (0.99, None), "completeness_20_inf": (0.99, None),
    "spurious": (None, 0.02), "duplicates": (None, 0.0),
    "star_flux_bias_50_inf": (-3.0, 3.0), "flux_pull_width_all": (0.9, 1.1),
    "position_pull_width_east": (0.9, 1.1), "position_pull_width_north": (0.9, 1.1),
    "position_bias_east": (-2.0, 2.0), "position_bias_north": (-2.0, 2.0),
}
"""Metric key -> (lowest, highest) allowed value, None where there is no limit; the same for every band."""


def bin_name(low: float, high: float) -> str:
    """'5_7', '20_inf': the suffix of a metric's key."""
    return f"{low:g}_{high:g}"


class TruthConfig(Config):
    """A table of true objects; the defaults are the simulator's columns, `{band}` stands for a band."""

    file: str = parameter(..., "FITS or HDF5 table, relative to the data folder")
    ra: str = parameter("ra", "column of right ascension, degrees")
    dec: str = parameter("dec", "column of declination, degrees")
    flux: str = parameter("flux_{band}", "column of the flux in a band")
    kind: Literal["nJy", "magnitude"] = parameter("nJy", "what that column holds; magnitudes are AB")
    star: str = parameter("is_star", "column that tells stars (not 0) from galaxies; empty: `all_stars` holds")
    all_stars: bool = parameter(True, "whether a table without such a column has stars only, or galaxies only")
    sigma: str = parameter("sigma", "column of the galaxies' size (Gaussian sigma); none: points", unit="arcsec")
    snr: str = parameter("{band}_snr", "column of the best possible S/N; none: computed from the coadds")
    isolated: str = parameter("{band}_isolated", "column of isolation; none: computed")


class ReportConfig(Config):
    """What the report compares and which limits it holds the results to."""

    truth: tuple[TruthConfig, ...] = parameter((), "tables of true objects, or one file name; (): none, real data")
    true_zero_points: str = parameter(
        "", "table with columns visit, zero_point (AB magnitude of one electron); '': none")
    color: tuple[str, ...] = parameter(
        (), "bands of the colour pictures as red, green, blue; (): i, r, g or what there is")
    psf_detectors: int = parameter(100, "most detector images whose stars are compared with the PSF", low=0)
    most_patches: int = parameter(200, "most patches whose coadds are looked at; evenly chosen", low=1)
    calibration_detectors: int = parameter(1, "detectors whose calibration products are drawn, of each kind and band", low=0)
    cutouts: int = parameter(2, "visits that the calibration page shows before and after detrending", low=0)
    title: str = parameter("", "heading of the page; empty: the name of the survey")
    match_radius: float = parameter(0.7, "an object and a true one within it are the same", unit="arcsec", above=0.0)
    duplicate_radius: float = parameter(0.7, "two objects within it, across a patch or tract border, may be one",
                                        unit="arcsec", above=0.0)
    faintest_truth: float = parameter(1.0, "a detection near a true object of lower S/N in all bands is spurious",
                                      low=0.0)
    reference_radius: float = parameter(1.0, "an object and a reference star within it are the same", unit="arcsec",
                                        above=0.0)
    reference_snr: float = parameter(20.0, "least S/N of objects compared with reference stars", above=0.0)
    isolation_radius: float = parameter(15.0, "neighbours farther away do not count against isolation", unit="arcsec",
                                        above=0.0)
    isolation_relative: float = parameter(0.002, "isolated: neighbours bias the flux by less than this fraction,",
                                          above=0.0)
    isolation_sigma: float = parameter(0.1, "or by less than this many sigma, whichever is larger", unit="sigma",
                                       above=0.0)
    pull_snr: tuple[float, float] = parameter((10.0, 200.0), "true S/N of the stars whose pulls are judged")
    position_snr: float = parameter(20.0, "least true S/N of the stars that give the position bias", above=0.0)
    empty_apertures: int = parameter(500, "blank places per coadd at which the noise is measured", low=10)
    pictures: int = parameter(4, "most colour pictures in the report", low=0)
    seed: int = parameter(1, "of the blank places", low=0)
    targets: dict[str, tuple[float | None, float | None]] = parameter(
        {}, "limits [low, high] by metric, null for none; replace or add to the default ones")

    @field_validator("truth", mode="before")
    @classmethod
    def _one_file(cls, value):
        return ([{"file": value}] if value else []) if isinstance(value, str) else value

    def target(self, key: str) -> tuple[float | None, float | None]:
        """The limits of a metric; (None, None) where none is set."""
        return self.targets.get(key, DEFAULT_TARGETS.get(key, (None, None)))
