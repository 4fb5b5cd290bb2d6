"""Wcs: pixels (zero-based) to ICRS degrees and back, TAN with or without SIP distortion.

Evaluated here in numpy: one projection and one polynomial need no library of all projections, whose import alone would
cost each rank 0.7 s and 40 MB. `astropy.wcs` is the oracle of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import angular_separation, deproject, project

__all__ = ["Wcs", "angular_separation"]

_TOLERANCE = 1e-10  # pixels: Newton's last step when inverting the distortion
_MAX_STEPS = 20


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

    def pixel_to_sky(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """ICRS (ra, dec) in degrees of zero-based pixels, 0 <= ra < 360; shapes are kept."""
        return deproject(*self.pixel_to_plane(x, y), *self._tangent_point)

    def sky_to_pixel(self, ra, dec) -> tuple[np.ndarray, np.ndarray]:
        """Zero-based pixels of ICRS degrees, to 1e-9 pixel.

        NaN where the position is not in the tangent hemisphere, or so far outside that the distortion has no inverse.
        """
        ra, dec = np.broadcast_arrays(np.asarray(ra, float), np.asarray(dec, float))
        return self.plane_to_pixel(*project(ra, dec, *self._tangent_point))

    def pixel_to_plane(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Standard coordinates (xi east, eta north) in degrees about `crval` of zero-based pixels."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        u, v = x - self.crpix[0], y - self.crpix[1]
        if self.a is not None:
            u, v = u + _polynomial(self.a, u, v), v + _polynomial(self.b, u, v)
        (c11, c12), (c21, c22) = self.cd
        return c11 * u + c12 * v, c21 * u + c22 * v

    def plane_to_pixel(self, xi, eta) -> tuple[np.ndarray, np.ndarray]:
        """Zero-based pixels of standard coordinates in degrees about `crval`: the inverse of `pixel_to_plane`."""
        xi, eta = np.broadcast_arrays(np.asarray(xi, float), np.asarray(eta, float))
        (c11, c12), (c21, c22) = self.cd
        det = c11 * c22 - c12 * c21
        u, v = (c22 * xi - c12 * eta) / det, (c11 * eta - c21 * xi) / det
        if self.a is not None:
            u, v = self._undistorted(u, v)
        return u + self.crpix[0], v + self.crpix[1]

    def _undistorted(self, target_u: np.ndarray, target_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Invert u + A(u, v), v + B(u, v) by Newton's method; NaN where it does not converge."""
        a_u, a_v = _derivatives(self.a)
        b_u, b_v = _derivatives(self.b)
        u, v = np.array(target_u), np.array(target_v)
        step = np.full(u.shape, np.inf)
        with np.errstate(all="ignore"):  # far outside the detector the polynomials may overflow
            for _ in range(_MAX_STEPS):
                miss_u = u + _polynomial(self.a, u, v) - target_u
                miss_v = v + _polynomial(self.b, u, v) - target_v
                uu, uv = 1.0 + _polynomial(a_u, u, v), _polynomial(a_v, u, v)
                vu, vv = _polynomial(b_u, u, v), 1.0 + _polynomial(b_v, u, v)
                det = uu * vv - uv * vu
                du, dv = (vv * miss_u - uv * miss_v) / det, (uu * miss_v - vu * miss_u) / det
                u, v, step = u - du, v - dv, np.hypot(du, dv)
                if not np.any(step > _TOLERANCE):
                    break
        good = step <= np.maximum(_TOLERANCE, 1e-13 * np.hypot(target_u, target_v))
        return np.where(good, u, np.nan), np.where(good, v, np.nan)

    @property
    def _tangent_point(self) -> tuple[float, float]:
        """(ra, dec): at the north pole, and only there, FITS turns the plane by 180 degrees (default LONPOLE = 0)."""
        return (self.crval[0] + 180.0 if self.crval[1] >= 90.0 else self.crval[0]), self.crval[1]

    @property
    def pixel_scale(self) -> float:
        """Arcsec per pixel at the reference pixel: root of the pixel's area."""
        return 3600.0 * float(np.sqrt(abs(np.linalg.det(np.asarray(self.cd)))))

    def local_jacobian(self, x: float, y: float) -> np.ndarray:
        """(2, 2): d(east, north) in arcsec by d(x, y) in pixels at a position."""
        ra0, dec0 = self.pixel_to_sky(x, y)
        ra, dec = self.pixel_to_sky([x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
        east, north = project(ra, dec, ra0, dec0)
        return 3600.0 * np.array([east[1::2] - east[::2], north[1::2] - north[::2]])

    @classmethod
    def from_header(cls, cards: dict) -> Wcs:
        """From FITS cards CRVALi, CRPIXi, CDi_j (or CDELTi with CROTAi or PCi_j) and, if present, A_i_j and B_i_j.

        Either axis may come first. FK5 J2000 positions are taken as ICRS (they differ by 0.02" at most).

        Raises
        ------
        KeyError
            A card is missing.
        ValueError
            The projection is not TAN or TAN-SIP, the frame is not ICRS or FK5 J2000, the unit is not degrees, LONPOLE
            is not its default, or the matrix is singular.
        """
        names = [str(cards.get(f"CTYPE{i}", default)) for i, default in ((1, "RA---TAN"), (2, "DEC--TAN"))]
        latitude_first = names[0].startswith("DEC-")
        _check_frame(cards, names[::-1] if latitude_first else names)
        cd, crval = _matrix_of(cards, latitude_first), [float(cards["CRVAL1"]), float(cards["CRVAL2"])]
        if latitude_first:  # rows are sky axes: put longitude first; columns are pixel axes and stay
            cd, crval = cd[::-1], crval[::-1]
        if not abs(np.linalg.det(cd)) > 0:
            raise ValueError("the WCS matrix is singular")
        order = max(int(cards.get("A_ORDER", 0)), int(cards.get("B_ORDER", 0))) if "SIP" in names[0] else 0
        if not 0 <= order <= 9:
            raise ValueError(f"SIP order {order} is outside 0..9")
        a, b = (_sip_of(cards, letter, order) if order else None for letter in "AB")
        return cls((crval[0], crval[1]), (float(cards["CRPIX1"]) - 1.0, float(cards["CRPIX2"]) - 1.0),
                   tuple(map(tuple, cd.tolist())), a, b)  # type: ignore[arg-type]

    def to_header(self) -> dict[str, float | int | str]:
        """FITS cards of this WCS (one-based CRPIX)."""
        kind = "-SIP" if self.a is not None else ""
        cards: dict[str, float | int | str] = {
            "CTYPE1": f"RA---TAN{kind}", "CTYPE2": f"DEC--TAN{kind}", "CUNIT1": "deg", "CUNIT2": "deg",
            "RADESYS": "ICRS", "CRVAL1": self.crval[0], "CRVAL2": self.crval[1],
            "CRPIX1": self.crpix[0] + 1.0, "CRPIX2": self.crpix[1] + 1.0,
            **{f"CD{i + 1}_{j + 1}": self.cd[i][j] for i in range(2) for j in range(2)}}
        for letter, table in (("A", self.a), ("B", self.b)):
            if table is not None:
                cards[f"{letter}_ORDER"] = len(table) - 1
                cards.update({f"{letter}_{i}_{j}": float(table[i, j]) for i in range(len(table))
                              for j in range(len(table) - i) if table[i, j] != 0.0})
        return cards


def _polynomial(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sum of table_ij u^i v^j over i + j <= order, by Horner's rule."""
    order = len(table) - 1
    total = np.zeros(np.shape(u))
    for i in range(order, -1, -1):
        inner = np.full(np.shape(u), table[i, order - i])
        for j in range(order - i - 1, -1, -1):
            inner = inner * v + table[i, j]
        total = total * u + inner
    return total


def _derivatives(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of the two partial derivatives."""
    powers = np.arange(len(table), dtype=float)
    by_u, by_v = np.zeros_like(table, dtype=float), np.zeros_like(table, dtype=float)
    by_u[:-1] = (powers[:, None] * table)[1:]
    by_v[:, :-1] = (powers * table)[:, 1:]
    return by_u, by_v


def _check_frame(cards: dict, names: list[str]) -> None:
    if not (names[0].startswith("RA--") and names[1].startswith("DEC-")):
        raise ValueError(f"axes {names[0]}, {names[1]} are not RA and DEC")
    if not all(name[4:].strip("-") in ("TAN", "TAN-SIP") for name in names):
        raise ValueError(f"projection {names[0]}, {names[1]} is not supported, only TAN and TAN-SIP")
    frame = str(cards.get("RADESYS", cards.get("RADECSYS", "ICRS"))).strip()
    equinox = float(cards.get("EQUINOX", 2000.0))
    if frame not in ("ICRS", "FK5", "") or (frame != "ICRS" and equinox != 2000.0):
        raise ValueError(f"frame {frame} with equinox {equinox:g} is not supported, only ICRS and FK5 J2000")
    pole = 0.0 if float(cards["CRVAL1" if names[0] == cards.get("CTYPE2") else "CRVAL2"]) >= 90.0 else 180.0
    if float(cards.get("LONPOLE", pole)) != pole:
        raise ValueError(f"LONPOLE {cards['LONPOLE']} is not supported, only its default {pole:g}")
    units = {str(cards.get(f"CUNIT{i}", "deg")).strip().lower() for i in (1, 2)}
    if not units <= {"deg", "degree", "degrees", ""}:
        raise ValueError(f"WCS units {', '.join(sorted(units))} are not supported, only deg")


def _matrix_of(cards: dict, latitude_first: bool) -> np.ndarray:
    """Degrees per pixel, (sky axis as in the header, pixel axis)."""
    if any(f"CD{i}_{j}" in cards for i in "12" for j in "12"):
        return np.array([[float(cards.get(f"CD{i}_{j}", 0.0)) for j in (1, 2)] for i in (1, 2)])
    delta = np.array([float(cards["CDELT1"]), float(cards["CDELT2"])])
    if any(f"PC{i}_{j}" in cards for i in "12" for j in "12"):
        return delta[:, None] * np.array([[float(cards.get(f"PC{i}_{j}", float(i == j))) for j in (1, 2)]
                                          for i in (1, 2)])
    angle = np.radians(-float(cards.get("CROTA1", 0.0)) if latitude_first else float(cards.get("CROTA2", 0.0)))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * delta


def _sip_of(cards: dict, letter: str, order: int) -> np.ndarray:
    table = np.zeros((order + 1, order + 1))
    for i in range(order + 1):
        for j in range(order + 1 - i):
            table[i, j] = float(cards.get(f"{letter}_{i}_{j}", 0.0))
    return table
