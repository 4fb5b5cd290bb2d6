"""kernels.frames against its numpy twin: flips, raw types, polynomials, saturation, NaN; bands of rows change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from reference import frames as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.combine import ClipOptions
from rsp_hpc.kernels.detrend import AmplifierGeometry
from rsp_hpc.kernels.frames import FramePart, FrameTerms, combine_amplifier

SHAPE, NX, NY, N, BLOCK = (21, 90), 70, 15, 6, 32


def problem(dtype, flip_x, flip_y, columns, order=2):
    rng = np.random.default_rng(order + flip_x + 2 * flip_y)
    parts = []
    for _ in range(N):
        data = rng.normal(3000.0, 40.0, (NY, NX))
        data[rng.random((NY, NX)) < 0.006] += 5000.0
        data[rng.random((NY, NX)) < 0.02] = 60000.0  # saturated
        data = data.astype(dtype)
        if dtype == np.float32:
            data[rng.random((NY, NX)) < 0.02] = np.nan
        data[3, 5] = 60001  # in all frames
        parts.append(FramePart(data, rng.normal(1000.0, 5.0, NY).astype(np.float32),
                               rng.normal(0.0, 3.0, NX).astype(np.float32) if columns else None))
    factor = rng.normal(0.0, 1e-6, (N, order + 1, order + 1))
    factor[:, 0, 0] += 1.0 / 3000.0
    scale = factor[:, 0, 0]
    terms = FrameTerms(factor, rng.uniform(5.0, 50.0, N), rng.uniform(0.5, 2.0, N), np.stack([2500.0 * scale**2, scale], axis=1))
    geometry = AmplifierGeometry((0, 0, NX, NY), (13, 4), flip_x, flip_y, 1.5, 0.0, 59000.0)
    bias, dark = (rng.normal(level, 1.0, SHAPE).astype(np.float32) for level in (10.0, 0.5))
    return parts, geometry, terms, bias, dark


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("flip_x, flip_y, columns", [(False, False, False), (True, False, True), (True, True, False)])
def test_agrees_with_numpy(dtype, flip_x, flip_y, columns):
    parts, geometry, terms, bias, dark = problem(dtype, flip_x, flip_y, columns)
    options = ClipOptions(min_inputs=3)
    found = []
    for bands in ((slice(0, NY),), (slice(0, 4), slice(4, 5), slice(5, NY))):
        out = np.full(SHAPE, np.nan, np.float32), np.full(SHAPE, np.inf, np.float32), np.zeros((N, 1, 3), np.int32)
        for rows in bands:
            combine_amplifier(parts, geometry, terms, rows, (bias, dark, BLOCK, options), out)
        found.append(out)
    for one, two in zip(*found):
        np.testing.assert_array_equal(one, two)
    mean, variance, clipped = reference.combine_amplifier(parts, geometry, terms, SHAPE, bias, dark, options)
    np.testing.assert_allclose(found[0][0], mean, rtol=2e-5)
    np.testing.assert_allclose(found[0][1], variance, rtol=2e-4)
    np.testing.assert_array_equal(found[0][2].sum(axis=(1, 2)), clipped)
    assert clipped.sum() > 20 and np.isnan(found[0][0]).sum() == SHAPE[0] * SHAPE[1] - NX * NY + 1


def test_wrong_arguments_are_refused():
    parts, geometry, terms, bias, dark = problem(np.uint16, False, False, False)
    out = np.empty(SHAPE, np.float32), np.empty(SHAPE, np.float32), np.zeros((N, 1, 3), np.int32)
    with pytest.raises(KernelError):
        combine_amplifier(parts, geometry, terms, slice(0, NY + 1), (bias, dark, BLOCK, ClipOptions()), out)
    with pytest.raises(KernelError):
        combine_amplifier(parts, geometry, terms, slice(0, NY), (bias[1:], dark, BLOCK, ClipOptions()), out)
    with pytest.raises(KernelError):
        combine_amplifier(parts, geometry._replace(origin=(30, 4)), terms, slice(0, NY), (bias, dark, BLOCK, ClipOptions()), out)
