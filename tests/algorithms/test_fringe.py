"""Fringes: the amplitude is found within its error on skies with slopes, stars, offsets and holes; bad input is said."""

import numpy as np
import pytest

from rsp_hpc.algorithms.fringe import FringeConfig, fit_fringe, subtract_fringe
from rsp_hpc.errors import BadData
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

NY, NX, SKY = 400, 600, 1500.0


def a_pattern() -> np.ndarray:
    """Mean zero, rms one, with holes."""
    y, x = np.mgrid[:NY, :NX]
    pattern = np.sin(x / 11.0 + 3.0 * np.sin(y / 70.0)) + 0.5 * np.cos(y / 19.0 - x / 45.0)
    pattern = (pattern - pattern.mean()) / pattern.std()
    pattern[100:104, :] = np.nan
    return pattern.astype(np.float32)


def a_sky(amplitude: float, seed: int = 0, stars: int = 60) -> MaskedImage:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:NY, :NX]
    level = SKY * (1.0 + 1e-5 * x - 2e-5 * y) + amplitude * np.nan_to_num(a_pattern())
    image = rng.normal(level, np.sqrt(level)).astype(np.float32)
    for _ in range(stars):
        cx, cy = rng.integers(10, NX - 10), rng.integers(10, NY - 10)
        image[cy - 6:cy + 7, cx - 6:cx + 7] += (10 ** rng.uniform(2, 5) * np.exp(
            -0.5 * ((y - cy) ** 2 + (x - cx) ** 2)[cy - 6:cy + 7, cx - 6:cx + 7] / 4.0)).astype(np.float32)
    return MaskedImage(image, np.zeros(image.shape, np.uint32), np.full(image.shape, SKY, np.float32))


@pytest.mark.parametrize("amplitude", [0.0, 5.0, 40.0, 300.0])
def test_the_amplitude_is_found(amplitude):
    """Error 0.1 electrons of a noise of 39; 12 skies each: the mean pull is right, and its scatter one."""
    pulls = []
    for seed in range(12):
        image = a_sky(amplitude, seed)
        found = subtract_fringe(image, a_pattern(), FringeConfig())
        pulls.append((found.value - amplitude) / found.error)
        assert 0.04 < found.error < 0.2 and found.chi2_dof < 6.0  # wings of stars that nobody hid
        assert abs(fit_fringe(image, a_pattern(), FringeConfig()).value) < 0.1 * found.error + 1e-3 * amplitude
    assert abs(np.mean(pulls)) < 4.0 / np.sqrt(12) and 0.4 < np.std(pulls) < 1.7, pulls


def test_unknown_pixels_stay_and_hidden_ones_do_not_count():
    image = a_sky(30.0, 3, stars=0)
    hide = np.zeros((NY, NX), bool)
    hide[:, :200] = True
    image.image[:, :200] += 30.0 * np.nan_to_num(a_pattern()[:, :200])  # twice as strong there, as a nebula might be
    image.mask[:, 500:] |= np.uint32(bits("BAD"))
    image.image[50, 300] = np.nan
    before = image.image.copy()
    found = subtract_fringe(image, a_pattern(), FringeConfig(), hide)
    assert abs(found.value - 30.0) < 4.0 * found.error
    np.testing.assert_array_equal(image.image[100:104], before[100:104])
    assert np.isnan(image.image[50, 300]) and (image.image[:, 500:] != before[:, 500:]).any()
    part = a_sky(30.0, 3, stars=0)
    view = MaskedImage(np.zeros((NY + 2, NX + 3), np.float32), np.zeros((NY + 2, NX + 3), np.uint32), np.ones((NY + 2, NX + 3), np.float32))
    view.image[1:-1, 2:-1] = part.image
    inner = view.cutout(type(view.box)(2, 1, NX, NY))
    inner.box = part.box
    assert subtract_fringe(inner, a_pattern(), FringeConfig()) == subtract_fringe(part, a_pattern(), FringeConfig())
    np.testing.assert_array_equal(view.image[1:-1, 2:-1], part.image)


def test_bad_input_is_said():
    image = a_sky(5.0)
    for pattern, message in ((a_pattern()[:-1], "600 x 399 pixels, the image 600 x 400"),
                             (np.full((NY, NX), np.nan, np.float32), "known nowhere on the sky"),
                             (np.ones((NY, NX), np.float32), "pattern is constant"),
                             (np.zeros((NY, NX), np.float32), "pattern is constant")):
        with pytest.raises(BadData, match=message) as caught:
            subtract_fringe(image, pattern, FringeConfig())
        assert "\n" not in str(caught.value)
    for spoil in ({"exclude": np.ones((NY, NX), bool)}, {}):
        image.mask[:] = 0 if spoil else bits("BAD")
        with pytest.raises(BadData, match="no sky pixel"):
            subtract_fringe(image, a_pattern(), FringeConfig(), **spoil)
