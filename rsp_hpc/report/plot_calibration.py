"""Figures of calibration products: photon transfer, covariances, linearity, crosstalk, charge transfer, borders of pixels, planes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..products.box import Box
from ..products.electronics import BrighterFatter, ChargeTransfer, Crosstalk, Linearity, PhotonTransfer
from ..products.exposure import RawDetector
from ..products.image import MaskedImage
from ..products.kinds import CalibrationProduct
from ..products.mask import bits
from .figure import finite_limits, log_axis, new_figure, note_empty, plain_numbers, styled

__all__ = ["before_after_figure", "figures_of"]

MOST_PIXELS = 640
"""Pictures of planes are averaged until their longer side is no larger."""
FAINTEST = 10.0
"""ADU: pairs below are biases, which a logarithmic axis cannot show."""
UNITS = {"bias": "electron", "dark": "electron/s", "fringe": "rms = 1"}


def figures_of(product: CalibrationProduct) -> Iterator[tuple[str, str, Any, int]]:
    """(title, caption, figure, colours of the palette or 0) of a product."""
    content = product.content
    if isinstance(content, PhotonTransfer):
        yield ("Photon transfer", "each amplifier a colour; lines: the fit; hollow: left out; dashed: full well. Right: variance less the fit",
               ptc_figure(content), 0)
        yield ("Covariances", "mean over the amplifiers, in electrons; lines: the fit. Right: change of a pixel's area per electron at "
               "each lag, mean over the amplifiers", covariance_figure(content), 0)
        yield ("Gain and noise", "of each amplifier, with errors", gain_figure(content), 0)
    elif isinstance(content, Linearity):
        yield "Linearity", "left: what is added; right: what is left of each flat after it", linearity_figure(content), 0
    elif isinstance(content, Crosstalk):
        yield ("Crosstalk", "ghost in the target per electron of the source; crosses: not measured. Right: over its error",
               crosstalk_figure(content), 0)
    elif isinstance(content, ChargeTransfer):
        yield ("Deferred charge", "electrons in the first overscan columns over the flat's level; lines: the fit. Right: loss per transfer",
               transfer_figure(content), 0)
    elif isinstance(content, BrighterFatter):
        yield "Brighter-fatter", "per electron at each place around the pixel in the middle", brighter_fatter_figure(content), 0
    elif product.kind == "defects":
        yield "Defects", "each grown to be seen; right: in each row and column", defects_figure(content.image), 16
    else:
        yield (product.kind.capitalize(), "left: the product; right: its pixels' values and those of its error",
               plane_figure(content, UNITS.get(product.kind, "mean = 1")), 96)


def _colours(n: int) -> list:
    from matplotlib import colormaps

    return [colormaps["turbo"](value) for value in np.linspace(0.05, 0.95, max(n, 2))[:n]]


@styled
def ptc_figure(ptc: PhotonTransfer):
    """Variance over mean against mean, and what the fit leaves."""
    figure, axes = new_figure(8.6, 4.0, 1, 2)
    curve, rest = axes[0]
    lit = ptc.mean > FAINTEST
    for number, colour in enumerate(_colours(len(ptc.amplifiers))):
        order = np.argsort(ptc.mean[number])
        mean, variance, model = (values[number][order] for values in (ptc.mean, ptc.covariance[..., 0, 0], ptc.model[..., 0, 0]))
        used, bright = ptc.used[number][order], mean > FAINTEST
        for some, face in ((used & bright, colour), (~used & bright, "none")):
            curve.plot(mean[some], variance[some], "o", ms=3, mfc=face, mec=colour, mew=0.6, ls="")
        curve.plot(mean[used & bright], model[used & bright], color=colour, lw=0.8)
        rest.plot(mean[used & bright], 100.0 * (variance / model - 1.0)[used & bright], "o", ms=2.5, color=colour, mew=0)
        if np.isfinite(ptc.full_well[number]):
            curve.axvline(ptc.full_well[number], color=colour, lw=0.5, ls="--")
    rest.axhline(0.0, color="#222222", lw=0.8)
    if lit.any():
        for panel, axis in ((curve, "x"), (curve, "y"), (rest, "x")):
            log_axis(panel, axis, (1.0,))
        rest.set(ylim=finite_limits((100.0 * (ptc.covariance[..., 0, 0] / ptc.model[..., 0, 0] - 1.0))[ptc.used & lit], 2, 98, 0.3))
    curve.set(xlabel="mean [ADU]", ylabel="variance [ADU²]", title="photon transfer")
    rest.set(xlabel="mean [ADU]", ylabel="variance / fit - 1 [%]", title="residuals")
    return figure


@styled
def covariance_figure(ptc: PhotonTransfer):
    """Covariances at the first lags against the level, and the map of a."""
    figure, axes = new_figure(8.6, 3.8, 1, 2)
    curve, plot = axes[0]
    lags = [(j, i) for j, i in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)) if max(j, i) < ptc.covariance.shape[-1]]
    gain = ptc.gain[:, None]
    for (j, i), colour in zip(lags, _colours(len(lags))):
        level = (gain * ptc.mean)[ptc.used]
        found, model = ((gain**2 * values[..., j, i])[ptc.used] for values in (ptc.covariance, ptc.model))
        x, (y, fit) = _binned(level, (found, model))
        curve.plot(x, y, "o", ms=3.5, color=colour, label=f"{j} rows, {i} columns")
        curve.plot(x, fit, color=colour, lw=1.0)
    curve.set(xlabel="mean [electron]", ylabel="covariance [electron²]", title="covariances")
    if lags:
        curve.legend()
    if np.isfinite(ptc.a).any():
        _map(figure, plot, 1e6 * np.nanmean(ptc.a, axis=0), "a [1e-6 / electron]", symlog=True)
        plot.set(xlabel="columns", ylabel="rows", title="pixel area changes")
    else:
        note_empty(plot, "no a_ij: the levels do not tell it")
    return figure


def _binned(x: np.ndarray, values: tuple, bins: int = 24) -> tuple[np.ndarray, list[np.ndarray]]:
    """Means in bins of equal count along x."""
    order = np.argsort(x)
    parts = [part for part in np.array_split(order, min(bins, max(1, len(x)))) if len(part)]
    return np.array([x[part].mean() for part in parts]), [np.array([np.nanmean(value[part]) for part in parts]) for value in values]


def _map(figure, axes, values: np.ndarray, label: str, symlog: bool = False) -> None:
    """A small matrix in colour, symmetric about zero."""
    from matplotlib.colors import Normalize, SymLogNorm

    from matplotlib.ticker import SymmetricalLogLocator

    finite = values[np.isfinite(values)]
    bound = float(np.abs(finite).max()) if finite.size and np.abs(finite).max() > 0 else 1.0
    norm = SymLogNorm(bound / 100.0, vmin=-bound, vmax=bound) if symlog else Normalize(-bound, bound)
    shown = axes.imshow(values, origin="lower", cmap="RdBu_r", norm=norm, interpolation="nearest")
    bar = figure.colorbar(shown, ax=axes, label=label, shrink=0.7)
    if symlog:
        bar.locator = SymmetricalLogLocator(base=10.0, linthresh=bound / 100.0)
        bar.minorticks_off()
    bar.formatter = plain_numbers()
    bar.update_ticks()
    axes.grid(False)


@styled
def gain_figure(ptc: PhotonTransfer):
    """Gain, read noise and full well of each amplifier."""
    figure, axes = new_figure(8.6, 2.9, 1, 3)
    n = np.arange(len(ptc.amplifiers))
    for panel, value, error, label in zip(axes[0], (ptc.gain, ptc.read_noise, ptc.full_well),
                                          (ptc.gain_err, ptc.read_noise_err, ptc.full_well_err),
                                          ("gain [electron/ADU]", "read noise [electron]", "full well [ADU]")):
        if np.isfinite(value).any():
            panel.errorbar(n, value, np.nan_to_num(error), fmt="o", ms=3.5, lw=1, capsize=2, color="#2a7fb8")
            panel.set_xticks(n[::max(1, len(n) // 16)], [ptc.amplifiers[k] for k in n[::max(1, len(n) // 16)]], rotation=90)
        else:
            note_empty(panel, "not reached")
        panel.set_title(label)
    return figure


@styled
def linearity_figure(linearity: Linearity):
    """The correction of each amplifier, and the residuals of the flats."""
    figure, axes = new_figure(8.6, 3.8, 1, 2)
    curve, rest = axes[0]
    for number, colour in enumerate(_colours(len(linearity.amplifiers))):
        level = linearity.level[number]
        curve.plot(level, linearity.correction[number], color=colour, lw=1.0)
        if linearity.residual.size:
            rest.plot(linearity.measured[number], 100.0 * linearity.residual[number], "o", ms=2.2, color=colour, mew=0)
    curve.set(xlabel="charge as read [electron]", ylabel="added [electron]", title=f"correction, {linearity.method}")
    if linearity.residual.size:
        rest.axhline(0.0, color="#222222", lw=0.8)
        log_axis(rest, "x", (1.0,))
        rest.set(xlabel="charge [electron]", ylabel="residual [%]", title="after the correction",
                 ylim=finite_limits(100.0 * linearity.residual, 2, 98, 0.3))
    else:
        note_empty(rest, "no residuals kept")
    return figure


@styled
def crosstalk_figure(crosstalk: Crosstalk):
    """The matrix and its significance."""
    figure, axes = new_figure(8.6, 4.2, 1, 2)
    unknown = ~np.isfinite(crosstalk.error)
    ratio = np.where(unknown | (crosstalk.error == 0.0), np.nan, crosstalk.coefficient / np.where(crosstalk.error > 0, crosstalk.error, 1.0))
    for panel, values, label in ((axes[0, 0], 1e6 * crosstalk.coefficient, "1e-6"), (axes[0, 1], ratio, "sigma")):
        _map(figure, panel, values, label, symlog=True)
        y, x = np.nonzero(unknown & ~np.eye(*unknown.shape, dtype=bool))
        panel.plot(x, y, "x", color="#888888", ms=3)
        for names, place in ((crosstalk.sources, panel.set_xticks), (crosstalk.amplifiers, panel.set_yticks)):
            step = max(1, len(names) // 16)
            place(range(0, len(names), step), names[::step], **({"rotation": 90} if place == panel.set_xticks else {}))
        panel.set(xlabel="source", ylabel="target")
    axes[0, 0].set_title("coefficients")
    axes[0, 1].set_title("over their errors")
    return figure


@styled
def transfer_figure(transfer: ChargeTransfer):
    """Trails against the level, and the losses."""
    figure, axes = new_figure(8.6, 3.6, 1, 2)
    curve, losses = axes[0]
    if transfer.trail.size:
        columns = min(3, transfer.trail.shape[2])
        for column, marker in zip(range(columns), "osv"):
            for number, colour in enumerate(_colours(len(transfer.amplifiers))):
                order = np.argsort(transfer.signal[number])
                level = transfer.signal[number][order]
                curve.plot(level, transfer.trail[number, order, column], marker, ms=2.2, color=colour, mew=0)
                curve.plot(level, transfer.model[number, order, column], color=colour, lw=0.6)
        log_axis(curve, "x", (1.0,))
        curve.set(xlabel="level [electron]", ylabel=f"overscan columns 1 to {columns} [electron]", title="trails")
        curve.set_yscale("symlog", linthresh=0.5)
        curve.yaxis.set_major_formatter(plain_numbers())
    else:
        note_empty(curve, "no trails kept")
    n = np.arange(len(transfer.amplifiers))
    losses.errorbar(n, 1e6 * transfer.inefficiency, 1e6 * transfer.inefficiency_err, fmt="o", ms=3.5, lw=1, capsize=2, color="#2a7fb8")
    losses.set_xticks(n[::max(1, len(n) // 16)], [transfer.amplifiers[k] for k in n[::max(1, len(n) // 16)]], rotation=90)
    losses.set(ylabel="1e-6 per transfer", title="inefficiency")
    return figure


@styled
def brighter_fatter_figure(product: BrighterFatter):
    """The kernel, or the shifts of the borders."""
    maps = [(name, getattr(product, name)) for name in ("kernel", "north", "east", "error") if getattr(product, name) is not None]
    figure, axes = new_figure(2.9 * max(2, len(maps)), 3.0, 1, max(2, len(maps)))
    for panel, (name, values) in zip(axes[0], maps):
        side = len(values) // 2
        _map(figure, panel, 1e6 * values, "1e-6 / electron", symlog=True)
        panel.set_xticks([0, side, 2 * side], [-side, 0, side])
        panel.set_yticks([0, side, 2 * side], [-side, 0, side])
        panel.set_title({"kernel": "kernel", "north": "north border", "east": "east border", "error": "error"}[name])
    for panel in axes[0][len(maps):]:
        panel.set_visible(False)
    return figure


def _small(plane: np.ndarray, how=np.nanmedian) -> tuple[np.ndarray, int]:
    """A plane in blocks, so that it fits a picture; and the side of a block."""
    step = max(1, -(-max(plane.shape) // MOST_PIXELS))
    ny, nx = (size // step * step for size in plane.shape)
    blocks = plane[:ny, :nx].reshape(ny // step, step, nx // step, step).transpose(0, 2, 1, 3).reshape(ny // step, nx // step, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks without any number stay NaN
        return (blocks[..., 0] if step == 1 else how(blocks, axis=-1)), step


@styled
def plane_figure(content, unit: str):
    """A plane, and the histogram of its values and errors."""
    figure, axes = new_figure(8.6, 4.0, 1, 2, width_ratios=(1.25, 1.0))
    picture, histogram = axes[0]
    small, step = _small(content.image)
    low, high = finite_limits(small, 0.5, 99.5, 0.0)
    shown = picture.imshow(small, origin="lower", cmap="viridis", vmin=low, vmax=high if high > low else low + 1e-6, interpolation="nearest",
                           extent=(-0.5, step * small.shape[1] - 0.5, -0.5, step * small.shape[0] - 0.5))
    figure.colorbar(shown, ax=picture, label=unit, shrink=0.85)
    picture.grid(False)
    picture.set(xlabel="x [pixel]", ylabel="y [pixel]")
    values = content.image[np.isfinite(content.image)]
    if values.size:
        limits = finite_limits(values[::max(1, values.size // 200_000)], 0.05, 99.95, 0.5)
        histogram.hist(values, 120, range=limits, histtype="stepfilled", color="#2a7fb8", label="values")
        errors = np.sqrt(content.variance[np.isfinite(content.variance)])
        if errors.size:
            centre = float(np.median(values))
            histogram.axvspan(centre - float(np.median(errors)), centre + float(np.median(errors)), color="#d98c00", alpha=0.35,
                              label="median error")
        log_axis(histogram, "y", (1.0,))
        histogram.set(xlabel=unit, ylabel="pixels")
        histogram.legend()
    return figure


@styled
def defects_figure(defects: np.ndarray):
    """Where defects are, and how many per row and column."""
    figure, axes = new_figure(8.6, 4.0, 1, 2, width_ratios=(1.25, 1.0))
    picture, counts = axes[0]
    grown = defects.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            grown |= np.roll(defects, shift, axis)
    small, step = _small(grown.astype(np.float32), np.max)
    picture.imshow(small, origin="lower", cmap="Greys", vmin=0, vmax=1, interpolation="nearest",
                   extent=(-0.5, step * small.shape[1] - 0.5, -0.5, step * small.shape[0] - 0.5))
    picture.grid(False)
    picture.set(xlabel="x [pixel]", ylabel="y [pixel]", title=f"{int(defects.sum()):,} pixels, {100.0 * defects.mean():.3f} %")
    for axis, name, colour in ((0, "column", "#2a7fb8"), (1, "row", "#d98c00")):
        counts.plot(defects.sum(axis=axis), color=colour, lw=0.8, label=f"per {name}")
    counts.set(xlabel="pixel", ylabel="defects")
    counts.legend()
    return figure


@styled
def before_after_figure(raw: RawDetector, after: MaskedImage):
    """The whole detector and a cut-out of it, before and after."""
    before = rough_electrons(raw)
    before -= np.nanmedian(before)
    figure, axes = new_figure(8.6, 8.0, 2, 2)
    spot = _busiest(after)
    for row, box in enumerate((Box.of_shape(before.shape), spot)):
        place = box.slices(Box.of_shape(before.shape))
        images = before[place], after.image[place]
        low, high = finite_limits(_small(images[1])[0], 2.0, 90.0, 1.0)
        for panel, image, title in zip(axes[row], images, ("before", "after")):
            small, step = _small(image)
            panel.imshow(small, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest",
                         extent=(box.x0 - 0.5, box.x0 + step * small.shape[1] - 0.5, box.y0 - 0.5, box.y0 + step * small.shape[0] - 0.5))
            panel.grid(False)
            panel.set_title(f"{title}, {low:.0f} to {high:.0f} electrons")
    return figure


def _busiest(image: MaskedImage, side: int = 128) -> Box:
    """The square where most pixels were mended: cosmic rays and defects."""
    side = min(side, *image.image.shape)
    mended = image.mask & np.uint32(bits("CR", "BAD", "INTRP")) != 0
    ny, nx = (size // side for size in mended.shape)
    counts = mended[:ny * side, :nx * side].reshape(ny, side, nx, side).sum(axis=(1, 3))
    y, x = np.unravel_index(int(np.argmax(counts)), counts.shape)
    return Box(int(x) * side, int(y) * side, side, side)


def rough_electrons(raw: RawDetector) -> np.ndarray:
    """(ny, nx) float32: each amplifier less the median of its overscan (or offset), times its gain, in its place; nothing else."""
    image = np.full(raw.detector.box.shape, np.nan, np.float32)
    for amplifier, segment in zip(raw.detector.amplifiers, raw.segments):
        region = amplifier.serial_overscan or amplifier.prescan
        level = amplifier.offset
        if region is not None:
            x0, y0, nx, ny = region
            level = float(np.median(segment[y0:y0 + ny, x0 + min(2, nx - 1):x0 + nx]))
        x0, y0, nx, ny = amplifier.data
        data = (segment[y0:y0 + ny, x0:x0 + nx].astype(np.float32) - np.float32(level)) * np.float32(amplifier.gain)
        data = data[:, ::-1] if amplifier.flip_x else data
        image[amplifier.assembled_box.slices(raw.detector.box)] = data[::-1] if amplifier.flip_y else data
    return image
