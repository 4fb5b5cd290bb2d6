"""What leaves the program: other programs (astropy, pyarrow) find images, planes, WCS, columns and units in it."""

from __future__ import annotations

import builtins
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.io import calibration, coadd
from rsp_hpc.io import visit as format
from rsp_hpc.io.export import export_image, export_table, exportable
from rsp_hpc.io.product import Header, Part
from rsp_hpc.io.show import describe
from rsp_hpc.products.skymap import RingsSkyMap, SkyMapConfig
from samples_io import calibration_product
from samples_io import coadd as sample_coadd
from samples_io import visit_detector


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    with format.VisitWriter(folder / "1234567.h5", Header("visits", "abc", "a: 1", {"x": "y"}, 2)) as writer:
        for part in (visit_detector("D0", 0), visit_detector("D1", 1)):
            writer.append(format.encode_visit_detector(part))
        writer.note([Part("D0", 2.5, 10**8), Part("D2", 0.1, 10**8, "BadData: truncated")])
    tract = RingsSkyMap(SkyMapConfig()).tract(9813)
    with coadd.CoaddWriter(folder / "coadds.h5", Header("coadds", "abc"), tract) as writer:
        writer.append(coadd.encode_coadd(12, sample_coadd("r")))
    with calibration.CalibrationWriter(folder / "D0.h5", Header("calibs", "abc")) as writer:
        writer.append(calibration.encode_product(calibration_product("bias", (300, 400))))
    return folder


def test_a_detector_as_fits(files, tmp_path):
    target, part = tmp_path / "d.fits", visit_detector("D1", 1)
    export_image(files / "1234567.h5", "detectors/D1", target)
    stored = format.read_visit_detector(files / "1234567.h5", "D1").image
    with fits.open(target) as opened:
        assert [hdu.name for hdu in opened[1:]] == ["IMAGE", "MASK", "VARIANCE"]
        assert np.array_equal(opened["IMAGE"].data, stored.image, equal_nan=True)
        variance = np.where(np.isinf(stored.variance), np.nan, stored.variance)
        assert np.array_equal(opened["VARIANCE"].data, variance, equal_nan=True) and np.isnan(variance).sum() == 1
        assert np.array_equal(opened["MASK"].data, stored.mask)
        header = opened["MASK"].header
        assert (header["MSKN0003"], header["MSKM0003"]) == ("CR", 8) and "cosmic" in header["MSKD0003"]
        assert opened["IMAGE"].header["BUNIT"] == "electron" and opened[0].header["BAND"] == "r"
        assert opened[0].header["MAGZERO"] == pytest.approx(part.photocal.zero_point)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = WCS(opened["IMAGE"].header).all_pix2world(10.0, 20.0, 0)
        assert np.allclose(found, part.wcs.pixel_to_sky(10.0, 20.0), atol=1e-10)
        opened.verify("exception")


def test_a_patch_as_fits_has_the_tracts_wcs_at_its_own_origin(files, tmp_path):
    export_image(files / "coadds.h5", "r/12", tmp_path / "p.fits.gz")
    patch, wcs = sample_coadd("r"), RingsSkyMap(SkyMapConfig()).tract(9813).wcs
    with fits.open(tmp_path / "p.fits.gz") as opened:
        header = opened["IMAGE"].header
        assert np.array_equal(opened["IMAGE"].data, patch.image.image, equal_nan=True)
        assert np.allclose(WCS(header).all_pix2world(0, 0, 0), wcs.pixel_to_sky(3000, 6000), atol=1e-10)
        assert (header["CRVAL1A"], header["CRVAL2A"]) == (3000, 6000) and opened[0].header["TRACT"] == 9813


def test_a_bias_as_fits(files, tmp_path):
    export_image(files / "D0.h5", "content/image", tmp_path / "bias.fits")
    wanted = calibration_product("bias", (300, 400)).content.image
    assert np.array_equal(fits.getdata(tmp_path / "bias.fits", "IMAGE"), wanted, equal_nan=True)
    assert fits.getheader(tmp_path / "bias.fits", "IMAGE")["BUNIT"] == "electron"


def test_tables(files, tmp_path):
    sources = format.read_sources(files / "1234567.h5")
    export_table(files / "1234567.h5", "sources", tmp_path / "s.fits")
    table = Table.read(tmp_path / "s.fits", hdu=1, unit_parse_strict="silent")
    assert table.colnames == list(sources.columns) and table["x"].unit.name in ("pix", "pixel")
    assert all(np.array_equal(np.asarray(table[name]), sources[name]) for name in sources.columns)
    assert table["psfFlux_flag"].dtype == bool
    import pyarrow.parquet
    export_table(files / "1234567.h5", "sources", tmp_path / "s.parquet")
    back = pyarrow.parquet.read_table(tmp_path / "s.parquet")
    assert all(np.array_equal(back[name].to_numpy(), sources[name]) for name in sources.columns)
    assert back.schema.field("x").metadata == {b"unit": b"pixel", b"description": b"column"}
    export_table(files / "coadds.h5", "r/12/inputs", tmp_path / "i.fits")
    assert len(Table.read(tmp_path / "i.fits", hdu=1)) == 5


def test_what_can_be_exported(files):
    assert exportable(files / "1234567.h5") == (["detectors/D0", "detectors/D1"], ["sources", "summary"])
    assert exportable(files / "coadds.h5") == (["r/12"], ["r/12/inputs"])
    assert exportable(files / "D0.h5") == (["content/image", "content/variance"], [])


def test_what_cannot_is_said(files, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="has no image D1; it has detectors/D0, detectors/D1"):
        export_image(files / "1234567.h5", "D1", tmp_path / "a.fits")
    with pytest.raises(ConfigError, match="has no table stars; it has sources"):
        export_table(files / "1234567.h5", "stars", tmp_path / "a.fits")
    with pytest.raises(ConfigError, match="must end in .fits"):
        export_table(files / "1234567.h5", "sources", tmp_path / "a.csv")
    real = builtins.__import__

    def without_pyarrow(name, *rest):
        if "pyarrow" in name:
            raise ImportError(name)
        return real(name, *rest)
    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(ConfigError, match="needs pyarrow: pip install"):
        export_table(files / "1234567.h5", "sources", tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_show(files, tmp_path):
    text = describe(files / "1234567.h5")
    for wanted in ("visit, format version 1", "2 ranks", "MISSING D2: BadData: truncated", "detectors/",
                   "70 x 90 float32", "with dither",
                   "table of 35 rows, 4 columns", "psfFlux float32 [electron]  PSF flux",
                   "export 1234567.h5 sources.fits --table sources"):
        assert wanted in text, wanted
    assert "r/" in describe(files / "coadds.h5")
    text = describe(files / "D0.h5")
    assert "bias of testcam D0 (one), frames of MJD 60000.25" in text and "verdict suspect: few frames; one is odd" in text
    (tmp_path / "a.txt").write_text("no product")
    for path, message in ((tmp_path / "a.txt", "damaged"), (tmp_path / "no", "is missing"), (tmp_path, "is a folder")):
        with pytest.raises(BadData, match=message):
            describe(path)
