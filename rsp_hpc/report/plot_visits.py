"""Figures of the visits: one panel per quantity, the PSF over the focal plane, and its residuals at stars."""

from __future__ import annotations

import numpy as np

from .figure import band_colour, finite_limits, in_order, new_figure, note_empty, one_figure, styled
from .visits import VisitRow, column

__all__ = ["psf_map_figure", "psf_stamp_figure", "visit_figure"]

PANELS = (("seeing", "seeing [arcsec]"), ("sky", "sky [electron]"), ("zero_point", "zero point [mag]"),
          ("depth", "5 sigma depth [mag]"), ("zero_point_scatter", "zero-point scatter [mag]"),
          ("astrometric_rms_east", "astrometric rms east [mas]"))


@styled
def visit_figure(rows: list[VisitRow]):
    """Seeing, sky, zero point, depth, scatters of every visit: median of its detectors, bar from least to greatest."""
    shown = [(name, label) for name, label in PANELS if np.isfinite(column(rows, name)).any()]
    if not shown:
        figure, axes = one_figure()
        note_empty(axes, "no visit is finished yet")
        return figure
    lines = -(-len(shown) // 2)
    figure, axes = new_figure(7.4, 0.8 + 1.75 * lines, lines, 2, sharex=True)
    visits = sorted({(row.mjd, row.visit, row.band) for row in rows},
                    key=lambda item: (np.nan_to_num(item[0], nan=1e9), item[1]))
    for panel, (name, label) in zip(axes.ravel(), shown):
        for band in in_order(band for _, _, band in visits):
            points = [(k, *_span(rows, visit, name)) for k, (_, visit, own) in enumerate(visits) if own == band]
            x, middle, low, high = np.array(points, float).T
            panel.errorbar(x, middle, [middle - low, high - middle], fmt="o", ms=4, lw=1, capsize=2,
                           color=band_colour(band), label=band)
        panel.set_ylabel(label)
        panel.ticklabel_format(axis="y", useOffset=False)
    for panel in axes.ravel()[len(shown):]:
        panel.set_visible(False)
    step = max(1, len(visits) // 12)
    for panel in axes.ravel()[max(len(shown) - 2, 0):len(shown)]:
        panel.set_xticks(range(0, len(visits), step), [str(visits[k][1]) for k in range(0, len(visits), step)],
                         rotation=60, ha="right")
        panel.set_xlabel("visit, in order of time")
        panel.tick_params(labelbottom=True)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _span(rows: list[VisitRow], visit: int, name: str) -> tuple[float, float, float]:
    values = column([row for row in rows if row.visit == visit], name)
    values = values[np.isfinite(values)]
    return (float(np.median(values)), float(values.min()), float(values.max())) if len(values) else (np.nan,) * 3


@styled
def psf_map_figure(rows: list[VisitRow], pixel_size: float = 0.01):
    """Means of all visits' stars in cells of the focal plane: size residual, shapes, and what the model leaves of them.

    Parameters
    ----------
    rows : visits with `psf`; detectors without a `center` are put side by side
    pixel_size : float, mm
    """
    some = [row for row in rows if row.psf is not None]
    figure, axes = new_figure(7.4, 3.7, 1, 2, sharex=True, sharey=True)
    if not some:
        for panel in axes[0]:
            note_empty(panel, "no PSF stars")
        return figure
    x, y = (np.concatenate(parts) for parts in zip(*(_focal(row, some, pixel_size) for row in some)))
    star = np.concatenate([row.psf.shape_star for row in some])
    left = star - np.concatenate([row.psf.shape_model for row in some])
    size = np.concatenate([row.psf.size_residual for row in some])
    x, y, size, star, left = _cells(x, y, 100.0 * size, star, left)
    panel = axes[0, 0]
    bound = max(np.abs(finite_limits(size, 2, 98, 0.0)).max(), 1e-3)
    points = panel.scatter(x, y, c=size, s=36, marker="s", cmap="RdBu_r", vmin=-bound, vmax=bound,
                           edgecolors="#77777788", linewidths=0.3)
    figure.colorbar(points, ax=panel, label="size: (T star - T model) / T model [%]", shrink=0.85)
    panel.set(title="PSF size residual", ylabel="focal plane y [mm]")
    typical = max(float(np.percentile(np.hypot(*star.T), 80)), 1e-3)
    length = 0.06 * max(np.ptp(x), np.ptp(y), 1e-3) / typical
    for shape, colour, label, thick in ((star, "#999999", f"stars; this long: |e| = {typical:.3f}", 0.006),
                                        (left, "#c8443b", "stars - model", 0.004)):
        angle, long = 0.5 * np.arctan2(shape[:, 1], shape[:, 0]), length * np.hypot(*shape.T)
        axes[0, 1].quiver(x, y, long * np.cos(angle), long * np.sin(angle), angles="xy", scale_units="xy", scale=1.0,
                          pivot="mid",
                          headwidth=0, headlength=0, headaxislength=0, width=thick, color=colour)
        axes[0, 1].plot([], [], color=colour, lw=2, label=label)
    axes[0, 1].set_title("PSF shape, and what the model leaves")
    room = 0.08 * max(np.ptp(x), np.ptp(y), 1e-3)
    for panel in axes[0]:
        panel.set(aspect="equal", xlabel="focal plane x [mm]", xlim=(x.min() - room, x.max() + room),
                  ylim=(y.min() - room, y.max() + room))
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _cells(x, y, *values, across: int = 20) -> list[np.ndarray]:
    """Means of positions and values in square cells of the focal plane, where there are stars."""
    side = max(np.ptp(x), np.ptp(y), 1e-6) / across
    place = np.stack([np.floor((x - x.min()) / side), np.floor((y - y.min()) / side)], axis=-1)
    _, cell = np.unique(place, axis=0, return_inverse=True)
    cell = cell.ravel()
    count = np.bincount(cell)

    def mean(value):
        return np.bincount(cell, value) / count if value.ndim == 1 else np.stack([mean(part) for part in value.T],
                                                                                 axis=-1)

    return [mean(value) for value in (x, y, *values)]


def _focal(row: VisitRow, rows: list[VisitRow], pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a detector's stars on the focal plane, mm."""
    names = sorted({item.detector for item in rows})
    width = max(float(item.psf.x.max()) for item in rows)
    x0, y0 = row.center if row.center is not None else (1.05 * width * pixel_size * names.index(row.detector), 0.0)
    return x0 + pixel_size * row.psf.x, y0 + pixel_size * row.psf.y


@styled
def psf_stamp_figure(rows: list[VisitRow]):
    """Per band: the mean model, the mean of star - model, and the same in units of its error."""
    bands = in_order(row.band for row in rows if row.psf is not None)
    figure, axes = new_figure(7.2, 0.6 + 2.1 * max(len(bands), 1), max(len(bands), 1), 3)
    if not bands:
        for panel in axes[0]:
            note_empty(panel, "no PSF stars")
        return figure
    for line, band in zip(axes, bands):
        samples = [row.psf for row in rows if row.band == band and row.psf is not None]
        model, stack, error, n = _stacked(samples)
        peak = model.max()
        ratio = 100.0 * stack / peak
        bound = max(np.abs(finite_limits(ratio, 0.5, 99.5, 0.0)).max(), 1e-6)
        for panel, values, limits, colours, label in (
                (line[0], np.arcsinh(100.0 * model / peak), (0, np.arcsinh(100.0)), "magma", None),
                (line[1], ratio, (-bound, bound), "RdBu_r", "% of the peak"),
                (line[2], stack / error, (-5, 5), "RdBu_r", "sigma")):
            shown = panel.imshow(values, origin="lower", vmin=limits[0], vmax=limits[1], cmap=colours,
                                 interpolation="nearest")
            if label:
                figure.colorbar(shown, ax=panel, label=label, shrink=0.85)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
        line[0].set_ylabel(f"{band}  ({n:,} stars)", color=band_colour(band), weight="bold")
    for panel, title in zip(axes[0], ("PSF model (asinh)", "star - model", "star - model")):
        panel.set_title(title)
    return figure


def _stacked(samples) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Mean model, weighted mean residual and its error over samples cut to the smallest stamp, number of stars."""
    size = min(len(sample.stack) for sample in samples)

    def middle(stamp):
        trim = (len(stamp) - size) // 2
        return stamp[trim:trim + size, trim:trim + size]

    weight = np.array([middle(sample.stack_error) ** -2.0 for sample in samples])
    stack = (weight * [middle(sample.stack) for sample in samples]).sum(axis=0) / weight.sum(axis=0)
    return (np.mean([middle(sample.model) for sample in samples], axis=0), stack, weight.sum(axis=0) ** -0.5,
            sum(len(sample.x) for sample in samples))
