"""kernels.detrend against its numpy twin."""

from __future__ import annotations

import numpy as np
import pytest
from reference import detrend as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.detrend import AmplifierGeometry, DetrendBits, Planes, detrend_amplifier, prepare

SHAPE = (40, 1100)
OPTIONS = DetrendBits(dark_time=15.0, min_flat=0.2, sat_bit=2, bad_bit=1, nan_bit=2048)


def planes_of(seed: int) -> Planes:
    rng = np.random.default_rng(seed)
    bias, dark = rng.normal(5, 3, SHAPE).astype(np.float32), rng.normal(0.2, 0.1, SHAPE).astype(np.float32)
    flat, defects = rng.normal(1, 0.05, SHAPE).astype(np.float32), rng.random(SHAPE) < 0.01
    flat[3, 3:6], flat[4, 4], bias[5, 5], dark[6, 6], dark[7, 7] = 0.0, np.nan, np.nan, np.inf, 900.0
    return Planes(bias, dark, flat, defects)


@pytest.mark.parametrize("dtype", (np.uint16, np.int32, np.float32))
@pytest.mark.parametrize("flips", ((False, False), (True, False), (False, True), (True, True)))
@pytest.mark.parametrize("missing", ((), ("dark",), ("bias", "flat", "defects"), ("bias", "dark", "flat", "defects")))
def test_agrees_with_numpy(dtype, flips, missing):
    rng = np.random.default_rng(3)
    segment = rng.integers(900, 3000, (33, 1060)).astype(dtype)
    segment[rng.random(segment.shape) < 0.01] = 60000
    if dtype == np.float32:
        segment[rng.random(segment.shape) < 0.01] = np.nan
    geometry = AmplifierGeometry((5, 2, 1031, 29), (17, 6), *flips, 1.7, 30.0, 60000.0)
    levels = rng.normal(1000, 2, 29).astype(np.float32), rng.normal(0, 1, 1031).astype(np.float32)
    planes = planes_of(1)._replace(**dict.fromkeys(missing))
    out = np.full(SHAPE, -9, np.float32), np.full(SHAPE, -9, np.float32), np.full(SHAPE, 99, np.uint32)
    good = detrend_amplifier(segment, geometry, levels, planes, OPTIONS, out)
    image, variance, mask, part = reference.detrend_amplifier(segment, geometry, levels, planes, OPTIONS, SHAPE)
    np.testing.assert_array_equal(out[2][part], mask)
    np.testing.assert_allclose(out[0][part], image, rtol=3e-6, atol=1e-3)
    np.testing.assert_allclose(out[1][part], variance, rtol=3e-6, atol=1e-3)
    assert good == np.count_nonzero(mask == 0)
    assert np.count_nonzero(out[2] == 99) == np.prod(SHAPE) - mask.size  # nothing outside is touched


def test_prepared_planes_give_the_same():
    segment = np.random.default_rng(4).integers(900, 3000, SHAPE).astype(np.uint16)
    geometry = AmplifierGeometry((0, 0, SHAPE[1], SHAPE[0]), (0, 0), False, False, 1.7, 30.0, 60000.0)
    levels = np.full(SHAPE[0], 1000, np.float32), None
    one = tuple(np.empty(SHAPE, dtype) for dtype in (np.float32, np.float32, np.uint32))
    two = tuple(np.empty(SHAPE, dtype) for dtype in (np.float32, np.float32, np.uint32))
    planes = planes_of(2)
    good = detrend_amplifier(segment, geometry, levels, planes, OPTIONS, one)
    ready, usable = prepare(planes, OPTIONS, SHAPE, dark_step=0.25)
    assert detrend_amplifier(segment, geometry, levels, ready, OPTIONS, two) == good
    assert usable == np.count_nonzero((planes.flat > 0.2) & ~planes.defects)
    np.testing.assert_array_equal(one[2], two[2])
    same = one[2] == 0
    np.testing.assert_allclose(two[0][same], one[0][same], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(two[1][same], one[1][same], atol=0.2, rtol=1e-5)


def test_wrong_arguments_are_refused():
    planes, levels = Planes(), (np.zeros(4, np.float32), None)
    out = tuple(np.empty((4, 4), dtype) for dtype in (np.float32, np.float32, np.uint32))
    geometry = AmplifierGeometry((0, 0, 4, 4), (0, 0), False, False, 1.0, 1.0, 9.0)
    for segment, changed, message in ((np.zeros((4, 4), np.int16), {}, "int16"),
                                      (np.zeros((4, 3), np.uint16), {}, "leaves the segment"),
                                      (np.zeros((4, 4), np.uint16), {"origin": (1, 0)}, "x0"),
                                      (np.zeros((4, 4), np.uint16), {"gain": 0.0}, "gain")):
        with pytest.raises(KernelError, match=message):
            detrend_amplifier(segment, geometry._replace(**changed), levels, planes, OPTIONS, out)


@pytest.mark.parametrize("ready", (False, True))
def test_bits_do_not_depend_on_where_a_row_is_cut_or_on_neighbours(ready):
    rng = np.random.default_rng(6)
    segment = rng.integers(900, 3000, SHAPE).astype(np.uint16)
    levels, planes = rng.normal(1000, 2, SHAPE[0]).astype(np.float32), planes_of(3)
    planes = prepare(planes, OPTIONS, SHAPE, 0.25)[0] if ready else planes
    whole, parts = (tuple(np.zeros(SHAPE, dtype) for dtype in (np.float32, np.float32, np.uint32)) for _ in range(2))
    for out, cuts in ((whole, (0, SHAPE[1])), (parts, (0, 3, 40, 41, 108, 500, 1019, SHAPE[1]))):
        for x0, x1 in zip(cuts[:-1], cuts[1:]):
            geometry = AmplifierGeometry((x0, 0, x1 - x0, SHAPE[0]), (x0, 0), False, False, 1.7, 30.0, 60000.0)
            detrend_amplifier(segment, geometry, (levels, None), planes, OPTIONS, out)
    for one, two in zip(whole, parts):
        assert one.tobytes() == two.tobytes()
