"""Saturation grown, bleed trails, flooded registers, vignetted corners: which pixels, and only those."""

import numpy as np
import pytest

from rsp_hpc.algorithms.saturation import SaturationConfig, grow, grow_saturation
from rsp_hpc.algorithms.vignetting import VignettingConfig, mask_vignetted
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.camera import Amplifier, Detector
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits

SAT = np.uint32(bits("SAT"))
DETECTOR = Detector(name="A", id=0, size=(100, 200), center=(3.0, 0.0), rotation=90.0, amplifiers=tuple(
    Amplifier(name=str(j), section=(0, 0, 100, 100), data=(0, 0, 100, 100), origin=(0, 100 * j), flip_y=bool(j)) for j in range(2)))


def empty(box=DETECTOR.box) -> MaskedImage:
    return MaskedImage(np.zeros(box.shape, np.float32), np.zeros(box.shape, np.uint32), np.ones(box.shape, np.float32), box)


def saturated(image) -> np.ndarray:
    return image.mask & SAT != 0


def test_growth_around_a_star():
    image = empty()
    image.mask[50:53, 20:23] = SAT
    assert grow_saturation(image, DETECTOR, SaturationConfig()) == 16 and saturated(image)[49:54, 19:24].all()
    assert grow_saturation(image, DETECTOR, SaturationConfig(grow=0)) == 0
    assert grow(image, ("SAT",), 2, "SUSPECT") > 0 and not grow(image, (), 2, "SUSPECT")


def test_trails_end_with_their_amplifier():
    """A trail of 60 pixels up to the border between the amplifiers: three wide with growth on each side, 8 beyond its free end."""
    image = empty()
    image.mask[40:100, 50] = SAT
    image.mask[10:30, 80] = SAT  # 20 pixels are no trail
    grow_saturation(image, DETECTOR, SaturationConfig(grow=0))
    found = saturated(image)
    assert found[32:100, 48:53].all() and found.sum() == 68 * 5 + 20 and not found[100:].any()


@pytest.mark.parametrize("second", [False, True])
def test_a_trail_that_reaches_the_register_floods_it(second):
    image = empty()
    rows = slice(150, 200) if second else slice(0, 50)
    image.mask[rows, 50] = SAT
    grow_saturation(image, DETECTOR, SaturationConfig(grow=0, edge_rows=4, edge_reach=30))
    found = saturated(image)
    edge = found[196:] if second else found[:4]
    assert edge[:, 20:81].all() and not edge[:, :20].any() and edge.sum() == 4 * 61


def test_a_part_of_a_detector_is_refused():
    with pytest.raises(BadData, match="whole detector A of 100 x 200"):
        grow_saturation(empty().cutout(Box(0, 0, 50, 50)), DETECTOR, SaturationConfig())


def test_vignetted_pixels():
    """The detector's centre is 3 mm from the axis, turned by 90 degrees: +y points to -x of the focal plane."""
    config = VignettingConfig(radius=3.0)
    image, part = empty(), empty().cutout(Box(30, 40, 20, 100))
    n = mask_vignetted(image, DETECTOR, 10.0, config)
    found = image.mask & np.uint32(bits("VIGNETTED")) != 0
    y, x = np.mgrid[:200, :100]
    away = np.hypot(3.0 - 0.01 * (y - 99.5), 0.01 * (x - 49.5))
    np.testing.assert_array_equal(found, away > 3.0)
    assert n == found.sum() and 0.4 < found.mean() < 0.6
    mask_vignetted(part, DETECTOR, 10.0, config)
    np.testing.assert_array_equal(part.mask, image.mask[40:140, 30:50])
    assert mask_vignetted(empty(), DETECTOR, float("nan"), VignettingConfig()) == 0
    with pytest.raises(BadData, match="give pixel_size"):
        mask_vignetted(empty(), DETECTOR, float("nan"), config)
