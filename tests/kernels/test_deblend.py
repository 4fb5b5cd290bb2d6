"""csrc/deblend.c against its slow twin: point sources by non-negative least squares."""

from __future__ import annotations

import numpy as np
from reference import deblend as reference
from reference.measure import gaussian_psf

from rsp_hpc.kernels import deblend as kernel


def test_point_sources_are_shared_as_by_least_squares():
    rng = np.random.default_rng(8)
    ny, nx, half, xy = 40, 50, 10, np.array([[15.2, 18.4], [22.7, 20.1], [30.0, 15.9]])
    psfs = [np.pad(gaussian_psf(x % 1, y % 1, 2.0, half), ((int(y), ny), (int(x), nx)))[half:half + ny, half:half + nx]
            for x, y in xy]
    image = sum(flux * psf for flux, psf in zip((5000.0, 1500.0, 3000.0), psfs)) + rng.standard_normal((ny, nx))
    inside = sum(psfs) > 1e-4
    labels = inside.astype(np.int32)
    owners = np.where(inside, np.argmax(psfs, axis=0) + 1, 0).astype(np.int32)
    footprints = {"boxes": np.array([[0, 0, nx, ny]], np.int32), "areas": np.array([inside.sum()]),
                  "starts": np.array([0, 3]), "owners": owners, "xy": xy, "snr": np.array([90, 30, 60], np.float32)}
    stamp = gaussian_psf(0, 0, 2.0, half)[None].astype(np.float32)
    planes = image.astype(np.float32), np.ones((ny, nx), np.float32), np.zeros((ny, nx), np.uint32), labels
    boxes, offsets, values, flags = kernel.share_light(planes, footprints, stamp, (10, 10**6, 1000.0, 0.1))
    assert (flags == 2).all()
    expected, total = reference.point_shares(image, inside, psfs), np.zeros((ny, nx))
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        child = values[offsets[k]:offsets[k] + (y1 - y0) * (x1 - x0)].reshape(y1 - y0, x1 - x0)
        total[y0:y1, x0:x1] += child
        bright = psfs[k][y0:y1, x0:x1] * (5000.0, 1500.0, 3000.0)[k] > 3.0
        np.testing.assert_allclose(child[bright], expected[k, y0:y1, x0:x1][bright], atol=1.0)
    np.testing.assert_allclose(total, np.where(inside, image, 0.0), atol=1e-3)
