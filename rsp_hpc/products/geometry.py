"""Spherical geometry in degrees: unit vectors, separations, and the gnomonic (tangent plane) projection."""

from __future__ import annotations

import numpy as np

__all__ = ["angular_separation", "deproject", "project", "sky_of_vectors", "unit_vectors"]


def angular_separation(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Degrees between positions in degrees (haversine: accurate for small angles)."""
    ra1, dec1, ra2, dec2 = (np.radians(np.asarray(angle, float)) for angle in (ra1, dec1, ra2, dec2))
    h = np.sin(0.5 * (dec2 - dec1)) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin(0.5 * (ra2 - ra1)) ** 2
    return np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def unit_vectors(ra, dec) -> np.ndarray:
    """(..., 3) float64 unit vectors of positions in degrees."""
    ra, dec = np.broadcast_arrays(np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float)))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def sky_of_vectors(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) in degrees, 0 <= ra < 360, of (..., 3) vectors of any length."""
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    return _wrapped(np.degrees(np.arctan2(y, x))), np.degrees(np.arctan2(z, np.hypot(x, y)))


def project(ra, dec, ra0, dec0) -> tuple[np.ndarray, np.ndarray]:
    """Gnomonic projection: standard coordinates (xi east, eta north) in degrees about the tangent point (ra0, dec0).

    NaN for positions 90 degrees or more from the tangent point. The differences are formed before the sines, so that
    nothing cancels near the tangent point (Calabretta & Greisen 2002, section 5.1.3).
    """
    cos_dec, cos_dec0 = np.cos(np.radians(dec)), np.cos(np.radians(dec0))
    east, north = np.radians(np.subtract(ra, ra0)), np.radians(np.subtract(dec, dec0))
    haversine = 2.0 * cos_dec * np.sin(0.5 * east) ** 2
    depth = np.cos(north) - cos_dec0 * haversine
    depth = np.where(depth > 1e-9, depth, np.nan)
    return (np.degrees(cos_dec * np.sin(east) / depth),
            np.degrees((np.sin(north) + np.sin(np.radians(dec0)) * haversine) / depth))


def deproject(xi, eta, ra0, dec0) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) in degrees, 0 <= ra < 360, of standard coordinates in degrees: the inverse of `project`."""
    xi, eta, dec0 = np.radians(xi), np.radians(eta), np.radians(dec0)
    toward_pole = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0 + np.degrees(np.arctan2(xi, toward_pole))
    dec = np.degrees(np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, toward_pole)))
    return _wrapped(ra), dec


def _wrapped(ra) -> np.ndarray:
    """Degrees in [0, 360): the remainder of a tiny negative number rounds to 360 itself."""
    ra = np.mod(ra, 360.0)
    return np.where(ra >= 360.0, 0.0, ra)
