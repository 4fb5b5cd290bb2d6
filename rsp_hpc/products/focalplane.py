"""The camera's geometry on the sky: pixels of a detector, millimetres on the focal plane, a rough WCS without distortion."""

from __future__ import annotations

import numpy as np

from .camera import Camera, Detector
from .wcs import Wcs

__all__ = ["focal_plane_to_pixel", "pixel_to_focal_plane", "place_on_focal_plane", "rough_wcs", "sky_matrix"]


def _rotation(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def pixel_to_focal_plane(camera: Camera, detector: Detector, x, y) -> tuple[np.ndarray, np.ndarray]:
    """Focal-plane (x, y) in mm of zero-based pixels of an assembled detector; shapes are kept."""
    return place_on_focal_plane(detector, camera.pixel_size, x, y)


def place_on_focal_plane(detector: Detector, pixel_size: float, x, y) -> tuple[np.ndarray, np.ndarray]:
    """The same where only the size of a pixel (micron) is known of the camera."""
    step = 1e-3 * pixel_size * _rotation(detector.rotation)
    dx, dy = np.asarray(x, float) - 0.5 * (detector.size[0] - 1), np.asarray(y, float) - 0.5 * (detector.size[1] - 1)
    return (detector.center[0] + step[0, 0] * dx + step[0, 1] * dy,
            detector.center[1] + step[1, 0] * dx + step[1, 1] * dy)


def focal_plane_to_pixel(camera: Camera, detector: Detector, x_mm, y_mm) -> tuple[np.ndarray, np.ndarray]:
    """Zero-based pixels of an assembled detector at focal-plane positions in mm."""
    step = _rotation(-detector.rotation) / (1e-3 * camera.pixel_size)
    dx, dy = np.asarray(x_mm, float) - detector.center[0], np.asarray(y_mm, float) - detector.center[1]
    return (0.5 * (detector.size[0] - 1) + step[0, 0] * dx + step[0, 1] * dy,
            0.5 * (detector.size[1] - 1) + step[1, 0] * dx + step[1, 1] * dy)


def sky_matrix(camera: Camera, rotation: float) -> np.ndarray:
    """(2, 2): (east, north) in degrees on the tangent plane per (x, y) in mm on the focal plane.

    `rotation` is the position angle of the focal plane's +y axis, east of north, in degrees. With parity +1 the +x axis
    lies 90 degrees before +y (to the west where +y is north), with -1 after it.
    """
    scale = camera.pixel_scale / 3600.0 / (1e-3 * camera.pixel_size)
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    return scale * np.array([[-camera.wcs_parity * cosine, sine], [camera.wcs_parity * sine, cosine]])


def rough_wcs(camera: Camera, detector: Detector, ra: float, dec: float, rotation: float = 0.0) -> Wcs:
    """The TAN WCS of an assembled detector from the boresight (ICRS degrees) and the camera's geometry.

    `rotation` is the position angle of the focal plane's +y axis, east of north, in degrees.
    """
    matrix = sky_matrix(camera, rotation) @ (1e-3 * camera.pixel_size * _rotation(detector.rotation))
    x, y = focal_plane_to_pixel(camera, detector, 0.0, 0.0)
    return Wcs((float(ra), float(dec)), (float(x), float(y)), tuple(map(tuple, matrix.tolist())))  # type: ignore[arg-type]
