"""Wcs: pixels (zero-based) to ICRS degrees and back, TAN with or without SIP distortion, by astropy.wcs (wcslib).

An astropy WCS with SIP must not be shared between threads (its scratch buffer is per object); a Wcs makes its own lazily.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Wcs"]


@dataclass(frozen=True)
class Wcs:
    """A gnomonic (TAN) world coordinate system, with SIP polynomials if `a` is given.

    Attributes
    ----------
    crval : (2,) degrees, ICRS position of the reference pixel
    crpix : (2,) zero-based reference pixel
    cd : (2, 2) degrees per pixel
    a, b : (order + 1, order + 1) forward SIP coefficients A_ij x^i y^j (Shupe et al. 2005), or None
    """

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: tuple[tuple[float, float], tuple[float, float]]
    a: np.ndarray | None = None
    b: np.ndarray | None = None
    _cache: list = field(default_factory=list, init=False, repr=False, compare=False)

    def _astropy(self):
        if not self._cache:
            from astropy.wcs import WCS, Sip  # heavy: imported on first use

            wcs = WCS(naxis=2)
            sip = self.a is not None
            wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
            wcs.wcs.crval = self.crval
            wcs.wcs.crpix = np.asarray(self.crpix) + 1.0
            wcs.wcs.cd = np.asarray(self.cd)
            wcs.wcs.cunit = ["deg", "deg"]
            wcs.wcs.radesys = "ICRS"
            if sip:
                wcs.sip = Sip(np.asarray(self.a, float), np.asarray(self.b, float), None, None,
                              np.asarray(self.crpix) + 1.0)
            wcs.wcs.set()
            self._cache.append(wcs)
        return self._cache[0]

    def __getstate__(self):
        return {name: getattr(self, name) for name in ("crval", "crpix", "cd", "a", "b")}

    def __setstate__(self, state):
        for name, value in state.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_cache", [])

    def pixel_to_sky(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """ICRS (ra, dec) in degrees of zero-based pixels; shapes are kept."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        ra, dec = self._astropy().all_pix2world(x.ravel(), y.ravel(), 0)
        return np.reshape(ra, x.shape), np.reshape(dec, x.shape)

    def sky_to_pixel(self, ra, dec) -> tuple[np.ndarray, np.ndarray]:
        """Zero-based pixels of ICRS degrees, to 1e-9 pixel; NaN where the position is not in the tangent hemisphere."""
        ra, dec = np.broadcast_arrays(np.asarray(ra, float), np.asarray(dec, float))
        x, y = self._astropy().all_world2pix(ra.ravel(), dec.ravel(), 0, tolerance=1e-9, quiet=True)
        front = angular_separation(ra.ravel(), dec.ravel(), *self.crval) < 89.0
        return (np.reshape(np.where(front, x, np.nan), ra.shape), np.reshape(np.where(front, y, np.nan), ra.shape))

    @property
    def pixel_scale(self) -> float:
        """Arcsec per pixel at the reference pixel: root of the pixel's area."""
        return 3600.0 * float(np.sqrt(abs(np.linalg.det(np.asarray(self.cd)))))

    def local_jacobian(self, x: float, y: float) -> np.ndarray:
        """(2, 2): d(east, north) in arcsec by d(x, y) in pixels at a position."""
        ra, dec = self.pixel_to_sky([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
        east = 3600.0 * ((ra[1::2] - ra[::2] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec.mean()))
        north = 3600.0 * (dec[1::2] - dec[::2])
        return np.array([east, north])

    @classmethod
    def from_header(cls, cards: dict) -> Wcs:
        """From FITS cards CRVALi, CRPIXi, CDi_j (or CDELTi with CROTA2 or PCi_j) and, if present, A_i_j and B_i_j.

        Raises
        ------
        KeyError
            A card is missing.
        ValueError
            The projection is not TAN or TAN-SIP, or the matrix is singular.
        """
        ctype = str(cards.get("CTYPE1", "RA---TAN"))
        if ctype.startswith("DEC-"):  # axes swapped: latitude first
            swap = {"1": "2", "2": "1"}
            cards = {**cards, **{f"{stem}{new}": cards[f"{stem}{old}"] for stem in ("CRVAL",) for new, old in swap.items()},
                     **{f"CD{swap[i]}_{j}": cards[f"CD{i}_{j}"] for i in "12" for j in "12" if f"CD{i}_{j}" in cards},
                     "CTYPE1": cards["CTYPE2"], "CTYPE2": ctype}
            ctype = str(cards["CTYPE1"])
        if "TAN" not in ctype:
            raise ValueError(f"projection {ctype} is not supported, only TAN and TAN-SIP")
        cd = _matrix_of(cards)
        if not abs(np.linalg.det(cd)) > 0:
            raise ValueError("the WCS matrix is singular")
        order = max(int(cards.get("A_ORDER", 0)), int(cards.get("B_ORDER", 0))) if "SIP" in ctype else 0
        a, b = (_sip_of(cards, letter, order) if order else None for letter in "AB")
        return cls((float(cards["CRVAL1"]), float(cards["CRVAL2"])),
                   (float(cards["CRPIX1"]) - 1.0, float(cards["CRPIX2"]) - 1.0),
                   tuple(map(tuple, cd.tolist())), a, b)  # type: ignore[arg-type]

    def to_header(self) -> dict[str, float | int | str]:
        """FITS cards of this WCS (one-based CRPIX)."""
        kind = "TAN-SIP" if self.a is not None else "TAN"
        cards: dict[str, float | int | str] = {
            "CTYPE1": f"RA---{kind}", "CTYPE2": f"DEC--{kind}", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
            "CRVAL1": self.crval[0], "CRVAL2": self.crval[1], "CRPIX1": self.crpix[0] + 1.0, "CRPIX2": self.crpix[1] + 1.0,
            **{f"CD{i + 1}_{j + 1}": self.cd[i][j] for i in range(2) for j in range(2)}}
        for letter, table in (("A", self.a), ("B", self.b)):
            if table is not None:
                cards[f"{letter}_ORDER"] = len(table) - 1
                cards.update({f"{letter}_{i}_{j}": float(table[i, j]) for i in range(len(table))
                              for j in range(len(table) - i) if table[i, j] != 0.0})
        return cards


def angular_separation(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Degrees between positions in degrees (haversine: accurate for small angles)."""
    ra1, dec1, ra2, dec2 = (np.radians(np.asarray(angle, float)) for angle in (ra1, dec1, ra2, dec2))
    h = np.sin(0.5 * (dec2 - dec1)) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin(0.5 * (ra2 - ra1)) ** 2
    return np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def _matrix_of(cards: dict) -> np.ndarray:
    if "CD1_1" in cards:
        return np.array([[float(cards.get(f"CD{i}_{j}", 0.0)) for j in (1, 2)] for i in (1, 2)])
    delta = np.diag([float(cards["CDELT1"]), float(cards["CDELT2"])])
    if "PC1_1" in cards:
        return delta @ np.array([[float(cards.get(f"PC{i}_{j}", float(i == j))) for j in (1, 2)] for i in (1, 2)])
    angle = np.radians(float(cards.get("CROTA2", 0.0)))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ delta


def _sip_of(cards: dict, letter: str, order: int) -> np.ndarray:
    table = np.zeros((order + 1, order + 1))
    for i in range(order + 1):
        for j in range(order + 1 - i):
            table[i, j] = float(cards.get(f"{letter}_{i}_{j}", 0.0))
    return table
