"""A simulated visit for tests: a camera of several detectors with distortion, mounting errors, stars, a wrong pointing."""

from __future__ import annotations

import numpy as np

from rsp_hpc.algorithms.focalplane import DetectorStars
from rsp_hpc.products.box import Box
from rsp_hpc.products.geometry import deproject, project
from rsp_hpc.products.wcs import Wcs

BOX = Box(0, 0, 2000, 2000)
SCALE = 0.2 / 3600.0
CENTER = (150.0, 30.0)


class Camera:
    """Detectors on a square grid; truth: cubic distortion of the plane, each detector moved and turned a little."""

    def __init__(self, side: int = 4, seed: int = 0, distortion: float = 60.0, mounting: float = 0.1):
        rng = np.random.default_rng(seed)
        places = (np.stack(np.meshgrid(*2 * [np.arange(side) - 0.5 * (side - 1)]), -1).reshape(-1, 2) * 2100 * SCALE)
        self.guesses = [Wcs(CENTER, (999.5 - px / -SCALE, 999.5 - py / SCALE), ((-SCALE, 0.0), (0.0, SCALE))) for px, py in places]
        self.moves = rng.normal(0, mounting / 3600.0, (len(places), 2))
        self.turns = rng.normal(0, mounting / 3600.0 / (1000 * SCALE), len(places))
        self.places, self.distortion = places, distortion / 3600.0
        self.offset = np.array([20.0, -15.0]) / 3600.0

    def plane(self, number: int, x, y):
        """True tangent-plane position (degrees) of pixels."""
        xi, eta = self.guesses[number].pixel_to_plane(x, y)
        px, py = self.places[number]
        turn = self.turns[number]
        xi, eta = (xi - turn * (eta - py) + self.moves[number, 0], eta + turn * (xi - px) + self.moves[number, 1])
        stretch = 1.0 + self.distortion * (xi**2 + eta**2) / 0.25**2
        return xi * stretch + self.offset[0], eta * stretch + self.offset[1]

    def sky(self, number: int, x, y):
        return deproject(*self.plane(number, x, y), *CENTER)


def stars_on(camera: Camera, number: int, n: int, rng, noise=(0.005, 0.05), scatter: float = 0.0) -> DetectorStars:
    """n stars of a detector, measured with errors between the two (pixel) and a scatter (mas) that they do not know."""
    x, y = rng.uniform(0, 2000, (2, n))
    ra, dec = camera.sky(number, x, y)
    sigma = rng.uniform(*noise, n)
    error = np.hypot(sigma, scatter / 200.0)
    return DetectorStars(camera.guesses[number], BOX, x + error * rng.normal(size=n), y + error * rng.normal(size=n), sigma, sigma,
                         ra, dec, np.full(n, 1e-4), np.full(n, 1e-4))


def offsets(camera: Camera, fit, number: int, x, y):
    """(east, north) of a fit from the truth, mas."""
    xi, eta = project(*fit.sky(number, x, y), *camera.sky(number, x, y))
    return 3.6e6 * xi, 3.6e6 * eta
