"""WCS fits to simulated stars with known truth."""

import numpy as np
import pytest

from rsp_hpc.algorithms.astrometry import AstrometryConfig, fit_wcs
from rsp_hpc.algorithms.match import MatchConfig
from rsp_hpc.errors import BadData
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.geometry import project
from rsp_hpc.products.reference import ReferenceCatalogue
from rsp_hpc.products.wcs import Wcs

BOX = Box(0, 0, 4096, 4000)
COLUMNS = [Column(name, "f8", unit, "") for name, unit in (
    ("x", "pixel"), ("y", "pixel"), ("xErr", "pixel"), ("yErr", "pixel"),
    ("psfFlux", "electron"), ("psfFluxErr", "electron"))]


def distorted(crval=(53.0, -28.0), turn=30.0, scale=0.2):
    c, s = scale / 3600 * np.cos(np.radians(turn)), scale / 3600 * np.sin(np.radians(turn))
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 2], a[3, 0], a[1, 2] = 3e-7, -2e-7, 1e-7, 4e-11, -2e-11
    b[2, 0], b[1, 1], b[0, 2], b[0, 3], b[2, 1] = -1e-7, 3e-7, 2e-7, -4e-11, 3e-11
    return Wcs(crval, (2000.0, 2100.0), ((-c, s), (s, c)), a, b)


def mispointed(wcs, offset=(30.0, -20.0), turn=0.5, stretch=1.004):
    """The WCS without distortion, off by arcsec east and north, degrees and a factor."""
    angle = np.radians(turn)
    rotation = stretch * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    crval = (wcs.crval[0] + offset[0] / 3600 / np.cos(np.radians(wcs.crval[1])), wcs.crval[1] + offset[1] / 3600)
    return Wcs(crval, wcs.crpix, tuple(map(tuple, (rotation @ np.asarray(wcs.cd)).tolist())))


def field(rng, wcs, n, pixel_noise=0.0, box=BOX, spurious=0.0, snr=None):
    """(sources, reference, truth rows): n stars over the detector and its surroundings, some sources being no stars."""
    margin = 500
    x = rng.uniform(box.x0 - margin, box.x1 + margin, n)
    y = rng.uniform(box.y0 - margin, box.y1 + margin, n)
    flux = 1e3 * rng.pareto(0.6, n) + 1e3
    ra, dec = wcs.pixel_to_sky(x, y)
    one = np.ones(n)
    reference = ReferenceCatalogue(ra, dec, one, one, 0 * one, 0 * one, 0 * one, 0 * one, 60000.0, one > 0,
                                   {"r": flux * rng.normal(1, 0.05, n)}, {"r": 0.02 * flux})
    seen = np.flatnonzero(box.contains(x, y))
    extra = int(spurious * len(seen) / (1 - spurious)) if spurious < 1 else 0
    sx = np.concatenate([x[seen] + pixel_noise * rng.normal(size=len(seen)), rng.uniform(box.x0, box.x1, extra)])
    sy = np.concatenate([y[seen] + pixel_noise * rng.normal(size=len(seen)), rng.uniform(box.y0, box.y1, extra)])
    sflux = np.concatenate([flux[seen] * rng.normal(1, 0.1, len(seen)).clip(0.5), 1e3 * rng.pareto(0.6, extra) + 1e3])
    order = rng.permutation(len(sx))
    error = np.full(len(sx), max(pixel_noise, 1e-4))
    sources = Catalogue(COLUMNS, dict(zip([c.name for c in COLUMNS], [
        sx[order], sy[order], error, error, sflux[order], sflux[order] / 50])))
    return sources, reference, np.concatenate([seen, np.full(extra, -1)])[order]


def worst(fit, wcs, box=BOX):
    """Largest difference from the true WCS over the detector, mas."""
    x, y = np.meshgrid(np.linspace(box.x0, box.x1, 20), np.linspace(box.y0, box.y1, 20))
    xi, eta = project(*fit.wcs.pixel_to_sky(x, y), *wcs.pixel_to_sky(x, y))
    return 3.6e6 * np.hypot(xi, eta).max()


@pytest.mark.parametrize("crval", [(53.0, -28.0), (0.001, 0.0), (120.0, 89.95), (10.0, -89.99)])
def test_noiseless_stars_give_the_wcs_back(crval):
    wcs = distorted(crval)
    sources, reference, truth = field(np.random.default_rng(1), wcs, 400)
    guess = Wcs(wcs.crval, wcs.crpix, wcs.cd)
    fit = fit_wcs(sources, reference, guess, BOX, AstrometryConfig())
    assert fit.order == 3 and fit.n > 200 and not fit.shift_only
    np.testing.assert_array_equal(truth[fit.sources], fit.reference)
    assert worst(fit, wcs) < 0.01


def test_a_wrong_header_is_put_right():
    wcs = distorted()
    sources, reference, truth = field(np.random.default_rng(2), wcs, 500, 0.02, spurious=0.5)
    fit = fit_wcs(sources, reference, mispointed(wcs), BOX, AstrometryConfig())
    assert np.mean(truth[fit.sources] == fit.reference) > 0.99
    assert worst(fit, wcs) < 5.0


def test_errors_are_true():
    """Residual and solution pulls over many noise realisations of fields with unequal errors."""
    wcs, pulls, solution, claimed = distorted(), [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sources, reference, _ = field(rng, wcs, 300, 1e-6)
        sigma = rng.uniform(0.01, 0.2, len(sources))
        sources = sources.with_columns([], {"x": sources["x"] + sigma * rng.normal(size=len(sources)),
                                            "y": sources["y"] + sigma * rng.normal(size=len(sources)),
                                            "xErr": sigma, "yErr": sigma})
        fit = fit_wcs(sources, reference, Wcs(wcs.crval, wcs.crpix, wcs.cd), BOX, AstrometryConfig())
        errors = np.hypot(0.2 * sigma[fit.sources], 2**0.5 * 1e-3)
        pulls.append(np.concatenate([fit.east / errors, fit.north / errors]))
        x, y = np.meshgrid(np.linspace(0, 4095, 11), np.linspace(0, 3999, 11))
        xi, eta = project(*fit.wcs.pixel_to_sky(x, y), *wcs.pixel_to_sky(x, y))
        solution.append(np.mean(xi**2 + eta**2) * 3.6e6**2)
        claimed.append(fit.error_east**2 + fit.error_north**2)
        assert fit.scatter < 15.0
    assert 0.95 < np.std(np.concatenate(pulls)) < 1.03
    assert 0.85 < np.sqrt(np.mean(solution) / np.mean(claimed)) < 1.15


def test_scatter_beyond_the_errors_is_found():
    wcs = distorted()
    sources, reference, _ = field(np.random.default_rng(4), wcs, 600, 0.1)
    sources = sources.with_columns([], {"xErr": np.full(len(sources), 0.01), "yErr": np.full(len(sources), 0.01)})
    fit = fit_wcs(sources, reference, Wcs(wcs.crval, wcs.crpix, wcs.cd), BOX, AstrometryConfig())
    assert fit.scatter == pytest.approx(20.0, rel=0.1)
    assert fit.rms_east == pytest.approx(0.02, rel=0.15) and fit.rms_north == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("n, order, known", [(1, 0, True), (2, 0, True), (5, 1, True), (60, 1, True), (8, 1, False),
                                             (16, 2, False), (60, 3, False)])
def test_the_order_follows_the_stars(n, order, known):
    """A distortion that the guess knows is kept; one that it does not know is found as far as the stars can tell."""
    wcs = distorted()
    sources, reference, _ = field(np.random.default_rng(5), wcs, 400)
    sources = sources.rows(np.argsort(-sources["psfFlux"])[:n])
    guess = Wcs((wcs.crval[0] + 1e-4, wcs.crval[1]), wcs.crpix, wcs.cd, *((wcs.a, wcs.b) if known else ()))
    config = AstrometryConfig(match=MatchConfig(max_few_probability=0.02))
    fit = fit_wcs(sources, reference, guess, BOX, config)
    assert fit.order == order and fit.shift_only == (order == 0)
    assert fit.n == n or not known
    assert worst(fit, wcs) < 1.0 if known else 3000.0 if order == 1 else 100.0


def test_clipping_leaves_wrong_positions_out():
    wcs = distorted()
    rng = np.random.default_rng(6)
    sources, reference, _ = field(rng, wcs, 400, 0.02)
    bad = rng.random(len(sources)) < 0.15
    x = sources["x"] + np.where(bad, 0.6, 0.0)
    sources, guess = sources.with_columns([], {"x": x}), Wcs(wcs.crval, wcs.crpix, wcs.cd)
    fit = fit_wcs(sources, reference, guess, BOX, AstrometryConfig())
    assert not bad[fit.sources].any()
    assert worst(fit, wcs) < 8.0


def test_failures_say_what_is_wrong():
    wcs = distorted()
    sources, reference, _ = field(np.random.default_rng(7), wcs, 300)
    with pytest.raises(BadData, match="reference catalogue is empty"):
        fit_wcs(sources, reference.rows(slice(0, 0)), wcs, BOX, AstrometryConfig())
    with pytest.raises(BadData, match="too far away: its nearest star is 4.* deg"):
        fit_wcs(sources, reference, Wcs((58.0, -28.0), wcs.crpix, wcs.cd), BOX, AstrometryConfig())
    with pytest.raises(BadData, match="none of 0 sources"):
        fit_wcs(sources.rows(slice(0, 0)), reference, wcs, BOX, AstrometryConfig())
    with pytest.raises(BadData, match="none of the .* has a usable position"):
        unknown = sources.with_columns([], {"xErr": np.full(len(sources), np.nan)})
        fit_wcs(unknown, reference, wcs, BOX, AstrometryConfig())
