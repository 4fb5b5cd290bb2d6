"""Reference catalogues in shards: a folder of HDF5 files, one per HEALPix pixel, of which only what is needed is read.

    <folder>/refcat.h5              index, written last: attributes `order` of the shards, `epoch` (MJD TAI), `bands`; datasets
                                    `pixel` (nested numbers of the shards that are there) and `rows`
    <folder>/shards/<pixel>.h5      /stars/<column>: rows sorted by finer pixels (`FINER` orders more), then by position;
                                    /first: where each of the finer pixels begins, and the end
    columns                         ra, dec (deg, ICRS, barycentric, at the epoch); ra_err, dec_err (mas, ra's times cos(dec));
                                    pm_ra, pm_dec and errors (mas/yr); parallax and error (mas); is_star;
                                    flux_<band>, flux_err_<band> (nJy)

    rsp-hpc refcat build gaia-*.fits --output gaia
    reference: {file: gaia, bands: {r: RP}}     # ours: the catalogue's
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, Sequence

import numpy as np

from ..errors import BadData, ConfigError
from ..products.catalogue import Catalogue, Column
from ..products.geometry import angular_separation
from ..products.healpix import cone, pixel_of
from ..products.reference import ReferenceCatalogue, ReferenceConfig
from .atomic import make_folder
from .attributes import get, put
from .fits import read_table
from .product import Header, create, open_product
from .records import read_array, write_array
from .table import read_catalogue, write_catalogue

__all__ = ["ReferenceConfig", "ReferenceFolder", "build_refcat", "gaia_columns", "open_refcat", "read_columns", "read_reference"]

KIND, SHARD = "reference catalogue", "reference shard"
INDEX = "refcat.h5"
FINER = 3
ROWS = 1_000_000
"""Rows that are worked on at a time."""
UNITS = {"ra": "deg", "dec": "deg", "ra_err": "mas", "dec_err": "mas", "pm_ra": "mas/yr", "pm_dec": "mas/yr", "pm_ra_err": "mas/yr",
         "pm_dec_err": "mas/yr", "is_star": "", "parallax": "mas", "parallax_err": "mas"}
GAIA_AB = {"G": 0.1136, "BP": 0.0155, "RP": 0.3561}
"""AB less Vega magnitudes of Gaia DR3 (Riello et al. 2021, A&A 649, A3: zero points in AB and in Vega)."""


@dataclass(frozen=True)
class ReferenceFolder:
    """A sharded reference catalogue that has been opened: small, and the same on all ranks.

    Attributes
    ----------
    order : HEALPix order of the shards; pixels, rows : (n,) int64, which there are and how many stars they have
    names : our band -> the catalogue's
    epoch : MJD TAI
    """

    path: Path
    order: int
    pixels: np.ndarray
    rows: np.ndarray
    names: dict[str, str]
    epoch: float

    def __len__(self) -> int:
        return int(self.rows.sum())

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands with fluxes, by our names."""
        return tuple(self.names)

    def cone(self, ra: float, dec: float, radius: float) -> ReferenceCatalogue:
        """The stars within a radius of a position (all degrees): opens only the shards that the cone touches.

        Raises
        ------
        BadData
            A shard is missing or damaged.
        """
        fine = cone(ra, dec, radius, self.order + FINER)
        shards = np.unique(fine >> 2 * FINER)
        tables = [self._rows(int(pixel), fine[fine >> 2 * FINER == pixel]) for pixel in shards[np.isin(shards, self.pixels)]]
        arrays = {name: np.concatenate([table[name] for table in tables]) if tables else np.zeros(0) for name in self._columns()}
        near = angular_separation(arrays["ra"], arrays["dec"], ra, dec) <= radius
        plain = {name: arrays[name][near].astype(bool if name == "is_star" else float) for name in UNITS}
        flux, error = ({band: arrays[f"{kind}_{name}"][near].astype(float) for band, name in self.names.items()}
                       for kind in ("flux", "flux_err"))
        return ReferenceCatalogue(**plain, epoch=self.epoch, flux=flux, flux_err=error)

    def _columns(self) -> list[str]:
        return [*UNITS, *(f"{kind}_{name}" for name in dict.fromkeys(self.names.values()) for kind in ("flux", "flux_err"))]

    def _rows(self, pixel: int, fine: np.ndarray) -> Catalogue:
        """The rows of a shard from the first to the last of some of its finer pixels."""
        with open_product(self.path / "shards" / f"{pixel}.h5", SHARD) as file:
            first = read_array(file["first"])
            start, end = (int(first[int(value) - (pixel << 2 * FINER)]) for value in (fine.min(), fine.max() + 1))
            return read_catalogue(file["stars"], self._columns(), slice(start, end))


def open_refcat(path: Path, config: ReferenceConfig) -> ReferenceFolder:
    """Read a folder's index.

    Raises
    ------
    BadData
        It is no such folder, or was not finished.
    ConfigError
        `reference.bands` names a band that the catalogue does not have.
    """
    if not (path / INDEX).exists():
        raise BadData(f"{path}: has no {INDEX}, so it is no finished reference catalogue; make it with rsp-hpc refcat build")
    with open_product(path / INDEX, KIND) as file:
        bands = [name for name in str(get(file, "bands")).split(",") if name]
        order, epoch, pixels, rows = int(get(file, "order")), float(get(file, "epoch")), *map(read_array, (file["pixel"], file["rows"]))
    names = config.bands or {name: name for name in bands}
    for ours, name in names.items():
        if name not in bands:
            raise ConfigError(f"reference.bands.{ours}: the reference catalogue {path.name} has no band {name}; it has "
                              f"{', '.join(bands) or 'positions only'}")
    return ReferenceFolder(path, order, pixels, rows, dict(names), epoch)


def read_reference(path: Path, config: ReferenceConfig) -> ReferenceCatalogue | ReferenceFolder:
    """A reference catalogue: a sharded folder is opened, a table is read."""
    return open_refcat(path, config) if path.is_dir() else ReferenceCatalogue.from_columns(read_columns(path), config)


def read_columns(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a FITS, Parquet or CSV (also .csv.gz, .ecsv) table by the end of its name.

    Raises
    ------
    BadData
        The file is missing, of another kind, or damaged.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.exists():
        raise BadData(f"{path}: is missing; give the path of a FITS, Parquet or CSV table")
    if name.endswith((".parquet", ".pq")):
        return _read_arrow(path, "parquet")
    if name.endswith((".csv", ".csv.gz", ".ecsv", ".ecsv.gz")):
        return _read_arrow(path, "csv")
    return read_table(path)


def _read_arrow(path: Path, kind: str) -> dict[str, np.ndarray]:
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet and CSV needs pyarrow; pip install pyarrow, or convert it to FITS") from None
    try:
        if kind == "parquet":
            table = parquet.read_table(path)
        else:
            options = csv.ConvertOptions(null_values=["", "null", "NULL", "NaN", "nan"], strings_can_be_null=True)
            table = csv.read_csv(path, read_options=csv.ReadOptions(skip_rows=_comments(path)), convert_options=options)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadData(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); fetch it again") from None
    return {column: _plain(table[column]) for column in table.column_names}


def _comments(path: Path) -> int:
    """Lines before the names of the columns: those that begin with #."""
    import gzip

    count = 0
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                break
            count += 1
    return count


def _plain(column) -> np.ndarray:
    """An Arrow column as an array, missing numbers as NaN; text stays text."""
    values = column.to_numpy()
    if values.dtype == object and any(isinstance(value, (bool, float, int)) for value in values[:1000]):
        values = np.array([np.nan if value is None else float(value) for value in values])
    return values


def gaia_columns(arrays: dict[str, np.ndarray], config: ReferenceConfig) -> tuple[dict[str, np.ndarray], ReferenceConfig]:
    """The configuration for Gaia's own column names (DR2, EDR3, DR3), where a table has these; otherwise as it was.

    Magnitudes become AB; their errors come from the flux over its error.
    """
    if not {"ra_error", "pmra", "ref_epoch", "phot_g_mean_mag"} <= set(arrays):
        return arrays, config
    arrays, bands, errors = dict(arrays), {}, {}
    for band in GAIA_AB:
        name = f"phot_{band.lower()}_mean"
        if f"{name}_mag" not in arrays:
            continue
        bands[band], errors[band] = f"{name}_mag", f"{name}_mag_error"
        with np.errstate(divide="ignore", invalid="ignore"):
            if f"{name}_flux_over_error" in arrays:
                ratio = np.asarray(arrays[f"{name}_flux_over_error"], float)
            elif {f"{name}_flux", f"{name}_flux_error"} <= set(arrays):
                ratio = np.asarray(arrays[f"{name}_flux"], float) / np.asarray(arrays[f"{name}_flux_error"], float)
            else:
                ratio = np.full(len(arrays["ra"]), np.nan)
            arrays[errors[band]] = 2.5 / np.log(10.0) / ratio
    epochs = np.unique(np.asarray(arrays["ref_epoch"], float)[np.isfinite(np.asarray(arrays["ref_epoch"], float))])
    if len(epochs) != 1:
        raise BadData(f"a Gaia table with {len(epochs)} reference epochs; give tables of one data release")
    names = {"ra_err": "ra_error", "dec_err": "dec_error", "pm_ra": "pmra", "pm_dec": "pmdec", "pm_ra_err": "pmra_error",
             "pm_dec_err": "pmdec_error", "parallax": "parallax", "parallax_err": "parallax_error"}
    return arrays, config.model_copy(update={
        "ra": "ra", "dec": "dec", "epoch": float(epochs[0]), "kind": "magnitude", "bands": bands, "errors": errors,
        "ab_offset": {band: GAIA_AB[band] for band in bands}, **{key: name for key, name in names.items() if name in arrays}})


def build_refcat(files: Sequence[str | Path], folder: str | Path, config: ReferenceConfig, order: int = 5) -> ReferenceFolder:
    """Make a sharded reference catalogue of tables; the index comes last, so an unfinished one is none.

    Tables are read one by one; of their rows, only one shard's are in memory when it is written.

    Raises
    ------
    BadData
        A table cannot be read, or has another epoch or other bands than the first; the folder has a catalogue already.
    ConfigError
        A column is not there.
    """
    folder = Path(folder)
    if (folder / INDEX).exists():
        raise BadData(f"{folder}: has a reference catalogue already; remove the folder, or give another")
    aside = folder / ".build"
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)
    first: ReferenceCatalogue | None = None
    kind = np.dtype([])
    try:
        for stars in _catalogues(files, config):
            if first is None:
                first, kind = stars.rows(slice(0, 0)), _dtype(stars)
            if stars.bands != first.bands or stars.epoch != first.epoch:
                raise BadData(f"the tables differ: bands {stars.bands}, epoch {stars.epoch:.1f} and {first.bands}, "
                              f"{first.epoch:.1f}; build one catalogue of each")
            _append(aside, stars, kind, order)
        if first is None:
            raise BadData("no table was given; name FITS, Parquet or CSV files")
        pixels = sorted(int(path.name) for path in aside.iterdir())
        rows = [_write_shard(folder, pixel, np.fromfile(aside / str(pixel), kind), (order, first.bands)) for pixel in pixels]
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    header = Header(KIND, f"order {order}", inputs={str(path): "" for path in files})
    with create(folder / INDEX, header) as file:
        put(file, order=order, epoch=first.epoch, bands=",".join(first.bands))
        write_array(file, "pixel", np.array(pixels, np.int64))
        write_array(file, "rows", np.array(rows, np.int64))
    return open_refcat(folder, ReferenceConfig())


def _catalogues(files: Iterable[str | Path], config: ReferenceConfig) -> Iterator[ReferenceCatalogue]:
    for path in files:
        arrays, mapping = gaia_columns(read_columns(path), config)
        size = len(next(iter(arrays.values()), ()))
        for start in range(0, max(size, 1), ROWS):
            piece = {name: values[start:start + ROWS] for name, values in arrays.items()}
            yield ReferenceCatalogue.from_columns(piece, mapping.model_copy(update={"file": str(path)}))


def _dtype(stars: ReferenceCatalogue) -> np.dtype:
    kinds = {"ra": "f8", "dec": "f8", "is_star": "?"}
    return np.dtype([(name, kinds.get(name, "f4")) for name in UNITS]
                    + [(f"{name}_{band}", "f4") for band in stars.bands for name in ("flux", "flux_err")])


def _append(aside: Path, stars: ReferenceCatalogue, kind: np.dtype, order: int) -> None:
    """Rows to the end of their shards' raw files."""
    table = np.empty(len(stars), kind)
    for name in UNITS:
        table[name] = getattr(stars, name)
    for band in stars.bands:
        table[f"flux_{band}"], table[f"flux_err_{band}"] = stars.flux[band], stars.flux_err[band]
    pixel = pixel_of(stars.ra, stars.dec, order)
    by_pixel = np.argsort(pixel, kind="stable")
    borders = np.flatnonzero(np.diff(pixel[by_pixel])) + 1
    for rows in np.split(by_pixel, borders):
        with open(aside / str(pixel[rows[0]]), "ab") as file:
            table[rows].tofile(file)


def _write_shard(folder: Path, pixel: int, table: np.ndarray, context: tuple[int, tuple[str, ...]]) -> int:
    """One shard's file, sorted; the number of its rows."""
    order, bands = context
    fine = pixel_of(table["ra"], table["dec"], order + FINER) - (pixel << 2 * FINER)
    by_place = np.lexsort((table["dec"], table["ra"], fine))
    table, fine = table[by_place], fine[by_place]
    units = {**UNITS, **{f"{name}_{band}": "nJy" for band in bands for name in ("flux", "flux_err")}}
    columns = [Column(name, table.dtype[name].str, units[name], "") for name in table.dtype.names]
    with create(folder / "shards" / f"{pixel}.h5", Header(SHARD, f"order {order} pixel {pixel}")) as file:
        write_array(file, "first", np.searchsorted(fine, np.arange(4**FINER + 1)))
        write_catalogue(file, "stars", Catalogue(columns, {name: table[name] for name in table.dtype.names}))
    return len(table)
