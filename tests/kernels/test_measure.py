"""csrc/measure.c, moments.c and aperture.c against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from reference import measure as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels import measure as kernel

N, SIGMA = 80, 1.8


def run(image, variance, xy, max_shift=2.0, radii=(4.0,), mask=None, **more):
    xy = np.atleast_2d(np.asarray(xy, float))
    psf = np.repeat(reference.gaussian_psf(0, 0, SIGMA, 12)[None], len(xy), 0).astype(np.float32)
    mask = np.zeros(image.shape, np.uint32) if mask is None else mask
    sources = {"xy": xy, "footprints": np.full(len(xy), -1, np.int32), "psf": psf, **more}
    return kernel.measure_sources((image.astype(np.float32), variance.astype(np.float32), mask, None), (4, 1, 2), sources,
                                  max_shift, radii)


@pytest.mark.parametrize("where", [(40.0, 40.0), (40.45, 39.6), (38.9, 41.2)])
def test_fit_agrees_with_minimiser(where):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:N, :N]
    variance = 20.0 + 0.02 * np.hypot(x - 40, y - 40)
    image = np.zeros((N, N))
    image[20:61, 20:61] = 3000.0 * reference.gaussian_psf(where[0] - 40, where[1] - 40, SIGMA, 20)
    image += np.sqrt(variance) * rng.standard_normal(image.shape)
    measured = run(image, variance, (40.0, 40.0))
    (flux, dx, dy), covariance = reference.psf_fit(image[28:53, 28:53], variance[28:53, 28:53], SIGMA)
    assert measured.value("x")[0] == pytest.approx(40 + dx, abs=2e-3)
    assert measured.value("y")[0] == pytest.approx(40 + dy, abs=2e-3)
    assert measured.value("psfFlux")[0] == pytest.approx(flux, rel=1e-3)
    for name, expected in zip(("psfFluxErr", "xErr", "yErr"), np.sqrt(np.diag(covariance))):
        assert measured.value(name)[0] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("radius", [0.4, 1.0, 3.0, 7.3, 25.0])
def test_circles_agree_with_oversampling(radius):
    rng = np.random.default_rng(6)
    image, x, y = rng.uniform(0, 1, (N, N)), 40.31, 39.84
    flux, error, missing = run(image, np.ones((N, N)), (x, y), 0.0, (radius,)).apertures[0, 0]
    weights = reference.circle_weights(61, x - 40, y - 40, radius)
    assert flux == pytest.approx((weights * image[10:71, 10:71]).sum(), abs=2e-3 * max(1, radius))
    assert error == pytest.approx(np.sqrt((weights**2).sum()), rel=3e-3)
    assert missing == 0.0


def test_moments_agree_with_plain_fixed_point():
    y, x = np.mgrid[-40:40, -40:40].astype(float)
    image = 1000.0 * (1.0 + (0.25 * x * x + 0.4 * y * y + 0.2 * x * y) / 2.0)**-3  # a tilted Moffat profile
    measured = run(image, np.ones((N, N)), (40.0, 40.0), 0.0)
    expected = reference.adaptive_moments(image[10:71, 10:71], 0.0, 0.0)
    np.testing.assert_allclose([measured.value(name)[0] for name in ("ixx", "iyy", "ixy")], expected, rtol=2e-3, atol=2e-3)


def test_order_and_company_of_sources_do_not_matter():
    rng = np.random.default_rng(7)
    image, xy = rng.standard_normal((N, N)) + 50 * rng.uniform(size=(N, N)), rng.uniform(2, N - 3, (20, 2))
    together, one = run(image, np.ones((N, N)), xy), run(image, np.ones((N, N)), xy[7:8])
    np.testing.assert_array_equal(together.values[7], one.values[0])
    np.testing.assert_array_equal(run(image, np.ones((N, N)), xy[::-1].copy()).values[::-1], together.values)


def test_noise_correlation_scales_errors():
    image = np.zeros((N, N))
    image[20:61, 20:61] = 3000.0 * reference.gaussian_psf(0.2, 0.1, SIGMA, 20)
    plain, scaled = run(image, np.ones((N, N)), (40, 40)), run(image, np.ones((N, N)), (40, 40), correlation=np.array([4.0]))
    for name in ("psfFluxErr", "xErr", "kronFluxErr", "ixxErr", "excessErr"):
        assert scaled.value(name)[0] == pytest.approx(2.0 * plain.value(name)[0])
    assert scaled.apertures[0, 0, 1] == pytest.approx(2.0 * plain.apertures[0, 0, 1])
    assert scaled.value("psfFlux")[0] == plain.value("psfFlux")[0]


def test_bad_arguments_are_refused():
    with pytest.raises(KernelError, match="max_shift"):
        run(np.zeros((N, N)), np.ones((N, N)), (40, 40), max_shift=9.0)
    with pytest.raises(KernelError, match="radii"):
        run(np.zeros((N, N)), np.ones((N, N)), (40, 40), radii=(-1.0,))


def test_local_background_against_twin():
    rng = np.random.default_rng(3)
    image = (5.0 + 2.0 * rng.standard_normal((70, 80))).astype(np.float32)
    image[20:24, 30:34] += 80.0
    variance, mask, labels = np.full(image.shape, 4.0, np.float32), np.zeros(image.shape, np.uint32), np.zeros(image.shape, np.int32)
    mask[10:14], mask[40:44] = 4, 3  # never; rejected but rescued
    labels[30:36, 20:60] = 1
    xy = np.array([[30.3, 25.1], [2.0, 2.0], [79.0, 60.0], [-50.0, 10.0], [np.nan, 3.0]])
    found = kernel.local_background((image, variance, mask, labels), (4, 1, 2), xy, (6.0, 14.0), 3.0)
    for (x, y), row in zip(xy, found):
        np.testing.assert_allclose(row, reference.ring_level(image, variance, (mask & 4 == 0) & (labels == 0), (x, y), (6.0, 14.0), 3.0),
                                   rtol=1e-6)
    assert found[0, 2] > 300 and abs(found[0, 0] - 5.0) < 0.5 and np.isnan(found[3, 0]) and found[4, 2] == 0
    with pytest.raises(KernelError):
        kernel.local_background((image, variance, mask, labels), (4, 1, 2), xy, (14.0, 6.0), 3.0)
