"""summary: the numbers of a detector that tell how good a visit is. Units are in the names, meanings in `products.summary`.

`summarize` runs with the pixels, `completed` when the whole visit is solved: depth and effective time need its zero point. The
effective time follows Neilsen et al. 2015 (FERMILAB-TM-2610) and Rubin's visit summary (RTN-085).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..config import Config, parameter
from ..products.background import Background
from ..products.catalogue import Catalogue
from ..products.exposure import RawDetector
from ..products.focalplane import place_on_focal_plane
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.photocal import PhotoCal, magnitude_of
from ..products.psf import Psf
from ..products.visit import VisitDetector
from .astrometry import AstrometricFit
from .statistics import robust_sigma

__all__ = ["FiducialConfig", "SummaryConfig", "completed", "corners_of", "magnitude_limit", "star_residuals", "summarize"]

UNUSABLE = ("BAD", "SAT", "CR", "NO_DATA")


class FiducialConfig(Config):
    """The conditions in a band in which a second of exposure counts as one."""

    psf_fwhm: float = parameter(..., "FWHM of the PSF", unit="arcsec", above=0.0)
    sky: float = parameter(..., "sky", unit="electron/s/arcsec^2", above=0.0)
    zero_point: float = parameter(..., "AB magnitude of one electron per second", unit="mag")


class SummaryConfig(Config):
    """What effective times are relative to."""

    fiducial: dict[str, FiducialConfig] = parameter({}, "band -> conditions; without them a band has no effective time")
    max_zero_point_scale: float = parameter(1.5, "cap of effective_scale_zero_point: nothing is much more transparent", above=0.0)


def summarize(image: MaskedImage, background: Background, psf: Psf, photocal: PhotoCal, fit: AstrometricFit | None) -> dict[str, float]:
    """The numbers of one detector that its pixels, PSF and own fits tell."""
    x, y = image.box.x0 + 0.5 * (image.box.nx - 1), image.box.y0 + 0.5 * (image.box.ny - 1)
    noise, stamp = float(np.nanmedian(background.noise)), psf.stamps(x, y)[0].astype(float)
    moments = psf.moments(x, y)[0]
    grid = [(ends[0] + share * (ends[1] - 1 - ends[0])) for share in (0.0, 0.5, 1.0)
            for ends in ((image.box.x0, image.box.x1), (image.box.y0, image.box.y1))]
    px, py = np.meshgrid(grid[::2], grid[1::2])
    sizes = np.sqrt(0.5 * psf.moments(px.ravel(), py.ravel())[:, :2].sum(axis=1))
    trace, area = moments[0] + moments[1], float(stamp.sum() ** 2 / (stamp**2).sum())
    depth = 5.0 * noise * photocal.scale / np.sqrt((stamp**2).sum())
    unusable = image.mask & np.uint32(bits(*UNUSABLE)) != 0
    return {
        "sky_electron": float(np.nanmedian(background.level)), "sky_noise_electron": noise,
        "sky_range_electron": float(np.ptp(background.level)), "psf_fwhm_pixel": float(psf.fwhm(x, y)[0]),
        "psf_sigma_pixel": float(np.sqrt(0.5 * trace)), "psf_area_pixel": area, "psf_size_range_pixel": float(np.ptp(sizes)),
        "psf_e1": float((moments[0] - moments[1]) / trace), "psf_e2": float(2.0 * moments[2] / trace),
        "psf_chi2": getattr(psf, "chi2", float("nan")), "zero_point_mag": photocal.zero_point,
        "zero_point_err_mag": photocal.zero_point_err, "zero_point_scatter_mag": photocal.scatter,
        "n_photometric_stars": float(photocal.n_stars), "depth_5sigma_mag": float(magnitude_of(depth)),
        "astrometric_rms_east_arcsec": fit.rms_east if fit else float("nan"),
        "astrometric_rms_north_arcsec": fit.rms_north if fit else float("nan"),
        "n_astrometric_stars": float(len(fit.sources)) if fit else 0.0, "masked_fraction": float(np.mean(unusable)),
        "vignetted_fraction": float(np.mean(image.mask & np.uint32(bits("VIGNETTED")) != 0)),
    }


def star_residuals(image: MaskedImage, psf: Psf, stars: Catalogue) -> dict[str, float]:
    """Size and shape of the PSF's stars less those of the model: medians and robust scatters; NaN without stars."""
    names = ("delta_e1", "delta_e2", "delta_size")
    left = np.full((3, 1), np.nan)
    if len(stars):
        model, star = psf.moments(stars["x"], stars["y"]).T, np.stack([stars[name].astype(float) for name in ("ixx", "iyy", "ixy")])

        def shapes(m):
            trace = m[0] + m[1]
            return np.stack([(m[0] - m[1]) / trace, 2.0 * m[2] / trace, np.sqrt(np.maximum(0.5 * trace, 0.0))])

        left = shapes(star) - shapes(model)
    result = {}
    for name, values in zip(names, left):
        unit = "_pixel" if name == "delta_size" else ""
        values = values[np.isfinite(values)]
        result[f"psf_star_{name}_median{unit}"] = float(np.median(values)) if len(values) else float("nan")
        result[f"psf_star_{name}_scatter{unit}"] = float(robust_sigma(values)) if len(values) > 1 else float("nan")
    return result


def corners_of(raw: RawDetector) -> dict[str, float]:
    """Where the detector is on the focal plane."""
    x, y = place_on_focal_plane(raw.detector, raw.pixel_size, *raw.detector.box.corners().T)
    return {"focal_x_mm": float(x.mean()), "focal_y_mm": float(y.mean()), "focal_width_mm": float(np.ptp(x)),
            "focal_height_mm": float(np.ptp(y)), "rotation_deg": float(raw.detector.rotation)}


def magnitude_limit(area: float, noise: float, zero_point: float, snr: float = 5.0) -> float:
    """Magnitude of a star of this signal to noise: noise (electron) of a pixel, effective area (pixel) of the PSF, and its own photons."""
    background = noise**2 * area
    signal = 0.5 * snr**2 + np.sqrt(0.25 * snr**4 + snr**2 * background)
    return zero_point - 2.5 * float(np.log10(signal))


def completed(visit: VisitDetector, config: SummaryConfig) -> VisitDetector:
    """The detector with what follows from the visit's solution: sizes on the sky, magnitude limit, effective time."""
    s, time = visit.summary, visit.exposure.exposure_time
    box, scale = visit.background.box, visit.wcs.pixel_scale if visit.wcs is not None else float("nan")
    nan = float("nan")
    fwhm = s.get("psf_fwhm_pixel", nan) * scale
    more = {"exposure_time_s": time, "psf_fwhm_arcsec": fwhm,
            "unmasked_area_deg2": box.area * (1.0 - s.get("masked_fraction", nan)) * (scale / 3600.0) ** 2,
            "mag_limit_mag": magnitude_limit(s.get("psf_area_pixel", nan), s.get("sky_noise_electron", nan), visit.photocal.zero_point)}
    fiducial = config.fiducial.get(visit.exposure.band)
    if fiducial is not None and time > 0:
        sky = s.get("sky_electron", nan) / time / scale**2
        zero = visit.photocal.zero_point - 2.5 * float(np.log10(time))
        scales = {"psf": (fiducial.psf_fwhm / fwhm) ** 2 if fwhm > 0 else nan, "sky": fiducial.sky / sky if sky > 0 else nan,
                  "zero_point": min(10.0 ** (0.8 * (zero - fiducial.zero_point)), config.max_zero_point_scale)}
        product = float(np.prod(list(scales.values())))
        more |= {f"effective_scale_{name}": value for name, value in scales.items()}
        more |= {"effective_time_scale": product, "effective_time_s": time * product}
    return replace(visit, summary={**s, **more})
