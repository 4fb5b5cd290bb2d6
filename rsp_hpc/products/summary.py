"""The summary of a visit: one row per detector, each number with its unit and meaning."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from .catalogue import Catalogue, Column

__all__ = ["SUMMARY_COLUMNS", "summary_table"]

SUMMARY_COLUMNS = tuple(Column(name, "f8", unit, doc) for name, unit, doc in (
    ("exposure_time_s", "s", "open shutter"),
    ("effective_time_s", "s", "exposure time that fiducial seeing, sky and transparency would need for the same depth"),
    ("effective_time_scale", "", "effective_scale_psf * effective_scale_sky * effective_scale_zero_point"),
    ("effective_scale_psf", "", "(fiducial PSF FWHM / FWHM)^2"),
    ("effective_scale_sky", "", "fiducial sky / sky, per second"),
    ("effective_scale_zero_point", "", "10^(0.8 (zero point of one second - fiducial)), capped"),
    ("depth_5sigma_mag", "mag", "magnitude of a star with PSF flux at 5 sigma of the sky's noise"),
    ("mag_limit_mag", "mag", "the same with the star's own photons, by effective PSF area"),
    ("psf_fwhm_pixel", "pixel", "PSF FWHM in the middle of the detector"),
    ("psf_fwhm_arcsec", "arcsec", "PSF FWHM in the middle of the detector"),
    ("psf_sigma_pixel", "pixel", "sqrt of half the trace of the PSF's adaptive moments"),
    ("psf_area_pixel", "pixel^2", "effective area, (sum P)^2 / sum P^2"),
    ("psf_e1", "", "(Ixx - Iyy) / (Ixx + Iyy) of the PSF, pixel axes"), ("psf_e2", "", "2 Ixy / (Ixx + Iyy) of the PSF, pixel axes"),
    ("psf_chi2", "", "mean squared residual of PSF stars in units of their errors"),
    ("n_psf_stars", "", "stars chosen for the PSF"),
    ("psf_star_delta_e1_median", "", "e1 of PSF stars less the model's, median"),
    ("psf_star_delta_e2_median", "", "e2 of PSF stars less the model's, median"),
    ("psf_star_delta_e1_scatter", "", "robust rms of the same"), ("psf_star_delta_e2_scatter", "", "robust rms of the same"),
    ("psf_star_delta_size_median_pixel", "pixel", "sqrt((Ixx + Iyy) / 2) of PSF stars less the model's, median"),
    ("psf_star_delta_size_scatter_pixel", "pixel", "robust rms of the same"),
    ("psf_size_range_pixel", "pixel", "largest less smallest PSF sigma over the detector"),
    ("aperture_correction", "", "calibration aperture over PSF flux"), ("aperture_correction_err", "", "its error"),
    ("sky_electron", "electron", "level of the sky"), ("sky_noise_electron", "electron", "robust rms of empty pixels"),
    ("sky_range_electron", "electron", "highest less lowest cell of the detector's sky mesh"),
    ("sky_model_electron", "electron", "sky of the visit's focal-plane model, median over the detector"),
    ("sky_piston_electron", "electron", "the detector's own level in that model"),
    ("sky_residual_electron", "electron", "rms of the detector's mesh about that model"),
    ("n_sky_bins", "", "super-bins with an empty sky"),
    ("zero_point_mag", "mag", "AB magnitude of one electron of the exposure"), ("zero_point_err_mag", "mag", "its error"),
    ("zero_point_scatter_mag", "mag", "robust rms of the reference stars about it"),
    ("n_photometric_stars", "", "reference stars in the zero point"),
    ("zero_point_visit_err_mag", "mag", "share of the error that all detectors of the visit have in common"),
    ("zero_point_spread_mag", "mag", "rms of the detectors about the visit's zero point"),
    ("cloud_rms_mag", "mag", "rms of a significant quadratic surface of extinction over the focal plane; 0: none"),
    ("extinction_mag", "mag", "light lost against the nominal zero point"), ("color_term", "mag/mag", "slope with reference colour"),
    ("photometric", "", "1: nothing speaks against a photometric night; 0: clouds, spread or extinction beyond the limits"),
    ("airmass", "", "airmass of the exposure"),
    ("astrometric_rms_east_arcsec", "arcsec", "stars less reference, rms"),
    ("astrometric_rms_north_arcsec", "arcsec", "stars less reference, rms"),
    ("astrometric_scatter_mas", "mas", "scatter beyond the errors, per axis"),
    ("astrometric_error_mas", "mas", "error of the solution in the middle of the detector"),
    ("n_astrometric_stars", "", "stars in the detector's solution"), ("n_focal_plane_stars", "", "stars in the visit's solution"),
    ("n_sources", "", "sources"), ("n_cosmic_ray_pixels", "pixel", "pixels hit by cosmic rays"),
    ("n_streaks", "", "trails of satellites"), ("n_spikes", "", "diffraction spikes"),
    ("masked_fraction", "", "pixels that are BAD, SAT, CR or NO_DATA"),
    ("unmasked_area_deg2", "deg^2", "area of the other pixels"), ("vignetted_fraction", "", "pixels that are VIGNETTED"),
    ("amplifier_offset_rms_electron", "electron", "rms of the offsets of amplifiers that were taken out"),
    ("fringe_electron", "electron", "amplitude of the fringe pattern"), ("fringe_err_electron", "electron", "its error"),
    ("focal_x_mm", "mm", "middle of the detector on the focal plane"), ("focal_y_mm", "mm", "middle of the detector on the focal plane"),
    ("focal_width_mm", "mm", "extent along the focal plane's x"), ("focal_height_mm", "mm", "extent along the focal plane's y"),
    ("rotation_deg", "deg", "of the detector's +x axis on the focal plane, anticlockwise"),
))
"""All that a summary may hold; a number that a detector lacks is NaN."""


def summary_table(rows: Sequence[tuple[str, int, Mapping[str, float]]]) -> Catalogue:
    """One row per (name, number, summary) of a detector; what is not among SUMMARY_COLUMNS follows without unit and meaning."""
    known = [column.name for column in SUMMARY_COLUMNS]
    others = sorted({key for _, _, summary in rows for key in summary} - set(known))
    columns = [Column("detector", "U32", "", "name"), Column("detector_id", "i4", "", "number"), *SUMMARY_COLUMNS,
               *(Column(name, "f8", "", "") for name in others)]
    arrays = {"detector": np.array([name for name, _, _ in rows]), "detector_id": np.array([number for _, number, _ in rows])}
    arrays |= {name: np.array([float(summary.get(name, np.nan)) for _, _, summary in rows]) for name in known + others}
    return Catalogue(columns, arrays)
