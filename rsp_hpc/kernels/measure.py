"""Face of csrc/measure.c (with moments.c and aperture.c): PSF fits, apertures, shapes and Kron fluxes of sources."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["FLAGS", "Measured", "VALUES", "local_background", "measure_sources"]

VALUES = ("x", "y", "xErr", "yErr", "xyCov", "psfFlux", "psfFluxErr", "psfArea", "excess", "excessErr", "ixx", "iyy",
          "ixy", "ixxErr", "iyyErr", "ixyErr", "ixxPSF", "iyyPSF", "ixyPSF", "blendedness", "kronRad", "kronFlux",
          "kronFluxErr")
FLAGS = {"noCentroid": lib.RSP_NO_CENTROID, "noPixels": lib.RSP_NO_PIXELS, "psfCut": lib.RSP_PSF_CUT,
         "noShape": lib.RSP_NO_SHAPE, "kronSmallest": lib.RSP_KRON_SMALLEST, "kronCut": lib.RSP_KRON_CUT,
         "noPsf": lib.RSP_NO_PSF, "offImage": lib.RSP_OFF_IMAGE}


class Measured(NamedTuple):
    """values: (n, len(VALUES)) float64; apertures: (n, n_radii, 3) float64, flux, error, area without data;
    flags: (n,) uint32 of FLAGS; masks: (n, 2) uint32, union over the footprint and over the central 3x3 pixels."""

    values: np.ndarray
    apertures: np.ndarray
    flags: np.ndarray
    masks: np.ndarray

    def value(self, name: str) -> np.ndarray:
        """(n,) float64: one of VALUES."""
        return self.values[:, VALUES.index(name)]

    def flag(self, name: str) -> np.ndarray:
        """(n,) bool: one of FLAGS."""
        return (self.flags & FLAGS[name]) != 0


def measure_sources(planes, bits: tuple[int, int, int], sources: dict, max_shift: float, radii) -> Measured:
    """Measure sources on one image; meaning of all values in rsp.h.

    Parameters
    ----------
    planes : image, variance, mask, labels, each (ny, nx): float32, float32, uint32, int32 (or None)
    bits : (never, reject, rescue) mask bits
    sources : xy (n, 2) float64; footprints (n,) int32; psf (n, k, k) float32; optionally correlation (n,) float64, and
        together child_boxes (n, 4) int32, child_offsets (n,) int64, child_values float32
    max_shift : float, pixel: positions are fitted within it; 0 keeps them
    radii : (n_radii,) float64, pixel
    """
    n, radii = len(sources["xy"]), np.ascontiguousarray(radii, float)
    side = sources["psf"].shape[-1]
    pixels = _pixels(planes, bits)
    table = ffi.new("rsp_sources *", {
        "n": n, "xy": pointer(sources["xy"], "f8", (n, 2)), "footprints": pointer(sources["footprints"], "i4", (n,)),
        "child_boxes": pointer(sources.get("child_boxes"), "i4", (n, 4)),
        "child_offsets": pointer(sources.get("child_offsets"), "i8", (n,)),
        "child_values": pointer(sources.get("child_values"), "f4"),
        "psf_side": side, "psf": pointer(sources["psf"], "f4", (n, side, side)),
        "correlation": pointer(sources.get("correlation"), "f8", (n,))})
    result = Measured(np.empty((n, len(VALUES))), np.empty((n, len(radii), 3)), np.empty(n, np.uint32),
                      np.empty((n, 2), np.uint32))
    call(lib.rsp_measure, pixels, table, max_shift, len(radii), pointer(radii, "f8"), pointer(result.values, "f8"),
         pointer(result.apertures, "f8"), pointer(result.flags, "u4"), pointer(result.masks, "u4"))
    return result


def local_background(planes, bits: tuple[int, int, int], xy: np.ndarray, ring: tuple[float, float], clip: float) -> np.ndarray:
    """(n, 3) float64: the sky per pixel in a ring about each of xy (n, 2), its error, pixels used; planes as above."""
    out = np.empty((len(xy), 3))
    call(lib.rsp_local_background, _pixels(planes, bits), len(xy), pointer(xy, "f8", (len(xy), 2)), *ring, clip, pointer(out, "f8"))
    return out


def _pixels(planes, bits: tuple[int, int, int]):
    image, variance, mask, labels = planes
    return ffi.new("rsp_pixels *", {
        "ny": image.shape[0], "nx": image.shape[1], "image": pointer(image, "f4"),
        "variance": pointer(variance, "f4", image.shape), "mask": pointer(mask, "u4", image.shape),
        "labels": pointer(labels, "i4", image.shape), "never": bits[0], "reject": bits[1], "rescue": bits[2]})
