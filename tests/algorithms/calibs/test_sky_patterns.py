"""Fringe, sky and illumination: products built from simulated frames undo the effect that was put in."""

from __future__ import annotations

import numpy as np
import pytest

from rsp_hpc.algorithms.calibs.fringe import FringeConfig, build_fringe
from rsp_hpc.algorithms.calibs.illumination import IlluminationConfig, StarTable, build_illumination, illumination_plane
from rsp_hpc.algorithms.calibs.sky import SkyConfig, build_sky, camera_scales, scaled_sky
from rsp_hpc.errors import BadData
from rsp_hpc.products.camera import Amplifier, Camera, Detector, Layout
from rsp_hpc.products.focalplane import pixel_to_focal_plane
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

SIDE = 256


def fringes(shape) -> np.ndarray:
    """Rings of 25 pixels, mean zero, rms one."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    phase = np.hypot(x + 150.0, y - 40.0)
    pattern = np.sin(2.0 * np.pi * phase / 25.0) + 0.4 * np.sin(2.0 * np.pi * (x - 0.3 * y) / 41.0)
    return ((pattern - pattern.mean()) / pattern.std()).astype(np.float32)


def science(rng, sky, pattern, noise, n_stars=25) -> MaskedImage:
    """An image with stars whose cores and wings are in DETECTED."""
    ny, nx = pattern.shape
    y, x = np.mgrid[:ny, :nx]
    image, mask = sky + pattern + rng.normal(0.0, noise, (ny, nx)), np.zeros((ny, nx), np.uint32)
    for _ in range(n_stars):
        distance = np.hypot(x - rng.uniform(0, nx), y - rng.uniform(0, ny))
        image += 3000.0 * np.exp(-distance**2 / 8.0)
        mask[distance < 9.0] |= np.uint32(bits("DETECTED"))
    return MaskedImage(image.astype(np.float32), mask, np.full((ny, nx), noise**2, np.float32))


def test_fringes_are_found_and_leave_a_tenth():
    rng, truth = np.random.default_rng(1), fringes((SIDE, SIDE))
    slope = np.linspace(-30.0, 30.0, SIDE)[None, :]
    amplitudes = rng.uniform(15.0, 60.0, 10)
    images = [science(rng, slope * rng.normal(), amplitude * truth, 25.0) for amplitude in amplitudes]
    product, verdict = build_fringe(iter(images), FringeConfig(scale=100, smooth=1.5), [f"v{k}" for k in range(10)], "z")
    assert verdict.state == "good" and product.inputs[3] == "v3" and np.isfinite(product.image).all()
    inner = (slice(8, -8), slice(8, -8))
    ratio = float((product.image[inner] * truth[inner]).sum() / (product.image[inner] ** 2).sum())
    assert np.std((ratio * product.image - truth)[inner]) < 0.1  # of the effect's rms, at any amplitude
    assert ratio == pytest.approx(1.0, abs=0.03)
    assert np.sqrt(np.mean(product.image**2)) == pytest.approx(1.0, abs=0.02)
    assert verdict.statistics["amplitude"] == pytest.approx(np.median(amplitudes), rel=0.05)


def test_no_fringes_are_suspect_and_few_frames_refused():
    rng = np.random.default_rng(2)
    images = [science(rng, 0.0, np.zeros((SIDE, SIDE)), 25.0) for _ in range(5)]
    assert build_fringe(iter(images), FringeConfig())[1].state == "suspect"
    with pytest.raises(BadData, match="3 frames, 4 are needed"):
        build_fringe(iter(images[:3]), FringeConfig())
    images[1] = MaskedImage.without_data(images[0].box)  # a frame without any pixel is harmless
    with pytest.raises(BadData, match="no mesh cell"):
        build_fringe(iter(images), FringeConfig())


def test_the_fringe_of_frames_in_a_scratch_file_is_the_same(tmp_path):
    from rsp_hpc.io.scratch import scratch_plane

    rng, truth = np.random.default_rng(3), fringes((64, 96))
    images = [science(rng, 0.0, 40.0 * truth, 10.0, 3) for _ in range(6)]
    one, _ = build_fringe(iter(images), FringeConfig(scale=48))
    two, _ = build_fringe(iter(images), FringeConfig(scale=48, memory=1).model_copy(update={"memory": 0}), scratch=scratch_plane)
    np.testing.assert_array_equal(one.image, two.image)


def camera_of(n: int) -> Camera:
    amplifier = Amplifier(name="A", section=(0, 0, SIDE, SIDE), data=(0, 0, SIDE, SIDE))
    detectors = tuple(Detector(name=f"D{k}", id=k, size=(SIDE, SIDE), amplifiers=(amplifier,), center=(2.7 * k - 2.7, 0.0))
                      for k in range(n))
    header = {key: {"value": 0} for key in ("visit", "kind", "mjd", "exposure_time")}
    return Camera(name="three", pixel_scale=0.2, detectors=detectors, bands=("r",), layout=Layout(pattern="(x)"), header=header)


def test_the_empty_sky_on_one_scale_for_the_camera():
    rng, camera = np.random.default_rng(4), camera_of(3)
    ramp = 1.0 + 0.04 * np.linspace(-1.0, 1.0, SIDE)[None, :] * np.ones((SIDE, 1))
    truth = {f"D{k}": share * (ramp if k == 1 else np.ones((SIDE, SIDE))) for k, share in enumerate((0.95, 1.0, 1.05))}
    skies, parts = rng.uniform(400.0, 1500.0, 8), {}
    for name, shape in truth.items():
        visits = [k for k in range(8) if not (name == "D2" and k < 2)]  # one detector lacks two visits
        images = ((f"v{k}", science(rng, skies[k] * shape, np.zeros((SIDE, SIDE)), np.sqrt(skies[k]))) for k in visits)
        parts[name] = build_sky(images, SkyConfig())
    scales, verdict = camera_scales({name: part.levels for name, part in parts.items()}, {name: SIDE * SIDE for name in parts},
                                    SkyConfig())
    assert verdict.state == "good"
    mean = np.mean(list(truth.values()))
    for name, part in parts.items():
        product, _ = scaled_sky(part, scales[name])
        effect = np.abs(truth[name] / mean - 1.0).max()
        assert np.abs(product.image - truth[name] / mean).max() < 0.1 * effect
    with pytest.raises(BadData, match="shares no visit"):
        camera_scales({"D0": {"v1": 100.0}, "D1": {"v2": 100.0}}, {"D0": 1.0, "D1": 1.0}, SkyConfig())
    with pytest.raises(BadData, match="2 of 2 frames .* 5 are needed"):
        build_sky(iter([("a", science(rng, 500.0, np.zeros((SIDE, SIDE)), 20.0))] * 2), SkyConfig())


def observed(rng, camera, visits, truth, dither=0.7, turn=1.0) -> StarTable:
    """Stars of a field seen in visits dithered (mm) and turned (radians per visit), with 5 mmag errors."""
    n = 1500
    x, y, magnitude = rng.uniform(-4.5, 4.5, n), rng.uniform(-4.5, 4.5, n), rng.uniform(14.0, 18.0, n)
    rows = []
    for visit in range(visits):
        cosine, sine = np.cos(turn * visit), np.sin(turn * visit)
        px, py = cosine * x - sine * y + dither * rng.normal(), sine * x + cosine * y + dither * rng.normal()
        for number, detector in enumerate(camera.detectors):
            cx, cy = pixel_to_focal_plane(camera, detector, 0.5 * (SIDE - 1), 0.5 * (SIDE - 1))
            inside = np.nonzero((np.abs(px - cx) < 1.28) & (np.abs(py - cy) < 1.28))[0]
            flux = magnitude[inside] + truth(px[inside], py[inside], number) + 0.3 * np.sin(visit) + rng.normal(0, 0.005, len(inside))
            rows.append((inside, np.full(len(inside), visit), np.full(len(inside), number), px[inside], py[inside], flux,
                         np.full(len(inside), 0.005)))
    return StarTable(*(np.concatenate(column) for column in zip(*rows)))


@pytest.mark.parametrize("steps", [False, True])
def test_the_star_flat_is_recovered(steps):
    rng, camera = np.random.default_rng(5), camera_of(3)
    config = IlluminationConfig(order=3, steps=steps, floor=0.0, zero_point=0.0)

    def truth(x, y, number):
        return 0.004 * x**2 - 0.006 * y + 0.001 * x * y + 0.02 * (number - 1) * steps

    stars = observed(rng, camera, 12, truth)
    stars.magnitude[::101] += 0.5  # variable stars
    stars.magnitude[7] = np.nan
    fit, verdict = build_illumination(stars, 12, camera, config)
    assert verdict.state == "good" and fit.scatter == pytest.approx(0.005, rel=0.2)
    planes, expected, errors = [], [], []
    for number, detector in enumerate(camera.detectors):
        product = illumination_plane(fit, camera, detector, config)
        x, y = pixel_to_focal_plane(camera, detector, *np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
        planes.append(product.image)
        errors.append(np.sqrt(np.median(product.variance)))
        expected.append(10.0 ** (-0.4 * truth(x, y, number)))
    planes, expected = np.array(planes), np.array(expected) / np.mean(expected)
    assert planes.mean() == pytest.approx(1.0, abs=1e-3)
    residual = planes / expected - 1.0
    assert np.std(residual) < 0.1 * np.std(expected)
    assert np.std(residual) < 3.0 * np.mean(errors)


def test_sums_over_ranks_give_the_same_star_flat():
    rng, camera = np.random.default_rng(6), camera_of(3)
    stars = observed(rng, camera, 8, lambda x, y, number: 0.004 * x**2)
    config = IlluminationConfig(order=2, zero_point=0.0)
    from rsp_hpc.algorithms.calibs.illumination import accumulate, solve

    whole = accumulate(stars, (8, 3), config, 5.0)
    halves = [accumulate(StarTable(*(column[stars.star % 2 == half] for column in stars)), (8, 3), config, 5.0) for half in (0, 1)]
    one, two = (solve(*parts, (8, 3), config, 5.0) for parts in (whole, [a + b for a, b in zip(*halves)]))
    np.testing.assert_allclose(one.coefficients, two.coefficients, atol=1e-9)


def test_visits_without_dithers_are_refused():
    rng, camera = np.random.default_rng(7), camera_of(3)
    stars = observed(rng, camera, 5, lambda x, y, number: 0.0 * x, dither=0.0, turn=0.0)
    with pytest.raises(BadData, match="not determined"):
        build_illumination(stars, 5, camera, IlluminationConfig(order=3))
    stars = observed(rng, camera, 5, lambda x, y, number: 0.0 * x, turn=0.0)
    with pytest.raises(BadData, match="2 of .* not determined"):  # a gradient is not
        build_illumination(stars, 5, camera, IlluminationConfig(order=2, zero_point=0.0))
    fit, verdict = build_illumination(stars, 5, camera, IlluminationConfig(order=2, zero_point=0.02))
    assert np.sqrt(np.diag(fit.covariance))[:2].min() > 10.0 * np.sqrt(np.diag(fit.covariance))[2:].max()  # and its error says so
    few = StarTable(*(column[stars.star < 20] for column in stars))
    with pytest.raises(BadData, match="stars were seen at least twice, 100 are needed"):
        build_illumination(few, 5, camera, IlluminationConfig(order=3))


def test_small_structure_of_the_sky_is_taken_over():
    rng, camera = np.random.default_rng(8), camera_of(3)
    stars = observed(rng, camera, 8, lambda x, y, number: 0.0 * x)
    fit, _ = build_illumination(stars, 8, camera, IlluminationConfig(order=1))
    sky = np.ones((SIDE, SIDE), np.float32)
    sky[100:110, 100:110] = 0.9
    plane = illumination_plane(fit, camera, camera.detectors[1], IlluminationConfig(), sky).image
    assert plane[105, 105] / plane[50, 105] == pytest.approx(0.9, abs=0.01)
