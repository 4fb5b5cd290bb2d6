"""tracts/<tract>/coadds.h5: coadds of a tract, exact; written by a team's leader from what ranks encoded.

    /<band>/<patch>/{image, variance, mask, n_inputs}    pixels (`io.pixels`), nJy, tract pixels from x0, y0
    /<band>/<patch>/{psf, inputs, noise_correlation}
    /tract                                               attributes: number, wcs cards, cell size
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BadData, Damaged
from ..products.coadd import Coadd
from ..products.psf import CellPsf
from ..products.skymap import Tract
from ..products.wcs import Wcs
from .attributes import get, put
from .images import EncodedImage, append_image, encode_image, read_image, without_pixels
from .pixels import EncodedDataset, append, encode, read_pixels
from .product import Header, ProductWriter, open_product
from .records import read_array, read_record, write_array, write_record
from .table import read_catalogue, write_catalogue

__all__ = ["CoaddWriter", "EncodedCoadd", "coadd_parts", "encode_coadd", "read_coadd", "read_tract"]

KIND = "coadds"


@dataclass(frozen=True)
class EncodedCoadd:
    """A coadd whose pixels are compressed: what travels from a rank to the leader."""

    patch: int
    lean: Coadd
    pixels: EncodedImage
    n_inputs: EncodedDataset


def encode_coadd(patch: int, coadd: Coadd) -> EncodedCoadd:
    """Compress a patch's coadd without loss; runs on any rank."""
    lean = replace(coadd, image=without_pixels(coadd.image), n_inputs=np.zeros((0, 0), np.uint16))
    return EncodedCoadd(int(patch), lean, encode_image(coadd.image, exact=True),
                        encode(coadd.n_inputs, doc="visits that went into each pixel"))


class CoaddWriter(ProductWriter):
    """Writes a tract's coadds; the file appears when the `with` block ends well.

    `tract` is a products.skymap.Tract; None: the file then does not say which.
    """

    def __init__(self, path: str | Path, header: Header, tract: Tract | None = None):
        super().__init__(path, replace(header, kind=KIND))
        self._tract = tract

    def __enter__(self) -> CoaddWriter:
        super().__enter__()
        if self._tract is not None:
            group = self.file.create_group("tract")
            put(group, number=int(self._tract.number), cell=int(self._tract.config.cell_size))
            write_record(group, "wcs", self._tract.wcs)
        return self

    def append(self, part: EncodedCoadd) -> None:
        """Write one band of one patch."""
        coadd = part.lean
        group = self.file.require_group(coadd.band).create_group(str(part.patch))
        append_image(group, coadd.image, part.pixels)
        append(group, "n_inputs", part.n_inputs)
        write_record(group, "psf", coadd.psf)
        write_catalogue(group, "inputs", coadd.inputs)
        write_array(group, "noise_correlation", coadd.noise_correlation,
                    doc="per cell: variance of a smooth weighted sum over what the variance plane alone would give")


def coadd_parts(path: str | Path) -> list[tuple[int, str]]:
    """(patch, band) of each coadd in a file, sorted."""
    with open_product(path, KIND) as file:
        return sorted((int(patch), band) for band in set(file) - {"provenance", "tract"} for patch in file[band])


def read_tract(path: str | Path) -> tuple[int, Wcs]:
    """The tract's number and WCS."""
    with open_product(path, KIND) as file:
        return int(get(file["tract"], "number")), read_record(file["tract"], "wcs", Wcs)


def read_coadd(path: str | Path, band: str, patch: int, pixels: bool = True) -> Coadd:
    """One band of one patch; `pixels=False` leaves out image, variance, mask and n_inputs.

    Raises
    ------
    BadData
        The file is missing or damaged, or has no such patch or band.
    """
    with open_product(path, KIND) as file:
        if band not in file or str(patch) not in file[band]:
            raise BadData(f"{path}: has no patch {patch} in band {band}")
        group = file[band][str(patch)]
        psf = read_record(group, "psf", CellPsf)
        if psf.cells.ndim != 4 or psf.cell <= 0:
            raise Damaged(f"{path}: damaged: the PSF of patch {patch} has shape {psf.cells.shape}")
        counts = read_pixels(group["n_inputs"]) if pixels else np.zeros((0, 0), np.uint16)
        return Coadd(band, read_image(group, pixels), counts, psf, read_array(group["noise_correlation"]),
                     read_catalogue(group["inputs"]))
