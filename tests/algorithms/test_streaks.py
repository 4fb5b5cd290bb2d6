"""Trails are found at any angle below the noise of a pixel, stars and galaxies are none; spikes end where their light does."""

import numpy as np
import pytest

from rsp_hpc.algorithms.spikes import SpikesConfig, find_spikes, saturated_cores
from rsp_hpc.algorithms.streaks import StreaksConfig, find_streaks
from rsp_hpc.products.box import Box
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

SIZE, NOISE = 1000, 30.0
CONFIG = StreaksConfig()


def field(seed=0, stars=400) -> MaskedImage:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, NOISE, (SIZE, SIZE))
    y, x = np.mgrid[-15:16, -15:16]
    for _ in range(stars):
        cx, cy = rng.integers(16, SIZE - 16, 2)
        image[cy - 15:cy + 16, cx - 15:cx + 16] += 10 ** rng.uniform(2, 4.5) * np.exp(-0.5 * (x**2 + y**2) / rng.uniform(1.5, 3.5) ** 2)
    return MaskedImage(image.astype(np.float32), np.zeros(image.shape, np.uint32),
                       (NOISE**2 + np.maximum(image, 0)).astype(np.float32), Box(100, 50, SIZE, SIZE))


def add_trail(image: MaskedImage, angle: float, offset: float, peak: float, sigma=2.0, part=(0.0, 1.0)) -> np.ndarray:
    """A trail through the middle, displaced by `offset`; True where it is brighter than a fifth of its peak."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2.0
    normal = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    distance, along = x * normal[0] + y * normal[1] - offset, (y * normal[0] - x * normal[1]) / SIZE + 0.5
    light = peak * np.exp(-0.5 * (distance / sigma) ** 2) * ((along >= part[0]) & (along <= part[1]))
    image.image += light.astype(np.float32)
    return light > 0.2 * peak


def streaked(image):
    return image.mask & np.uint32(bits("STREAK")) != 0


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 151.0, 179.3])
@pytest.mark.parametrize("peak", [25.0, 500.0])
def test_trails_are_found(angle, peak):
    """25 electrons: less than a pixel's noise of 30."""
    image = field(int(angle))
    true = add_trail(image, angle, 120.0, peak)
    found = find_streaks(image, CONFIG)
    assert len(found) == 1 and found[0].peak == pytest.approx(peak, rel=0.25) and found[0].peak_error < 0.15 * peak
    assert (streaked(image) & true).sum() > 0.97 * true.sum() and streaked(image).sum() < 3.5 * true.sum()


def test_two_trails_and_half_a_trail():
    image = field(5)
    first, second = add_trail(image, 20.0, -200.0, 200.0), add_trail(image, 110.0, 50.0, 60.0, part=(0.0, 0.6))
    found = find_streaks(image, CONFIG)
    assert len(found) == 2
    true = first | second
    assert (streaked(image) & true).sum() > 0.95 * true.sum()
    assert streaked(image).sum() < 3.5 * true.sum()  # the second ends where its light does: whole, it would be 1.7 times as long


@pytest.mark.parametrize("seed", range(3))
def test_none_where_there_is_none(seed):
    image = field(seed, stars=800)
    image.image[:, 500], image.mask[:, 500] = 1e5, bits("BAD")
    y, x = np.mgrid[:SIZE, :SIZE]
    image.image += (500.0 * np.exp(-np.hypot((x - 300) / 60.0, (y - 400) / 20.0))).astype(np.float32)  # a large galaxy
    assert find_streaks(image, CONFIG) == [] and not streaked(image).any()


def test_images_without_pixels_to_vote():
    image = field(0, 0)
    image.mask[:] = bits("NO_DATA")
    assert find_streaks(image, CONFIG) == []
    assert find_streaks(image.cutout(Box(100, 50, 8, 900)), CONFIG) == []


def test_spikes_end_where_their_light_does():
    image = field(3, stars=100)
    y, x = np.mgrid[:SIZE, :SIZE]
    dx, dy = x - 400.0, y - 600.0
    radius = np.hypot(dx, dy)
    image.image += (2e5 * (1 + (radius / 3.0) ** 2) ** -1.5).astype(np.float32)
    for normal in ((1.0, 1.0), (1.0, -1.0)):
        across = (dx * normal[0] + dy * normal[1]) / np.sqrt(2.0)
        image.image += (400.0 * np.exp(-0.5 * (across / 1.5) ** 2) * (radius < 200)).astype(np.float32)
    image.mask[image.image > 8e4] |= np.uint32(bits("SAT"))
    image.mask[560:640, 400] |= np.uint32(bits("SAT"))  # bleeding
    cores = saturated_cores(image, 4)
    assert len(cores) == 1 and np.hypot(cores[0][0] - 500.0, cores[0][1] - 650.0) < 1.0
    assert find_spikes(image, SpikesConfig()) == 4
    found = image.mask & np.uint32(bits("SPIKE")) != 0
    arm = (np.minimum(np.abs(dx + dy), np.abs(dx - dy)) < 2.0) & (radius < 190)
    assert found[arm].mean() > 0.98 and not found[radius > 250].any() and found.sum() < 4 * 260 * 9
    assert find_spikes(field(3, stars=100), SpikesConfig()) == 0
    again = image.copy()
    again.mask[:] = 0
    assert find_spikes(again, SpikesConfig(), np.array([[500.0, 650.0], [900.0, 200.0]])) == 4
