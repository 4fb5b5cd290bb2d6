"""Figures of the sky: footprints of visits over patches, and colour pictures of the coadds with their objects."""

from __future__ import annotations

import numpy as np

from ..products.catalogue import Catalogue
from .figure import GALAXY, STAR, band_colour, in_order, note_empty, one_figure, styled
from .inputs import PatchArea, Picture
from .visits import VisitRow

__all__ = ["choose_rgb", "colour_image", "footprint_figure", "picture_figure"]

MOST_LABELS, MOST_MARKS = 60, 1500


def _tangent(corners: np.ndarray, ra0: float, dec0: float) -> np.ndarray:
    """(n, 2) degrees east and north of a centre, flat: good for a map of a few degrees."""
    east = ((corners[:, 0] - ra0 + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec0))
    return np.stack([east, corners[:, 1] - dec0], axis=-1)


@styled
def footprint_figure(visits: list[VisitRow], patches: list[PatchArea]):
    """Outlines of all detectors of all visits, coloured by band, over the patches and tracts."""
    figure, axes = one_figure(6.4, 5.6)
    shapes = [row.corners for row in visits if row.corners is not None]
    if not shapes:
        note_empty(axes, "no visit with a known position yet")
        return figure
    everything = np.concatenate(shapes)
    vector = np.array([np.cos(np.radians(everything[:, 0])).mean(), np.sin(np.radians(everything[:, 0])).mean()])
    ra0, dec0 = float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0), float(np.median(everything[:, 1]))
    from matplotlib.collections import LineCollection, PolyCollection

    for band in in_order(row.band for row in visits):
        some = [_tangent(row.corners, ra0, dec0) for row in visits if row.band == band and row.corners is not None]
        axes.add_collection(PolyCollection(some, facecolors=band_colour(band), edgecolors=band_colour(band), alpha=0.06,
                                           lw=0))
        axes.add_collection(PolyCollection(some, facecolors="none", edgecolors=band_colour(band), alpha=0.7, lw=0.8))
        axes.plot([], [], color=band_colour(band), lw=2, label=f"{band} ({len(some)} detector images)")
    flat = [(area, _tangent(area.corners, ra0, dec0)) for area in patches]
    axes.add_collection(LineCollection([np.vstack([p, p[:1]]) for _, p in flat], colors="#222222", lw=0.9))
    _limits(axes, _tangent(everything, ra0, dec0))
    _tract_labels(axes, flat, axes.get_xlim(), axes.get_ylim())
    axes.set(aspect="equal", xlabel=f"east of RA {ra0:.4f}° [deg]", ylabel=f"north of Dec {dec0:+.4f}° [deg]",
             title="Visits over patches")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _limits(axes, points: np.ndarray) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.06 * (high - low).max()
    axes.set_xlim(high[0] + room, low[0] - room)
    axes.set_ylim(low[1] - room, high[1] + room)


def _tract_labels(axes, flat: list[tuple[PatchArea, np.ndarray]], xlim, ylim) -> None:
    """Number of each patch in its middle, tract number in bold over its patches, where there is room."""
    inside = [(area, shape.mean(axis=0)) for area, shape in flat]
    inside = [(area, middle) for area, middle in inside
              if min(xlim) < middle[0] < max(xlim) and min(ylim) < middle[1] < max(ylim)]
    many = len(inside) > MOST_LABELS
    for tract in sorted({area.tract for area, _ in inside}):
        middles = np.array([middle for area, middle in inside if area.tract == tract])
        if many:
            axes.text(*middles.mean(axis=0), str(tract), ha="center", va="center", weight="bold", fontsize=8)
    if not many:
        for area, middle in inside:
            axes.text(*middle, f"{area.tract}\n{area.patch}", ha="center", va="center", fontsize=6.5, color="#333333")


def choose_rgb(bands) -> tuple[str, str, str] | None:
    """Three bands for red, green, blue: i r g where they exist, else spread over what there is; None for none."""
    order = in_order(bands)
    if not order:
        return None
    if {"g", "r", "i"} <= set(order):
        return "i", "r", "g"
    return order[-1], order[(len(order) - 1) // 2 if len(order) != 2 else 0], order[0]


def colour_image(red: np.ndarray, green: np.ndarray, blue: np.ndarray, softening: float = 2.5) -> np.ndarray:
    """(ny, nx, 3) float in [0, 1]: an asinh stretch of the mean that keeps colours (Lupton et al. 2004, PASP 116, 133).

    Each plane is in units of its sky noise; black lies 1.5 sigma below the sky, white at 150 sigma. Pixels without
    data in a band get the mean of the bands they have; those without any are dark grey.
    """
    planes = np.stack([_in_sigma(plane) for plane in (red, green, blue)])
    known = np.isfinite(planes)
    mean = np.where(known, planes, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    planes = np.where(known, planes, mean) + 1.5
    mean = np.maximum(mean + 1.5, 1e-6)
    top = np.arcsinh(150.0 / softening)
    stretched = np.clip(planes * (np.arcsinh(mean / softening) / (top * mean)), 0.0, None)
    peak = stretched.max(axis=0)
    picture = np.moveaxis(stretched / np.maximum(peak, 1.0), 0, -1)
    picture[~known.any(axis=0)] = 0.18
    return picture


def _in_sigma(plane: np.ndarray) -> np.ndarray:
    """Sky removed, in units of the sky's robust scatter; infinities become NaN."""
    plane = np.where(np.isfinite(plane), plane, np.nan).astype(float)
    values = plane[np.isfinite(plane)]
    if len(values) < 2:
        return plane
    sky = np.median(values)
    sigma = 1.4826 * np.median(np.abs(values[values <= sky] - sky)) or float(values.std()) or 1.0
    return (plane - sky) / sigma


@styled
def picture_figure(picture: Picture, objects: Catalogue | None, colours: tuple[str, ...] = ()):
    """A colour picture with the objects on it (circles: stars, squares: galaxies), patch and tract borders.

    `colours` are the bands for red, green and blue, if the picture has them.
    """
    ny, nx = next(iter(picture.images.values())).shape
    figure, axes = one_figure(6.6, float(np.clip(6.6 * ny / nx, 2.5, 8.0)) + 0.7)
    there = len(colours) == 3 and set(colours) <= set(picture.images)
    red, green, blue = colours if there else choose_rgb(picture.images)
    box, step = picture.box, picture.step
    extent = (box.x0 - 0.5, box.x0 - 0.5 + nx * step, box.y0 - 0.5, box.y0 - 0.5 + ny * step)
    axes.imshow(colour_image(*(picture.images[band] for band in (red, green, blue))), origin="lower", extent=extent,
                interpolation="nearest")
    for label, inner in picture.inner:
        corners = inner.corners()
        axes.plot(*np.vstack([corners, corners[:1]]).T, color="white", lw=0.7, alpha=0.8)
        seen = inner.intersect(box)
        if min(seen.nx, seen.ny) > 0.08 * max(box.nx, box.ny):
            axes.text(seen.x0 + 0.01 * box.nx, seen.y1 - 0.012 * box.ny, label, color="white", fontsize=7, va="top",
                      path_effects=_outline())
    for border in picture.borders:
        axes.plot(*np.asarray(border).T, color="#ff5d8f", lw=1.3, ls="--")
    if objects is not None and len(objects):
        _mark(axes, picture, objects)
    axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="x in the tract [pixel]", ylabel="y in the tract [pixel]",
             title=picture.title)
    axes.grid(False)
    axes.set_aspect("equal")
    handles = axes.get_legend_handles_labels()
    text = f"red {red}, green {green}, blue {blue}"
    if handles[0]:
        figure.legend(*handles, loc="outside lower center", ncols=3, title=text, title_fontsize=8)
    else:
        axes.set_title(f"{picture.title}  ({text})")
    return figure


def _outline():
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="#00000099")]


def _mark(axes, picture: Picture, objects: Catalogue) -> None:
    """Draw the brightest objects that lie in the picture."""
    x, y = picture.wcs.sky_to_pixel(objects["coord_ra"], objects["coord_dec"])
    rows = np.nonzero(picture.box.contains(x, y))[0]
    band = next((name for name in picture.images if f"{name}_psfFlux" in objects), None)
    if len(rows) > MOST_MARKS and band:
        rows = rows[np.argsort(-np.nan_to_num(objects[f"{band}_psfFlux"][rows]))][:MOST_MARKS]
    extended = _extendedness(objects, rows)
    size = float(np.clip(9000.0 / max(len(rows), 1), 6.0, 60.0))
    for label, some, marker, colour in (("stars", ~(extended > 0.5), "o", STAR),
                                        ("galaxies", extended > 0.5, "s", GALAXY)):
        axes.scatter(x[rows[some]], y[rows[some]], s=size, marker=marker, facecolors="none", edgecolors=colour,
                     linewidths=0.7,
                     label=f"{label} ({int(some.sum()):,})")


def _extendedness(objects: Catalogue, rows: np.ndarray) -> np.ndarray:
    """(n,) refExtendedness, or the mean over bands; NaN where nothing is known."""
    if "refExtendedness" in objects:
        return objects["refExtendedness"][rows].astype(float)
    names = [name for name in objects.columns if name.endswith("_extendedness") and name.count("_") == 1]
    if not names:
        return np.full(len(rows), np.nan)
    table = np.stack([objects[name][rows].astype(float) for name in names])
    known = np.isfinite(table)
    return np.where(known.any(axis=0), np.where(known, table, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1),
                    np.nan)
