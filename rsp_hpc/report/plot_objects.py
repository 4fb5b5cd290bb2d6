"""Figures of the objects: completeness, fluxes, pulls, positions, separation. Each function returns a figure."""

from __future__ import annotations

import numpy as np

from .config import ReportConfig
from .figure import band_colour, finite_limits, log_axis, new_figure, note_empty, one_figure, styled
from .metrics import MILLIMAG, Comparison, completeness
from .robust import median, width

__all__ = ["completeness_figure", "flux_figure", "position_figure", "pull_figure", "separation_figure"]


@styled
def completeness_figure(comparison: Comparison, config: ReportConfig):
    """Completeness of isolated objects against the true S/N of their best band, stars and galaxies."""
    figure, axes = one_figure()
    edges = np.r_[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5, 10.0, 14.0, 20.0, 35.0, 60.0, 100.0]
    bins = list(zip(edges[:-1], edges[1:]))
    truth = comparison.truth
    use = truth.usable & comparison.best_isolated
    for label, some, colour, marker in (("stars", truth.is_star, "#2a7fb8", "o"),
                                        ("galaxies", ~truth.is_star, "#d98c00", "s")):
        values = completeness(comparison.best_snr, comparison.found, use & some, bins)
        x = np.sqrt(edges[:-1] * edges[1:]) * (1.015 if marker == "s" else 0.985)
        known = np.array([value.n > 0 for value in values])
        if known.any():
            axes.errorbar(x[known], np.array([v.value for v in values])[known],
                          np.array([v.error for v in values])[known],
                          color=colour, marker=marker, ms=4, capsize=2, label=f"{label} ({sum(v.n for v in values):,})")
    for name, low, high in (("completeness_5_7", 5, 7), ("completeness_10_20", 10, 20)):
        limit = config.target(name)[0]
        if limit is not None:
            axes.hlines(limit, low, high, color="#c8443b", lw=2.5, zorder=5, label="target" if low == 5 else None)
    axes.set(xscale="log", xlim=(2, 100), ylim=(-0.02, 1.05), xlabel="true S/N in the best band",
             ylabel="fraction found",
             title="Completeness of isolated objects")
    axes.set_xticks([2, 3, 5, 7, 10, 20, 50, 100], labels=["2", "3", "5", "7", "10", "20", "50", "100"], minor=False)
    axes.minorticks_off()
    axes.legend(loc="lower right")
    return figure


@styled
def flux_figure(comparison: Comparison):
    """PSF magnitude less true magnitude of isolated stars, a panel per band, with running median."""
    bands = comparison.bands
    figure, axes = new_figure(6.4, 0.7 + 1.7 * max(len(bands), 1), max(len(bands), 1), 1, sharex=True)
    for panel, band in zip(axes[:, 0], bands):
        row, true = comparison.stars(band, 5.0)
        flux, known = comparison.objects[f"{band}_psfFlux"][row], comparison.truth.flux[band][true]
        magnitude, residual = 31.4 - 2.5 * np.log10(known), -MILLIMAG * (flux / known - 1.0)
        panel.axhline(0.0, color="#222222", lw=0.8)
        panel.plot(magnitude, residual, ".", ms=2.5, alpha=0.5, color=band_colour(band), rasterized=True)
        _running_median(panel, magnitude, residual)
        spread = np.nanmax(np.abs(finite_limits(residual, 5, 95))) if len(residual) else 1.0
        panel.set(ylim=(-max(spread, 10.0), max(spread, 10.0)), ylabel="PSF - true\n[mmag]")
        panel.text(0.015, 0.93, f"{band}  ({len(row):,} stars)", transform=panel.transAxes, va="top", weight="bold",
                   color=band_colour(band))
    if not bands:
        note_empty(axes[0, 0], "no band in common with the truth")
    axes[-1, 0].set_xlabel("true magnitude [AB]")
    figure.suptitle("Fluxes of isolated stars", fontsize=10, weight="bold")
    return figure


def _running_median(axes, x, y, least: int = 8) -> None:
    """Median with its error in bins of equal count."""
    if len(x) < 2 * least:
        return
    pieces = np.array_split(np.argsort(x), int(np.clip(len(x) // 25, 2, 12)))
    middle = [np.median(x[piece]) for piece in pieces]
    centre = [median(y[piece]) for piece in pieces]
    axes.errorbar(middle, [c.value for c in centre], [c.error for c in centre], color="#111111", marker="o", ms=3.5,
                  lw=1.2, capsize=2)


@styled
def pull_figure(comparison: Comparison, config: ReportConfig):
    """Histograms of flux and position pulls of isolated stars with the unit Gaussian."""
    low, high = config.pull_snr
    sets = []
    for band in comparison.bands:
        _, residual, error = comparison.flux_residual(band, low, high)
        sets.append((f"flux {band}", residual / error, band_colour(band)))
    _, east, north, east_err, north_err = comparison.position_residual(low, high)
    sets += [("position, east", east / east_err, "#555555"), ("position, north", north / north_err, "#555555")]
    columns = min(len(sets), 3)
    rows = -(-len(sets) // columns)
    figure, axes = new_figure(2.5 * columns, 0.5 + 1.9 * rows, rows, columns, sharex=True, sharey=True)
    grid = np.linspace(-5.0, 5.0, 201)
    for panel, (label, pulls, colour) in zip(axes.ravel(), sets):
        pulls = pulls[np.isfinite(pulls)]
        if len(pulls):
            edges = np.linspace(-5.0, 5.0, 21 if len(pulls) < 1000 else 41)
            panel.hist(np.clip(pulls, -4.99, 4.99), edges, density=True, color=colour, alpha=0.65)
        panel.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), color="#111111", lw=1.2)
        centre, spread = median(pulls), width(pulls)
        text = f"median {centre.value:+.2f}±{centre.error:.2f}\nwidth {spread.value:.2f}±{spread.error:.2f}"
        panel.text(0.03, 0.97, text if spread.n > 1 else "no data", transform=panel.transAxes, va="top", fontsize=7)
        panel.set_title(f"{label}  (n = {len(pulls):,})", fontsize=8.5)
        panel.set(xlim=(-5, 5), ylim=(0, 0.62))
    for panel in axes.ravel()[len(sets):]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("density")
    for panel in axes.ravel()[max(len(sets) - columns, 0):len(sets)]:
        panel.set_xlabel("(measured - true) / error")
        panel.tick_params(labelbottom=True)
    figure.suptitle(f"Pulls of isolated stars, S/N {low:g}-{high:g}, and the unit Gaussian", fontsize=10, weight="bold")
    return figure


@styled
def position_figure(comparison: Comparison, config: ReportConfig):
    """Offsets from the true position: scatter in (east, north), and against S/N."""
    snr, east, north, _, _ = comparison.position_residual(5.0)
    figure, axes = new_figure(7.4, 3.6, 1, 2, width_ratios=[1, 1.25])
    bright = snr >= config.position_snr
    panel = axes[0, 0]
    panel.axhline(0, color="#222222", lw=0.8)
    panel.axvline(0, color="#222222", lw=0.8)
    panel.plot(1000 * east[bright], 1000 * north[bright], ".", ms=3, alpha=0.6, color="#2a7fb8", rasterized=True)
    both = 1000 * np.r_[east[bright], north[bright]]
    limit = max(np.abs(finite_limits(both, 1, 99))) if len(both) else 10.0
    panel.set(xlim=(limit, -limit), ylim=(-limit, limit), aspect="equal", xlabel="east [mas]", ylabel="north [mas]",
              title=f"S/N > {config.position_snr:g}  (n = {bright.sum():,})")
    panel = axes[0, 1]
    panel.axhline(0, color="#222222", lw=0.8)
    for offset, label, colour in ((east, "east", "#2a7fb8"), (north, "north", "#d98c00")):
        panel.plot(snr, 1000 * offset, ".", ms=2.5, alpha=0.45, color=colour, label=label, rasterized=True)
    spread = max(np.abs(finite_limits(np.r_[1000 * east, 1000 * north], 1, 99))) if len(east) else 10.0
    log_axis(panel)
    panel.set(ylim=(-spread, spread), xlabel="true S/N in the best band", ylabel="measured - true [mas]",
              title="Position residuals of isolated stars")
    panel.legend(loc="upper right", markerscale=3)
    return figure


@styled
def separation_figure(comparison: Comparison):
    """Extendedness of true stars and galaxies against S/N, a panel per band."""
    names = {band: next((name for name in (f"{band}_sizeExtendedness", f"{band}_extendedness")
                         if name in comparison.objects), "")
             for band in comparison.bands}
    bands = [band for band in comparison.bands if names[band]]
    figure, axes = new_figure(max(2.6 * len(bands), 4.0), 3.2, 1, max(len(bands), 1), sharey=True)
    for panel, band in zip(axes[0], bands):
        snr, star = comparison.truth.snr(band)[comparison.true], comparison.truth.is_star[comparison.true]
        score = comparison.objects[names[band]][comparison.row].astype(float)
        use = comparison.isolated[band][comparison.true] & (snr > 3)
        for label, some, colour in (("galaxies", ~star, "#d98c00"), ("stars", star, "#2a7fb8")):
            panel.plot(snr[use & some], score[use & some], ".", ms=3, alpha=0.5, color=colour, label=label,
                       rasterized=True)
        panel.axhline(0.5, color="#222222", lw=0.8, ls="--")
        log_axis(panel)
        panel.tick_params(axis="x", rotation=45)
        panel.set(xlabel="true S/N", title=band)
    if bands:
        axes[0, 0].set_ylabel("extendedness")
        axes[0, -1].legend(loc="center right", markerscale=3)
    else:
        note_empty(axes[0, 0], "no extendedness column")
    figure.suptitle("Star/galaxy separation of isolated objects", fontsize=10, weight="bold")
    return figure
