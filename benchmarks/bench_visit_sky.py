"""A focal plane of 189 detectors, 3.5 degrees wide, at a sixteenth of the resolution: its sky, steps between detectors, and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsp_hpc.algorithms.background import BackgroundConfig, evaluate_background, fit_background, subtract_background
from rsp_hpc.algorithms.sky import SkyModelConfig, fit_visit_sky, sky_bins, sky_on_mesh
from rsp_hpc.products.camera import Detector
from rsp_hpc.products.image import MaskedImage

SCALE = 3.2  # arcsec per pixel: 16 pixels of 0.2 arcsec
SIZE, PITCH = 256, 262  # pixels: a detector of 13.7 arcmin, and the distance to the next
PIXEL = 160.0  # micron
SKY, NOISE = 2000.0, 45.0 / 16.0  # electron per pixel of 0.2 arcsec, and its noise in the mean of 256 of them
SKY_MAG = 21.2  # mag per arcsec^2
MESH = BackgroundConfig(mesh=8)  # 26 arcsec: 128 pixels of 0.2 arcsec
BINS = SkyModelConfig(bin=32)  # 102 arcsec


def detectors() -> list[Detector]:
    """15 x 15 places without 3 x 3 at each corner."""
    places = [(i, j) for j in range(-7, 8) for i in range(-7, 8) if min(abs(i), abs(j)) <= 4]
    return [Detector.model_construct(name=f"D{k:03d}", id=k, size=(SIZE, SIZE), rotation=0.0,
                                     center=(i * PITCH * PIXEL / 1e3, j * PITCH * PIXEL / 1e3)) for k, (i, j) in enumerate(places)]


def brightness(magnitude: float) -> float:
    """Electron per pixel of 0.2 arcsec of a surface brightness, mag per arcsec^2."""
    return SKY * 10.0 ** (-0.4 * (magnitude - SKY_MAG))


def places(detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """x, y of its pixels in degrees from the middle of the focal plane."""
    step = np.arange(SIZE) - 0.5 * (SIZE - 1)
    x, y = np.meshgrid(step, step)
    return ((x + detector.center[0] * 1e3 / PIXEL) * SCALE / 3600.0, (y + detector.center[1] * 1e3 / PIXEL) * SCALE / 3600.0)


def true_sky(x, y, order: int = 3):
    """Moonlight, airglow, and a bowl: electron."""
    u, v = x / 1.75, y / 1.75
    sky = 1.0 + 0.015 * u - 0.01 * v
    if order > 1:
        sky = sky + 0.004 * u * v - 0.005 * (u * u + v * v)
    if order > 2:
        sky = sky + 0.0015 * u**3 - 0.001 * u * v * v
    return SKY * sky


def exponential(x, y, center: tuple[float, float], scale: float, magnitude: float):
    """An exponential disk seen face on: scale length in degrees, central surface brightness; electron."""
    return brightness(magnitude) * np.exp(-np.hypot(x - center[0], y - center[1]) / scale)


@dataclass
class Reduced:
    """What came of it: per detector the light that its mesh takes, the super-bins, and the model of the visit."""

    mesh: list
    bins: list
    model: object


def reduced(light=None, *, steps: float = 3e-4, order: int = 3, seed: int = 1, some=None, config: SkyModelConfig = BINS) -> Reduced:
    """A visit with `light(x, y)` on it, through the detectors' own meshes and the visit's sky.

    `steps`: rms of the detectors' own levels after a sky frame, which also leaves 1e-4 of the sky from bin to bin; `some`: changes (detector, image) in place before the mesh is fitted.
    """
    random = np.random.default_rng(seed)
    levels = 1.0 + steps * random.standard_normal(189)
    meshes, parts = [], []
    for detector in detectors():
        x, y = places(detector)
        noise = NOISE * random.standard_normal((SIZE, SIZE)) + 0.2 * np.kron(random.standard_normal((8, 8)), np.ones((32, 32)))
        image = levels[detector.id] * true_sky(x, y, order) + noise + (0.0 if light is None else light(x, y))
        pixels = MaskedImage(image.astype(np.float32), np.zeros(image.shape, np.uint32), np.full(image.shape, NOISE**2, np.float32))
        if some is not None:
            some(detector, pixels)
        mesh = fit_background(pixels, MESH)
        subtract_background(pixels, mesh)
        meshes.append(mesh)
        parts.append((detector.id, sky_bins(pixels, mesh, (detector, PIXEL), None, config)))
    return Reduced(meshes, parts, fit_visit_sky(parts, config))


def taken(before: Reduced, after: Reduced, light, region=None) -> tuple[float, float]:
    """Shares of the light inside a region that the detectors' meshes, and the visit's sky, take away."""
    sums = np.zeros(3)
    for detector in detectors():
        k, (x, y) = detector.id, places(detector)
        inside = np.ones(x.shape, bool) if region is None else region(x, y)
        if inside.any():
            mesh = evaluate_background(after.mesh[k]) - evaluate_background(before.mesh[k])
            sky = [evaluate_background(sky_on_mesh(run.model, k, run.bins[k][1], run.mesh[k])) for run in (before, after)]
            sums += [float(part[inside].sum(dtype=float)) for part in (light(x, y), mesh, sky[1] - sky[0])]
    return sums[1] / sums[0], sums[2] / sums[0]


def main() -> None:
    """Light that the meshes and the visit's sky take from exponential disks of 28 mag per arcsec^2 in their middle."""
    before = reduced()
    for scale in (0.1, 0.2, 0.333):
        def light(x, y, scale=scale):
            return exponential(x, y, (0.2, 0.1), scale, 28.0)
        mesh, sky = taken(before, reduced(light), light, lambda x, y: np.hypot(x - 0.2, y - 0.1) < 1.0)
        print(f"scale length {scale:5.3f} deg, inside 1 deg: meshes take {mesh:6.1%}, the visit's sky takes {sky:6.1%}")


if __name__ == "__main__":
    main()
