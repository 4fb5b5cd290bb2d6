"""Objects against the reference catalogue: what real data have instead of a truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..products.catalogue import Catalogue
from ..products.photocal import magnitude_of
from ..products.reference import ReferenceCatalogue
from .config import ReportConfig
from .figure import band_colour, finite_limits, new_figure, styled
from .metrics import Metric, metric, primary
from .robust import match_sky, median, offsets, width

__all__ = ["ReferenceMatch", "match_reference", "reference_figure", "reference_metrics"]


@dataclass(frozen=True)
class ReferenceMatch:
    """Objects matched with reference stars.

    Attributes
    ----------
    east, north : (n,) float64, arcsec, object - reference
    magnitude : band -> (n,) float64, AB, of the reference; NaN where either flux is unknown
    difference : band -> (n,) float64, mag, object - reference
    """

    east: np.ndarray
    north: np.ndarray
    magnitude: dict[str, np.ndarray]
    difference: dict[str, np.ndarray]


def match_reference(objects: Catalogue, reference: ReferenceCatalogue, bands, config: ReportConfig) -> ReferenceMatch:
    """Match primary objects of enough S/N in some band, not called galaxies, one to one with the reference stars.

    The reference is taken at its own epoch: move it with `at_epoch` first where its stars have proper motions.
    """
    objects, stars = primary(objects), reference.rows(reference.is_star)
    bands = [band for band in bands if f"{band}_psfFlux" in objects]
    flux = {band: objects[f"{band}_psfFlux"].astype(float) for band in bands}
    bright = np.zeros(len(objects), bool)
    for band in bands:
        with np.errstate(invalid="ignore", divide="ignore"):
            bright |= flux[band] / objects[f"{band}_psfFluxErr"] >= config.reference_snr
    if "refExtendedness" in objects:
        bright &= ~(objects["refExtendedness"] > 0.5)
    rows = np.nonzero(bright)[0]
    i, j, _ = match_sky(objects["coord_ra"][rows], objects["coord_dec"][rows], stars.ra, stars.dec,
                        config.reference_radius)
    rows = rows[i]
    east, north = offsets(objects["coord_ra"][rows], objects["coord_dec"][rows], stars.ra[j], stars.dec[j])
    magnitude, difference = {}, {}
    for band in bands:
        if band in stars.flux:
            flagged = objects[f"{band}_psfFlux_flag"][rows] != 0 if f"{band}_psfFlux_flag" in objects else False
            magnitude[band] = magnitude_of(stars.flux[band][j])
            difference[band] = np.where(flagged, np.nan, magnitude_of(flux[band][rows]) - magnitude[band])
    return ReferenceMatch(east, north, magnitude, difference)


def reference_metrics(match: ReferenceMatch, config: ReportConfig) -> list[Metric]:
    """Offset and robust scatter per axis and per band."""
    note = f"objects of S/N > {config.reference_snr:g} that are not called galaxies, matched one to one"
    result = []
    for name, values in (("east", match.east), ("north", match.north)):
        result += [metric(f"reference_offset_{name}", f"objects - reference, {name}", median(1000.0 * values), config,
                          unit="mas", note=note),
                   metric(f"reference_rms_{name}", f"objects - reference, rms {name}", width(1000.0 * values), config,
                          unit="mas", note=f"half the central 68 %; {note}")]
    for band, values in match.difference.items():
        result += [metric("reference_magnitude_offset", "objects - reference, magnitude", median(1000.0 * values),
                          config,
                          unit="mmag", band=band, note=note),
                   metric("reference_magnitude_scatter", "objects - reference, magnitude scatter",
                          width(1000.0 * values),
                          config, unit="mmag", band=band, note=f"half the central 68 %; {note}")]
    return result


@styled
def reference_figure(match: ReferenceMatch):
    """Offsets on the sky, and magnitude differences against magnitude."""
    figure, axes = new_figure(7.4, 3.6, 1, 2, width_ratios=[1, 1.25])
    for panel in axes[0]:
        panel.axhline(0.0, color="#222222", lw=0.8)
    panel = axes[0, 0]
    panel.axvline(0.0, color="#222222", lw=0.8)
    panel.plot(1000 * match.east, 1000 * match.north, ".", ms=3, alpha=0.6, color="#2a7fb8", rasterized=True)
    limit = np.abs(finite_limits(1000 * np.r_[match.east, match.north])).max()
    panel.set(xlim=(limit, -limit), ylim=(-limit, limit), aspect="equal", xlabel="east [mas]", ylabel="north [mas]",
              title=f"Positions  (n = {len(match.east):,})")
    panel = axes[0, 1]
    for band, values in match.difference.items():
        panel.plot(match.magnitude[band], 1000 * values, ".", ms=3, alpha=0.6, color=band_colour(band), label=band,
                   rasterized=True)
    everything = np.concatenate([1000 * values for values in match.difference.values()] or [np.empty(0)])
    limit = np.abs(finite_limits(everything, 2, 98)).max()
    panel.set(ylim=(-limit, limit), xlabel="reference magnitude [AB]", ylabel="object - reference [mmag]",
              title="PSF magnitudes")
    if match.difference:
        panel.legend(loc="upper left", markerscale=3, ncols=len(match.difference))
    return figure
