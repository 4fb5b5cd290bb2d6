"""PSF: the guess, the choice of stars, the fit and the aperture correction, on simulated Moffat stars."""

import numpy as np
import pytest

from rsp_hpc.algorithms.measure import MeasureConfig, measure_forced
from rsp_hpc.algorithms.psf import PsfConfig, aperture_correction, fit_psf, guess_psf, select_stars
from rsp_hpc.algorithms.psf.fit import gauge, pedestal
from rsp_hpc.algorithms.psf.guess import moffat
from rsp_hpc.errors import BadData
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.image import MaskedImage
from rsp_hpc.products.mask import bits
from rsp_hpc.products.psf import shift_matrix, weighted_moments

SIDE, SKY = 1000, 500.0
CONFIG = PsfConfig()
FINE = 5
"""Sub-pixels per pixel and axis of the renderer: its error is 1e-5."""


def shape_at(x, y):
    """Sigma and distortion (e1, e2) of the true PSF: 2 % in size and 3 % in shape over the detector."""
    u, v = 2 * x / SIDE - 1, 2 * y / SIDE - 1
    return 1.5 * (1 + 0.02 * u + 0.01 * v * v), 0.03 * u, -0.02 + 0.03 * v


def star(cx, cy, sigma, e1, e2, half=30, beta=3.0):
    """A Moffat star of flux one on its stamp; integrated over pixels."""
    step = (np.arange(FINE) + 0.5) / FINE - 0.5
    x = (np.arange(-half, half + 1)[:, None] + step).ravel() - (cx - np.rint(cx))
    y = (np.arange(-half, half + 1)[:, None] + step).ravel() - (cy - np.rint(cy))
    xx, yy, xy = 1 + e1, 1 - e1, e2
    radius = (yy * x[None, :]**2 + xx * y[:, None]**2 - 2 * xy * x[None, :] * y[:, None]) / (xx * yy - xy**2)
    profile = (1 + radius / (2 * (beta - 1) * sigma**2)) ** -beta
    profile = profile.reshape(2 * half + 1, FINE, 2 * half + 1, FINE).mean(axis=(1, 3))
    return profile * (beta - 1) / (np.pi * 2 * (beta - 1) * sigma**2 * np.sqrt(xx * yy - xy**2))


def a_field(n, seed=0, snr=(40, 400), extended=0, shape=(SIDE, SIDE)):
    """An image and its stars (x, y, flux) on a jittered grid; `extended` of them are twice as wide."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    per_side = int(np.ceil(np.sqrt(n + extended)))
    pitch = (min(shape) - 80) / per_side
    cells = rng.permutation(per_side**2)[:n + extended]
    x, y = (40 + pitch * (place + rng.uniform(0.3, 0.7, n + extended))
            for place in (cells % per_side, cells // per_side))
    flux = 10 ** rng.uniform(*np.log10(snr), n + extended) * np.sqrt(SKY * 35)
    for k, (cx, cy, f) in enumerate(zip(x, y, flux)):
        sigma, e1, e2 = shape_at(cx, cy)
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        stamp = f * star(cx, cy, sigma * (2.0 if k >= n else 1.0), e1, e2)
        rows = np.arange(max(iy - 30, 0), min(iy + 31, shape[0]))
        columns = np.arange(max(ix - 30, 0), min(ix + 31, shape[1]))
        image[np.ix_(rows, columns)] += stamp[np.ix_(rows - iy + 30, columns - ix + 30)]
    variance = image + SKY
    image += rng.normal(size=shape) * np.sqrt(variance)
    return MaskedImage(image.astype(np.float32), np.zeros(shape, np.uint32), variance.astype(np.float32)), x, y, flux


def a_catalogue(image, x, y):
    """What detection and measuring would give at these positions."""
    return measure_forced(image, None, None, x, y, guess_psf(image, CONFIG), MeasureConfig())


@pytest.fixture(scope="module")
def field():
    return a_field(100, seed=7, snr=(80, 500), extended=40)


@pytest.fixture(scope="module")
def fitted(field):
    image, x, y, flux = field
    rng = np.random.default_rng(1)
    jitter = rng.normal(0, 0.1, (2, 100))
    return fit_psf(image, x[:100] + jitter[0], y[:100] + jitter[1], flux[:100] * rng.normal(1, 0.05, 100), CONFIG)


def test_fit_recovers_size_and_shape(fitted):
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(50, SIDE - 50, 6), np.linspace(50, SIDE - 50, 6)))
    found = fitted.moments(x, y)
    half = fitted.size // 2
    truth = np.array([weighted_moments(star(0.0, 0.0, *shape_at(cx, cy), half=half)) for cx, cy in zip(x, y)])
    size = np.sqrt(found[:, :2].sum(axis=1) / truth[:, :2].sum(axis=1)) - 1
    assert abs(size.mean()) < 2e-3 and size.std() < 3e-3
    for weights in ((1, -1, 0), (0, 0, 2)):
        e_found, e_truth = ((m @ weights) / (m[:, 0] + m[:, 1]) for m in (found, truth))
        assert (e_found - e_truth).std() < 5e-3
    assert fitted.order == 2 and fitted.n_stars >= 75
    assert fitted.chi2 == pytest.approx(1.0, abs=0.05)


def test_fit_has_unit_sum_and_centred_stamps(fitted):
    rng = np.random.default_rng(5)
    stamps = fitted.stamps(*rng.uniform(0, SIDE, (2, 100))).astype(float)
    assert np.abs(stamps.sum(axis=(1, 2)) - 1).max() < 1e-5
    u = np.arange(fitted.size) - fitted.size // 2
    window = np.exp(-0.5 * (u[:, None]**2 + u**2) / 2.25)
    for lever in (u[None, :], u[:, None]):
        assert np.abs((stamps * window * lever).sum(axis=(1, 2)) / (stamps * window).sum(axis=(1, 2))).max() < 2e-3


def test_order_follows_the_number_of_stars(field):
    image, x, y, flux = field
    assert [fit_psf(image, x[:n], y[:n], flux[:n], CONFIG).order for n in (40, 20, 5)] == [2, 1, 0]
    few = fit_psf(image, x[:3], y[:3], flux[:3], CONFIG)
    assert few.order == 0 and few.n_stars == 3 and np.isfinite(few.chi2)


def test_one_or_two_stars_improve_on_the_guess(field):
    image, x, y, flux = field
    guess = fit_psf(image, x[:0], y[:0], flux[:0], CONFIG)
    assert np.isnan(guess.chi2) and guess.n_stars > 30
    few = fit_psf(image, x[:2], y[:2], flux[:2], CONFIG)
    assert few.n_stars == 2 and few.order == 0 and few.chi2 == pytest.approx(1.0, abs=0.15)
    for psf in (guess, few):
        assert psf.fwhm(500, 500)[0] == pytest.approx(truth_fwhm(), rel=0.04)


def truth_fwhm():
    xx, yy, _ = weighted_moments(star(0.0, 0.0, *shape_at(SIDE / 2, SIDE / 2), half=15))
    return 2.3548 * np.sqrt(0.5 * (xx + yy))


def test_intruders_are_left_out(field):
    """Doubles and galaxies given as stars, cosmic rays on stars, masked pixels: the fit hardly moves."""
    image, x, y, flux = field
    image = image.copy()
    rng = np.random.default_rng(3)
    for k in rng.permutation(100)[:15]:
        image.image[int(y[k]) + rng.integers(4, 8), int(x[k]) + rng.integers(-8, 8)] += 5000.0
    for k in range(5):
        image.mask[int(y[k]) - 12:int(y[k]) - 6, :] |= bits("BAD")
        image.image[int(y[k]) - 12:int(y[k]) - 6, :] = np.nan
    given = np.r_[0:100, 100:106]  # six galaxies
    psf = fit_psf(image, x[given], y[given], flux[given], CONFIG)
    places = tuple(grid.ravel() for grid in np.meshgrid([200, 500, 800], [200, 500, 800]))
    clean = fit_psf(field[0], x[:100], y[:100], flux[:100], CONFIG)
    assert psf.fwhm(*places).mean() == pytest.approx(clean.fwhm(*places).mean(), rel=4e-3)


def test_select_stars_takes_stars_and_no_galaxies(field):
    image, x, y, _ = field
    rows = select_stars(image, a_catalogue(image, x, y), CONFIG)
    assert (rows < 100).sum() >= 85 and (rows >= 100).sum() == 0
    few = select_stars(image, a_catalogue(image, x, y), PsfConfig(max_stars=20))
    assert len(few) == 20 and len(np.unique(np.floor(x[few] / 250) + 4 * np.floor(y[few] / 250))) >= 14


def test_select_stars_wants_isolation_and_clean_cores(field):
    image, x, y, _ = field
    image = image.copy()
    image.mask[np.rint(y[:10]).astype(int), np.rint(x[:10]).astype(int)] |= bits("SAT")
    table = a_catalogue(image, np.r_[x, x[10:20] + 6.0], np.r_[y, y[10:20]])
    flux = table["psfFlux"].copy()
    flux[140:] = 0.5 * flux[10:20]
    table = table.with_columns([table.columns["psfFlux"]], {"psfFlux": flux})
    chosen = select_stars(image, table, CONFIG)
    assert not np.isin(chosen, np.r_[0:20]).any() and len(chosen) > 60
    assert len(select_stars(image, table.rows(slice(0, 0)), CONFIG)) == 0


def test_guess_survives_cosmic_rays_and_a_tilted_sky():
    image, *_ = a_field(12, seed=2, snr=(60, 200))
    rng = np.random.default_rng(4)
    for _ in range(300):  # straight tracks, far more numerous than the stars
        cx, cy, angle, length = *rng.uniform(10, SIDE - 10, 2), rng.uniform(0, np.pi), rng.integers(1, 12)
        t = np.arange(length)
        columns, rows = ((q + t * slope).astype(int) for q, slope in ((cx, np.cos(angle)), (cy, np.sin(angle))))
        on = (rows >= 0) & (columns >= 0) & (rows < SIDE) & (columns < SIDE)
        image.image[rows[on], columns[on]] += rng.uniform(500, 20000)
    image.image += (900 + 0.3 * np.arange(SIDE)).astype(np.float32)
    guess = guess_psf(image, CONFIG)
    assert guess.n_stars >= 8 and guess.order == 0 and np.isnan(guess.chi2)
    assert guess.fwhm(500, 500)[0] == pytest.approx(truth_fwhm(), rel=0.05)
    assert guess.coefficients.sum() == pytest.approx(1.0)


def test_guess_in_a_cluster():
    """Stars 8 pixels from one another in the mean, crowded to the middle."""
    rng = np.random.default_rng(6)
    side, n = 400, 2500
    radius, angle = 120 * np.abs(rng.standard_normal(n)), rng.uniform(0, 2 * np.pi, n)
    x, y = side / 2 + radius * np.cos(angle), side / 2 + radius * np.sin(angle)
    image = np.zeros((side + 80, side + 80))
    stamp = {}
    for cx, cy, f in zip(x, y, 300.0 * rng.pareto(1.0, n).clip(0.1, 3000)):
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        if not (0 <= ix < side and 0 <= iy < side):
            continue
        key = round((cx - ix) * 4), round((cy - iy) * 4)
        if key not in stamp:
            stamp[key] = star(key[0] / 4, key[1] / 4, 1.5, 0.0, 0.0)
        image[iy + 10:iy + 71, ix + 10:ix + 71] += f * stamp[key]
    image = image[40:-40, 40:-40]
    variance = image + SKY
    image = image + rng.normal(size=image.shape) * np.sqrt(variance)
    mask = np.zeros(image.shape, np.uint32)
    guess = guess_psf(MaskedImage(image.astype(np.float32), mask, variance.astype(np.float32)), CONFIG)
    assert guess.n_stars >= 20
    assert guess.fwhm(0, 0)[0] == pytest.approx(truth_fwhm(), rel=0.08)


def test_guess_without_stars_is_the_default():
    rng = np.random.default_rng(0)
    image = MaskedImage(rng.normal(0, 5, (200, 200)).astype(np.float32), np.zeros((200, 200), np.uint32),
                        np.full((200, 200), 25.0, np.float32))
    guess = guess_psf(image, CONFIG)
    assert guess.n_stars == 0 and guess.fwhm(0, 0)[0] == pytest.approx(CONFIG.default_fwhm, rel=1e-3)
    image.mask[:] = bits("SAT")
    with pytest.raises(BadData, match="no good pixel"):
        guess_psf(image, CONFIG)


def test_aperture_correction(field, fitted):
    image, x, y, _ = field
    stars = Catalogue([Column("x", "f8", "", ""), Column("y", "f8", "", "")], {"x": x[:100], "y": y[:100]})
    found = aperture_correction(image, fitted, stars, CONFIG)
    radius = CONFIG.aperture * fitted.fwhm(SIDE / 2, SIDE / 2)[0]
    whole = star(0.0, 0.0, *shape_at(SIDE / 2, SIDE / 2), half=30)
    grid, stamp = np.arange(-30, 31), fitted.stamps(SIDE / 2, SIDE / 2)[0].astype(float)
    half, share = fitted.size // 2, np.clip(radius + 0.5 - np.hypot(grid, grid[:, None]), 0, 1)
    psf_flux = (stamp * whole[30 - half:31 + half, 30 - half:31 + half]).sum() / (stamp**2).sum()
    sky = whole[np.hypot(grid, grid[:, None]) > radius + 0.5][:400].mean()
    wanted = (share * (whole - sky)).sum() / psf_flux
    assert found.factor == pytest.approx(wanted, abs=max(3 * found.error, 2e-3)) and 0 < found.error < 3e-3
    selected = aperture_correction(image, fitted, a_catalogue(image, x, y), CONFIG)
    assert selected.factor == pytest.approx(found.factor, abs=3e-3)
    nothing = aperture_correction(image, fitted, stars.rows(slice(0, 0)), CONFIG)
    assert nothing.factor == 1.0 and np.isnan(nothing.error)


def test_gauge_and_moffat():
    stamp = moffat(np.array([3.0, 2.0, 0.4]), 25)
    np.testing.assert_allclose(weighted_moments(stamp), [3.0, 2.0, 0.4], atol=2e-3)
    moved = shift_matrix(np.array([0.1]), 25, 25)[0] @ stamp
    centred = gauge(np.stack([2.0 * moved, 0.1 * moved]))
    np.testing.assert_allclose(centred.sum(axis=(1, 2)), [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(centred[0], stamp, atol=5e-3 * stamp.max())  # to the square of the shift


def test_pedestal_is_told_from_wings():
    u = np.arange(33) - 16
    wings = 0.05 * (1.0 + np.hypot(u[:, None], u) ** 2 / 4.0) ** -1.65  # r^-3.3 far out
    assert pedestal(wings + 1e-4) - pedestal(wings) == pytest.approx(1e-4, rel=1e-9)
    assert abs(pedestal(wings)) < 5e-5


def test_the_sky_under_the_stars_is_no_part_of_the_psf(field):
    """Each star on a level of its own, as among unseen neighbours."""
    image, x, y, flux = field
    uneven = image.copy()
    for cx, cy, level in zip(x, y, np.random.default_rng(2).exponential(30.0, len(x))):
        ix, iy = int(cx), int(cy)
        uneven.image[max(iy - 30, 0):iy + 31, max(ix - 30, 0):ix + 31] += level
    flat, psf = (fit_psf(one, x[:100], y[:100], flux[:100], CONFIG) for one in (image, uneven))
    assert psf.fwhm(500, 500)[0] == pytest.approx(flat.fwhm(500, 500)[0], rel=0.01)
    assert np.abs(psf.stamps(500, 500) - flat.stamps(500, 500)).max() < 0.02 * flat.stamps(500, 500).max()
