"""stars: detections of the same stars in several visits as one table, for the illumination correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...products.camera import Camera, Detector
from ...products.catalogue import Catalogue
from ...products.focalplane import pixel_to_focal_plane
from ...products.geometry import unit_vectors
from .illumination import StarTable

__all__ = ["COLUMNS", "star_table", "stars_of"]

COLUMNS = ("ra", "dec", "x", "y", "psfFlux", "psfFluxErr", "psfFlux_flag", "extendedness", "pixelFlags_saturatedCenter")
"""Of the sources of a visit that are needed."""
FAINTEST = 50.0
"""S/N below which a star adds nothing."""
RADIUS = 0.7
"""arcsec, within which detections are those of one star."""


def stars_of(sources: Catalogue, scale: float, place: tuple[int, Camera, Detector, int]) -> dict[str, np.ndarray]:
    """The bright stars of a detector of a visit.

    Parameters
    ----------
    sources : with `COLUMNS`; fluxes nJy
    scale : nJy per electron that the fluxes were multiplied with, which is undone: it knows of the illumination already
    place : number of the visit, from 0; the camera, the detector and its place in the camera
    """
    visit, camera, detector, number = place
    flux, error = sources["psfFlux"].astype(float), sources["psfFluxErr"].astype(float)
    with np.errstate(invalid="ignore"):
        good = (flux > FAINTEST * error) & ~sources["psfFlux_flag"] & ~sources["pixelFlags_saturatedCenter"]
        good &= ~(sources["extendedness"] > 0.5)
    x, y = pixel_to_focal_plane(camera, detector, sources["x"][good], sources["y"][good])
    n = int(good.sum())
    return {"ra": sources["ra"][good], "dec": sources["dec"][good], "x": x, "y": y, "visit": np.full(n, visit),
            "detector": np.full(n, number), "magnitude": -2.5 * np.log10(flux[good] / scale),
            "error": 2.5 / np.log(10.0) * error[good] / flux[good]}


def star_table(parts: Sequence[dict[str, np.ndarray]]) -> StarTable:
    """All detections, numbered by star: those within `RADIUS` of each other are one. Two of one visit are no star."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    vectors = unit_vectors(joined.pop("ra"), joined.pop("dec"))
    n = len(vectors)
    pairs = cKDTree(vectors).query_pairs(np.radians(RADIUS / 3600.0), output_type="ndarray") if n else np.empty((0, 2), int)
    _, star = connected_components(coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n)), directed=False)
    own = star.astype(np.int64) * (int(joined["visit"].max(initial=0)) + 1) + joined["visit"]
    twice = np.bincount(np.unique(own, return_inverse=True)[1].reshape(-1))[np.unique(own, return_inverse=True)[1].reshape(-1)] > 1
    blended = np.isin(star, star[twice])
    return StarTable(star[~blended], *(joined[name][~blended] for name in ("visit", "detector", "x", "y", "magnitude", "error")))
