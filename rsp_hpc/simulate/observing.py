"""A simulated survey's exposures: where and when they were taken, the true WCS, PSF, zero point and sky of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..config import Config, parameter
from ..products.camera import Camera, Detector
from ..products.catalogue import Catalogue, Column
from ..products.focalplane import pixel_to_focal_plane, rough_wcs
from ..products.wcs import Wcs
from .seeds import generator

__all__ = ["ObservingConfig", "RampConfig", "SimulatedExposure", "detector_wcs", "exposure_table", "plan", "psf_parameters"]


class RampConfig(Config):
    """Pairs of flats of rising exposure time before a steady lamp: photon transfer and linearity; the time is the standard."""

    levels: int = parameter(0, "pairs; 0: none", low=0, high=500)
    first: float = parameter(50.0, "level of the faintest pair", unit="electron", above=0.0)
    last: float = parameter(120000.0, "level of the brightest pair", unit="electron", above=0.0)
    spacing: Literal["log", "linear", "both"] = parameter("log", "spacing of the levels; both: half the pairs each")
    rate: float = parameter(3500.0, "light of the lamp", unit="electron/s", above=0.0)
    band: str = parameter("", "band they are taken in; '': the first")

    def level(self, pair: int) -> float:
        """Of a pair, electron."""
        n_log = {"log": self.levels, "linear": 0, "both": (self.levels + 1) // 2}[self.spacing]
        if pair < n_log:
            return self.first * (self.last / self.first) ** (pair / max(n_log - 1, 1))
        above = int(n_log > 0)  # the first level is there already
        return self.first + (pair - n_log + above) / max(self.levels - n_log - 1 + above, 1) * (self.last - self.first)


class ObservingConfig(Config):
    """Exposures, conditions, and the errors of telescope and optics."""

    visits_per_band: int = parameter(4, "science exposures in each band", low=1)
    exposure_time: float = parameter(60.0, "shutter open", unit="s", above=0.0)
    dither: float = parameter(1.2, "largest offset of a pointing from the centre", unit="arcmin", low=0.0)
    rotation_spread: float = parameter(6.0, "rotations are drawn within plus or minus this", unit="deg", low=0.0)
    pointing_error: float = parameter(1.5, "rms per axis of the telescope's pointing", unit="arcsec", low=0.0)
    rotation_error: float = parameter(0.02, "rms of the rotator", unit="deg", low=0.0)
    distortion: float = parameter(0.3, "radial displacement at 0.1 degree from the axis; grows with the cube", unit="arcsec")
    seeing: float = parameter(0.75, "median FWHM in r at the zenith", unit="arcsec", above=0.2)
    seeing_spread: float = parameter(0.1, "rms of ln(FWHM) from visit to visit", low=0.0, high=0.5)
    psf_shear: float = parameter(0.02, "rms of the PSF's mean shear and of its change over the focal plane", low=0.0, high=0.1)
    psf_growth: float = parameter(0.04, "growth of the FWHM from the axis to the corner", low=0.0, high=0.5)
    zero_point: float = parameter(28.0, "AB magnitude of 1 electron/s in r above the atmosphere", unit="mag")
    clouds: float = parameter(0.1, "extinction is drawn between 0 and this", unit="mag", low=0.0)
    sky_brightness: float = parameter(20.9, "AB magnitude per arcsec^2 in r", unit="mag")
    sky_gradient: float = parameter(0.02, "change of the sky over the focal plane, relative", low=0.0, high=0.5)
    start: float = parameter(61000.0, "MJD (TAI) of the first exposure")
    bias_frames: int = parameter(5, "bias frames", low=0)
    dark_frames: int = parameter(5, "dark frames", low=0)
    dark_time: float = parameter(120.0, "exposure time of dark frames", unit="s", above=0.0)
    dark_times: tuple[Annotated[float, Field(gt=0.0)], ...] = parameter(
        (), "exposure times that dark frames take in turns; (): all `dark_time`", unit="s")
    flat_frames: int = parameter(5, "flat frames per band", low=0)
    flat_level: float = parameter(35000.0, "mean charge in flat frames", unit="electron", above=0.0)
    ramps: RampConfig = parameter(RampConfig(), "pairs of flats of rising exposure time")
    spot_frames: int = parameter(0, "frames with bright spots on one amplifier, which take turns: they show the crosstalk", low=0)
    spot_level: float = parameter(80000.0, "charge of the brightest spots", unit="electron", above=0.0)


BANDS = {"u": (-1.2, 0.45, 1.1, 1.8), "g": (0.25, 0.2, 1.05, 1.0), "r": (0.0, 0.1, 1.0, 0.0), "i": (-0.2, 0.07, 0.96, -0.7),
         "z": (-0.6, 0.06, 0.94, -1.6), "y": (-1.4, 0.1, 0.93, -2.5)}
"""Band: zero point minus r's (mag), extinction (mag/airmass), seeing relative to r, sky magnitude minus r's."""


@dataclass(frozen=True)
class SimulatedExposure:
    """One exposure with its commanded values (what the header says) and the true ones.

    Attributes
    ----------
    visit : int; kind : science, bias, dark, flat or spots; band : '' for bias, dark and spots
    mjd : float, TAI, start; exposure_time : float, s
    ra, dec, rotation : commanded boresight, degrees
    true_ra, true_dec, true_rotation : where the telescope really pointed, degrees
    airmass : float
    zero_point : AB magnitude of one electron of the whole exposure
    fwhm : PSF on the axis, arcsec
    sky : electron per pixel on the axis
    sky_slope : relative change of the sky per mm along focal-plane x and y
    light : mean electrons of a flat; charge of the brightest spots
    number : counts the exposures of a kind from 0
    psf_shear : (2, 3): g1 and g2 (along the focal plane's axes) as c0 + c1 x + c2 y, positions in units of the corner radius
    """

    visit: int
    kind: str
    band: str
    mjd: float
    exposure_time: float
    ra: float = float("nan")
    dec: float = float("nan")
    rotation: float = 0.0
    true_ra: float = float("nan")
    true_dec: float = float("nan")
    true_rotation: float = 0.0
    airmass: float = float("nan")
    zero_point: float = float("nan")
    fwhm: float = float("nan")
    sky: float = 0.0
    light: float = 0.0
    number: int = 0
    sky_slope: tuple[float, float] = (0.0, 0.0)
    psf_shear: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def plan(config: ObservingConfig, camera: Camera, bands: tuple[str, ...], center: tuple[float, float],
         seed: int) -> list[SimulatedExposure]:
    """All exposures: biases 101..., darks 201..., flats 301..., ramps 10001..., spots 20001..., science 1001...."""
    night, times = config.start - 0.3, config.dark_times or (config.dark_time,)
    exposures = [SimulatedExposure(101 + k, "bias", "", night + 1e-3 * k, 0.0, number=k) for k in range(config.bias_frames)]
    exposures += [SimulatedExposure(201 + k, "dark", "", night + 0.02 + 2e-3 * k, times[k % len(times)], number=k)
                  for k in range(config.dark_frames)]
    exposures += [SimulatedExposure(301 + k, "flat", bands[k // config.flat_frames], night + 0.05 + 1e-3 * k, 10.0,
                                    light=config.flat_level, number=k) for k in range(config.flat_frames * len(bands))]
    exposures += [_ramp(config.ramps, bands, night + 0.1, k) for k in range(2 * config.ramps.levels)]
    exposures += [SimulatedExposure(20001 + k, "spots", "", night + 0.25 + 1e-3 * k, 10.0, light=config.spot_level, number=k)
                  for k in range(config.spot_frames)]
    return exposures + [_science(config, camera, bands[k % len(bands)], center, (seed, k))
                        for k in range(config.visits_per_band * len(bands))]


def _ramp(config: RampConfig, bands: tuple[str, ...], start: float, number: int) -> SimulatedExposure:
    """One flat of a ramp; two in a row make a pair."""
    level = config.level(number // 2)
    return SimulatedExposure(10001 + number, "flat", config.band or bands[0], start + 5e-4 * number, level / config.rate,
                             light=level, number=number)


def _science(config: ObservingConfig, camera: Camera, band: str, center: tuple[float, float],
             which: tuple[int, int]) -> SimulatedExposure:
    """One science exposure; `which` is (seed, number)."""
    seed, number = which
    rng = generator(seed, "exposure", number)
    offset, bearing = config.dither / 60.0 * np.sqrt(rng.random()), rng.uniform(0.0, 2.0 * np.pi)
    dec = center[1] + offset * np.cos(bearing)
    ra = center[0] + offset * np.sin(bearing) / np.cos(np.radians(center[1]))
    rotation = rng.uniform(-1.0, 1.0) * config.rotation_spread
    error = config.pointing_error / 3600.0 * rng.standard_normal(2)
    airmass = rng.uniform(1.0, 1.5)
    offset_zp, extinction, seeing, sky_colour = BANDS[band]
    clouds = config.clouds * rng.random()
    zero_point = (config.zero_point + offset_zp - extinction * airmass - clouds + 2.5 * np.log10(config.exposure_time))
    fwhm = config.seeing * seeing * airmass**0.6 * np.exp(config.seeing_spread * rng.standard_normal())
    sky = 10.0 ** (0.4 * (zero_point + clouds - config.sky_brightness - sky_colour)) * camera.pixel_scale**2
    extent = max(np.hypot(*detector.center) for detector in camera.detectors) or 1.0
    direction, shear = rng.uniform(0.0, 2.0 * np.pi), config.psf_shear * rng.standard_normal((2, 3))
    slope = 0.5 * config.sky_gradient / extent * np.array([np.cos(direction), np.sin(direction)])
    return SimulatedExposure(
        visit=1001 + number, kind="science", band=band, mjd=config.start + (config.exposure_time + 30.0) / 86400.0 * number,
        exposure_time=config.exposure_time, ra=float(ra) % 360.0, dec=float(dec), rotation=float(rotation),
        true_ra=float(ra + error[0] / np.cos(np.radians(dec))) % 360.0, true_dec=float(dec + error[1]),
        true_rotation=float(rotation + config.rotation_error * rng.standard_normal()), airmass=float(airmass),
        zero_point=float(zero_point), fwhm=float(fwhm), sky=float(sky), sky_slope=tuple(map(float, slope)),
        psf_shear=tuple(tuple(map(float, row)) for row in shear))


def exposure_table(exposures: list[SimulatedExposure]) -> Catalogue:
    """The truth of the science exposures: visit, zero point, FWHM, sky, and where the telescope really pointed."""
    science = [exposure for exposure in exposures if exposure.kind == "science"]
    columns = (Column("visit", "i8", "", "visit"), Column("zero_point", "f8", "mag", "AB magnitude of one electron"),
               Column("fwhm", "f8", "arcsec", "FWHM of the PSF on the axis"), Column("sky", "f8", "electron", "sky on the axis"),
               Column("true_ra", "f8", "deg", "boresight, ICRS"), Column("true_dec", "f8", "deg", "boresight, ICRS"),
               Column("true_rotation", "f8", "deg", "position angle of the focal plane's +y axis"))
    return Catalogue(columns, {column.name: np.array([getattr(exposure, column.name) for exposure in science])
                               for column in columns})


def detector_wcs(config: ObservingConfig, camera: Camera, exposure: SimulatedExposure, detector: Detector) -> Wcs:
    """The true WCS of a detector: TAN at the true boresight with a cubic radial distortion, exactly a TAN-SIP of order 3."""
    plain = rough_wcs(camera, detector, exposure.true_ra, exposure.true_dec, exposure.true_rotation)
    if config.distortion == 0.0:
        return plain
    field = 360.0 / camera.pixel_scale  # pixels in 0.1 degree
    cubic = config.distortion / camera.pixel_scale / field**3
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = cubic
    return Wcs(plain.crval, plain.crpix, plain.cd, a, b)


def psf_parameters(config: ObservingConfig, camera: Camera, exposure: SimulatedExposure, detector: Detector,
                   place: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fwhm in pixel, g1, g2 along the detector's axes), each (n,), at pixel positions (x, y)."""
    x, y = pixel_to_focal_plane(camera, detector, *place)
    extent = max(np.hypot(abs(d.center[0]) + 5e-4 * camera.pixel_size * d.size[0],
                          abs(d.center[1]) + 5e-4 * camera.pixel_size * d.size[1]) for d in camera.detectors)
    x, y = x / extent, y / extent
    fwhm = exposure.fwhm / camera.pixel_scale * (1.0 + config.psf_growth * (x**2 + y**2))
    g1, g2 = (c[0] + c[1] * x + c[2] * y for c in exposure.psf_shear)
    twice = np.radians(2.0 * detector.rotation)  # a shear turns with twice the angle
    return fwhm, g1 * np.cos(twice) + g2 * np.sin(twice), g2 * np.cos(twice) - g1 * np.sin(twice)
