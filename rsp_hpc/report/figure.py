"""How every figure of the report looks, and how it becomes text of the page. matplotlib is imported on first use."""

from __future__ import annotations

import base64
import functools
import io
import warnings

import numpy as np

__all__ = ["BANDS", "GALAXY", "OTHERS", "STAR", "band_colour", "data_uri", "finite_limits", "in_order", "log_axis",
           "new_figure", "note_empty", "one_figure", "plain_numbers", "styled"]

BANDS = {"u": "#7b3fa0", "g": "#2a7fb8", "r": "#3a9a4b", "i": "#d98c00", "z": "#c8443b", "y": "#7a4a2e"}
STAR, GALAXY, INK, GREY = "#4cc9f0", "#ffb703", "#222222", "#888888"
OTHERS = ("#2a7fb8", "#d98c00", "#3a9a4b", "#c8443b", "#7b3fa0", "#7a4a2e")
STYLE = {
    "font.size": 9.0, "font.family": "DejaVu Sans", "axes.titlesize": 10.0, "axes.titleweight": "bold",
    "axes.labelsize": 9.0, "legend.fontsize": 8.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "legend.framealpha": 0.8,
    "legend.edgecolor": "none", "lines.linewidth": 1.4,
    "figure.facecolor": "white", "text.parse_math": False}  # a dollar in a name is no formula


def band_colour(band: str) -> str:
    """A colour per band, the same in every figure."""
    return BANDS.get(band[:1], OTHERS[sum(map(ord, band)) % len(OTHERS)]) if band else INK


def in_order(bands) -> list[str]:
    """The different bands, bluest first; unknown ones after them by name."""
    known = list(BANDS)
    return sorted(set(bands), key=lambda band: (known.index(band[:1]) if band[:1] in known else len(known), band))


def styled(function):
    """A figure function under the report's style: texts made late take their size from it too."""
    @functools.wraps(function)
    def wrapped(*args, **more):
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return function(*args, **more)
    return wrapped


def one_figure(width: float = 6.4, height: float = 3.8):
    """(figure, axes) with one panel, inches."""
    figure, axes = new_figure(width, height)
    return figure, axes[0, 0]


def new_figure(width: float = 6.4, height: float = 3.8, rows: int = 1, columns: int = 1, **more):
    """(figure, axes) in inches; axes as a (rows, columns) array. No window, no global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    return figure, axes


def log_axis(axes, which: str = "x", subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """A logarithmic axis whose labels are plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(plain_numbers())
    axis.set_minor_formatter(NullFormatter())


def plain_numbers():
    """Tick labels without formulas."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:g}")


def note_empty(axes, text: str) -> None:
    """Say in the middle of the axes why there is nothing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def data_uri(figure, dpi: int = 110, colours: int = 0) -> str:
    """The figure as a `data:` URI of a PNG; `colours` > 0 reduces it to a palette (pictures: a third of the size)."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that the font lacks is drawn as a box
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    if colours:
        from PIL import Image  # matplotlib needs it anyway

        picture = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def finite_limits(values, low: float = 1.0, high: float = 99.0, pad: float = 0.1) -> tuple[float, float]:
    """Axis limits that hold the central percentiles of the finite values."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    a, b = np.percentile(values, (low, high))
    room = pad * (b - a) or max(abs(a) * pad, 1e-3)
    return float(a - room), float(b + room)
