"""kernels.electronics against its numpy twin, and the model of deferred charge forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
from reference import electronics as reference

from rsp_hpc.errors import KernelError
from rsp_hpc.kernels.detrend import AmplifierGeometry, DetrendBits, Planes, detrend_amplifier
from rsp_hpc.kernels.electronics import Electronics, Mixing, Reading, detrend_detector

NX, NY = 61, 19
SHAPE = (2 * NY, 3 * NX)
OPTIONS = DetrendBits(dark_time=15.0, min_flat=0.2, sat_bit=2, bad_bit=1, nan_bit=2048, suspect_bit=128)
TABLE = np.linspace(0.0, 300.0, 90).astype(np.float32) ** 2 / 300.0
EVERYTHING = Electronics(linearity=TABLE, linearity_step=1000.0, prescan=3, inefficiency=5e-5, offset_scale=2e-3, offset_fade=0.6,
                         trap_size=40.0, trap_level=900.0, trap_keep=0.55)


def planes_of(seed: int) -> Planes:
    rng = np.random.default_rng(seed)
    bias, dark = rng.normal(5, 3, SHAPE).astype(np.float32), rng.normal(0.2, 0.1, SHAPE).astype(np.float32)
    flat, defects = rng.normal(1, 0.05, SHAPE).astype(np.float32), rng.random(SHAPE) < 0.01
    flat[3, 3:6], flat[4, 4], bias[5, 5], dark[7, 7] = 0.0, np.nan, np.nan, 900.0
    return Planes(bias, dark, flat, defects)


def readings_of(dtype=np.uint16, electronics=EVERYTHING, seed=3) -> list[Reading]:
    """Six amplifiers, 3 x 2, with all combinations of flips, read-out orders and levels, every one with bright and odd pixels."""
    rng = np.random.default_rng(seed)
    readings = []
    for i in range(6):
        segment = rng.integers(900, 3000, (NY + 4, NX + 9)).astype(dtype)
        bright = rng.random(segment.shape) < 0.1
        segment[bright] = rng.integers(3000, 65000, int(bright.sum()))
        if dtype == np.float32:
            segment[rng.random(segment.shape) < 0.01] = np.nan
        geometry = AmplifierGeometry((5, 2, NX, NY), (NX * (i % 3), NY * (i // 3)), bool(i % 2), i in (0, 3, 4), 1.2 + 0.1 * i,
                                     30.0, 60000.0, 55000.0)
        levels = rng.normal(1000, 2, NY).astype(np.float32), rng.normal(0, 1, NX).astype(np.float32) if i % 2 else None
        readings.append(Reading(segment, geometry, levels, electronics._replace(reverse_x=i in (1, 2, 5), reverse_y=i in (2, 3))))
    return readings


def mixing_of(n: int, m: int, quadratic=1e-9) -> Mixing:
    rng = np.random.default_rng(9)
    away = np.eye(n, m) == 0
    linear, square = (rng.normal(0, size, (n, m)) * away for size in (1e-3, quadratic))
    return Mixing(linear.astype(np.float32), square.astype(np.float32), 1e9, 512)


def out_planes():
    return np.full(SHAPE, -9, np.float32), np.full(SHAPE, -9, np.float32), np.full(SHAPE, 99, np.uint32)


@pytest.mark.parametrize("dtype", (np.uint16, np.int32, np.float32))
@pytest.mark.parametrize("mixing, electronics", ((None, Electronics()), (None, EVERYTHING), (mixing_of(6, 6), EVERYTHING),
                                                 (mixing_of(6, 6, 0.0), Electronics())))
def test_agrees_with_numpy(dtype, mixing, electronics):
    readings, planes, out = readings_of(dtype, electronics), planes_of(1), out_planes()
    good = detrend_detector(readings, mixing, planes, OPTIONS, out)
    image, variance, mask = reference.detrend_detector(readings, mixing, planes, OPTIONS, SHAPE)
    np.testing.assert_array_equal(out[2], mask)
    np.testing.assert_allclose(out[0], image, rtol=1e-6, atol=0.03)
    np.testing.assert_allclose(out[1], variance, rtol=1e-6, atol=0.03)
    assert good == np.count_nonzero(mask == 0)
    assert {0, 1, 2, 128} <= set(mask.ravel().tolist())


@pytest.mark.parametrize("missing", ((), ("dark",), ("bias", "dark", "flat", "defects")))
def test_bits_do_not_depend_on_the_tile(missing):
    readings, planes, mixing = readings_of(np.float32), planes_of(2)._replace(**dict.fromkeys(missing)), mixing_of(6, 6)
    readings = [reading._replace(electronics=reading.electronics._replace(dither=77 + i)) for i, reading in enumerate(readings)]
    first = out_planes()
    detrend_detector(readings, mixing._replace(ghost_limit=5.0), planes, OPTIONS, first, 512)
    for tile in (8, 16, 24, 40, 64):
        out = out_planes()
        detrend_detector(readings, mixing._replace(ghost_limit=5.0), planes, OPTIONS, out, tile)
        for one, two in zip(first, out):
            assert one.tobytes() == two.tobytes(), tile
    assert (first[2] & 512).any()


def test_without_electronics_it_is_the_plain_way():
    readings, planes = readings_of(np.uint16, Electronics()), planes_of(4)
    one, two = out_planes(), out_planes()
    good = detrend_detector(readings, None, planes, OPTIONS, one)
    assert good == sum(detrend_amplifier(r.segment, r.geometry, r.levels, planes, OPTIONS, two) for r in readings)
    np.testing.assert_array_equal(one[2], two[2])
    np.testing.assert_allclose(one[0], two[0], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(one[1], two[1], rtol=1e-6, atol=1e-3)


def test_dither_is_uniform_and_its_own_for_each_key():
    levels, values = (np.zeros(200, np.float32), None), []
    for key in (1, 2):
        out = tuple(np.zeros((200, 300), dtype) for dtype in (np.float32, np.float32, np.uint32))
        geometry = AmplifierGeometry((0, 0, 300, 200), (0, 0), False, False, 1.0, 1.0, 9e9)
        reading = Reading(np.full((200, 300), 7, np.uint16), geometry, levels, Electronics(dither=key))
        detrend_detector([reading], None, Planes(), OPTIONS, out)
        values.append(out[0].ravel() - 7.0)
    for value in values:
        assert abs(value.mean()) < 4 / np.sqrt(12 * 60000) and value.min() >= -0.5 and value.max() <= 0.5
        np.testing.assert_allclose(np.histogram(value, 20, (-0.5, 0.5))[0], 3000, atol=5 * np.sqrt(3000))
        for lag in (1, 2, 8, 300, 301):
            assert abs(np.corrcoef(value[lag:], value[:-lag])[0, 1]) < 5 / np.sqrt(60000)
    assert abs(np.corrcoef(*values)[0, 1]) < 5 / np.sqrt(60000)


def test_deferred_charge_is_given_back():
    """Forward by the model, backward by the kernel: what is left is far below the read noise at every level."""
    rng = np.random.default_rng(1)
    e = Electronics(prescan=3, inefficiency=3e-5, offset_scale=1e-3, offset_fade=0.9, trap_size=30.0, trap_level=2000.0,
                    trap_keep=0.5)
    charge = 10.0**rng.uniform(1.0, 5.0, (16, 500)) * (rng.random((16, 500)) < 0.5)
    read = reference.deferred(charge, e).astype(np.float32)
    out = tuple(np.zeros((16, 500), dtype) for dtype in (np.float32, np.float32, np.uint32))
    geometry = AmplifierGeometry((0, 0, 500, 16), (0, 0), False, False, 1.0, 1.0, 9e9)
    detrend_detector([Reading(read, geometry, (np.zeros(16, np.float32), None), e)], None, Planes(), OPTIONS, out)
    assert np.abs(read - charge).max() > 1000
    np.testing.assert_allclose(out[0], charge, atol=0.1)


def test_wrong_arguments_are_refused():
    out = out_planes()
    readings = readings_of()
    small = readings[0]._replace(geometry=readings[0].geometry._replace(data=(5, 2, NX - 8, NY)),)
    for spoiled, mixing, tile, message in (
            ([small, *readings[1:]], mixing_of(6, 6), 64, "nx == amplifiers->nx"),
            (readings, mixing_of(6, 6), 63, "tile"), (readings, mixing_of(6, 5), 64, "shape"),
            ([r._replace(electronics=EVERYTHING._replace(trap_level=3.0)) for r in readings], None, 64, "trap_level"),
            ([r._replace(electronics=EVERYTHING._replace(inefficiency=0.01)) for r in readings], None, 64, "inefficiency")):
        with pytest.raises(KernelError, match=message):
            detrend_detector(spoiled, mixing, Planes(), OPTIONS, out, tile)
