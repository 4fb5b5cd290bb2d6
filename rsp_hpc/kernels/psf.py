"""Face of csrc/psf.c: a polynomial pixel grid drawn for stars, fitted to stars, and stars fitted with it.

Stars are a dict of float64 arrays: data, weight (n, side, side); terms (n, n_terms); flux, sky (n,); shift (n, 2), x and y from
the middle pixel. A grid is (n_terms, side, side) float64. Meanings and units in rsp.h.
"""

from __future__ import annotations

import numpy as np

from . import call, ffi, lib, pointer

__all__ = ["draw", "modes", "refit", "solve"]


def _stars(stars: dict):
    """The C struct; `stars` must outlive it."""
    n, side, _ = stars["data"].shape
    n_terms = stars["terms"].shape[1]
    shapes = {"data": (n, side, side), "weight": (n, side, side), "terms": (n, n_terms), "flux": (n,), "sky": (n,),
              "shift": (n, 2)}
    arrays = {name: pointer(stars[name], "f8", shape) for name, shape in shapes.items()}
    return ffi.new("rsp_psf_stars *", {"n": n, "side": side, "n_terms": n_terms, **arrays})


def draw(grid: np.ndarray, terms: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(n, side, side) float64: the PSF, of flux one, on the pixels of stars at `shift` from their middle pixels."""
    n_terms, side, _ = grid.shape
    out = np.empty((len(terms), side, side))
    call(lib.rsp_psf_draw, len(terms), side, n_terms, pointer(grid, "f8", (n_terms, side, side)),
         pointer(terms, "f8", (len(terms), n_terms)), pointer(shift, "f8", (len(terms), 2)), pointer(out, "f8"))
    return out


def solve(stars: dict, prior: tuple[np.ndarray, np.ndarray], start: np.ndarray, tolerance: float = 1e-4,
          most: int = 30) -> tuple[np.ndarray, np.ndarray, int]:
    """The grid that fits the stars, the covariance of each pixel's coefficients, and the steps taken.

    Parameters
    ----------
    prior : its mean and its inverse variance, each (n_terms, side, side)
    start : (n_terms, side, side)
    """
    target, precision = prior
    grid, steps = start.copy(), ffi.new("int64_t *")
    covariance = np.empty((len(grid), *grid.shape))
    call(lib.rsp_psf_solve, _stars(stars), pointer(precision, "f8", grid.shape), pointer(target, "f8", grid.shape),
         tolerance, most, pointer(grid, "f8", start.shape), pointer(covariance, "f8"), steps)
    return grid, covariance, int(steps[0])


def refit(stars: dict, grid: np.ndarray, sky_prior: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) flux, x, y, sky of each star with the grid held, and (n,) chi2; steps = 0: only the chi2."""
    n, n_terms = stars["terms"].shape
    found, chi2 = np.empty((n, 4)), np.empty(n)
    call(lib.rsp_psf_refit, _stars(stars), pointer(grid, "f8", (n_terms, *stars["data"].shape[1:])),
         pointer(sky_prior, "f8", (n, 2)), steps, pointer(found, "f8"), pointer(chi2, "f8"))
    return found, chi2


def modes(stars: dict, grid: np.ndarray, sky_prior: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each mode the stars show beyond the grid, relative to their flux (n, n_modes), and covariances.

    planes : (n_modes, side, side) float64; flux, shift and sky of each star are free too
    """
    (n, n_terms), shape, n_modes = stars["terms"].shape, stars["data"].shape[1:], len(planes)
    amplitude, covariance = np.empty((n, n_modes)), np.empty((n, n_modes, n_modes))
    call(lib.rsp_psf_modes, _stars(stars), pointer(grid, "f8", (n_terms, *shape)), pointer(sky_prior, "f8", (n, 2)), n_modes,
         pointer(planes, "f8", (n_modes, *shape)), pointer(amplitude, "f8"), pointer(covariance, "f8"))
    return amplitude, covariance
