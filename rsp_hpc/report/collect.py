"""From an output folder to the report's plain inputs: visits, objects, truth, failures, timings; coadds elsewhere.

Whatever is missing or damaged becomes a line of `Inputs.missing`; the report is made all the same.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import BadData
from ..products.catalogue import Catalogue
from ..products.photocal import nanojansky_of
from ..products.skymap import RingsSkyMap
from ..products.visit import VisitDetector
from .coadds import CoaddSurvey, survey_coadds
from .config import ReportConfig, TruthConfig
from .figure import in_order
from .folder import Folder, read_columns
from .images import psf_sample
from .inputs import Failure, Inputs, Span, StageState, Timing
from .metrics import Truth
from .robust import evenly
from .visits import VisitRow

__all__ = ["collect", "join_objects", "read_truth", "stage_states", "timings_of"]

SUMMARY = {"sky": ("sky_electron", 1.0), "sky_noise": ("sky_noise_electron", 1.0), "depth": ("depth_5sigma_mag", 1.0),
           "astrometric_rms_east": ("astrometric_rms_east_arcsec", 1000.0),
           "astrometric_rms_north": ("astrometric_rms_north_arcsec", 1000.0), "n_sources": ("n_sources", 1.0),
           "focal_x": ("focal_x_mm", 1.0), "focal_y": ("focal_y_mm", 1.0), "focal_width": ("focal_width_mm", 1.0),
           "focal_height": ("focal_height_mm", 1.0), "rotation": ("rotation_deg", 1.0), "psf_e1": ("psf_e1", 1.0),
           "psf_e2": ("psf_e2", 1.0), "sky_residual": ("sky_residual_electron", 1.0), "photometric": ("photometric", 1.0),
           "zero_point_spread": ("zero_point_spread_mag", 1.0), "cloud_rms": ("cloud_rms_mag", 1.0),
           "extinction": ("extinction_mag", 1.0), "effective_time": ("effective_time_s", 1.0)}
"""Value of a VisitRow -> key in the summary of the visit's detector, and its factor."""

LIBRARIES = ("numpy", "scipy", "astropy", "h5py", "fitsio", "blosc2", "cffi", "mpi4py", "pydantic", "matplotlib",
             "jinja2")


def collect(folder: Folder, skymap: RingsSkyMap, data: Path, config: ReportConfig, name: str = "survey",
            expected: dict[str, int] | None = None) -> Inputs:
    """Read what a run has made so far.

    Parameters
    ----------
    folder : the output folder
    skymap : the run's sky map
    data : folder that the truth's file names are relative to
    config, name : of the report and the survey
    expected : stage -> number of units it should make in the end; None where unknown
    """
    inputs = Inputs(name, versions=versions())
    inputs.visits = _visits(folder, data, config, inputs.missing)
    inputs.objects = _objects(folder, inputs.missing)
    truth = _truth(data, config, inputs.missing)
    coadds = survey_coadds(folder, skymap, truth, config, inputs.objects)
    inputs.missing += coadds.missing
    inputs.truth = _on_coadds(truth, coadds)
    inputs.skies, inputs.pictures, inputs.patches = coadds.skies, coadds.pictures, coadds.patches
    inputs.bands = tuple(in_order([row.band for row in inputs.visits] + coadds.bands))
    inputs.failures = [Failure(*(str(row.get(key, "")) for key in ("stage", "unit", "part", "error", "message")))
                       for row in folder.failures()]
    inputs.timings, inputs.spans = timings_of(folder.timing())
    done = {"visits": len(folder.visits()), "coadds": len(folder.tracts()), "objects": len(folder.object_tracts())}
    inputs.states = stage_states(done, expected or {}, inputs.failures)
    inputs.configuration = folder.text(folder.store.config)
    return inputs


def _visits(folder: Folder, data: Path, config: ReportConfig, missing: list[str]) -> list[VisitRow]:
    """All detectors of all visits; the pixels of an even choice of them for the PSF."""
    places = []
    for visit in folder.visits():
        try:
            places += [(visit, detector) for detector in folder.detectors(visit)]
        except BadData as error:
            missing.append(str(error))
    if not places:
        missing.append("visits: none is finished")
    chosen = set(evenly(len(places), config.psf_detectors))
    zero_points = _true_zero_points(data, config, missing)
    rows = []
    for k, (visit, detector) in enumerate(places):
        try:
            rows.append(visit_row(folder.visit(visit, detector, pixels=k in chosen), zero_points, k in chosen))
        except BadData as error:
            missing.append(str(error))
    return rows


def visit_row(visit: VisitDetector, zero_points: dict[int, float], with_psf: bool) -> VisitRow:
    """What the report shows of one detector."""
    box = visit.background.box if visit.background is not None else visit.image.box
    x, y = box.x0 + 0.5 * (box.nx - 1), box.y0 + 0.5 * (box.ny - 1)
    values = {name: factor * float(visit.summary[key]) for name, (key, factor) in SUMMARY.items()
              if key in visit.summary}
    values["astrometric_rms"] = float(np.hypot(*(values.get(f"astrometric_rms_{name}", np.nan) for name in ("east", "north")))) / 2**0.5
    corners = None
    if visit.wcs is not None and box.area:
        corners = np.stack(visit.wcs.pixel_to_sky(*box.corners().T), axis=-1)
    if visit.psf is not None and visit.wcs is not None:
        values["seeing"] = float(visit.psf.fwhm(x, y)[0]) * visit.wcs.pixel_scale
    if visit.photocal is not None:
        values.update(zero_point=visit.photocal.zero_point, zero_point_err=visit.photocal.zero_point_err,
                      zero_point_scatter=visit.photocal.scatter, n_stars=visit.photocal.n_stars)
    values["true_zero_point"] = zero_points.get(visit.exposure.visit, float("nan"))
    usable = with_psf and visit.psf is not None and "psfFlux" in visit.sources
    return VisitRow(visit.exposure.visit, visit.detector, visit.exposure.band, visit.exposure.mjd, corners, None,
                    values, psf_sample(visit) if usable else None)


def _true_zero_points(data: Path, config: ReportConfig, missing: list[str]) -> dict[int, float]:
    if not config.true_zero_points:
        return {}
    try:
        table = read_columns(data / config.true_zero_points)
        return dict(zip(table["visit"].astype(int).tolist(), table["zero_point"].astype(float).tolist()))
    except (BadData, KeyError) as error:
        missing.append(f"true zero points: {error}")
        return {}


def _objects(folder: Folder, missing: list[str]) -> Catalogue | None:
    parts = []
    for tract in folder.object_tracts():
        try:
            parts.append(folder.objects(tract))
        except BadData as error:
            missing.append(str(error))
    if not parts:
        missing.append("objects: no tract has any yet")
        return None
    return join_objects(parts)


def join_objects(parts: list[Catalogue]) -> Catalogue:
    """One catalogue of all tracts with the union of their columns: a tract that lacks a band has NaN or 0 there."""
    columns = {name: column for part in parts for name, column in part.columns.items()}
    filled = []
    for part in parts:
        lacking = [column for name, column in columns.items() if name not in part]
        blank = Catalogue(lacking, size=len(part))
        filled.append(part.with_columns(lacking, blank.arrays))
    return Catalogue.concatenate([Catalogue(columns.values(), {name: part[name] for name in columns})
                                  for part in filled])


def _truth(data: Path, config: ReportConfig, missing: list[str]) -> Truth | None:
    parts = []
    for table in config.truth:
        try:
            parts.append(read_truth(data, table))
        except BadData as error:
            missing.append(f"truth: {error}")
    return join_truth(parts) if parts else None


def read_truth(data: Path, config: TruthConfig) -> Truth:
    """A table of true objects.

    Raises
    ------
    BadData
        The file cannot be read, or lacks positions or any flux.
    """
    table = read_columns(data / config.file)
    for name in (config.ra, config.dec):
        if name not in table:
            raise BadData(f"{config.file}: has no column {name}; name it in report.truth")
    before, _, after = config.flux.partition("{band}")
    errors = ("_err", "Err")
    bands = {name[len(before):len(name) - len(after)]: name for name in table
             if name.startswith(before) and name.endswith(after) and not name.endswith(errors)
             and len(name) > len(before + after)}
    bands = {band: name for band, name in bands.items() if table[name].dtype.kind == "f" and len(band) <= 8}
    if not bands:
        raise BadData(f"{config.file}: has no column like {config.flux}; name it in report.truth.flux")
    n = len(table[config.ra])
    flux = {band: table[name].astype(float) for band, name in bands.items()}
    if config.kind == "magnitude":
        flux = {band: nanojansky_of(values) for band, values in flux.items()}
    star = table[config.star] != 0 if config.star in table else np.full(n, config.all_stars)
    sigma = np.nan_to_num(table[config.sigma].astype(float)) if config.sigma in table else np.zeros(n)
    sigma = np.where(star, 0.0, sigma)

    def known(pattern: str, kind) -> dict[str, np.ndarray]:
        names = {band: pattern.format(band=band) for band in bands}
        return {band: table[name].astype(kind) for band, name in names.items() if name in table}

    return Truth(table[config.ra].astype(float), table[config.dec].astype(float), star, sigma, flux,
                 {band: np.full(n, np.nan) for band in bands}, dict.fromkeys(bands, float("nan")), np.zeros(n, bool),
                 known(config.snr, float) if config.snr else {},
                 known(config.isolated, bool) if config.isolated else {})


def join_truth(parts: list[Truth]) -> Truth:
    """Several tables as one, with the bands that all have."""
    if len(parts) == 1:
        return parts[0]

    def joined(tables: list[dict]) -> dict:
        return {band: np.concatenate([table[band] for table in tables]) for band in tables[0]
                if all(band in table for table in tables)}

    arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in ("ra", "dec", "is_star", "sigma")]
    flux, noise, snr = (joined([getattr(part, name) for part in parts]) for name in ("flux", "noise", "known_snr"))
    return Truth(*arrays, flux, noise, dict.fromkeys(flux, float("nan")),
                 np.concatenate([part.usable for part in parts]), snr)


def _on_coadds(truth: Truth | None, coadds: CoaddSurvey) -> Truth | None:
    """The truth in the bands that have coadds, with the noise there; None where no true object lies on a coadd."""
    if truth is None or not coadds.usable.any():
        return None
    bands = [band for band in truth.flux if band in coadds.noise]
    return Truth(truth.ra, truth.dec, truth.is_star, truth.sigma, *({band: table[band] for band in bands} for table in
                 (truth.flux, coadds.noise, coadds.psf_sigma)), coadds.usable,
                 {band: np.where(coadds.usable, truth.known_snr[band], np.nan) for band in bands
                  if band in truth.known_snr},
                 {band: truth.known_isolated[band] for band in bands if band in truth.known_isolated})


def timings_of(rows: list[dict]) -> tuple[list[Timing], list[Span]]:
    """Seconds per stage and rank, and when each rank did which part, from the rows of timing.csv.

    Waiting is what is left of a stage's time, from its first part's begin to its last one's end, on each rank.
    """
    spans, totals = [], {}
    starts = [value for row in rows if np.isfinite(value := _number(row.get("began")))]
    origin = min(starts, default=0.0)
    for row in rows:
        began, rank = _number(row.get("began")), int(_number(row.get("rank"), 0.0))
        kinds = {key[:-2]: _number(value, 0.0) for key, value in row.items() if key and key.endswith("_s")}
        kinds = {kind: value for kind, value in kinds.items() if value > 0}
        stage = str(row.get("stage", ""))
        for kind, value in kinds.items():
            total = totals.setdefault((stage, rank), {})
            total[kind] = total.get(kind, 0.0) + value
        if np.isfinite(began):
            busy = sum(value for kind, value in kinds.items() if kind != "write")
            spans.append(Span(stage, rank, f"{row.get('unit', '')} {row.get('part', '')}".strip(), began - origin,
                              began - origin + busy))
    timings = []
    for (stage, rank), kinds in totals.items():
        some = [span for span in spans if span.stage == stage]
        length = max(span.end for span in some) - min(span.start for span in some) if some else 0.0
        timings.append(Timing(stage, rank, {**kinds, "wait": max(0.0, length - sum(kinds.values()))}))
    return timings, spans


def _number(text, default: float = float("nan")) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return default


def stage_states(done: dict[str, int], expected: dict[str, int], failures: list[Failure]) -> list[StageState]:
    """How far each stage is; units without any product that have failures count as failed."""
    result = []
    for stage, count in done.items():
        units = {item.unit for item in failures if item.stage == stage}
        total = expected.get(stage)
        lost = len(units) if total is None else min(len(units), max(0, total - count))
        result.append(StageState(stage, count, total, lost))
    return result


def versions() -> dict[str, str]:
    """Versions of this program, of Python, of the libraries and of the system."""
    found = {"rsp_hpc": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
