"""Photon transfer: the model against its series, ramps of a sensor with moving borders, and what is refused or left out."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from flatramps import areas, detector, flat

from rsp_hpc.algorithms.calibs.frames import Frame
from rsp_hpc.algorithms.calibs.ptc import PtcConfig, build_ptc
from rsp_hpc.algorithms.calibs.ptc_model import _model, _transform, covariances
from rsp_hpc.algorithms.calibs.ramps import pair_up
from rsp_hpc.errors import BadData
from rsp_hpc.products.exposure import Exposure


def small(levels, seed=2, **config):
    """A ramp of a sensor of 100 x 200 pixels without moving borders."""
    rng, camera = np.random.default_rng(seed), detector(1, 200, 100)
    pairs = [
        tuple(
            flat(
                camera, rng.poisson(level, (100, 200)), 10 * k + j, level / 1000.0, (1.0,), 5.0, rng, "flat" if level else "bias"
            )
            for j in (0, 1)
        )
        for k, level in enumerate(levels)
    ]
    return pairs, camera, PtcConfig(lags=2, **config)


def test_model_is_the_series_of_astier():
    n = 5
    j, i = np.mgrid[:n, :n]
    a = 3e-7 / (1.0 + j**2 + i**2) ** 1.5
    a[0, 0] = -2.2e-6
    ab = -1e-6 * a
    level = np.array([1e3, 1e4])
    m = level[:, None, None]

    def convolved(one, other):
        return np.fft.irfft2(_transform(one) * _transform(other), (4 * n, 4 * n))[:n, :n]

    one = np.zeros((n, n))
    one[0, 0] = 1.0
    square = convolved(a, a)
    series = m * (one + a * m + 2 / 3 * (square + ab) * m**2 + (2 * convolved(a, square) + 5 * convolved(a, ab)) / 6 * m**3)
    found = covariances(level, a, ab)
    order = np.abs(a[0, 0] * m) ** 4
    assert (np.abs(found - series) < 0.5 * m * order).all()
    assert np.abs(found - series).max() > 1e-6  # the orders beyond


@pytest.mark.parametrize("parameter", [0, 1, 2, 7, 13, 21, 30])
def test_derivatives(parameter):
    n, rng = 3, np.random.default_rng(1)
    a = -2e-6 * np.eye(3)[0][:, None] * np.eye(3)[0] + 1e-7 * rng.uniform(size=(n, n))
    values = np.concatenate([[1.5], a.ravel(), -1e-6 * a.ravel(), 3.0 + rng.uniform(size=n * n)])
    mean = np.array([10.0, 1e4, 6e4])
    values = values[: 1 + 3 * n * n]
    k = min(parameter, len(values) - 1)
    step = np.zeros(len(values))
    step[k] = 1e-4 * abs(values[k])
    numeric = (_model(mean, values + step, n, 2)[0] - _model(mean, values - step, n, 2)[0]) / (2 * step[k])
    np.testing.assert_allclose(_model(mean, values, n, 2)[1][:, :, k], numeric.reshape(3, -1), atol=1e-5 * np.abs(numeric).max())


def test_ramp_gives_gain_noise_full_well_and_areas(measured, ramp):
    """Issue: gain within 0.3 %, read noise 1 %, full well 2 %, a_00 within 3 sigma and 5 %."""
    ptc, verdict = measured
    true = areas(*ramp.shifts, 8)
    gain, noise, well = (
        ptc.gain / ramp.gains - 1.0,
        ptc.read_noise / ramp.read_noise - 1.0,
        ptc.full_well * ramp.gains / ramp.full_well - 1.0,
    )
    a_00 = ptc.a[:, 0, 0] / true[0, 0] - 1.0
    print(
        f"gain {gain} +- {ptc.gain_err / ramp.gains}, read noise {noise}, full well {well}, "
        f"a_00 {a_00} +- {ptc.a_err[:, 0, 0] / -true[0, 0]}"
    )
    assert (
        np.abs(gain).max() < 0.003
        and (np.abs(gain) < 3.5 * ptc.gain_err / ramp.gains).all()
        and (ptc.gain_err / ramp.gains < 0.002).all()
    )
    assert np.abs(noise).max() < 0.01
    assert np.abs(well).max() < 0.02
    assert np.abs(a_00).max() < 0.05 and (np.abs(a_00 * true[0, 0]) < 3.0 * ptc.a_err[:, 0, 0]).all()
    assert verdict.state == "good" and not verdict.reasons
    assert not ptc.used[:, -2:].any() and ptc.used[:, :-4].all()


def test_errors_of_all_areas_are_right(measured, ramp):
    ptc, _ = measured
    pull = (ptc.a - areas(*ramp.shifts, 8)) / ptc.a_err
    assert 0.85 < pull.std() < 1.15 and np.abs(pull).max() < 4.5
    assert 0.85 < ptc.chi2_dof.min() and ptc.chi2_dof.max() < 1.15


def test_second_order_is_zero_where_there_is_none(sensor, ramp):
    ptc, _ = build_ptc(
        ramp.pairs(sensor, np.geomspace(2000.0, 90000.0, 6), biases=1), ramp.detector, PtcConfig(second_order=True, lags=4)
    )
    pull = ptc.b[:, 0, 0] / ptc.b_err[:, 0, 0]
    assert (ptc.b_err[:, 0, 0] > 0).all() and np.abs(pull).max() < 3.5


def test_two_frames_are_in_memory_at_a_time(sensor, ramp):
    alive: list = []

    def watched():
        for pair in ramp.pairs(sensor, [1000.0], biases=5):
            alive.extend(weakref.ref(member.image) for member in pair)
            assert sum(ref() is not None for ref in alive) <= 4  # this pair, and the one before until the loop lets go
            yield pair

    build_ptc(watched(), ramp.detector, PtcConfig(lags=2))
    assert len(alive) == 12


def test_lamp_failure_is_left_out_and_named():
    levels = [0, 500, 2000, 5000, 10000, 20000, 40000]
    pairs, camera, config = small(levels)
    clean, _ = build_ptc(iter(pairs), camera, config)
    first, second = pairs[4]
    dimmed = second._replace(image=second.image.copy())
    dimmed.image.image *= 0.7
    ptc, verdict = build_ptc(iter([*pairs[:4], (first, dimmed), *pairs[5:]]), camera, config)
    assert verdict.state == "suspect" and "40, 41" in verdict.reasons[0] and "lamp" in verdict.reasons[0]
    assert not ptc.used[0, 4] and ptc.used[0].sum() == 6
    assert ptc.gain[0] == pytest.approx(clean.gain[0], rel=0.01)


def test_noisy_pair_is_left_out_and_named():
    pairs, camera, config = small([0, 500, 2000, 5000, 10000, 20000, 40000])
    pairs[3][0].image.image[:] += 100.0 * np.random.default_rng(1).standard_normal((100, 200)).astype(np.float32)
    ptc, verdict = build_ptc(iter(pairs), camera, config)
    assert not ptc.used[0, 3] and ptc.used[0].sum() == 6
    assert verdict.state == "suspect" and "30, 31" in " ".join(verdict.reasons)


def test_drift_of_lamp_and_shape_does_no_harm():
    """The second flats are 5 % fainter with a gradient of 2 %: the level changes, the curve does not."""
    rng, camera = np.random.default_rng(8), detector(1, 300, 300)
    shape = 0.95 + 0.02 * np.linspace(-1, 1, 300)[:, None] * np.ones(300)
    pattern = 1.0 + 0.02 * rng.standard_normal((300, 300))
    pairs = [
        tuple(
            flat(
                camera,
                rng.poisson(level * pattern * (shape if j else 1.0)),
                10 * k + j,
                level / 1000.0,
                (1.4,),
                5.0,
                rng,
                "flat" if level else "bias",
            )
            for j in (0, 1)
        )
        for k, level in enumerate([0, 0, 3000, 6000, 12000, 24000, 48000])
    ]
    ptc, verdict = build_ptc(iter(pairs), camera, PtcConfig(lags=2))
    assert verdict.state == "good"
    assert np.abs(ptc.gain[0] / 1.4 - 1) < 3.5 * ptc.gain_err[0] / 1.4 and ptc.gain_err[0] < 0.012
    assert np.abs(ptc.a[0, 0, 0]) < 3.5 * ptc.a_err[0, 0, 0]


def test_one_level_gives_the_gain_alone():
    pairs, camera, config = small([0, 0, 20000, 20000, 20000])
    ptc, verdict = build_ptc(iter(pairs), camera, config)
    assert ptc.gain[0] == pytest.approx(1.0, abs=4 * ptc.gain_err[0]) and np.isnan(ptc.a).all()
    assert verdict.state == "suspect" and "take a ramp" in verdict.reasons[0]


def test_too_few_pairs_say_how_many():
    pairs, camera, config = small([0, 0])
    with pytest.raises(BadData, match="0 pairs of flats.*two pairs at different levels.*a_ij needs three"):
        build_ptc(iter(pairs), camera, config)
    with pytest.raises(BadData, match="0 pairs of flats"):
        build_ptc(iter([]), camera, config)
    pairs, camera, config = small([20000, 20000])
    with pytest.raises(BadData, match="at 1 different levels; the gain needs two"):
        build_ptc(iter(pairs), camera, config)


def test_saturated_ramp_is_refused():
    rng, camera = np.random.default_rng(2), detector(1, 200, 100)
    pairs = [
        tuple(flat(camera, rng.poisson(level, (100, 200)), 10 * k + j, 1.0, (1.0,), 5.0, rng, saturation=30000.0) for j in (0, 1))
        for k, level in enumerate([40000, 50000, 60000])
    ]
    with pytest.raises(BadData, match="amplifier A0: no pair of flats can be used.*3 of 3 saturated.*fainter"):
        build_ptc(iter(pairs), camera, PtcConfig(lags=2))


def test_other_read_out_modes_are_refused_and_named():
    pairs, camera, config = small([0, 1000, 5000, 20000])
    for other, match in (
        (detector(1, 200, 100, gain=2.0), "gain 2 .*others 1: .*mode"),
        (detector(1, 100, 100), "100 x 100 pixels, others 200"),
        (detector(2, 100, 100), "amplifiers A0, A1, others A0"),
    ):
        rng = np.random.default_rng(1)
        shape = other.box.shape
        odd = tuple(flat(other, rng.poisson(9000.0, shape), 77 + j, 9.0, (1.0, 1.0), 5.0, rng) for j in (0, 1))
        with pytest.raises(BadData, match=f"visit 77.*{match}"):
            build_ptc(iter([*pairs, odd]), camera, config)


def test_pairing():
    def frames(*items):
        return [Frame(Exposure(v, kind, band, 6e4 + v, time, time), None) for v, (kind, band, time) in enumerate(items)]

    found = pair_up(
        frames(
            ("flat", "r", 1.0),
            ("bias", "", 0.0),
            ("flat", "r", 1.02),
            ("flat", "g", 1.0),
            ("bias", "", 0.0),
            ("bias", "", 0.0),
            ("flat", "r", 5.0),
            ("dark", "", 60.0),
            ("flat", "r", 1.05),
        )
    )
    assert [(a.exposure.visit, b.exposure.visit) for a, b in found] == [(1, 4), (4, 5), (0, 2), (2, 8)]
