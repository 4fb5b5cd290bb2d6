"""Model of the covariances of flats and its fit (Astier et al. 2019, A&A 629, A36).

Charge changes the areas of the pixels about it: dQ(x)/dt = I [1 + sum_y a(x - y) (1 + b(x - y) m) (Q(y) - m)] + noise at level
m, so that the covariances C(x) of a flat of level m (electrons) grow as

    dC/dm = delta + 2 (a + a b m) (*) C,      (*): convolution over lags, a b: product lag by lag.

In Fourier space every frequency is on its own: C = integral over s from 0 to m of exp(2 A (m - s) + B (m^2 - s^2)), A and B the
transforms of a and of ab. Expanded, this is the series of Astier et al. (their equation 20), C = m [delta + a m + 2/3 (a*a + ab)
m^2 + 1/6 (2 a*a*a + 5 a*ab) m^3 + ...]; here all orders are kept. In ADU: C(mean * gain) / gain^2 + noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Fit", "covariances", "fit_covariances"]


class Fit(NamedTuple):
    """Fitted parameters of one amplifier.

    gain : electron/ADU; a : (L, L) 1/electron; ab : (L, L) 1/electron^2; noise : (L, L) ADU^2
    error : Fit-like tuple of their errors, same shapes
    model : (M, L, L) ADU^2
    chi2_dof : float
    """

    gain: float
    a: np.ndarray
    ab: np.ndarray
    noise: np.ndarray
    error: tuple
    model: np.ndarray
    chi2_dof: float


def _transform(quadrant: np.ndarray) -> np.ndarray:
    """(P, P/2+1) real Fourier transform of a symmetric function given at lags [j, i] >= 0; P = 4 L keeps wrapped lags away."""
    n = len(quadrant)
    whole = np.zeros((4 * n, 4 * n))
    at = np.arange(n)
    for j in (at, -at):
        for i in (at, -at):
            whole[np.ix_(j, i)] = quadrant
    return np.fft.rfft2(whole).real


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS


def covariances(level: np.ndarray, a: np.ndarray, ab: np.ndarray, derivatives: bool = False):
    """Covariances of flats in electrons.

    Parameters
    ----------
    level : (M,) electron
    a, ab : (L, L) 1/electron, 1/electron^2
    derivatives : also by level, and the responses to a and ab at all lags of the periodic grid

    Returns
    -------
    (M, L, L) electron^2; with derivatives also dC/dlevel (M, L, L), and responses to a and ab (M, 4L, 4L)
    """
    n, grid = len(a), (4 * len(a),) * 2
    m, s = np.asarray(level, float)[:, None, None], _NODES[:, None, None, None]
    area, second = _transform(a), _transform(ab)
    grown = np.exp(2.0 * area * m * (1.0 - s) + second * m**2 * (1.0 - s**2)) * m * _WEIGHTS[:, None, None, None]
    spectrum = grown.sum(axis=0)
    found = np.fft.irfft2(spectrum, grid)[:, :n, :n]
    if not derivatives:
        return found
    slope = np.fft.irfft2(1.0 + 2.0 * (area + second * m) * spectrum, grid)[:, :n, :n]
    by_a = np.fft.irfft2((grown * 2.0 * m * (1.0 - s)).sum(axis=0), grid)
    by_ab = np.fft.irfft2((grown * m**2 * (1.0 - s**2)).sum(axis=0), grid)
    return found, slope, by_a, by_ab


def _by_lag(response: np.ndarray, n: int) -> np.ndarray:
    """(M, L^2, L^2): change of C at each lag by the parameter at each lag, whose mirror images change with it."""
    lags = np.arange(n)

    def both(values: np.ndarray, axis: int) -> np.ndarray:  # parameter at lag y and, unless y = 0, at -y
        ahead = np.take(values, (lags[:, None] - lags) % (4 * n), axis=axis)
        behind = np.take(values, (lags[:, None] + lags) % (4 * n), axis=axis)
        shape = [1] * ahead.ndim
        shape[axis + 1] = n
        return ahead + behind * (lags > 0).reshape(shape)

    blocks = both(both(response, 2), 1)  # (M, xj, yj, xi, yi)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(len(response), n * n, n * n)


def fit_covariances(mean: np.ndarray, covariance: np.ndarray, count: np.ndarray, orders: int) -> Fit:
    """Weighted least squares for gain, a, ab and read-out noise, by Gauss-Newton steps with exact derivatives.

    The errors of the measured covariances follow from the model and the number of pixels: 2 V^2 / n of the variance, V^2 / n
    of the others.

    Parameters
    ----------
    mean : (M,) ADU; covariance : (M, L, L) ADU^2; count : (M, L, L) pairs of pixels behind each
    orders : 0: gain and noise, from the variance alone and, at other lags, from pairs without light; 1: and a; 2: and ab
    """
    n = covariance.shape[1]
    size = n * n
    flats = mean > 0.25 * mean.max()
    noise = covariance[np.argmin(mean)] * (mean.min() < 0.02 * mean.max())
    gain = float(np.median(mean[flats] / (covariance[flats, 0, 0] - noise[0, 0])))
    values = np.concatenate([[gain], np.zeros(orders * size), noise.ravel()])
    factor = np.ones((n, n))
    factor[0, 0] = 2.0
    believed = np.ones_like(covariance, bool)
    if orders == 0:
        believed[mean > 0.02 * mean.max()] = False
        believed[:, 0, 0] = True
    for _ in range(25):
        model, jacobian = _model(mean, values, n, orders)
        weight = believed * np.sqrt(count / factor) / np.maximum(model[:, :1, :1], 1e-30)
        weight = weight.reshape(len(mean), size)
        scaled = (jacobian * weight[:, :, None]).reshape(-1, len(values))
        residual = ((covariance - model).reshape(len(mean), size) * weight).ravel()
        norm = np.sqrt((scaled**2).sum(axis=0))
        norm[norm == 0.0] = 1.0
        step, *_ = np.linalg.lstsq(scaled / norm, residual, rcond=None)
        limit = min(1.0, 0.3 * abs(values[0]) / max(abs(step[0] / norm[0]), 1e-30))
        values = values + limit * step / norm
        if limit == 1.0 and np.abs(step).max() < 1e-3:
            break
    model, jacobian = _model(mean, values, n, orders)
    residual = ((covariance - model).reshape(len(mean), size) * weight).ravel()
    chi2 = float((residual**2).sum() / max(1, np.count_nonzero(believed) - len(values)))
    spread = np.linalg.pinv((scaled / norm).T @ (scaled / norm))
    error = np.sqrt(np.diag(spread) * max(1.0, chi2)) / norm
    return Fit(*_unpack(values, n, orders), _unpack(error, n, orders), model, chi2)


def _unpack(values: np.ndarray, n: int, orders: int):
    size, none = n * n, np.zeros((n, n))
    parts = [values[1 + k * size : 1 + (k + 1) * size].reshape(n, n) for k in range(orders + 1)]
    return float(values[0]), parts[0] if orders else none, parts[1] if orders > 1 else none, parts[-1]


def _model(mean: np.ndarray, values: np.ndarray, n: int, orders: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, L, L) ADU^2 and its derivatives (M, L^2, parameters)."""
    gain, a, ab, noise = _unpack(values, n, orders)
    size, m = n * n, len(mean)
    found, slope, by_a, by_ab = covariances(mean * gain, a, ab, derivatives=True)
    jacobian = np.zeros((m, size, len(values)))
    jacobian[:, :, 0] = ((slope * mean[:, None, None] - 2.0 * found / gain) / gain**2).reshape(m, size)
    for order, response in enumerate((by_a, by_ab)[:orders]):
        jacobian[:, :, 1 + order * size : 1 + (order + 1) * size] = _by_lag(response, n) / gain**2
    jacobian[:, :, -size:] = np.eye(size)
    return found / gain**2 + noise, jacobian
