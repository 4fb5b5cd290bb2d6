"""A visit over its focal plane: each detector coloured by what its summary says, with the PSF's whiskers."""

from __future__ import annotations

import numpy as np

from .figure import finite_limits, in_order, new_figure, note_empty, styled
from .visits import VisitRow, column

__all__ = ["focal_plane_figure", "shown_visits", "verdict_words"]

PANELS = (("sky", "sky [electron]", "viridis"), ("seeing", "PSF FWHM [arcsec]", "magma"),
          ("zero_point", "zero point [mag]", "RdBu"), ("depth", "5 sigma depth [mag]", "cividis"),
          ("astrometric_rms", "astrometric rms [mas]", "plasma"), 
          ("sky_residual", "mesh - visit sky [electron]", "viridis"))


def shown_visits(rows: list[VisitRow]) -> list[int]:
    """One visit per band: the one with most detectors that say where they are, the earliest of these."""
    result = []
    for band in in_order(row.band for row in rows):
        some = [row.visit for row in rows if row.band == band and np.isfinite(row["focal_x"])]
        if some:
            numbers, counts = np.unique(some, return_counts=True)
            result.append(int(numbers[np.argmax(counts)]))
    return result


def verdict_words(rows: list[VisitRow]) -> str:
    """What the zero points say of the night."""
    if not np.isfinite(rows[0]["photometric"]):
        return "no verdict on the night"
    numbers = [f"{words} {rows[0][name]:.3f} mag" for name, words in (("zero_point_spread", "detectors differ by"),
                                                                      ("cloud_rms", "clouds of"), ("extinction", "light lost:"))
               if np.isfinite(rows[0][name]) and rows[0][name] != 0.0]
    return ("photometric" if rows[0]["photometric"] else "NOT photometric") + (f" ({', '.join(numbers)})" if numbers else "")


@styled
def focal_plane_figure(rows: list[VisitRow]):
    """Maps of one visit; crossed-out detectors lack the number. `rows` are its detectors."""
    rows = [row for row in rows if np.isfinite(row["focal_x"])]
    figure, axes = new_figure(9.6, 6.4, 2, 3, sharex=True, sharey=True)
    if not rows:
        for panel in axes.ravel():
            note_empty(panel, "no detector says where it is")
        return figure
    x, y, width, height = (column(rows, f"focal_{name}") for name in ("x", "y", "width", "height"))
    for panel, (name, label, colours) in zip(axes.ravel(), PANELS):
        _map(figure, panel, (x, y, width, height), column(rows, name), (label, colours))
    _whiskers(axes[0, 1], x, y, rows)
    room = 0.03 * max(np.ptp(x) + width.max(), np.ptp(y) + height.max())
    for panel in axes.ravel():
        panel.set(aspect="equal", xlim=((x - width / 2).min() - room, (x + width / 2).max() + room),
                  ylim=((y - height / 2).min() - room, (y + height / 2).max() + room))
        panel.grid(False)
    for panel in axes[1]:
        panel.set_xlabel("focal plane x [mm]")
    for panel in axes[:, 0]:
        panel.set_ylabel("focal plane y [mm]")
    figure.suptitle(f"visit {rows[0].visit}, {rows[0].band}: {verdict_words(rows)}", fontsize=10)
    return figure


def _map(figure, panel, place, values: np.ndarray, style: tuple[str, str]) -> None:
    """One quantity: filled rectangles, and crosses where it is unknown."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes = [Rectangle((x - w / 2, y - h / 2), w, h) for x, y, w, h in zip(*place)]
    known = np.isfinite(values)
    low, high = finite_limits(values, 2.0, 98.0, 0.02)
    filled = PatchCollection([box for box, use in zip(boxes, known) if use], cmap=style[1], edgecolor="#777777", linewidth=0.3)
    filled.set_array(values[known])
    filled.set_clim(low, high)
    panel.add_collection(filled)
    panel.add_collection(PatchCollection([box for box, use in zip(boxes, known) if not use], facecolor="#eeeeee", edgecolor="#999999",
                                         hatch="xx", linewidth=0.3))
    bar = figure.colorbar(filled, ax=panel, shrink=0.85)
    bar.formatter.set_useOffset(False)
    panel.set_title(style[0], fontsize=9)


def _whiskers(panel, x, y, rows: list[VisitRow]) -> None:
    e1, e2, rotation = (column(rows, name) for name in ("psf_e1", "psf_e2", "rotation"))
    use = np.isfinite(e1 + e2)
    if not use.any():
        return
    size = np.hypot(e1, e2)
    typical = max(float(np.percentile(size[use], 80)), 1e-3)
    long = 0.8 * float(np.median(column(rows, "focal_width"))) * size / typical
    angle = 0.5 * np.arctan2(e2, e1) + np.radians(np.nan_to_num(rotation))
    panel.quiver(x[use], y[use], (long * np.cos(angle))[use], (long * np.sin(angle))[use], angles="xy", scale_units="xy", scale=1.0,
                 pivot="mid", headwidth=0, headlength=0, headaxislength=0, width=0.006, color="#4cc9f0")
    panel.text(0.02, 0.02, f"as wide as 0.8 detectors: |e| = {typical:.3f}", transform=panel.transAxes, fontsize=7, color="#333333")
