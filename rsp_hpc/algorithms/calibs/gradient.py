"""gradient: the large-scale shape of each flat against that of all, as a polynomial over the detector."""

from __future__ import annotations

import numpy as np

from ...products.calibration import CombinedFrames
from .stack import Stack, mesh_of

__all__ = ["fit_gradients", "polynomial_on", "remove_gradient"]


def _axes(shape: tuple[int, int], cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """v (my, 1), u (1, mx) in -1..1 at the centres of the cells that `mesh_of` makes of a plane."""
    v, u = (2.0 * ((np.arange(n) + 0.5) * (side // n)) / side - 1.0 for side, n in zip(shape, cells))
    return v[:, None], u[None, :]


def _fit(values: np.ndarray, axes, order: int) -> np.ndarray:
    """(order+1, order+1) coefficients [j, i] of v^j u^i, i + j <= order, of the values that are finite; two rounds of clipping."""
    v, u = np.broadcast_arrays(*axes)
    powers = [(j, i) for j in range(order + 1) for i in range(order + 1 - j)]
    design = np.stack([(v**j * u**i).ravel() for j, i in powers], axis=1)
    flat = values.ravel()
    good = np.isfinite(flat)
    if good.sum() < 2 * len(powers):  # too few cells for the shape: the level alone
        powers, design = [(0, 0)], np.ones((flat.size, 1))
    solution = np.array([np.median(flat[good])] + [0.0] * (len(powers) - 1))
    for _ in range(3):
        solution = np.linalg.lstsq(design[good], flat[good], rcond=None)[0]
        residual = np.abs(flat - design @ solution)
        good = np.isfinite(flat) & (residual <= 5.0 * 1.4826 * np.median(residual[good]) + 1e-9)
    out = np.zeros((order + 1, order + 1))
    for (j, i), value in zip(powers, solution):
        out[j, i] = value
    return out


def fit_gradients(stack: Stack, order: int) -> tuple[np.ndarray, np.ndarray]:
    """What each flat is multiplied by so that all have the level one and the shape of their median.

    The shape of a flat is its mesh over its level; their median over the flats is the common one. The polynomial is fitted to the
    common shape over the flat's own.

    Returns
    -------
    (n, order+1, order+1) coefficients of v^j u^i; (n,) largest change over the detector that it makes, relative
    """
    mesh, levels = np.array(stack.mesh), stack.levels
    with np.errstate(invalid="ignore", divide="ignore"):
        shapes = mesh / levels[:, None, None]
        shapes[~(shapes > 0.02)] = np.nan  # vignetted or dead cells have no shape
        usable = np.isfinite(shapes).any(axis=0)
        common = np.full(mesh.shape[1:], np.nan)
        common[usable] = np.nanmedian(shapes[:, usable], axis=0)
        axes = _axes(stack.detector.box.shape, mesh.shape[1:])
        found = np.array([_fit(common / shape, axes, order) for shape in shapes])
    values = np.array([polynomial_on(one, *axes) for one in found])
    change = np.abs(values / values.mean(axis=(1, 2), keepdims=True) - 1.0).max(axis=(1, 2))
    return found / levels[:, None, None], change


def polynomial_on(factor: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """sum factor[j, i] v^j u^i, broadcast."""
    total = 0.0
    for j, row in enumerate(factor):
        for i, value in enumerate(row):
            if value:
                total = total + value * v**j * u**i
    return np.broadcast_to(total, np.broadcast_shapes(v.shape, u.shape))


def remove_gradient(product: CombinedFrames, good: np.ndarray, order: int) -> None:
    """Divide a combined flat by its own large-scale polynomial, in place; vignetting of this order goes with it."""
    shape = product.image.shape
    cells = tuple(int(np.clip(side // 32, 1, 32)) for side in shape)
    step = max(1, max(shape) // 1024)
    sample = np.where(good[::step, ::step], product.image[::step, ::step], np.nan)
    factor = _fit(mesh_of(sample, cells), _axes(sample.shape, cells), order)
    u = (2.0 * np.arange(shape[1]) + 1.0) / shape[1] - 1.0
    for first in range(0, shape[0], 64):  # in bands, for the memory
        rows = slice(first, min(shape[0], first + 64))
        v = (2.0 * np.arange(rows.start, rows.stop) + 1.0) / shape[0] - 1.0
        values = polynomial_on(factor, v[:, None], u[None, :]).astype(np.float32)
        product.image[rows] /= values
        product.variance[rows] /= values**2
