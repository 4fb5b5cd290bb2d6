"""visit: one raw detector to a calibrated image with sources. The flow of the visits stage, step by step."""

from __future__ import annotations

import numpy as np

from ..config import Config, parameter
from ..errors import BadData
from ..products.background import Background
from ..products.calibration import Calibration
from ..products.camera import Detector
from ..products.catalogue import Catalogue, Column
from ..products.exposure import Exposure, RawDetector
from ..products.ids import source_ids
from ..products.image import MaskedImage
from ..products.mask import bits
from ..products.photocal import PhotoCal
from ..products.psf import PolynomialPsf, Psf
from ..products.reference import ReferenceCatalogue
from ..products.visit import VisitDetector
from ..products.wcs import Wcs
from .astrometry import AstrometricFit, AstrometryConfig, fit_wcs
from .background import BackgroundConfig, evaluate_background, fit_background, subtract_background
from .cosmic import CosmicConfig, find_cosmic_rays, find_stuck_pixels
from .deblend import DeblendConfig, deblend
from .detect import DetectConfig, detect, mark_sources
from .detrend import DetrendConfig, detrend
from .focalplane import FocalPlaneConfig
from .fringe import FringeAmplitude, FringeConfig, subtract_fringe
from .gains import GainsConfig, match_gains
from .interpolate import InterpolateConfig, interpolate
from .measure import MeasureConfig, measure
from .offsets import OffsetsConfig, subtract_offsets
from .photometry import PhotometryConfig, fit_zero_point, nominal_zero_point
from .psf import PsfConfig, aperture_correction, fit_psf, guess_psf, select_stars
from .saturation import SaturationConfig, grow_saturation
from .sky import SkyModelConfig, sky_bins
from .spikes import SpikesConfig, find_spikes
from .streaks import StreaksConfig, find_streaks
from .summary import SummaryConfig, corners_of, star_residuals, summarize
from .skysources import SkySourcesConfig, with_sky_sources
from .vignetting import VignettingConfig, mask_vignetted
from .wholevisit import matched_stars, photometry_of_band, place_sources

__all__ = ["VisitConfig", "calibrate_detector"]

FILLED = ("BAD", "CR")
"""Planes whose pixels are interpolated; saturated cores are left as they are."""


class VisitConfig(Config):
    """How a raw detector becomes a calibrated one: one section per step, in the order in which they run."""

    detrend: DetrendConfig = DetrendConfig()
    vignetting: VignettingConfig = VignettingConfig()
    cosmic: CosmicConfig = CosmicConfig()
    saturation: SaturationConfig = SaturationConfig()
    interpolate: InterpolateConfig = InterpolateConfig()
    background: BackgroundConfig = BackgroundConfig()
    gains: GainsConfig = GainsConfig()
    fringe: FringeConfig = FringeConfig()
    offsets: OffsetsConfig = OffsetsConfig()
    streaks: StreaksConfig = StreaksConfig()
    spikes: SpikesConfig = SpikesConfig()
    psf: PsfConfig = PsfConfig()
    detect: DetectConfig = DetectConfig()
    deblend: DeblendConfig = DeblendConfig()
    measure: MeasureConfig = MeasureConfig()
    skysources: SkySourcesConfig = SkySourcesConfig()
    astrometry: AstrometryConfig = AstrometryConfig()
    focalplane: FocalPlaneConfig = FocalPlaneConfig()
    photometry: PhotometryConfig = PhotometryConfig()
    sky: SkyModelConfig = SkyModelConfig()
    summary: SummaryConfig = SummaryConfig()
    bright_threshold: float = parameter(12.0, "detection threshold of the first pass, which finds the stars for the PSF",
                                        unit="sigma", low=3.0)


def calibrate_detector(raw: RawDetector, calibration: Calibration, reference: ReferenceCatalogue | None,
                       config: VisitConfig) -> VisitDetector:
    """Detrend, clean, model the sky and the PSF, measure, and calibrate one detector of one exposure.

    Parameters
    ----------
    raw : the amplifier segments
    calibration : combined frames of this detector and band
    reference : stars with known positions and fluxes at the epoch of the exposure; None: the rough WCS and the nominal zero point are kept
    config : all steps

    Raises
    ------
    BadData
        The detector cannot be used; the message says why. That its stars match nothing, or are too few for a zero point, is
        only noted in what is returned: `algorithms.wholevisit.solve_visit` may place it by the visit's other detectors.
    """
    image = detrend(raw, calibration, config.detrend)
    mask_vignetted(image, raw.detector, raw.pixel_size, config.vignetting)
    guess, background, cleaned = _clean(image, raw.detector, calibration, config)
    psf, stars = _model_psf(image, guess, config)
    sources = _sources(image, psf, config.detect, config)
    correction = aperture_correction(image, psf, stars, config.psf)
    fit, problem = _fit_wcs(raw, sources, reference, config)
    wcs = fit.wcs if fit is not None else raw.wcs
    photocal, unscaled = _fit_photocal(raw.exposure, sources, correction.factor, fit, reference, config)
    summary = {"n_sources": float(len(sources)), "n_psf_stars": float(len(stars)), **cleaned,
               "aperture_correction": correction.factor, "aperture_correction_err": correction.error,
               **summarize(image, background, psf, photocal, fit), **star_residuals(image, psf, stars),
               **corners_of(raw)}
    seed = raw.exposure.visit, raw.detector.id
    sources = with_sky_sources(sources, image, psf, seed, (config.skysources, config.measure))
    sources = _calibrated(sources, raw, (wcs, fit), photocal.scale * correction.factor, photocal.scale)
    matches = _matches(raw, sources, reference, fit, config)
    bins = sky_bins(image, background, (raw.detector, raw.pixel_size), calibration.sky, config.sky)
    return VisitDetector(raw.exposure, raw.detector.name, raw.detector.id, image, background, psf, wcs, photocal,
                         correction.factor, sources, summary, matches, bins, None, raw.wcs, not problem, not unscaled, problem or unscaled)


def _clean(image: MaskedImage, detector: Detector, calibration: Calibration,
           config: VisitConfig) -> tuple[PolynomialPsf, Background, dict[str, float]]:
    """Cosmic rays and bad pixels masked and filled, the sky subtracted; a first PSF, the sky, numbers for the summary."""
    interpolate(image, ("BAD",), config.interpolate)
    guess = guess_psf(image, config.psf)
    background = fit_background(image, config.background)
    width = _narrowest(guess, image)
    find_stuck_pixels(image, width, background, config.cosmic)
    n_cosmic = find_cosmic_rays(image, width, background, config.cosmic)
    grow_saturation(image, detector, config.saturation)
    interpolate(image, FILLED, config.interpolate)
    subtract_background(image, background)
    if n_cosmic:
        guess = guess_psf(image, config.psf)
    mark_sources(image, guess, config.detect)
    sources_hide = image.mask & np.uint32(bits("DETECTED")) != 0
    pattern = calibration.fringe if config.fringe.apply else None
    background, numbers = _levelled(image, background, (detector, pattern, sources_hide), config)
    residual = fit_background(image, config.background, exclude=sources_hide)
    subtract_background(image, residual)
    background = Background(background.level + residual.level, residual.noise, residual.mesh, residual.box)
    if config.streaks.apply:
        numbers["n_streaks"] = float(len(find_streaks(image, config.streaks)))
    if config.spikes.apply:
        numbers["n_spikes"] = float(find_spikes(image, config.spikes))
    return guess, background, {"n_cosmic_ray_pixels": float(n_cosmic), **numbers}


def _levelled(image: MaskedImage, background: Background, context, config: VisitConfig) -> tuple[Background, dict[str, float]]:
    """Gains and offsets of amplifiers matched at their borders, fringes subtracted, where the sources are known; the new
    background, subtracted, and numbers for the summary.

    Fringes are fitted twice: with the sky's slope still in the image, and after the sky has been fitted without fringes.
    """
    detector, pattern, sources_hide = context
    if not config.gains.depth and pattern is None and not config.offsets.apply:
        return background, {}
    numbers: dict[str, float] = {}
    image.image += evaluate_background(background)
    if config.gains.depth:
        match_gains(image, detector, sources_hide, config.gains)
    amplitude = FringeAmplitude(0.0, 0.0, np.nan) if pattern is None else subtract_fringe(image, pattern, config.fringe, sources_hide)
    if config.offsets.apply:
        offsets = subtract_offsets(image, detector, config.offsets, sources_hide)
        numbers["amplifier_offset_rms_electron"] = float(np.sqrt(np.mean(offsets.value**2)))
    background = fit_background(image, config.background, exclude=sources_hide)
    subtract_background(image, background)
    if pattern is not None:
        rest = subtract_fringe(image, pattern, config.fringe, sources_hide)
        numbers |= {"fringe_electron": amplitude.value + rest.value, "fringe_err_electron": rest.error}
    return background, numbers


def _narrowest(psf: Psf, image: MaskedImage) -> float:
    """Gaussian width of the PSF along its minor axis, pixel: a trailed star is steeper across the trail."""
    ixx, iyy, ixy = psf.moments(*_middle(image))[0]
    return float(np.sqrt(0.5 * (ixx + iyy - np.hypot(ixx - iyy, 2.0 * ixy))))


def _model_psf(image: MaskedImage, guess: PolynomialPsf, config: VisitConfig) -> tuple[PolynomialPsf, Catalogue]:
    """The PSF from this detector's bright stars, and these; the guess where there are none."""
    first = config.detect.model_copy(update={"threshold": max(config.bright_threshold, config.detect.threshold)})
    bright = _sources(image, guess, first, config)
    stars = bright.rows(select_stars(image, bright, config.psf))
    if len(stars) == 0:
        return guess, stars
    return fit_psf(image, stars["x"], stars["y"], stars["psfFlux"], config.psf), stars


def _sources(image: MaskedImage, psf: Psf, detection: DetectConfig, config: VisitConfig) -> Catalogue:
    """Detect, deblend, measure."""
    detections = detect(image, psf, detection)
    children = deblend(image, detections, psf, config.deblend)
    return measure(image, detections, children, psf, config.measure)


def _fit_wcs(raw: RawDetector, sources: Catalogue, reference: ReferenceCatalogue | None,
             config: VisitConfig) -> tuple[AstrometricFit | None, str]:
    """The detector's own fit, and what is wrong where it has none: the visit's other detectors may still place it."""
    if reference is None:
        if raw.wcs is None:
            raise BadData(f"{raw.name}: no WCS in the header and no reference catalogue to find one; give a catalogue")
        return None, ""
    if raw.wcs is None:
        raise BadData(f"{raw.name}: no pointing in the header to begin the match with; add ra and dec to the camera's header keys")
    try:
        return fit_wcs(sources, reference, raw.wcs, raw.detector.box, config.astrometry, raw.exposure.band), ""
    except BadData as error:
        return None, str(error)


def _fit_photocal(exposure: Exposure, sources: Catalogue, correction: float, fit: AstrometricFit | None,
                  reference: ReferenceCatalogue | None, config: VisitConfig) -> tuple[PhotoCal, str]:
    """The zero point from the stars that the astrometry matched, the nominal one without; and why, where that is to be mended."""
    nominal = nominal_zero_point(exposure.band, exposure.exposure_time, config.photometry)
    if reference is None:
        return nominal, ""
    flux, flux_err = reference.of_band(exposure.band)
    if fit is None:
        return nominal, "its stars were not matched"
    use = reference.is_star[fit.reference] & ~sources["psfFlux_flag"][fit.sources]
    mine, theirs = fit.sources[use], fit.reference[use]
    stars = matched_stars(0, sources, reference, (mine, theirs), (exposure.band, config.photometry))
    photometry = photometry_of_band(config.photometry, exposure.band)
    try:
        return fit_zero_point(sources["psfFlux"][mine] * correction, sources["psfFluxErr"][mine] * correction,
                              (flux[theirs], flux_err[theirs]), photometry,
                              np.asarray(stars["refColor"], float) if photometry.color_term else None), ""
    except BadData as error:
        return nominal, str(error)


def _matches(raw: RawDetector, sources: Catalogue, reference: ReferenceCatalogue | None, fit: AstrometricFit | None,
             config: VisitConfig) -> Catalogue:
    """The stars that the fit used, with their offsets; none without a fit."""
    if reference is None:
        return Catalogue(())
    rows = (fit.sources, fit.reference) if fit is not None else (np.zeros(0, int), np.zeros(0, int))
    table = matched_stars(raw.detector.id, sources, reference, rows, (raw.exposure.band, config.photometry))
    if fit is None:
        return table
    return table.with_columns((), {"offsetRa": 1e3 * fit.east, "offsetDec": 1e3 * fit.north,
                                   "usedAstrometry": np.ones(fit.n, bool)})


def _middle(image: MaskedImage) -> tuple[float, float]:
    return image.box.x0 + 0.5 * (image.box.nx - 1), image.box.y0 + 0.5 * (image.box.ny - 1)


SKY_COLUMNS = (
    Column("sourceId", "i8", "", "visit, detector and counter packed: products.ids"),
    Column("visit", "i8", "", "visit"),
    Column("detector", "i4", "", "detector number"),
)


def _calibrated(sources: Catalogue, raw: RawDetector, solution: tuple[Wcs, AstrometricFit | None], psf_scale: float, scale: float) -> Catalogue:
    """The sources with sky positions, ids, and fluxes in nJy (PSF fluxes aperture corrected)."""
    n = len(sources)
    wcs, fit = solution
    share = fit.error(sources["x"], sources["y"]) if fit is not None else (np.zeros(n), np.zeros(n))
    sources = place_sources(sources, wcs, share, fit.scatter / 1e3 if fit is not None else 0.0)
    arrays = {"sourceId": source_ids(raw.exposure.visit, raw.detector.id, n), "visit": np.full(n, raw.exposure.visit),
              "detector": np.full(n, raw.detector.id)}
    columns = list(SKY_COLUMNS)
    for column in sources.columns.values():
        if column.unit == "electron":
            factor = psf_scale if column.name.startswith("psf") else scale
            columns.append(column._replace(unit="nJy"))
            arrays[column.name] = sources[column.name] * factor
    return sources.with_columns(columns, arrays)
