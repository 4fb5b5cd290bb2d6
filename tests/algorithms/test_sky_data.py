"""WCS and zero point on real frames: headers against astropy, stars against the catalogues that come with the data."""

import gzip

import numpy as np
import pytest

from rsp_hpc.algorithms.astrometry import AstrometryConfig, fit_wcs
from rsp_hpc.algorithms.photometry import PhotometryConfig, fit_zero_point
from rsp_hpc.products.box import Box
from rsp_hpc.products.catalogue import Catalogue, Column
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.reference import ReferenceCatalogue, ReferenceConfig
from rsp_hpc.products.wcs import Wcs

pytestmark = pytest.mark.data
SDSS_GAIN = {"g": 3.995, "r": 4.76, "i": 4.885}


def read(path):
    """(pixels, header) of the first HDU."""
    from astropy.io import fits

    with (gzip.open(path) if path.suffix == ".gz" else open(path, "rb")) as file, fits.open(file) as hdus:
        return np.asarray(hdus[0].data, float), hdus[0].header


def table(path, **columns):
    from astropy.io import fits

    rows = fits.getdata(path)
    return ReferenceCatalogue.from_columns({name: np.asarray(rows[name]) for name in rows.names},
                                           ReferenceConfig(file=path.name, **columns))


def extract(image, gain):
    """Sources by sep: windowed positions, flux in a circle of 6 pixels."""
    import sep

    background = sep.Background(image)
    image = image - background.back()
    found = sep.extract(image, 5, err=background.globalrms)
    x, y, _ = sep.winpos(image, found["x"], found["y"], np.full(len(found), 1.6))
    flux, error, _ = sep.sum_circle(image, x, y, 6.0, err=background.globalrms, gain=gain)
    good = (flux > 0) & (found["flag"] < 4) & np.isfinite(x + y)
    width = np.maximum(2.2 * error / np.maximum(flux, 1e-3), 1e-3)
    arrays = {"x": x, "y": y, "xErr": width, "yErr": width, "psfFlux": flux * gain, "psfFluxErr": error * gain}
    return Catalogue([Column(name, "f8", "", "") for name in arrays], {k: v[good] for k, v in arrays.items()})


@pytest.mark.parametrize("path", ["sdss-stripe82/4192/fpC-004192-i4-0300.fit.gz",
                                  "arcsat-m13/M13_sdss_g_20190503_090311.fits",
                                  "lsst-phosim/raw/imsim_88689461_R23_S11_C04_E001.fits.gz"])
def test_real_headers(rsp_data, path):
    from astropy.wcs import WCS

    pixels, header = read(rsp_data / path)
    x, y = np.random.default_rng(1).uniform(0, min(pixels.shape), (2, 100))
    wcs = Wcs.from_header({key: header[key] for key in header if key})
    assert angular_separation(*wcs.pixel_to_sky(x, y), *WCS(header).all_pix2world(x, y, 0)).max() < 1e-11


@pytest.mark.parametrize("run, band", [("004192", "g"), ("004192", "r"), ("004192", "i"), ("006377", "g"),
                                       ("006377", "r"), ("006377", "i")])
def test_sdss_frames_against_the_standard_stars(rsp_data, run, band):
    field = {"004192": "0300", "006377": "0399"}[run]
    folder = rsp_data / "sdss-stripe82"
    pixels, header = read(folder / str(int(run)) / f"fpC-{run}-{band}4-{field}.fit.gz")
    bands = {name: name for name in "ugriz"}
    reference = table(folder / "ref_stars.fits", bands=bands, errors={name: name + "_err" for name in bands},
                      star="starnotgal")
    sources = extract(np.ascontiguousarray(pixels) - 1000.0, SDSS_GAIN[band])
    guess = Wcs.from_header(dict(header))
    fit = fit_wcs(sources, reference, guess, Box.of_shape(pixels.shape), AstrometryConfig(), band)
    assert fit.n > 70 and max(fit.rms_east, fit.rms_north) <= 0.05
    known = tuple(values[fit.reference] for values in reference.of_band(band))
    stars = sources.rows(fit.sources)
    zero = fit_zero_point(stars["psfFlux"], stars["psfFluxErr"], known, PhotometryConfig())
    assert zero.n_stars > 50 and zero.scatter <= 0.03 and zero.zero_point_err < 0.005


@pytest.mark.parametrize("amplifier, stars", [("C02", 7), ("C07", 8), ("C16", 6)])
def test_one_lsst_amplifier_among_cosmic_rays(rsp_data, amplifier, stars):
    """150 detections, nearly all cosmic rays; a header that is off by two pixels."""
    folder = rsp_data / "lsst-phosim"
    pixels, header = read(folder / "raw" / f"imsim_88689461_R23_S11_{amplifier}_E000.fits.gz")
    reference = table(folder / "stars.fits", bands={"r": "r"}, position_error=5.0)
    sources = extract(np.ascontiguousarray(pixels[:, 4:]), header["GAIN"])
    guess = Wcs.from_header(dict(header))
    guess = Wcs(guess.crval, (guess.crpix[0] - 4.0, guess.crpix[1]), guess.cd)
    fit = fit_wcs(sources, reference, guess, Box(0, 0, 509, 2001), AstrometryConfig(), "r")
    assert fit.n >= stars and max(fit.rms_east, fit.rms_north) <= 0.06 and fit.false_probability < 1e-6
