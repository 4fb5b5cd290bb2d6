"""Reference catalogues in shards: the same stars whatever the table, read only where needed, mistakes named."""

import numpy as np
import pytest
from click.testing import CliRunner

from rsp_hpc.cli import main
from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.io import refcat
from rsp_hpc.io.fits import write_fits
from rsp_hpc.io.refcat import build_refcat, open_refcat, read_reference
from rsp_hpc.products.geometry import angular_separation
from rsp_hpc.products.reference import ReferenceCatalogue, ReferenceConfig


def gaia(n=4000, seed=3):
    """A table with Gaia's column names about RA 0, a fifth without proper motion."""
    rng = np.random.default_rng(seed)
    table = {"ra": np.mod(rng.uniform(-4, 4, n), 360.0), "dec": rng.uniform(-3, 3, n), "ra_error": rng.uniform(0.02, 1, n),
             "dec_error": rng.uniform(0.02, 1, n), "pmra": rng.normal(0, 10, n), "pmdec": rng.normal(0, 10, n),
             "pmra_error": np.full(n, 0.1), "pmdec_error": np.full(n, 0.1), "parallax": rng.exponential(1, n),
             "parallax_error": np.full(n, 0.1), "ref_epoch": np.full(n, 2016.0), "phot_g_mean_mag": rng.uniform(12, 20, n),
             "phot_g_mean_flux_over_error": rng.uniform(50, 1000, n), "phot_rp_mean_mag": rng.uniform(11, 19, n),
             "phot_rp_mean_flux_over_error": rng.uniform(50, 1000, n)}
    for name in ("pmra", "pmdec", "parallax", "pmra_error", "pmdec_error", "parallax_error"):
        table[name][: n // 5] = np.nan
    return table


def written(table, path):
    if path.suffix == ".fits":
        write_fits(path, [(table, {})])
        return path
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    arrow = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in table.items()})
    parquet.write_table(arrow, path) if path.suffix == ".parquet" else csv.write_csv(arrow, path)
    return path


@pytest.mark.parametrize("kind", ("fits", "parquet", "csv"))
def test_any_table_gives_the_same_stars(tmp_path, kind):
    table = gaia()
    made = build_refcat([written(table, tmp_path / f"gaia.{kind}")], tmp_path / "cat", ReferenceConfig())
    assert len(made) == 4000 and made.bands == ("G", "RP") and made.epoch == pytest.approx(51544.5 + 16 * 365.25)
    found = made.cone(0.5, 0.2, 1.0)
    inside = angular_separation(table["ra"], table["dec"], 0.5, 0.2) <= 1.0
    assert len(found) == inside.sum() > 100
    mine, theirs = np.argsort(found.ra), np.flatnonzero(inside)[np.argsort(table["ra"][inside])]
    np.testing.assert_array_equal(found.ra[mine], table["ra"][theirs])
    np.testing.assert_allclose(found.flux["G"][mine], 10 ** (0.4 * (31.4 - 0.1136 - table["phot_g_mean_mag"][theirs])), rtol=1e-5)
    np.testing.assert_allclose((found.flux["G"] / found.flux_err["G"])[mine], table["phot_g_mean_flux_over_error"][theirs], rtol=1e-4)
    unknown = np.isnan(table["pmra"][theirs])
    np.testing.assert_allclose(found.pm_ra_err[mine], np.where(unknown, 6.0, 0.1), rtol=1e-6)
    np.testing.assert_allclose(found.parallax[mine], np.where(unknown, 0.0, table["parallax"][theirs]), rtol=1e-6)


def test_only_the_shards_of_a_cone_are_opened(tmp_path, monkeypatch):
    made = build_refcat([written(gaia(), tmp_path / "gaia.fits")], tmp_path / "cat", ReferenceConfig(), order=5)
    opened = []
    whole = refcat.open_product
    monkeypatch.setattr(refcat, "open_product", lambda path, kind=None: (opened.append(path), whole(path, kind))[1])
    assert len(made.pixels) >= 12 and len(made.cone(1.0, 0.5, 0.05)) < 20
    assert len(opened) <= 2
    assert len(made.cone(180.0, 0.0, 1.0)) == 0 and len(made.cone(0.0, 0.0, 180.0)) == 4000


def test_bands_get_our_names_and_tables_are_still_read(tmp_path):
    path = written(gaia(300), tmp_path / "gaia.fits")
    build_refcat([path], tmp_path / "cat", ReferenceConfig())
    assert read_reference(tmp_path / "cat", ReferenceConfig(bands={"r": "RP"})).cone(0.0, 0.0, 9.0).bands == ("r",)
    assert isinstance(read_reference(path, ReferenceConfig()), ReferenceCatalogue)
    with pytest.raises(ConfigError, match="reference.bands.z: the reference catalogue cat has no band zz; it has G, RP"):
        open_refcat(tmp_path / "cat", ReferenceConfig(bands={"z": "zz"}))


def test_what_is_unfinished_or_damaged_is_said(tmp_path):
    path = written(gaia(300), tmp_path / "gaia.fits")
    with pytest.raises(BadData, match="no finished reference catalogue"):
        open_refcat(tmp_path, ReferenceConfig())
    made = build_refcat([path], tmp_path / "cat", ReferenceConfig())
    with pytest.raises(BadData, match="has a reference catalogue already"):
        build_refcat([path], tmp_path / "cat", ReferenceConfig())
    shard = tmp_path / "cat" / "shards" / f"{made.pixels[0]}.h5"
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(BadData, match="damaged"):
        made.cone(0.0, 0.0, 9.0)
    shard.unlink()
    with pytest.raises(BadData, match="is missing"):
        made.cone(0.0, 0.0, 9.0)
    other = gaia(300)
    other["ref_epoch"][:] = 2015.5
    with pytest.raises(BadData, match="the tables differ: .* build one catalogue of each"):
        build_refcat([path, written(other, tmp_path / "b.fits")], tmp_path / "two", ReferenceConfig())
    assert not (tmp_path / "two" / "refcat.h5").exists() and not (tmp_path / "two" / ".build").exists()


def test_the_command(tmp_path):
    table = {"RA": np.array([10.0, 11.0]), "DEC": np.array([1.0, 2.0]), "rmag": np.array([20.0, 99.0])}
    path = written(table, tmp_path / "own.csv")
    done = CliRunner().invoke(main, ["refcat", "build", str(path), "--output", str(tmp_path / "own"), "--set", "ra=RA", "--set",
                                     "dec=DEC", "--set", "bands={r: rmag}"])
    assert done.exit_code == 0 and "2 stars in 2 shards, bands r" in done.output, done.output
    stars = open_refcat(tmp_path / "own", ReferenceConfig()).cone(10.5, 1.5, 2.0)
    assert len(stars) == 2 and np.isfinite(stars.flux["r"]).sum() == 1
    done = CliRunner().invoke(main, ["refcat", "build", str(path), "--output", str(tmp_path / "b"), "--set", "bands={r: gmag}"])
    assert done.exit_code == 4
