"""Brighter-fatter: stars as wide as faint ones again, flats without covariances, charge conserved, on charges collected in small steps.

The forward model here is the definition in `products.electronics`, in 60 steps of the exposure, written apart from the simulator's.
"""

import numpy as np
import pytest

from rsp_hpc.algorithms.brighter_fatter import BrighterFatterConfig, correct_brighter_fatter
from rsp_hpc.errors import BadData
from rsp_hpc.products.electronics import BrighterFatter
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

HALF, SKY, A00 = 7, 1000.0, -2.5e-6
CONFIG = BrighterFatterConfig()


def products() -> tuple[BrighterFatter, BrighterFatter]:
    """A potential, and the same as shifts of borders; the area that an electron takes from its pixel is A00."""
    y, x = np.mgrid[-HALF - 1:HALF + 1, -HALF - 1:HALF + 1]
    potential = np.minimum(-((1.1 * x**2 + 0.9 * y**2 + 0.8) ** -0.75) + HALF**-1.5, 0.0)
    potential[0, :] = potential[:, 0] = 0.0
    north, east = np.diff(potential, axis=0)[:, 1:], np.diff(potential, axis=1)[1:]
    area = north[HALF, HALF] - north[HALF + 1, HALF] + east[HALF, HALF] - east[HALF, HALF + 1]
    scale = A00 / area
    return BrighterFatter("scalar", potential[1:, 1:] * scale), BrighterFatter("electrostatic", None, north * scale, east * scale)


SCALAR, ELECTROSTATIC = products()


def lagged(charge: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Sum over d of table[d] charge[pixel + d], by transforms; charges beyond the edge as at the edge."""
    wide = np.pad(charge, HALF, mode="edge")
    whole = np.zeros(wide.shape)
    whole[:table.shape[0], :table.shape[1]] = table
    moved = np.fft.irfft2(np.fft.rfft2(wide) * np.conj(np.fft.rfft2(np.roll(whole, (-HALF, -HALF), (0, 1)))), wide.shape)
    return moved[HALF:-HALF, HALF:-HALF]


def collect(light: np.ndarray, steps: int = 60, rng: np.random.Generator | None = None) -> np.ndarray:
    """What the pixels hold at the end, when borders move as charge comes."""
    charge, share = np.zeros(light.shape), light / steps
    for _ in range(steps):
        # at half the step; noise does not come before its step, which makes the mean of all steps too small by one of them
        middle = charge + 0.5 * share if rng is None else charge * (steps / (steps - 1))
        moved = share.copy()
        for shift, axis in ((lagged(middle, ELECTROSTATIC.east), 1), (lagged(middle, ELECTROSTATIC.north), 0)):
            low, high = (np.s_[:, :-1], np.s_[:, 1:]) if axis else (np.s_[:-1], np.s_[1:])
            crossing = 0.5 * shift[low] * (share[low] + share[high])
            moved[low] += crossing
            moved[high] -= crossing
        charge += moved if rng is None else rng.poisson(np.maximum(moved, 0.0))
    return charge


def star(peak: float, size: int = 49, fwhm: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return SKY + peak * np.exp(-4.0 * np.log(2.0) * ((x - 0.2) ** 2 + (y + 0.3) ** 2) / fwhm**2)


def size_of(image: np.ndarray) -> float:
    """T, pixel^2: adaptive moments with a round Gaussian weight."""
    y, x = np.mgrid[:image.shape[0], :image.shape[1]] - (image.shape[0] - 1) / 2.0
    light, x0, y0, width = image - SKY, 0.2, -0.3, 3.0
    for _ in range(60):
        weight = light * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2.0 * width))
        x0, y0 = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        width = 1.0 / (2.0 / ((weight * ((x - x0) ** 2 + (y - y0) ** 2)).sum() / weight.sum()) - 1.0 / width)
    return 2.0 * width


def masked(pixels: np.ndarray) -> MaskedImage:
    image = pixels.astype(np.float32)
    return MaskedImage(image, np.zeros(image.shape, np.uint32), np.maximum(image, 1.0))


@pytest.mark.parametrize("product", [SCALAR, ELECTROSTATIC], ids=lambda product: product.method)
def test_stars_are_as_wide_as_faint_ones(product):
    """T grows by 10 % at a peak of 10^5 electrons; after the correction by 0.005 %. Charge stays to 1e-6."""
    true = size_of(star(1e3))
    for peak in (1e3, 3e3, 1e4, 3e4, 1e5):
        light = star(peak)
        charge = collect(light)
        assert abs(charge.sum() / light.sum() - 1.0) < 1e-9
        image = masked(charge)
        before = image.image.sum(dtype=float)
        correct_brighter_fatter(image, product, CONFIG)
        wider, left = size_of(charge) / true - 1.0, size_of(image.image.astype(float)) / true - 1.0
        assert wider > 5e-7 * peak and abs(left) < min(1e-4, 0.1 * wider), (peak, wider, left)
        assert abs(image.image.sum(dtype=float) / before - 1.0) < 1e-6
        effect = np.abs(charge - light).max()
        assert np.abs(image.image - light).max() < 0.02 * effect + 2e-7 * peak + 0.1 * (effect < 25.0), peak


def test_the_classic_iteration_leaves_more():
    """With shifts from the corrected image alone (Coulton et al. 2018) a percent of T is left at 10^5 electrons: no bug, but why
    `measured_share` is 2/3."""
    image = masked(collect(star(1e5)))
    classic = CONFIG.model_copy(update={"measured_share": 0.0, "passes": 10})
    correct_brighter_fatter(image, SCALAR, classic)
    assert 1e-3 < abs(size_of(image.image.astype(float)) / size_of(star(1e3)) - 1.0) < 2e-2


@pytest.mark.parametrize("level", [1e4, 5e4])
def test_flats_lose_their_covariances(level):
    """Variance over mean is one again, and neighbours are independent, within 3 % of the effect and 3 sigma. (A part of the effect
    that no correction knows stays: the noise of when the charge came, a twelfth of its square.)"""
    rng = np.random.default_rng(int(level))
    size = 500
    light = np.full((size, size), level)
    image = masked(collect(light, 12, rng))
    inner = np.s_[8:-8, 8:-8]

    def covariances(pixels):
        part = pixels[inner].astype(float) - pixels[inner].mean(dtype=float)
        return np.array([(part**2).mean(), (part[1:] * part[:-1]).mean(), (part[:, 1:] * part[:, :-1]).mean()]) / level

    before = covariances(image.image)
    correct_brighter_fatter(image, SCALAR, CONFIG)
    after = covariances(image.image)
    noise = np.array([np.sqrt(2.0), 1.0, 1.0]) / size
    assert before[0] < 1.0 + 0.7 * A00 * level
    wrong = np.abs(after - [1.0, 0.0, 0.0])
    assert (wrong < 3.0 * noise + 0.03 * np.abs(before - [1.0, 0.0, 0.0])).all(), (before, after)


def test_saturated_and_bad_pixels():
    """SUSPECT two pixels around saturated ones; defects and NaN stay as they are, and do not spread."""
    light = star(8e4)
    image = masked(collect(light))
    image.mask[24, 24] |= np.uint32(bits("SAT"))
    defects = np.zeros(light.shape, bool)
    defects[5, 5], image.image[5, 5], image.image[40, 9] = True, 6e4, np.nan
    done = correct_brighter_fatter(image, SCALAR, CONFIG, defects)
    assert done.excluded == 2 and image.image[5, 5] == np.float32(6e4) and np.isnan(image.image[40, 9])
    assert np.isfinite(image.image).sum() == image.image.size - 1
    assert np.abs(image.image - light)[3:8, 3:8][~defects[3:8, 3:8]].max() < 0.01
    suspect = image.mask & np.uint32(bits("SUSPECT")) != 0
    assert suspect.sum() == 21 and suspect[22:27, 23:26].all()


def test_a_view_is_changed_in_place():
    image = masked(collect(star(3e4)))
    whole = MaskedImage(np.ones((60, 60), np.float32), np.zeros((60, 60), np.uint32), np.ones((60, 60), np.float32))
    whole.image[5:54, 5:54] = image.image
    part = whole.cutout(type(whole.box)(5, 5, 49, 49))
    correct_brighter_fatter(part, SCALAR, CONFIG)
    correct_brighter_fatter(image, SCALAR, CONFIG)
    np.testing.assert_array_equal(whole.image[5:54, 5:54], image.image)


@pytest.mark.parametrize("product, message", [
    (BrighterFatter("scalar", np.zeros((5, 7))), r"kernel has shape \(5, 7\).* build it again"),
    (BrighterFatter("scalar", np.zeros((4, 4))), "odd side"),
    (BrighterFatter("scalar", np.zeros((65, 65))), "odd side from 3 to 63"),
    (BrighterFatter("scalar", np.zeros(9)), "must be square"),
    (BrighterFatter("scalar", np.full((5, 5), np.nan)), "25 values that are not finite"),
    (BrighterFatter("scalar"), "has no kernel"),
    (BrighterFatter("electrostatic", None, np.zeros((5, 5))), "has no east"),
    (BrighterFatter("spline", np.zeros((5, 5))), "method 'spline' is unknown"),
])
def test_bad_products_are_said(product, message):
    with pytest.raises(BadData, match=message) as caught:
        correct_brighter_fatter(masked(star(1e3)), product, CONFIG)
    assert "\n" not in str(caught.value)


def test_defects_of_another_size_are_said():
    with pytest.raises(BadData, match="defects are 5 x 5 pixels, the image 49 x 49"):
        correct_brighter_fatter(masked(star(1e3)), SCALAR, CONFIG, np.zeros((5, 5), bool))
