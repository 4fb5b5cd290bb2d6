"""Tiny raw cameras and files of every layout, for the tests of reading raw data."""

from __future__ import annotations

import numpy as np

from rsp_hpc.io.fits import write_fits
from rsp_hpc.products.camera import Camera, load_camera

NX, NY = 24, 16  # of one amplifier's light-sensitive pixels
SCALE = 0.5  # arcsec
HEADER = {
    "visit": {"key": "VISIT"},
    "kind": {"key": "IMGTYPE", "values": {"OBJECT": "science", "BIAS": "bias", "FLAT": "flat"}},
    "band": {"key": "FILTER"}, "mjd": {"key": "MJD", "unit": "mjd", "time_scale": "utc", "time_at": "start"},
    "exposure_time": {"key": "EXPTIME", "unit": "s"}, "ra": {"key": "RA", "unit": "deg", "required": False},
    "dec": {"key": "DEC", "unit": "deg", "required": False}, "airmass": {"key": "AIRMASS", "value": 1.0},
    "gain": {"key": "GAIN", "required": False}}


def camera(kind: str = "detector", **changes) -> Camera:
    """Two amplifiers side by side, the right one mirrored, each with 3 prescan and 5 overscan columns."""
    common = {"section": [0, 0, NX + 8, NY], "data": [3, 0, NX, NY], "prescan": [0, 0, 3, NY],
              "serial_overscan": [NX + 3, 0, 5, NY]}
    hdus = (0, 0) if kind == "amplifier" else (1, 2)
    amplifiers = [{"name": "A", "hdu": hdus[0], "gain": 2.0, **common},
                  {"name": "B", "hdu": hdus[1], "gain": 3.0, "origin": [NX, 0], "flip_x": True, **common}]
    names = ["D0"] if kind == "multi-extension" else ["D0", "D1"]
    tail = "_(?P<amplifier>[AB])" if kind == "amplifier" else ""
    detector = "" if kind == "multi-extension" else r"_(?P<detector>D\d)"
    values = {"name": "tiny", "pixel_scale": SCALE, "bands": ["g", "r"], "wcs": "header",
              "detectors": [{"name": name, "id": number, "size": [2 * NX, NY], "amplifiers": amplifiers,
                             "center": [number, 0]} for number, name in enumerate(names)],
              "layout": {"kind": kind, "pattern": rf"^raw_\d+{detector}{tail}\.fits(\.gz|\.fz)?$"}, "header": HEADER}
    return load_camera({**values, **changes})


def wcs_cards(crpix=(NX + 0.5, NY / 2 + 0.5)) -> dict:
    """A TAN WCS of the assembled detector."""
    step = SCALE / 3600.0
    return {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2, "CRPIX1": crpix[0],
            "CRPIX2": crpix[1], "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step}


def cards(visit: int = 7, kind: str = "OBJECT", **changes) -> dict:
    """Header of an exposure; a change to None leaves the key out."""
    values = {"VISIT": visit, "IMGTYPE": kind, "FILTER": "r", "MJD": 60000.25, "EXPTIME": 30.0, "RA": 150.0, "DEC": 2.2,
              "AIRMASS": 1.2, **wcs_cards(), **changes}
    return {key: value for key, value in values.items() if value is not None}


def segments(seed: int = 1) -> list[np.ndarray]:
    """The two raw amplifiers, uint16; a ramp in the assembled x that starts anew in no amplifier."""
    rng = np.random.default_rng(seed)
    x = np.arange(2 * NX)
    found = []
    for ramp in (x[:NX], x[NX:][::-1]):
        raw = rng.integers(990, 1010, (NY, NX + 8)).astype(np.uint16)
        raw[:, 3:3 + NX] = 40_000 + 10 * ramp + np.arange(NY)[:, None]
        found.append(raw)
    return found


def write_detector(folder, visit: int = 7, detector: str = "D0", name: str = "", **changes):
    """One file per detector, amplifiers as extensions; its path."""
    path = folder / (name or f"raw_{visit}_{detector}.fits")
    first, second = segments(visit)
    write_fits(path, [(None, cards(visit, **changes)), (first, {"GAIN": 2.1}), (second, {"GAIN": 3.1})])
    return path


def write_amplifiers(folder, visit: int = 7, detector: str = "D0", **changes):
    """One file per amplifier; their paths."""
    paths = []
    for name, raw, gain in zip("AB", segments(visit), (2.2, 3.2)):
        paths.append(folder / f"raw_{visit}_{detector}_{name}.fits.gz")
        write_fits(paths[-1], [(raw, {**cards(visit, **changes), "GAIN": gain})])
    return paths
