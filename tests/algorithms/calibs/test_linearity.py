"""Linearity: ramps of the simulator's own non-linear amplifiers, closed loop; lamps that fail or drift; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flatramps import detector, flat

from rsp_hpc.algorithms.calibs.linearity import LinearityConfig, build_linearity
from rsp_hpc.errors import BadData
from rsp_hpc.simulate.electronics import ElectronicsConfig, bend, electronics_of, natural_spline

NX, NY = 192, 200
RATE = 3500.0


def amplifiers(n, kind="spline", size=0.015):
    camera = detector(n, NX, NY)
    config = ElectronicsConfig(nonlinearity=size, nonlinearity_kind=kind)
    return camera, electronics_of(config, camera, 4, 90000.0, np.zeros((n, n))).linearity


def ramp(camera, truth, levels, lamp=0.0, seed=1, **read_out):
    rng = np.random.default_rng(seed)
    for visit, level in enumerate(levels):
        charge = rng.poisson(level * (1.0 + lamp * rng.standard_normal()), camera.box.shape[::1]).astype(np.float32)
        for k, amplifier in enumerate(camera.amplifiers):
            part = np.s_[:, amplifier.origin[0]:amplifier.origin[0] + NX]
            charge[part] = bend(charge[part], truth, k)
        yield flat(camera, charge, visit, level / RATE, [1.0] * len(camera.amplifiers), 5.0, rng, **read_out)


LEVELS = np.geomspace(300.0, 85000.0, 36)
TESTED = np.geomspace(1000.0, 80000.0, 25)


def off(product, truth, number, kind="spline"):
    """What correction leaves of the charge, electron, and the effect, at the tested levels; a common scale is the gain's."""
    found = natural_spline(product.level[number], product.correction[number], TESTED)
    true = natural_spline(truth.level[number], truth.correction[number], TESTED)
    scale = np.sum((found - true) / TESTED) / len(TESTED)
    return found - true - scale * TESTED, true, scale


@pytest.mark.parametrize("n, lamp", [(1, 0.0), (4, 0.0), (4, 2e-4)])
def test_spline_closes_the_loop(n, lamp):
    """Issue: what is left is below 10 % of the effect at every level used; or of 2e-4 of the charge."""
    camera, truth = amplifiers(n)
    product, verdict = build_linearity(ramp(camera, truth, LEVELS, lamp), camera, LinearityConfig())
    assert verdict.state == "good" and product.method == "spline"
    for k in range(n):
        left, effect, scale = off(product, truth, k)
        print(f"amplifier {k}: left / effect {np.abs(left / effect)[TESTED > 10000].max():.3f} above 10,000 electron, "
              f"left / charge {np.abs(left / TESTED).max():.1e}, scale {scale:.1e}")
        assert (np.abs(left) < np.maximum(0.1 * np.abs(effect), (2e-4 + 1.5 * lamp) * TESTED)).all()
        assert np.abs(scale) < 8e-4
        assert product.correction[k, 0] == pytest.approx(0.0, abs=1e-9)
        assert abs(product.correction[k, 1] / product.level[k, 1]) < 2e-4  # no slope at charge zero
    assert product.residual.shape == (n, len(LEVELS)) and np.nanmax(np.abs(product.residual[:, 3:])) < 4e-3


def test_polynomial_of_a_polynomial():
    camera = detector(1, NX, NY)
    rng = np.random.default_rng(3)
    charge = np.linspace(0.0, 1e5, 3001)
    read = charge - 4e-7 * charge**2 + 1.2e-12 * charge**3
    flats = [flat(camera, np.interp(rng.poisson(level, (NY, NX)), charge, read), visit, level / RATE, (1.0,), 5.0, rng)
             for visit, level in enumerate(LEVELS)]
    product, _ = build_linearity(iter(flats), camera, LinearityConfig(method="polynomial"))
    found = natural_spline(product.level[0], product.correction[0], TESTED)
    true = np.interp(TESTED, read, charge) - TESTED
    scale = np.mean((found - true) / TESTED)
    assert product.method == "polynomial"
    assert (np.abs(found - true - scale * TESTED) < np.maximum(0.1 * true, 3e-4 * TESTED)).all() and abs(scale) < 1.5e-3


def test_errors_cover_the_truth():
    camera, truth = amplifiers(2)
    product, _ = build_linearity(ramp(camera, truth, LEVELS, lamp=1e-3), camera, LinearityConfig())
    for k in range(2):
        true = natural_spline(truth.level[k], truth.correction[k], product.level[k])
        pull = ((product.correction - true)[k] / np.maximum(product.correction_err[k], 1e-3))[5:]
        assert np.abs(pull).max() < 5.0 and np.median(product.correction_err[k]) > 5.0


def test_reference_gauge():
    camera, truth = amplifiers(1)
    product, _ = build_linearity(ramp(camera, truth, LEVELS), camera, LinearityConfig(gauge="reference", reference=20000.0))
    assert natural_spline(product.level[0], product.correction[0], np.array([0.0, 20000.0])) == pytest.approx(0.0, abs=2.0)
    left, effect, scale = off(product, truth, 0)
    assert (np.abs(left) < np.maximum(0.1 * np.abs(effect), 3e-4 * TESTED)).all()


def test_lamp_failure_is_left_out_and_named():
    camera, truth = amplifiers(1)
    flats = list(ramp(camera, truth, LEVELS))
    flats[20].image.image *= 0.9
    product, verdict = build_linearity(iter(flats), camera, LinearityConfig())
    assert verdict.state == "suspect" and "visits 20" in verdict.reasons[0]
    left, effect, _ = off(product, truth, 0)
    assert (np.abs(left) < np.maximum(0.1 * np.abs(effect), 3e-4 * TESTED)).all()


def test_saturated_frames_are_passed_over_or_refused():
    camera, truth = amplifiers(1)
    levels = np.append(LEVELS, [95000.0, 110000.0])
    product, _ = build_linearity(ramp(camera, truth, levels, saturation=88000.0), camera, LinearityConfig())
    assert product.level[0, -1] < 86000.0
    with pytest.raises(BadData, match=r"needs flats at \d+ exposure times, there are 0 \(36 flats, 36 of them saturated"):
        build_linearity(ramp(camera, truth, LEVELS, saturation=10.0), camera, LinearityConfig())


def test_too_few_frames_say_how_many():
    camera, truth = amplifiers(1)
    with pytest.raises(BadData, match="needs flats at 14 exposure times, there are 4"):
        build_linearity(ramp(camera, truth, [1e3, 1e4, 3e4, 5e4]), camera, LinearityConfig())
    with pytest.raises(BadData, match="there are 0"):
        build_linearity(iter([]), camera, LinearityConfig())


def test_mixed_frames_are_refused():
    camera, truth = amplifiers(1)
    flats = list(ramp(camera, truth, LEVELS))
    other = flats[3]._replace(detector=detector(1, NX, NY, gain=2.0))
    with pytest.raises(BadData, match="visit 3.*gain 2.*mode"):
        build_linearity(iter([*flats, other]), camera, LinearityConfig())
    from dataclasses import replace

    blue = flats[3]._replace(exposure=replace(flats[3].exposure, band="g"))
    with pytest.raises(BadData, match="bands g, r"):
        build_linearity(iter([*flats, blue]), camera, LinearityConfig())
    timeless = flats[3]._replace(exposure=replace(flats[3].exposure, exposure_time=0.0))
    with pytest.raises(BadData, match="no exposure time"):
        build_linearity(iter([*flats, timeless]), camera, LinearityConfig())
