"""Products as files of other programs: images as FITS (IMAGE, MASK, VARIANCE), tables as FITS or Parquet.

The HDUs and the mask cards MSKNnnnn (name), MSKMnnnn (value), MSKDnnnn (meaning) are those of Rubin's image format, so
that ds9, Firefly and their tools find the planes. Unknown variance is NaN there (CFITSIO has no infinity). The origin
of a patch stands as the alternate WCS 'A'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import BadData, ConfigError
from ..products.catalogue import Catalogue
from ..products.mask import PLANES
from ..products.photocal import PhotoCal
from ..products.wcs import Wcs
from .atomic import atomic
from .attributes import get, values
from .fits import Hdu, write_fits
from .images import read_image
from .pixels import FILTER, read_pixels
from .product import open_product
from .records import read_record
from .table import read_catalogue

__all__ = ["export_image", "export_table", "exportable", "wcs_cards"]


def exportable(path: str | Path) -> tuple[list[str], list[str]]:
    """(images, tables) of a product, by the names that `export_image` and `export_table` take."""
    images: list[str] = []
    tables: list[str] = []

    def look(name: str, item) -> None:
        if name.startswith("provenance"):
            return
        if isinstance(item, h5py.Group) and "_columns" in item:
            tables.append(name)
        elif isinstance(item, h5py.Group) and all(plane in item for plane in ("image", "variance", "mask")):
            images.append(name)
        elif is_pixels(item) and item.ndim == 2 and item.name.rpartition("/")[0].strip("/") not in images:
            images.append(name)

    with open_product(path) as file:
        file.visititems(look)
    return images, tables


def is_pixels(item) -> bool:
    """Whether a dataset is one of `io.pixels`."""
    if not isinstance(item, h5py.Dataset):
        return False
    properties = item.id.get_create_plist()
    return any(properties.get_filter(i)[0] == FILTER for i in range(properties.get_nfilters()))


def export_image(path: str | Path, name: str, target: str | Path) -> None:
    """Write an image of a product as FITS: with mask and variance where it has them, with its WCS and calibration.

    Parameters
    ----------
    name : 'detectors/<name>' of a visit, '<band>/<patch>' of coadds, 'content/image' of a calibration product

    Raises
    ------
    ConfigError
        There is no such image; those that there are, are named.
    BadData
        The product is missing or damaged, or the target cannot be written.
    """
    with open_product(path) as file:
        item = file.get(name.strip("/")) if name.strip("/") else None
        if isinstance(item, h5py.Group) and all(plane in item for plane in ("image", "variance", "mask")):
            hdus = _masked_image(file, item)
        elif item is not None and is_pixels(item) and item.ndim == 2:
            pixels = read_pixels(item)
            hdus = [Hdu(None), Hdu(pixels, {"EXTNAME": "IMAGE", "BUNIT": get(item, "unit", "")})]
        else:
            item = None
    if item is None:
        known = exportable(path)[0]
        raise ConfigError(f"{path}: has no image {name}; it has {', '.join(known)[:400] or 'none'}")
    write_fits(target, hdus)


def _masked_image(file, group) -> list[Hdu]:
    image = read_image(group)
    cards = _world(file, group, image.box)
    primary: dict[str, Any] = {"ORIGIN": "rsp_hpc", "PRODUCT": get(file, "format"), "IDENTITY": get(file, "identity")}
    primary |= _facts(file, group)
    planes = {}
    for name, plane in PLANES.items():
        number = f"{plane.bit:04d}"
        planes |= {f"MSKN{number}": name, f"MSKM{number}": 1 << plane.bit, f"MSKD{number}": plane.meaning}
    unknown_is_nan = np.where(np.isfinite(image.variance), image.variance, np.float32(np.nan))
    return [Hdu(None, primary), Hdu(image.image, {"EXTNAME": "IMAGE", "BUNIT": image.unit, **cards}),
            Hdu(image.mask.view(np.int32), {"EXTNAME": "MASK", **planes, **cards}),
            Hdu(unknown_is_nan, {"EXTNAME": "VARIANCE", "BUNIT": f"{image.unit}**2", **cards})]


def _world(file, group, box) -> dict[str, Any]:
    """WCS cards of a detector, or of the tract moved to the patch's origin; and that origin as the WCS 'A'."""
    cards: dict[str, Any] = {}
    if "wcs" in group:
        cards = wcs_cards(read_record(group, "wcs", Wcs), box)
    elif "tract" in file:
        cards = wcs_cards(read_record(file["tract"], "wcs", Wcs), box)
    return cards | {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": float(box.x0),
                    "CRVAL2A": float(box.y0), "CDELT1A": 1.0, "CDELT2A": 1.0}


def wcs_cards(wcs: Wcs, box) -> dict[str, Any]:
    """The cards of a WCS for an array that starts at the box's origin."""
    cards = dict(wcs.to_header())
    cards["CRPIX1"], cards["CRPIX2"] = cards["CRPIX1"] - box.x0, cards["CRPIX2"] - box.y0
    return cards


def _facts(file, group) -> dict[str, Any]:
    """What the primary header tells of exposure and calibration."""
    facts: dict[str, Any] = {}
    if "exposure" in file:
        attributes = values(file["exposure"])
        for key, name in (("VISIT", "visit"), ("BAND", "band"), ("MJD-MID", "mjd"), ("EXPTIME", "exposure_time"),
                          ("AIRMASS", "airmass")):
            if name in attributes:
                facts[key] = attributes[name]
        facts |= {"TIMESYS": "TAI", "DETECTOR": group.name.rpartition("/")[2]}
    else:
        band, _, patch = group.name.strip("/").partition("/")
        facts |= {"BAND": band, "PATCH": patch}
        if "tract" in file:
            facts["TRACT"] = get(file["tract"], "number")
    if "photocal" in group:
        photocal = read_record(group, "photocal", PhotoCal)
        facts |= {"CALIB": (photocal.scale, "nJy per electron"), "CALIBERR": photocal.scale_err,
                  "MAGZERO": (photocal.zero_point, "AB magnitude of one electron")}
    return facts


def export_table(path: str | Path, name: str, target: str | Path) -> None:
    """Write a table ('sources', 'objects', '<band>/<patch>/inputs') as FITS or Parquet, by the target's name.

    Raises
    ------
    ConfigError
        There is no such table, the target's name says no known format, or Parquet is asked for and pyarrow missing.
    BadData
        The product is missing or damaged, or the target cannot be written.
    """
    ends = (".fits", ".fits.gz", ".fit", ".parquet", ".parq")
    kind = next((end for end in ends if str(target).lower().endswith(end)), None)
    if kind is None:
        raise ConfigError(f"{target}: a table's name must end in .fits, .fits.gz or .parquet")
    catalogue = None
    with open_product(path) as file:
        item = file.get(name.strip("/")) if name.strip("/") else None
        if isinstance(item, h5py.Group) and "_columns" in item:
            catalogue = read_catalogue(item)
    if catalogue is None:
        raise ConfigError(f"{path}: has no table {name}; it has {', '.join(exportable(path)[1])[:400] or 'none'}")
    (_write_parquet if kind.startswith(".parq") else _write_fits_table)(catalogue, name, target)


def _write_fits_table(catalogue: Catalogue, name: str, target: str | Path) -> None:
    cards = {"EXTNAME": name.upper()[:68]}
    columns = enumerate(catalogue.columns.values(), 1)
    cards |= {f"TCOMM{number}": column.doc[:68] for number, column in columns if column.doc}
    units = {column.name: column.unit for column in catalogue.columns.values() if column.unit}
    if not catalogue.columns:
        raise BadData(f"{target}: the table has no columns, a FITS table needs one")
    write_fits(target, [Hdu(None), Hdu(catalogue.arrays, cards, units)])


def _write_parquet(catalogue: Catalogue, name: str, target: str | Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"{target}: Parquet needs pyarrow: pip install 'rsp_hpc[parquet]', or write .fits") from None
    fields = [pyarrow.field(column.name, pyarrow.from_numpy_dtype(catalogue[column.name].dtype)
                            if catalogue[column.name].dtype.kind != "U" else pyarrow.string(),
                            metadata={"unit": column.unit, "description": column.doc})
              for column in catalogue.columns.values()]
    arrays = [pyarrow.array(catalogue[field.name], field.type) for field in fields]
    table = pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields, metadata={"name": name}))
    floats = [field.name for field in fields if pyarrow.types.is_floating(field.type)]
    with atomic(target) as aside:
        pyarrow.parquet.write_table(table, aside, compression="zstd", use_dictionary=False,
                                    column_encoding={name: "BYTE_STREAM_SPLIT" for name in floats} or None)
