"""A reference catalogue in memory: positions with errors and motions at an epoch, fluxes per band."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Sequence

import numpy as np

from ..config import Config, parameter
from ..errors import BadData, ConfigError
from .box import Box
from .earth import barycentric_earth
from .geometry import angular_separation, deproject
from .photocal import nanojansky_of
from .wcs import Wcs

__all__ = ["ReferenceCatalogue", "ReferenceConfig"]

_MJD_2000 = 51544.5
_DAYS_PER_YEAR = 365.25


class ReferenceConfig(Config):
    """Which file is the reference catalogue and what its columns mean."""

    file: str = parameter("", "FITS table, or a folder made by `rsp-hpc refcat build`, whose columns are known")
    ra: str = parameter("ra", "column of right ascension")
    dec: str = parameter("dec", "column of declination")
    position_unit: Literal["deg", "rad"] = parameter("deg", "unit of ra and dec")
    ra_err: str = parameter("", "column of the error of ra times cos(dec); empty: position_error")
    dec_err: str = parameter("", "column of the error of dec; empty: position_error")
    position_error_unit: Literal["mas", "arcsec", "deg"] = parameter("mas", "unit of the position errors' columns")
    position_error: float = parameter(20.0, "error of a position where no column has it", unit="mas", low=0.0)
    pm_ra: str = parameter("", "column of the proper motion in ra, times cos(dec), mas/yr; empty: none")
    pm_dec: str = parameter("", "column of the proper motion in dec, mas/yr; empty: none")
    pm_ra_err: str = parameter("", "column of the error of pm_ra, mas/yr; empty: 0")
    pm_dec_err: str = parameter("", "column of the error of pm_dec, mas/yr; empty: 0")
    unknown_motion: float = parameter(6.0, "error of a proper motion that a catalogue with motions does not give; in one without "
                                          "any, what the fit scatters tells", unit="mas/yr", low=0.0)
    parallax: str = parameter("", "column of the parallax, mas; empty: none")
    parallax_err: str = parameter("", "column of the error of the parallax, mas; empty: 0")
    epoch: float = parameter(2000.0, "Julian year of the positions", unit="yr", low=1800.0, high=2200.0)
    kind: Literal["magnitude", "nJy"] = parameter("magnitude", "what the bands' columns hold")
    bands: dict[str, str] = parameter({}, "column of each of our bands, e.g. {g: g_mag, r: r_mag}")
    errors: dict[str, str] = parameter({}, "column of the error of each band, in the same kind of unit")
    magnitude_error: float = parameter(0.02, "error of a magnitude where no column has it", unit="mag", low=0.0)
    ab_offset: dict[str, float] = parameter({}, "added to a band's magnitudes to make them AB, e.g. Vega's {i: 0.37}")
    star: str = parameter("", "column that tells stars from the rest; empty: all are stars")
    star_value: float = parameter(1.0, "value of that column for stars")


@dataclass(frozen=True)
class ReferenceCatalogue:
    """Stars (and other objects) with known positions and fluxes.

    Attributes
    ----------
    ra, dec : (n,) float64, ICRS degrees at `epoch`
    ra_err, dec_err : (n,) float64, mas, one sigma, ra's times cos(dec)
    pm_ra, pm_dec : (n,) float64, mas/yr, ra's times cos(dec); 0 where unknown
    pm_ra_err, pm_dec_err : (n,) float64, mas/yr
    epoch : float, MJD TAI
    flux, flux_err : by band, (n,) float64, nJy; NaN where unknown
    is_star : (n,) bool
    parallax, parallax_err : (n,) float64, mas; 0 where unknown
    """

    ra: np.ndarray
    dec: np.ndarray
    ra_err: np.ndarray
    dec_err: np.ndarray
    pm_ra: np.ndarray
    pm_dec: np.ndarray
    pm_ra_err: np.ndarray
    pm_dec_err: np.ndarray
    epoch: float
    is_star: np.ndarray
    flux: dict[str, np.ndarray] = field(default_factory=dict)
    flux_err: dict[str, np.ndarray] = field(default_factory=dict)
    parallax: np.ndarray | None = None
    parallax_err: np.ndarray | None = None

    def __post_init__(self):
        for name in ("parallax", "parallax_err"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(len(self.ra)))
        sizes = {len(value) for value in (*self._columns().values(), *self.flux.values(), *self.flux_err.values())}
        if len(sizes) != 1 or set(self.flux) != set(self.flux_err):
            raise ValueError(f"columns of one length and an error per band are needed, got lengths {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.ra)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands with fluxes."""
        return tuple(self.flux)

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("ra", "dec", "ra_err", "dec_err", "pm_ra", "pm_dec", "pm_ra_err",
                                                       "pm_dec_err", "is_star", "parallax", "parallax_err")}

    def rows(self, index) -> ReferenceCatalogue:
        """The rows of an index array, slice or boolean mask."""
        return replace(self, **{name: value[index] for name, value in self._columns().items()},
                       flux={band: value[index] for band, value in self.flux.items()},
                       flux_err={band: value[index] for band, value in self.flux_err.items()})

    def cone(self, ra: float, dec: float, radius: float) -> ReferenceCatalogue:
        """The rows within a radius of a position (all degrees)."""
        return self.rows(self._near(ra, dec, radius))

    def around(self, wcs: Wcs, box: Box, margin: float = 0.0) -> ReferenceCatalogue:
        """The rows on the pixels of a box, or within a margin (arcsec) of it."""
        ra, dec = wcs.pixel_to_sky(box.x0 + 0.5 * (box.nx - 1), box.y0 + 0.5 * (box.ny - 1))
        corner_ra, corner_dec = wcs.pixel_to_sky(*box.corners().T)
        radius = 1.1 * angular_separation(corner_ra, corner_dec, ra, dec).max() + 1.5 * margin / 3600.0
        near = self._near(ra, dec, radius)
        grown = box.grow(int(np.ceil(margin / wcs.pixel_scale)))
        return self.rows(near[grown.contains(*wcs.sky_to_pixel(self.ra[near], self.dec[near]))])

    def at_epoch(self, mjd: float) -> ReferenceCatalogue:
        """Positions as seen from the Earth at an epoch (MJD TAI), with grown errors: proper motions along great circles, parallax.

        The parallax is used up: the result has none.
        """
        years = (mjd - self.epoch) / _DAYS_PER_YEAR
        east, north = self.pm_ra * years, self.pm_dec * years
        ra_err, dec_err = np.hypot(self.ra_err, self.pm_ra_err * years), np.hypot(self.dec_err, self.pm_dec_err * years)
        if np.any(self.parallax) or np.any(self.parallax_err):
            x, y, z = barycentric_earth(mjd)
            ra, dec = np.radians(self.ra), np.radians(self.dec)
            to_east = x * np.sin(ra) - y * np.cos(ra)  # the star moves against the Earth
            to_north = (x * np.cos(ra) + y * np.sin(ra)) * np.sin(dec) - z * np.cos(dec)
            east, north = east + self.parallax * to_east, north + self.parallax * to_north
            ra_err, dec_err = np.hypot(ra_err, self.parallax_err * to_east), np.hypot(dec_err, self.parallax_err * to_north)
        ra, dec = deproject(east / 3.6e6, north / 3.6e6, self.ra, self.dec)
        return replace(self, ra=ra, dec=dec, epoch=float(mjd), ra_err=ra_err, dec_err=dec_err,
                       parallax=np.zeros(len(self)), parallax_err=np.zeros(len(self)))

    def of_band(self, band: str) -> tuple[np.ndarray, np.ndarray]:
        """(flux, flux_err) in nJy of a band.

        Raises
        ------
        BadData
            The catalogue does not have the band.
        """
        if band not in self.flux:
            raise BadData(f"the reference catalogue has no band {band}, only {', '.join(self.flux) or 'positions'}; "
                          "name its column in reference.bands or give another catalogue")
        return self.flux[band], self.flux_err[band]

    def brightness(self, band: str = "") -> np.ndarray:
        """(n,) nJy to rank the stars by: the flux in a band, or the largest of all bands where it is unknown."""
        if not self.flux:
            return np.zeros(len(self))
        largest = np.fmax.reduce(list(self.flux.values()))
        return np.where(np.isfinite(self.flux[band]), self.flux[band], largest) if band in self.flux else largest

    def _near(self, ra: float, dec: float, radius: float) -> np.ndarray:
        """Rows within a radius: a cut in declination first, so that the sky is not searched for each detector."""
        band = np.flatnonzero(np.abs(self.dec - dec) <= radius)
        return band[angular_separation(self.ra[band], self.dec[band], ra, dec) <= radius]

    @classmethod
    def from_columns(cls, arrays: dict[str, np.ndarray], config: ReferenceConfig) -> ReferenceCatalogue:
        """From the columns of a table, as named by the configuration; rows without a position are left out.

        Raises
        ------
        ConfigError
            A column named in the configuration is not in the table.
        BadData
            The table has no rows with a position.
        """
        _check_columns(arrays, config)
        unit = 1.0 if config.position_unit == "deg" else np.degrees(1.0)
        ra, dec = (np.asarray(arrays[name], float) * unit for name in (config.ra, config.dec))
        good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
        if not good.any():
            raise BadData(f"the reference catalogue {config.file} is empty; give one that covers the survey")

        def column(name: str, scale: float, default: float) -> np.ndarray:
            values = np.asarray(arrays[name], float)[good] * scale if name else np.full(int(good.sum()), np.nan)
            return np.where(np.isfinite(values), values, default)

        def motion_error(motion: str, name: str) -> np.ndarray:
            known = column(name, 1.0, 0.0)
            return np.where(np.isfinite(column(motion, 1.0, np.nan)), known, config.unknown_motion) if motion else known

        to_mas = {"mas": 1.0, "arcsec": 1e3, "deg": 3.6e6}[config.position_error_unit]
        fluxes = {band: _flux_of(arrays, config, band, good) for band in config.bands}
        return cls(ra=np.mod(ra[good], 360.0), dec=dec[good],
                   ra_err=column(config.ra_err, to_mas, config.position_error),
                   dec_err=column(config.dec_err, to_mas, config.position_error),
                   pm_ra=column(config.pm_ra, 1.0, 0.0), pm_dec=column(config.pm_dec, 1.0, 0.0),
                   pm_ra_err=motion_error(config.pm_ra, config.pm_ra_err), pm_dec_err=motion_error(config.pm_dec, config.pm_dec_err),
                   parallax=column(config.parallax, 1.0, 0.0), parallax_err=column(config.parallax_err, 1.0, 0.0),
                   epoch=_MJD_2000 + (config.epoch - 2000.0) * _DAYS_PER_YEAR,
                   is_star=(np.asarray(arrays[config.star])[good] == config.star_value if config.star
                            else np.ones(int(good.sum()), bool)),
                   flux={band: flux for band, (flux, _) in fluxes.items()},
                   flux_err={band: error for band, (_, error) in fluxes.items()})


def _check_columns(arrays: dict[str, np.ndarray], config: ReferenceConfig) -> None:
    keys = ("ra", "dec", "ra_err", "dec_err", "pm_ra", "pm_dec", "pm_ra_err", "pm_dec_err", "parallax", "parallax_err", "star")
    named = {f"reference.{key}": getattr(config, key) for key in keys}
    named.update({f"reference.bands.{band}": name for band, name in config.bands.items()})
    named.update({f"reference.errors.{band}": name for band, name in config.errors.items()})
    for key, name in named.items():
        if name and name not in arrays:
            raise ConfigError(f"{key}: the reference catalogue {config.file} has no column {name}; it has "
                              f"{_listed(list(arrays))}")
    unknown = set(config.errors) - set(config.bands)
    if unknown:
        raise ConfigError(f"reference.errors names {_listed(sorted(unknown))}, which reference.bands does not")


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def _flux_of(arrays, config: ReferenceConfig, band: str, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(flux, error) in nJy; magnitudes outside -10..40 are catalogues' marks of missing values and become NaN."""
    values = np.asarray(arrays[config.bands[band]], float)[good]
    errors = np.full(len(values), np.nan)
    if band in config.errors:
        errors = np.asarray(arrays[config.errors[band]], float)[good]
    if config.kind == "magnitude":
        values = np.where((values > -10.0) & (values < 40.0), values, np.nan)
        flux = nanojansky_of(values + config.ab_offset.get(band, 0.0))
        errors = np.where(np.isfinite(errors) & (errors >= 0.0), errors, config.magnitude_error)
        return flux, flux * errors * np.log(10.0) / 2.5
    flux = np.where(values > 0.0, values, np.nan) * 10.0 ** (-0.4 * config.ab_offset.get(band, 0.0))
    default = flux * config.magnitude_error * np.log(10.0) / 2.5
    return flux, np.where(np.isfinite(errors) & (errors >= 0.0), errors, default)
