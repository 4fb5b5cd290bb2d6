"""The camera on the sky: pixels, millimetres, and the rough WCS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsp_hpc.config import load_yaml
from rsp_hpc.products.camera import load_camera
from rsp_hpc.products.focalplane import focal_plane_to_pixel, pixel_to_focal_plane, rough_wcs
from rsp_hpc.products.geometry import angular_separation

CAMERAS = Path(__file__).resolve().parents[2] / "configs" / "cameras"


@pytest.fixture(scope="module")
def simcam():
    return load_camera(load_yaml(CAMERAS / "simcam.yaml"))


def test_pixels_to_millimetres_and_back(simcam):
    x, y = np.array([0.0, 1023.0, 300.5]), np.array([5.0, 700.0, -20.0])
    for detector in simcam.detectors:
        back = focal_plane_to_pixel(simcam, detector, *pixel_to_focal_plane(simcam, detector, x, y))
        np.testing.assert_allclose(back, (x, y), atol=1e-9)
        middle = pixel_to_focal_plane(simcam, detector, 511.5, 511.5)
        np.testing.assert_allclose(middle, detector.center, atol=1e-12)


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("rotation", [0.0, 35.0, 180.0])
def test_north_and_east_lie_where_rotation_and_parity_say(simcam, parity, rotation):
    camera = simcam.model_copy(update={"wcs_parity": parity})
    detector = camera.detector("D00").model_copy(update={"center": (0.0, 0.0), "rotation": 0.0})
    wcs = rough_wcs(camera, detector, 120.0, 0.0, rotation)
    ra, dec = wcs.pixel_to_sky([511.5, 511.5, 521.5], [511.5, 521.5, 511.5])
    assert (ra[0], dec[0]) == pytest.approx((120.0, 0.0), abs=1e-9)
    up = np.degrees(np.arctan2(ra[1] - ra[0], dec[1] - dec[0]))  # position angle of +y, at the equator
    right = np.degrees(np.arctan2(ra[2] - ra[0], dec[2] - dec[0]))
    assert (up - rotation) % 360.0 == pytest.approx(0.0, abs=1e-4) or (up - rotation) % 360.0 == pytest.approx(360.0, abs=1e-4)
    assert np.cos(np.radians(right - rotation + 90.0 * parity)) == pytest.approx(1.0, abs=1e-9)
    assert wcs.pixel_scale == pytest.approx(0.2, rel=1e-9)


def test_neighbouring_detectors_join_on_the_sky(simcam):
    """The gap between facing edges of two detectors is what the focal plane says: 30 pixels of 0.2 arcsec."""
    left, right = (rough_wcs(simcam, simcam.detector(name), 10.0, -30.0, 77.0) for name in ("D00", "D01"))
    a, b = left.pixel_to_sky(1023.5, 511.5), right.pixel_to_sky(-0.5, 511.5)
    assert 3600.0 * float(angular_separation(*a, *b)) == pytest.approx(30 * 0.2, abs=0.05)
