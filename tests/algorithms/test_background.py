"""The sky of images with gradients, sources, holes; and images without any sky."""

from __future__ import annotations

import numpy as np
import pytest
from algorithms.sources import NOISE, star_image

from rsp_hpc.algorithms.background import BackgroundConfig, evaluate_background, fit_background, subtract_background
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits


def with_sky(image: MaskedImage):
    y, x = np.mgrid[:image.box.ny, :image.box.nx]
    sky = (500.0 + 0.1 * x - 0.05 * y + 2e-4 * (x - 100.0)**2).astype(np.float32)
    image.image += sky
    return sky


def test_gradient_under_crowded_stars():
    rng = np.random.default_rng(3)
    n = 400
    image = star_image((400, 440), rng.uniform(0, 440, n), rng.uniform(0, 400, n), 300.0 * rng.uniform(size=n)**-1.3)
    sky = with_sky(image)
    background = fit_background(image, BackgroundConfig(mesh=64))
    error = evaluate_background(background) - sky
    assert abs(np.median(error)) < 0.06 * NOISE
    assert np.percentile(np.abs(error), 95) < 0.2 * NOISE
    assert np.median(background.noise) == pytest.approx(NOISE, rel=0.06)
    subtract_background(image, background)
    assert abs(np.median(image.image)) < 0.15 * NOISE


def test_masked_cells_are_filled_from_neighbours():
    image = star_image((256, 256), [], [], [], sky=300.0)
    image.image[64:128, 64:192] = 1e6
    image.mask[64:128, 64:192] = bits("SAT")
    image.image[200:, 200:] = np.nan
    background = fit_background(image, BackgroundConfig(mesh=64))
    np.testing.assert_allclose(background.level, 300.0, atol=0.3 * NOISE)


def test_excluded_pixels_do_not_count():
    image = star_image((128, 128), [], [], [], sky=100.0)
    exclude = np.zeros((128, 128), bool)
    exclude[:, ::2] = True
    image.image[:, ::2] += 15.0
    config = BackgroundConfig(mesh=64)
    assert np.median(fit_background(image, config, exclude).level) == pytest.approx(100.0, abs=1.5)
    assert np.median(fit_background(image, config).level) > 102.5


def test_small_image_gets_one_cell():
    image = star_image((20, 30), [], [], [], sky=50.0)
    background = fit_background(image, BackgroundConfig())
    assert background.level.shape == (1, 1)
    assert np.ptp(evaluate_background(background)) == 0.0


@pytest.mark.parametrize("spoil", ["nan", "masked"])
def test_image_without_sky_says_so(spoil):
    image = star_image((200, 200), [], [], [])
    if spoil == "nan":
        image.image[:] = np.nan
    else:
        image.mask[:] = bits("SAT")
    with pytest.raises(BadData, match="leave it out"):
        fit_background(image, BackgroundConfig())


def test_background_of_another_box_is_refused():
    background = fit_background(star_image((100, 100), [], [], []), BackgroundConfig())
    with pytest.raises(BadData, match="fit it there"):
        subtract_background(MaskedImage.empty(Box(5, 0, 100, 100)), background)
