"""PSF against the truth of simulated Kolmogorov fields: algorithms.md C-T2 to C-T7; `benchmarks/compare_piff.py` has more."""

import numpy as np
import pytest

from kolmogorov import SIDE, Truth, flux_of, noisy, place, profile, shape_of, size_of, stamp, star_field
from rsp_hpc.algorithms.psf import PsfConfig, fit_psf
from rsp_hpc.algorithms.psf.config import BAD_PLANES
from rsp_hpc.algorithms.psf.fit import reserve
from rsp_hpc.algorithms.psf.stamps import StarStamps
from rsp_hpc.products.psf import shift_matrix, stamp_moments

galsim = pytest.importorskip("galsim")
CONFIG, TRUTH, FIELDS = PsfConfig(), Truth(5), 6


@pytest.fixture(scope="module")
def fields():
    """(field, PSF) of six fields of 100 stars; positions and fluxes as a catalogue has them."""
    made = []
    for seed in range(FIELDS):
        image, x, y, flux = star_field(seed)
        rng = np.random.default_rng(seed)
        seen = x + rng.normal(0, 0.1, len(x)), y + rng.normal(0, 0.1, len(x)), flux * rng.normal(1, 0.03, len(x))
        made.append(((image, *seen), fit_psf(image, *seen, CONFIG)))
    return made


def held_back(field, psf):
    """The reserved stars, fitted with the PSF: stamps, model, chi2, degrees of freedom."""
    image, x, y, flux = field
    held = reserve(x, y, CONFIG.reserve)
    stars = StarStamps.cut(image, x[held], y[held], flux[held], psf.size, BAD_PLANES)
    for _ in range(2):
        terms = psf.terms(stars.x, stars.y)
        chi2, dof = stars.refit(psf.coefficients, terms, stars.weights(psf.coefficients, terms, 0.0), 3)
    return stars, stars.model(psf.coefficients, terms), chi2, dof


def test_sum_is_one_and_centroid_zero_everywhere(fields):
    """C-T2."""
    _, psf = fields[0]
    stamps = np.tensordot(psf.terms(*np.random.default_rng(0).uniform(0, SIDE, (2, 100))), psf.coefficients, 1)
    np.testing.assert_allclose(stamps.sum(axis=(1, 2)), 1.0, atol=1e-12)
    u = np.arange(psf.size) - psf.size // 2
    window = np.exp(-0.5 * (u[:, None]**2 + u**2) / 2.5**2) * stamps
    for lever in (u[None, :], u[:, None]):
        assert np.abs((window * lever).sum(axis=(1, 2)) / window.sum(axis=(1, 2))).max() < 5e-3  # of this other window


def test_reserved_stars_are_predicted(fields):
    """C-T3: over all reserved stars."""
    chi2, dof = np.sum([[c.sum(), d.sum()] for _, _, c, d in (held_back(*pair) for pair in fields)], axis=0)
    assert chi2 / dof == pytest.approx(1.0, abs=0.015)
    assert all(psf.order >= 1 and psf.n_reserved >= 5 for _, psf in fields)


def test_size_and_shape_are_those_of_the_truth(fields):
    """C-T4."""
    size, shape = (np.array(part) for part in zip(*(TRUTH.compare(psf.stamps(TRUTH.x, TRUTH.y)) for _, psf in fields)))
    assert np.sqrt((size**2).mean()) < 2.2e-3 and np.sqrt((shape**2).mean()) < 3e-3
    assert abs(size.mean()) < 3 * max(1e-4, size.mean(axis=1).std() / np.sqrt(FIELDS))
    assert (np.abs(shape.mean(axis=(0, 1))) < 3 * np.maximum(1e-4, shape.mean(axis=1).std(axis=0) / np.sqrt(FIELDS))).all()


def test_errors_tell_how_far_the_pixels_are_off(fields):
    pulls = []
    for _, psf in fields:
        true = np.array([stamp(x, y, psf.size) for x, y in zip(TRUTH.x, TRUTH.y)])
        true /= true.sum(axis=(1, 2))[:, None, None]
        pulls.append((psf.stamps(TRUTH.x, TRUTH.y) - true) / psf.errors(TRUTH.x, TRUTH.y))
    pulls = np.array(pulls)
    half = pulls.shape[-1] // 2
    core = pulls[..., half - 2:half + 3, half - 2:half + 3]
    assert 0.6 < np.sqrt((core**2).mean()) < 1.2 and np.sqrt((pulls**2).mean()) < 1.1


def test_rho_statistics_are_zero(fields):
    """C-T7: Rowe's correlations of the shape residuals, pairs of reserved stars below 800 pixels, within 3.5 sigma of the fields'
    scatter."""
    rows = []
    for stars, model, *_ in (held_back(*pair) for pair in fields):
        own = (shift_matrix(shift, stars.size, stars.size) for shift in (stars.row - stars.y, stars.column - stars.x))
        across, along = own
        light = (stars.data - stars.sky[:, None, None]) / stars.flux[:, None, None]
        seen, wanted = (stamp_moments(across @ planes @ along.swapaxes(1, 2)) for planes in (light, model))
        e, de, dt = shape_of(wanted), shape_of(seen) - shape_of(wanted), (size_of(seen) / size_of(wanted))[:, None]**2 - 1.0
        i, j = np.nonzero(np.triu(np.hypot(stars.x[:, None] - stars.x, stars.y[:, None] - stars.y) < 800.0, 1))
        rows.append([np.mean((a[i] * b[j]).sum(axis=1)) for a, b in
                     ((de, de), (e, de), (e * dt, e * dt), (de, e * dt), (e, e * dt))])
    rows = np.array(rows)
    assert (np.abs(rows.mean(axis=0)) < 3.5 * rows.std(axis=0, ddof=1) / np.sqrt(FIELDS)).all()


def test_intruders_are_found():
    """C-T6: 5 % galaxies and doubles among the stars: nine in ten are removed, and at most 2 % of the stars."""
    image, x, y, flux = star_field(20, n=100)
    rng = np.random.default_rng(1)
    pixels, bad = image.image.astype(float), np.zeros(100, bool)
    candidates = np.flatnonzero(~reserve(x, y, CONFIG.reserve) & (np.abs(x - 1024) < 950) & (np.abs(y - 1024) < 950))
    bad[rng.choice(candidates, 6, replace=False)] = True
    for k, i in enumerate(np.flatnonzero(bad)):
        ix, iy = int(np.rint(x[i])), int(np.rint(y[i]))
        if k % 2:
            place(pixels, 0.2 * flux[i] * stamp(x[i], y[i], 65, x[i] - ix + 2.5, y[i] - iy + 1.0), ix, iy)
        else:
            galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=1.5), profile(x[i], y[i]))
            more = galaxy.shift(x[i] - ix, y[i] - iy).drawImage(nx=65, ny=65, scale=1.0, dtype=float).array
            place(pixels, flux[i] * (more - stamp(x[i], y[i], 65, x[i] - ix, y[i] - iy)), ix, iy)
    image.image[:] = pixels
    clean = fit_psf(image, x[~bad], y[~bad], flux[~bad], CONFIG)
    psf = fit_psf(image, x, y, flux, CONFIG)
    assert clean.n_stars - 2 <= psf.n_stars <= clean.n_stars + 1
    (size, shape), (wanted_size, wanted_shape) = (TRUTH.compare(each.stamps(TRUTH.x, TRUTH.y)) for each in (psf, clean))
    assert np.sqrt(((size - wanted_size)**2).mean()) < 1.5e-3 and np.sqrt(((shape - wanted_shape)**2).mean()) < 2e-3


def test_colour_is_followed():
    """Stars that grow by 3 % per magnitude of colour: the fit with colours knows, the one without has it as scatter."""
    rng = np.random.default_rng(2)
    n, image = 100, np.zeros((SIDE, SIDE))
    x, y = (40 + 196 * (cell + rng.uniform(0.3, 0.7, n)) for cell in (np.arange(n) % 10, np.arange(n) // 10))
    color, flux = rng.uniform(0.0, 2.0, n), flux_of(rng.uniform(150, 400, n))
    for cx, cy, c, f in zip(x, y, color, flux):
        ix, iy = int(np.rint(cx)), int(np.rint(cy))
        grown = galsim.Kolmogorov(fwhm=3.6 * (1.0 + 0.03 * (c - 1.0))).shift(cx - ix, cy - iy)
        place(image, f * grown.drawImage(nx=65, ny=65, scale=1.0, dtype=float).array, ix, iy)
    image = noisy(image, rng)
    color[5] = np.nan
    plain, psf = fit_psf(image, x, y, flux, CONFIG), fit_psf(image, x, y, flux, CONFIG, color)
    red, blue, mean = (size_of(stamp_moments(psf.stamps(1000.0, 1000.0, c)))[0] for c in (2.0, 0.0, None))
    assert red / blue == pytest.approx(1.03 / 0.97, abs=0.012)
    assert mean == pytest.approx(0.5 * (red + blue), rel=5e-3) and psf.mean_color == pytest.approx(1.0, abs=0.15)
    assert psf.chi2 == pytest.approx(1.0, abs=0.03) and psf.chi2 < plain.chi2 - 0.02
    assert psf.errors(1000.0, 1000.0, 2.0).shape == (1, psf.size, psf.size)
