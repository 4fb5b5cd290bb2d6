"""Where the Earth is: barycentric position for parallaxes, to 0.0005 au, which is 0.4 mas for the nearest star.

The Sun from the low-precision formulae of the Astronomical Almanac (section C), 0.01 degrees; the Sun's own way about the
barycentre from the giant planets on Keplerian ellipses (Standish & Williams 1992, mean elements of J2000).
"""

from __future__ import annotations

import numpy as np

__all__ = ["barycentric_earth"]

_J2000 = 51544.5
_OBLIQUITY = np.radians(23.4392911)
_GIANTS = (  # 1 / mass (of the Sun), a (au), e, inclination, longitudes: mean (and deg per century), of perihelion, of node
    (1047.3486, 5.202887, 0.04838624, 1.30439695, 34.39644051, 3034.74612775, 14.72847983, 100.47390909),
    (3497.898, 9.53667594, 0.05386179, 2.48599187, 49.95424423, 1222.49362201, 92.59887831, 113.66242448),
    (22902.98, 19.18916464, 0.04725744, 0.77263783, 313.23810451, 428.48202785, 170.95427630, 74.01692503),
    (19412.24, 30.06992276, 0.00859048, 1.77004347, -55.12002969, 218.45945325, 44.96476227, 131.78422574))


def barycentric_earth(mjd: float) -> np.ndarray:
    """(3,) float64 au, ICRS axes: the Earth from the barycentre of the solar system, 1950 to 2050."""
    days = mjd - _J2000
    mean, anomaly = np.radians(280.460 + 0.9856474 * days), np.radians(357.528 + 0.9856003 * days)
    longitude = mean + np.radians(1.915 * np.sin(anomaly) + 0.020 * np.sin(2.0 * anomaly))
    longitude -= np.radians(1.397 * days / 36525.0)  # from the equinox of date to that of J2000
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2.0 * anomaly)
    earth = -distance * np.array([np.cos(longitude), np.sin(longitude), 0.0])
    sun = -sum(_giant(days / 36525.0, *elements[1:]) / (elements[0] + 1.0) for elements in _GIANTS)
    x, y, z = earth + sun
    cosine, sine = np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)
    return np.array([x, cosine * y - sine * z, sine * y + cosine * z])


def _giant(centuries: float, a: float, e: float, inclination: float, *longitudes: float) -> np.ndarray:
    """Heliocentric ecliptic position of a planet, au."""
    start, rate, perihelion, node = longitudes
    mean = np.radians(np.mod(start + rate * centuries - perihelion, 360.0))
    anomaly = mean
    for _ in range(10):
        anomaly = mean + e * np.sin(anomaly)
    x, y = a * (np.cos(anomaly) - e), a * np.sqrt(1.0 - e * e) * np.sin(anomaly)
    w, n, i = np.radians([perihelion - node, node, inclination])
    along, across = x * np.cos(w) - y * np.sin(w), x * np.sin(w) + y * np.cos(w)
    return np.array([along * np.cos(n) - across * np.cos(i) * np.sin(n), along * np.sin(n) + across * np.cos(i) * np.cos(n),
                     across * np.sin(i)])
