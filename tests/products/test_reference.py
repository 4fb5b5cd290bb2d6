"""The reference catalogue: columns of a table, units, selections, epochs."""

import numpy as np
import pytest

from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.products.box import Box
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.reference import ReferenceCatalogue, ReferenceConfig
from rsp_hpc.products.wcs import Wcs

CONFIG = ReferenceConfig(file="stars.fits", bands={"g": "gmag", "r": "rmag"}, errors={"g": "gerr"},
                         ab_offset={"r": 0.2})
TABLE = {"ra": np.array([10.0, 370.0, 350.0, np.nan]), "dec": np.array([0.0, 1.0, -1.0, 5.0]),
         "gmag": np.array([31.4, 99.0, 21.4, 20.0]), "gerr": np.array([0.1, 0.1, np.nan, 0.1]),
         "rmag": np.array([31.2, 21.2, np.nan, 20.0]), "kind": np.array([1, 0, 1, 1])}


def test_columns_become_fluxes_in_njy():
    catalogue = ReferenceCatalogue.from_columns(TABLE, CONFIG)
    np.testing.assert_allclose(catalogue.ra, [10.0, 10.0, 350.0])
    np.testing.assert_allclose(catalogue.of_band("g")[0], [1.0, np.nan, 1e4])
    np.testing.assert_allclose(catalogue.of_band("g")[1], [0.1 * 0.921034, np.nan, 0.02 * 9210.34], rtol=1e-6)
    np.testing.assert_allclose(catalogue.of_band("r")[0], [1.0, 1e4, np.nan])
    np.testing.assert_allclose(catalogue.brightness("g"), [1.0, 1e4, 1e4])
    assert catalogue.is_star.all() and catalogue.bands == ("g", "r") and catalogue.ra_err[0] == 20.0
    assert catalogue.epoch == 51544.5


def test_units_and_stars():
    config = CONFIG.model_copy(update={"position_unit": "rad", "star": "kind", "ra_err": "e",
                                       "position_error_unit": "arcsec", "kind": "nJy"})
    table = {**TABLE, "ra": np.radians(TABLE["ra"]), "dec": np.radians(TABLE["dec"]), "e": np.full(4, 0.05)}
    catalogue = ReferenceCatalogue.from_columns(table, config)
    np.testing.assert_allclose(catalogue.dec, [0.0, 1.0, -1.0])
    np.testing.assert_allclose(catalogue.ra_err, 50.0)
    np.testing.assert_array_equal(catalogue.is_star, [True, False, True])
    np.testing.assert_allclose(catalogue.of_band("g")[0], TABLE["gmag"][:3])


def test_proper_motion_moves_and_grows_errors():
    config = ReferenceConfig(pm_ra="pmra", pm_dec="pmdec", pm_ra_err="epm", epoch=2016.0)
    table = {"ra": [10.0], "dec": [60.0], "pmra": [300.0], "pmdec": [-400.0], "epm": [3.0]}
    start = ReferenceCatalogue.from_columns(table, config)
    moved = start.at_epoch(start.epoch + 10 * 365.25)
    assert angular_separation(start.ra, start.dec, moved.ra, moved.dec) * 3600 == pytest.approx(5.0, rel=1e-6)
    assert (moved.ra - 10.0) * 3600 * np.cos(np.radians(60.0)) == pytest.approx(3.0, rel=1e-4)
    assert moved.ra_err[0] == pytest.approx(np.hypot(20.0, 30.0)) and moved.dec_err[0] == pytest.approx(20.0)
    back = moved.at_epoch(start.epoch)
    assert angular_separation(start.ra, start.dec, back.ra, back.dec) < 1e-7  # the direction turns a little on the way


def test_selections():
    rng = np.random.default_rng(1)
    table = {"ra": np.mod(rng.uniform(-3, 3, 5000), 360), "dec": rng.uniform(-3, 3, 5000)}
    catalogue = ReferenceCatalogue.from_columns(table, ReferenceConfig())
    cone = catalogue.cone(0.5, 0.5, 1.0)
    assert len(cone) == np.sum(angular_separation(catalogue.ra, catalogue.dec, 0.5, 0.5) <= 1.0) > 300
    wcs, box = Wcs((359.9, 1.0), (100.0, 50.0), ((-0.003, 0.004), (0.004, 0.003))), Box(0, 0, 200, 100)
    inside = catalogue.around(wcs, box)
    assert len(inside) == box.contains(*wcs.sky_to_pixel(catalogue.ra, catalogue.dec)).sum() > 50
    assert len(catalogue.around(wcs, box, 600.0)) == box.grow(34).contains(
        *wcs.sky_to_pixel(catalogue.ra, catalogue.dec)).sum()


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="reference.bands.r: the reference catalogue stars.fits has no column rmag"):
        ReferenceCatalogue.from_columns({k: v for k, v in TABLE.items() if k != "rmag"}, CONFIG)
    with pytest.raises(BadData, match="stars.fits is empty"):
        ReferenceCatalogue.from_columns({name: values[3:] for name, values in TABLE.items()}, CONFIG)
    with pytest.raises(ConfigError, match="names z, which reference.bands does not"):
        ReferenceCatalogue.from_columns(TABLE, CONFIG.model_copy(update={"errors": {"z": "gerr"}}))
    with pytest.raises(BadData, match="has no band i, only g, r"):
        ReferenceCatalogue.from_columns(TABLE, CONFIG).of_band("i")
