"""Pixels: exact where promised, the stated loss where not, the same bits for the same seed, any shape."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rsp_hpc.io import pixels
from rsp_hpc.io.images import noise_level
from rsp_hpc.io.pixels import append, encode, noise_of, read_pixels
from rsp_hpc.products.image import MaskedImage


def through(array, *args, rows=None, **kwargs):
    """Encode, write, read."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        return read_pixels(append(file, "a", encode(array, *args, **kwargs)), rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrays.arrays(st.sampled_from([np.float32, np.float64, np.uint32, np.uint16, np.int32, np.uint8]),
                     arrays.array_shapes(min_dims=1, max_dims=4, max_side=9)))
def test_exact_is_exact(array):
    back = through(array)
    assert back.dtype == array.dtype and np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(-5, 60), st.integers(-5, 60))
def test_bands_of_rows(rows_per_chunk, y0, y1):
    array = np.random.default_rng(1).normal(0, 20, (50, 30)).astype(np.float32)
    old, pixels.CHUNK_BYTES = pixels.CHUNK_BYTES, rows_per_chunk * 120
    try:
        for kind in ("exact", "noise", "variance"):
            whole = through(array, kind)
            part = through(array, kind, rows=(y0, y1))
            assert np.array_equal(part, whole[max(0, y0):max(0, y1)] if y1 > y0 else whole[:0])
    finally:
        pixels.CHUNK_BYTES = old


@pytest.mark.parametrize("q", (1.0, 4.0, 16.0))
def test_the_noise_grows_by_the_stated_amount_without_bias(q):
    rng = np.random.default_rng(2)
    image = rng.normal(300.0, 20.0, (600, 700)).astype(np.float32)
    step = noise_of(image) / q
    back = through(image, "noise", seed=9, step=step)
    added = (back - image).astype(float)
    assert np.abs(added).max() < 0.5001 * step + 1e-4
    assert added.std() == pytest.approx(step / np.sqrt(12.0), rel=0.01)
    assert abs(added.mean()) < 5 * step / np.sqrt(12.0 * image.size)
    assert back.std() / image.std() - 1 == pytest.approx(1 / (24 * q * q), abs=0.3 / (24 * q * q) + 2e-4)
    assert np.corrcoef(added.ravel(), image.ravel())[0, 1] == pytest.approx(0.0, abs=0.01)  # so does dither


def test_default_loss_is_below_the_bar_and_size_too():
    image = np.random.default_rng(3).normal(0.0, 20.0, (1024, 1024)).astype(np.float32)
    encoded = encode(image, "noise")
    assert encoded.data.nbytes < 0.18 * image.nbytes
    added = through(image, "noise") - image
    assert np.hypot(20.0, added.std()) / 20.0 - 1 < 0.006


def test_the_seed_makes_the_bits():
    image = np.random.default_rng(4).normal(0.0, 20.0, (60, 70)).astype(np.float32)
    assert np.array_equal(encode(image, "noise", seed=5).data, encode(image, "noise", seed=5).data)
    assert not np.array_equal(through(image, "noise", seed=5), through(image, "noise", seed=6))
    assert pixels._dither(0)[0][:2].tolist() == [0xE220A8 / 2**24, 0x6E789E / 2**24]  # the published sequence of seed 0


def test_what_is_not_finite_stays_and_bright_stars_keep_their_digits():
    image = np.random.default_rng(5).normal(0.0, 20.0, (64, 80)).astype(np.float32)
    image[3, 4:8] = np.nan, np.inf, -np.inf, 7e8
    back = through(image, "noise")
    assert np.isnan(back[3, 4]) and back[3, 5] == np.inf and back[3, 6] == -np.inf
    assert back[3, 7] == pytest.approx(7e8, rel=2e-7)


@pytest.mark.parametrize("image", [
    np.full((20, 30), 7.0, np.float32), np.full((20, 30), np.nan, np.float32), np.zeros((3, 4), np.float32),
    np.array([[0, 1e38] * 10] * 9, np.float32), np.zeros((0, 5), np.float32)],
    ids=("flat", "nan", "tiny", "huge", "empty"))
def test_images_without_measurable_noise_are_exact(image):
    assert np.array_equal(through(image, "noise"), image, equal_nan=True)


def test_noise_of_sky_with_stars_and_gradient():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:400, :400]
    image = (rng.normal(0, 13.0, (400, 400)) + 0.3 * x + 0.1 * y).astype(np.float32)
    image[rng.random(image.shape) < 0.01] += 5000
    assert noise_of(image) == pytest.approx(13.0, rel=0.12)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float32, (4, 6), elements=st.floats(0, np.float32(3.4e38), width=32, allow_subnormal=False)))
def test_variance_is_rounded_to_ten_bits(variance):
    variance[0, 0], variance[0, 1] = np.inf, np.nan
    back = through(variance, "variance")
    assert back[0, 0] == np.inf and np.isnan(back[0, 1])
    good = np.isfinite(variance) & (variance > 0)
    assert np.all(np.abs(back[good].astype(float) / variance[good] - 1) < 2.0**-10) and not back[variance == 0].any()


def test_a_crowded_field_is_quantised_by_its_variance_not_by_its_stars():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[-6:7, -6:7]
    image = rng.normal(0, 20.0, (300, 300)).astype(np.float32)
    for x0, y0 in rng.integers(6, 294, (1500, 2)):
        image[y0 - 6:y0 + 7, x0 - 6:x0 + 7] += 3000 * np.exp(-0.5 * (x * x + y * y) / 4.0)
    variance = np.full(image.shape, 400.0, np.float32)
    assert noise_of(image) > 60
    assert noise_level(MaskedImage(image, np.zeros(image.shape, np.uint32), variance)) == pytest.approx(20.0)
