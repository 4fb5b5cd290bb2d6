"""A camera: its detectors, amplifiers, focal plane, header keys and file layout. One YAML describes one camera."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from ..config import Config, parameter
from ..errors import ConfigError
from .box import Box

__all__ = ["Amplifier", "Camera", "Detector", "HeaderKey", "Layout"]


def _as_box(values: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    if values[2] <= 0 or values[3] <= 0 or values[0] < 0 or values[1] < 0:
        raise ValueError("a region is [x0, y0, nx, ny], zero-based, with positive sizes")
    return values


Region = Annotated[tuple[int, int, int, int], AfterValidator(_as_box)]
"""[x0, y0, nx, ny], zero-based."""


class Amplifier(Config):
    """One read-out: where its pixels are in the file, where they go, and its electronics.

    `section` is this amplifier's rectangle in the image (HDU) that holds it; the other regions are inside the section.
    """

    name: str = parameter(..., "amplifier name")
    hdu: int = parameter(0, "FITS HDU that holds the section")
    section: Region = parameter(..., "[x0, y0, nx, ny] of the amplifier in that HDU", unit="pixel")
    data: Region = parameter(..., "[x0, y0, nx, ny] of the light-sensitive pixels in the section", unit="pixel")
    serial_overscan: Region | None = parameter(None, "read-outs past the end of each row, in the section", unit="pixel")
    parallel_overscan: Region | None = parameter(None, "rows past the last, in the section", unit="pixel")
    prescan: Region | None = parameter(None, "read-outs before the first pixel of each row, in the section", unit="pixel")
    origin: tuple[int, int] = parameter((0, 0), "[x0, y0] of the data region in the assembled detector", unit="pixel")
    flip_x: bool = parameter(False, "columns run backwards in the file")
    flip_y: bool = parameter(False, "rows run backwards in the file")
    gain: float = parameter(1.0, "gain", unit="electron/ADU", above=0.0)
    read_noise: float = parameter(0.0, "read noise", unit="electron", low=0.0)
    saturation: float = parameter(65535.0, "level at and above which a raw pixel is saturated", unit="ADU", above=0.0)
    offset: float = parameter(0.0, "constant offset where there is no overscan and no bias (soft bias)", unit="ADU")

    @property
    def data_box(self) -> Box:
        """The data region in the section."""
        return Box(*self.data)

    @property
    def assembled_box(self) -> Box:
        """Where the data region sits in the assembled detector."""
        return Box(self.origin[0], self.origin[1], self.data[2], self.data[3])


class Detector(Config):
    """One sensor: assembled size, amplifiers, place on the focal plane."""

    name: str = parameter(..., "detector name, for example R22_S11")
    id: int = parameter(..., "detector number", low=0)
    size: tuple[int, int] = parameter(..., "[nx, ny] of the assembled detector", unit="pixel")
    amplifiers: tuple[Amplifier, ...] = parameter(..., "its amplifiers")
    center: tuple[float, float] = parameter((0.0, 0.0), "[x, y] of the sensor's centre on the focal plane", unit="mm")
    rotation: float = parameter(0.0, "rotation of the sensor's +x axis on the focal plane, anticlockwise", unit="deg")

    @property
    def box(self) -> Box:
        """The assembled detector."""
        return Box(0, 0, self.size[0], self.size[1])


class HeaderKey(Config):
    """How one piece of information is read from a raw header."""

    key: str = parameter("", "FITS keyword; empty: use `value`")
    hdu: int = parameter(0, "HDU whose header has it")
    value: str | float | int | None = parameter(None, "used where the key is empty or missing")
    unit: str = parameter("", "unit of the header's number: deg, hourangle, s, ms, mjd, jd, isot, mjd_seconds, ...")
    scale: float = parameter(1.0, "multiplies a number")
    values: dict[str, str | int | float] = parameter({}, "translation of header values, e.g. {sdss_g: g}")
    pattern: str = parameter("", "regular expression with one group, applied to the header's text or the file name")
    required: bool = parameter(True, "a file without it is refused")


class Layout(Config):
    """Which files make an exposure."""

    kind: Literal["detector", "multi-extension", "amplifier"] = parameter(
        "detector", "one file per detector, one file with all amplifiers as extensions, or one file per amplifier")
    pattern: str = parameter(..., "regular expression on the file name; named groups visit, detector, amplifier, band")
    masks: str = parameter("", "format of mask files that come with detrended frames: '', or 'sdss-fpm'")


class Camera(Config):
    """All that the program knows of an instrument."""

    name: str = parameter(..., "camera name")
    pixel_scale: float = parameter(..., "mean pixel scale", unit="arcsec/pixel", above=0.0)
    pixel_size: float = parameter(10.0, "pixel size", unit="micron", above=0.0)
    detectors: tuple[Detector, ...] = parameter(..., "its detectors")
    bands: tuple[str, ...] = parameter(..., "its bands, bluest first")
    layout: Layout = parameter(..., "which files make an exposure")
    header: dict[str, HeaderKey] = parameter(
        ..., "visit, kind, band, mjd, exposure_time, dark_time, ra, dec, rotation, airmass; per amplifier gain, read_noise")
    wcs: Literal["header", "geometry", "none"] = parameter("geometry", "where the rough WCS comes from")
    wcs_parity: int = parameter(1, "+1: seen on the sky with east to the left when +y is north; -1: mirrored")
    detrended: bool = parameter(False, "frames arrive with bias, dark and flat already applied")

    def detector(self, name: str) -> Detector:
        """The detector of this name; ConfigError naming the known ones otherwise."""
        for detector in self.detectors:
            if detector.name == name:
                return detector
        raise ConfigError(f"camera {self.name} has no detector {name}; it has "
                          f"{', '.join(d.name for d in self.detectors[:8])}{' ...' if len(self.detectors) > 8 else ''}")
