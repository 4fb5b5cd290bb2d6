"""brighter_fatter: how collected charge moves the borders of pixels, from the a_ij of the photon transfer.

A flat tells by how much an electron changes the area of each pixel about it: the sum over the pixel's four borders. What each
border does is a further question, with twice as many unknowns:

scalar (Coulton et al. 2018, AJ 155, 258): the shifts are differences of a potential, the kernel K, so that a = -div grad K: the
discrete Poisson equation, K = 0 outside the measured lags.

electrostatic (Astier & Regnault 2023, A&A 670, A118): the shift of a border is the flux of the electron's transverse field
through the wall above it, along which later electrons drift. The electron and its images in the sensor's two conducting faces
each see the wall under a solid angle, which has a closed form; its size, the height of the electron and where drift ends along x
and along y are fitted to the a_ij. What is left of the measured a_ij beyond that model goes into a potential, so that the shifts
reproduce them within errors. Lags that were not measured are the model's.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ...config import Config, parameter
from ...errors import BadData
from ...products.electronics import BrighterFatter, PhotonTransfer, Verdict

__all__ = ["BrighterFatterConfig", "area_change", "build_brighter_fatter", "electrostatic_shifts"]


class BrighterFatterConfig(Config):
    """How border shifts are derived from pixel-area changes."""

    method: Literal["scalar", "electrostatic"] = parameter(
        "electrostatic", "a potential, or an electrostatic model of the borders"
    )
    size: int = parameter(
        8,
        "lags of the product, from 0 on; beyond those measured the electrostatic model extrapolates",
        unit="pixel",
        low=3,
        high=32,
    )
    thickness: float = parameter(
        10.0,
        "of the sensor: where the fit starts, which finds how far the field is felt; it is held to a factor "
        "of about two unless the a_ij say otherwise",
        unit="pixel",
        above=1.0,
    )
    zero_sum: bool = parameter(
        True, "whether the a_ij are adjusted within their errors to sum to zero: what pixels lose, others gain"
    )
    clip: float = parameter(5.0, "amplifiers whose a_ij differ from the others by more are left out", unit="sigma", above=2.0)
    model_error: float = parameter(
        0.2,
        "how far the electrostatic model is believed, relative: what is left of the measured a_ij is "
        "added in proportion to their weight against it",
        above=0.0,
    )
    min_significance: float = parameter(5.0, "a product from an a_00 below is bad", unit="sigma", above=1.0)


class _Areas(NamedTuple):
    """Mean over the amplifiers: a and its error (L, L) 1/electron; which amplifiers are in it."""

    a: np.ndarray
    error: np.ndarray
    used: np.ndarray


def build_brighter_fatter(ptc: PhotonTransfer, config: BrighterFatterConfig) -> tuple[BrighterFatter, Verdict]:
    """Kernel or border shifts of a detector: those of the mean over its amplifiers, which share the silicon.

    Raises
    ------
    BadData
        The photon transfer has no a_ij (says what it needs), or too few lags.
    """
    areas = _mean_areas(ptc, config)
    n = len(areas.a)
    verdict = Verdict(
        statistics={
            "a_00_per_electron": float(areas.a[0, 0]),
            "a_00_error": float(areas.error[0, 0]),
            "amplifiers": float(areas.used.sum()),
        }
    )
    if not areas.used.all():
        names = [name for name, used in zip(ptc.amplifiers, areas.used) if not used]
        verdict = verdict.but("suspect", f"amplifiers left out, their a_ij differ or are missing: {', '.join(names[:5])}")
    significance = -areas.a[0, 0] / areas.error[0, 0]
    if not significance >= config.min_significance:
        verdict = verdict.but(
            "bad",
            f"a_00 is {areas.a[0, 0]:.2g} +- {areas.error[0, 0]:.1g} per electron: not measured, or positive; "
            "take more and brighter pairs of flats",
        )
    elif config.zero_sum:
        areas, pull = _conserving(areas, config)
        verdict = verdict.and_(Verdict(statistics={"sum_of_a_in_errors": pull}))
        if abs(pull) > 5.0:
            verdict = verdict.but(
                "suspect",
                f"the a_ij sum to {pull:+.1f} times the error of their sum, not to zero: measure more lags, or "
                "correct the linearity first",
            )
    if config.method == "scalar":
        kernel, error = _poisson(areas)
        return BrighterFatter("scalar", kernel=kernel, error=error), verdict
    size = max(config.size, n)
    if verdict.state == "bad":
        nothing = np.zeros((2 * size - 1,) * 2)
        return BrighterFatter("electrostatic", north=nothing, east=nothing, error=np.full_like(nothing, np.nan)), verdict
    parameters, chi2 = _fit_model(areas, config)
    north, east = electrostatic_shifts(parameters, size)
    more_north, more_east, error = _remainder(areas, north, east, config)
    left = (area_change(north + more_north, east + more_east)[size - 1 :, size - 1 :][:n, :n] - areas.a) / np.hypot(
        areas.error, 0.01 * areas.a[0, 0]
    )
    verdict = verdict.and_(Verdict(statistics={"model_chi2_dof": chi2, "left_chi2_per_lag": float(np.mean(left[:-1, :-1] ** 2))}))
    if np.mean(left[:-1, :-1] ** 2) > 9.0:
        verdict = verdict.but("suspect", "the border shifts do not reproduce the a_ij: take more lags")
    return BrighterFatter("electrostatic", north=north + more_north, east=east + more_east, error=error), verdict


def mirrored(quadrant: np.ndarray) -> np.ndarray:
    """(2L-1, 2L-1) from the lags >= 0: the same on all four sides."""
    half = np.concatenate([quadrant[:, :0:-1], quadrant], axis=1)
    return np.concatenate([half[:0:-1], half])


def area_change(north: np.ndarray, east: np.ndarray) -> np.ndarray:
    """(2L-1, 2L-1) a: change of a pixel's area by an electron at [L-1 + dy, L-1 + dx] from it; borders outside the table stay."""
    south, west = np.zeros_like(north), np.zeros_like(east)
    south[:-1], west[:, :-1] = north[1:], east[:, 1:]
    return north - south + east - west


def _mean_areas(ptc: PhotonTransfer, config: BrighterFatterConfig) -> _Areas:
    """Weighted mean of the amplifiers' a_ij without those that stand out."""
    used = np.isfinite(ptc.a).all(axis=(1, 2)) & np.isfinite(ptc.a_err).all(axis=(1, 2)) & (ptc.a_err > 0).all(axis=(1, 2))
    if not used.any():
        raise BadData(
            "brighter-fatter needs the a_ij of the photon transfer, which were not measured: it takes pairs of flats at three "
            "levels that span at least a factor of ptc.min_range"
        )
    if ptc.a.shape[1] < 3:
        raise BadData(f"brighter-fatter needs a_ij at 3 lags at least, the photon transfer has {ptc.a.shape[1]}; raise ptc.lags")
    usable, near = used, ptc.a[:, :2, :2]
    for _ in range(5):
        middle, error = np.median(near[used], axis=0), ptc.a_err[:, :2, :2]
        scatter = np.maximum(error, 1.4826 * np.median(np.abs(near[used] - middle), axis=0))
        new = usable & (np.abs(near - middle) <= config.clip * scatter).all(axis=(1, 2))
        if (new == used).all() or not new.any():
            break
        used = new
    weight = used[:, None, None] / ptc.a_err**2
    a = np.sum(np.where(used[:, None, None], ptc.a, 0.0) * np.where(used[:, None, None], weight, 0.0), axis=0)
    total = np.where(used[:, None, None], weight, 0.0).sum(axis=0)
    return _Areas(a / total, 1.0 / np.sqrt(total), used)


def _conserving(areas: _Areas, config: BrighterFatterConfig) -> tuple[_Areas, float]:
    """Moved within their errors to the sum that charge conservation asks for; and by how many errors the sum was off.

    All a_ij sum to zero; those at the measured lags to what the model has at the others, which is believed to a third.
    """
    n = len(areas.a)
    goal = mirrored(_model_areas(_fit_model(areas, config)[0], n)).sum()
    times = np.bincount(mirrored(np.arange(n * n).reshape(n, n)).ravel().astype(int)).reshape(
        n, n
    )  # how often a lag is in the sum
    excess, variance = np.sum(times * areas.a) - goal, np.sum((times * areas.error) ** 2) + (0.3 * goal) ** 2
    lever = areas.error**2 * times
    moved = areas._replace(a=areas.a - lever * excess / variance, error=np.sqrt(areas.error**2 - lever**2 / variance))
    return moved, float(excess / np.sqrt(variance))


# ---- a potential


def _laplacian(reach: int, lags: int) -> np.ndarray:
    """(lags^2, reach^2): minus the second differences, at lags [0, lags), of a symmetric K given at [0, reach), 0 beyond."""
    operator = np.zeros((lags, lags, reach, reach))
    for j in range(lags):
        for i in range(lags):
            for dj, di, weight in ((0, 0, 4.0), (1, 0, -1.0), (-1, 0, -1.0), (0, 1, -1.0), (0, -1, -1.0)):
                y, x = abs(j + dj), abs(i + di)
                if y < reach and x < reach:
                    operator[j, i, y, x] += weight
    return operator.reshape(lags * lags, reach * reach)


def _poisson(areas: _Areas) -> tuple[np.ndarray, np.ndarray]:
    """Scalar kernel with -div grad K = a, and its error."""
    n = len(areas.a)
    inverse = np.linalg.inv(_laplacian(n, n))
    kernel = (inverse @ areas.a.ravel()).reshape(n, n)
    error = np.sqrt(inverse**2 @ areas.error.ravel() ** 2).reshape(n, n)
    return mirrored(kernel), mirrored(error)


def _remainder(
    areas: _Areas, north: np.ndarray, east: np.ndarray, config: BrighterFatterConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts, differences of a potential, that add what the model lacks in a; and the error of `north`.

    What it lacks is believed as far as the measurement is better than the model. Weighted least squares; the potential is 0 at
    the last lag, so that its shifts stay inside the table.
    """
    n, size = len(areas.a), len(north) // 2 + 1
    model = area_change(north, east)[size - 1 :, size - 1 :][:n, :n]
    doubt = (config.model_error * model) ** 2
    share = doubt / (doubt + areas.error**2)
    lacking = share * (areas.a - model)
    operator = _laplacian(n - 1, n) / areas.error.reshape(-1, 1)
    solver = np.linalg.pinv(operator / np.abs(areas.a[0, 0])) / np.abs(areas.a[0, 0])
    potential = (solver @ (lacking / areas.error).ravel()).reshape(n - 1, n - 1)
    spread = solver.reshape(n - 1, n - 1, -1) * share.ravel()  # potential by a over its error

    def shifts(quadrant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = np.zeros((2 * size, 2 * size))  # lags from -size on
        whole[size - n + 2 : size + n - 1, size - n + 2 : size + n - 1] = mirrored(quadrant)
        return np.diff(whole, axis=0)[:, 1:], np.diff(whole, axis=1)[1:, :]

    variance = sum(shifts(spread[:, :, k])[0] ** 2 for k in range(spread.shape[2]))
    return *shifts(potential), np.sqrt(variance)


# ---- the electrostatic model


def electrostatic_shifts(parameters: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Border shifts (north, east) by one electron, each (2 size - 1, 2 size - 1), 1/electron.

    Parameters
    ----------
    parameters : strength (1/electron), height of the electron above the gates, and where drift ends at borders that run along y
        (east) and along x (north); thickness between the two conducting faces; in pixels
    """
    tables = []
    for end in (parameters[3], parameters[2]):
        shift = _border_shift(parameters, end, size)[:, :-1]  # [aside, ahead]: aside 0 on, ahead 1 on
        ahead = np.concatenate([np.zeros((size, 1)), -shift[:, ::-1], shift], axis=1)  # ahead from -(size - 1) on
        tables.append(np.concatenate([ahead[:0:-1], ahead]))
    return tables[0].T, tables[1]


def _border_shift(parameters: np.ndarray, end: float, size: int) -> np.ndarray:
    """(size, size): shift of the border at +1/2 ahead of a pixel, with the electron `aside` 0, 1, ... and `ahead` 1, 2, ... of
    it.

    Strength times the solid angle under which the electron and its images in the two faces see the wall above the border.
    """
    strength, height, _, _, thickness = parameters
    image = 2.0 * thickness * np.arange(-4, 5)
    centre = np.concatenate([image + height, image - height])
    sign = np.repeat([1.0, -1.0], len(image))
    away = (np.arange(1, size + 1) - 0.5)[None, :, None]
    y = np.arange(size)[:, None, None] + np.array([[[[0.5]]], [[[-0.5]]]])
    total = 0.0
    for top, side in ((1.0, thickness - centre), (-1.0, end - centre)):
        part = np.arctan(y * side / (away * np.sqrt(away**2 + y**2 + side**2)))
        total = total + top * ((part[0] - part[1]) @ sign)
    return strength * total


def _model_areas(parameters: np.ndarray, size: int) -> np.ndarray:
    """(size, size) a at lags >= 0: what comes in over the four borders."""

    def across(shift: np.ndarray) -> np.ndarray:  # [aside, ahead]
        near = np.concatenate([-shift[:, :1], shift[:, :-1]], axis=1)  # of the pixel itself both borders move in
        return near - shift

    east, north = (_border_shift(parameters, end, size) for end in parameters[2:4])
    return across(east) + across(north).T


def _fit_model(areas: _Areas, config: BrighterFatterConfig) -> tuple[np.ndarray, float]:
    """Parameters of the electrostatic model and chi^2 per degree of freedom, where half of `model_error` counts as an error of
    a.
    """
    n = len(areas.a)
    error = np.hypot(areas.error, 0.5 * config.model_error * np.abs(areas.a))

    def residual(values: np.ndarray) -> np.ndarray:
        model = _model_areas(_physical(values, areas.a[0, 0]), n)
        return np.append(((model - areas.a) / error).ravel(), (values[4] - np.log(config.thickness)) / 0.7)

    from scipy.optimize import least_squares  # heavy: imported on first use

    starts = [np.log([0.1, height, 0.5, 0.5, config.thickness]) for height in (0.1, 0.5, 1.5)]
    best = min((least_squares(residual, start, max_nfev=100, loss="soft_l1") for start in starts), key=lambda fit: fit.cost)
    chi2 = float((residual(best.x) ** 2).sum() / max(1, n * n - 4))
    return _physical(best.x, areas.a[0, 0]), chi2


def _physical(values: np.ndarray, a_00: float) -> np.ndarray:
    """Logarithms of the parameters, the strength in units of -a_00, to the parameters."""
    values = np.exp(np.clip(values, -7.0, 4.0))
    return np.array([-values[0] * a_00, *values[1:]])
