"""Draw numbers in one style that is readable without colour. pyplot's global state is not used."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from crgan_cli.system.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design": for all kinds of colour vision, with markers too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"
RED = "#D55E00"
MARKERS = {BLUE: "o", ORANGE: "s", GREEN: "^", PURPLE: "D"}
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, "#56B4E9")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: pairs repeat after 42
DASHES = ("-", "--", "-.", ":")

MAX_MARKERS = 30
"""Of the points of a longer line only a dozen have markers: all would hide it, and none would
leave it to its colour."""

METADATA = {
    ".pdf": {"CreationDate": None},
    ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
}
"""By suffix, what a file is not to hold: equal figures are equal files, whenever written."""

DECADE = 8.0
"""Positive values with a larger ratio than this are drawn on a log axis."""


class Style(NamedTuple):
    """The look of one of many series."""

    colour: str
    marker: str
    dash: str


def get_style(number: int) -> Style:
    """Return the look of series `number`, from 0. Dashes change when the colours are used up."""
    return Style(
        CYCLE[number % len(CYCLE)],
        SHAPES[number % len(SHAPES)],
        DASHES[number // len(CYCLE) % len(DASHES)],
    )


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and write figures for a paper while the body runs.

    A PDF holds the letters of its font as TrueType: publishers refuse Type 3, matplotlib's
    default. An SVG names the font, so that its text can be searched and edited. The font, DejaVu
    Sans, comes with matplotlib: a figure is the same on every machine. Being wide, it leaves room
    for another.
    """
    from matplotlib import rc_context

    with rc_context(
        {
            "font.size": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "axes.linewidth": 0.6,
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
        }
    ):
        yield


def make_panels(
    count: int, title: str, *, size: tuple[float, float] | None = None, columns: int | None = None
) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure of `count` panels, in `columns` or in one line.

    `size` is width and height in inches. A figure of a paper has the title "": none.
    """
    from matplotlib.figure import Figure  # takes a second

    across = min(columns or count, count)
    down = -(-count // across)
    figure = Figure(figsize=size or (max(4.2 * across, 5.6), 4.2 * down), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    cells = list(figure.subplots(down, across, squeeze=False).flat)
    for each in cells[count:]:
        each.remove()
    for each in cells[:count]:
        each.grid(alpha=0.3)
    return figure, cells[:count]


def draw_curve(
    axes: "Axes",
    at: Sequence[float],
    means: Sequence[float],
    ses: Sequence[float],
    *,
    colour: str,
    label: str,
) -> None:
    """Draw a line with a band of two standard errors. A log axis leaves out values up to 0."""
    log_x, log_y = axes.get_xscale() == "log", axes.get_yscale() == "log"
    shown = [
        (x, mean, se)
        for x, mean, se in zip(at, means, ses, strict=True)
        if (x > 0 or not log_x) and (mean > 0 or not log_y)
    ]
    if not shown:
        return
    x, mean, se = zip(*shown, strict=True)
    # on a log axis a band down to 0 would reach minus infinity
    low = [max(m - 2 * s, m / 10 if log_y else m - 2 * s) for m, s in zip(mean, se, strict=True)]
    high = [m + 2 * s for m, s in zip(mean, se, strict=True)]
    axes.plot(x, mean, color=colour, marker=MARKERS[colour], markersize=4, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def draw_distribution(axes: "Axes", values: Sequence[float], *, colour: str, label: str) -> None:
    """Draw the share of values up to x with its 95 % band.

    The band is sqrt(ln(2 / 0.05) / 2n) up and down, Dvoretzky, Kiefer & Wolfowitz 1956 with
    Massart's constant (1990).
    """
    ordered, n = sorted(values), len(values)
    share = [(i + 1) / n for i in range(n)]
    half = math.sqrt(math.log(2 / 0.05) / (2 * n))
    low, high = [max(p - half, 0) for p in share], [min(p + half, 1) for p in share]
    axes.plot(ordered, share, color=colour, drawstyle="steps-post", label=label)
    axes.fill_between(ordered, low, high, color=colour, alpha=0.2, linewidth=0, step="post")


def set_log_y_if_positive(axes: "Axes", curves: Sequence[Sequence[float]]) -> None:
    """Use a log scale for y if any value of the curves is above 0."""
    if any(value > 0 for curve in curves for value in curve):
        axes.set_yscale("log")


def spans_decades(values: Sequence[float]) -> bool:
    """Return whether a log axis suits the values: all above 0, and far apart."""
    return bool(values) and min(values) > 0 and max(values) > DECADE * min(values)


def set_log_scale(axes: "Axes", which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Use a log axis with the labels 1 2 5 10, or powers of ten over more than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = max(values) > 100 * min(values)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_band(
    axes: "Axes",
    at: Sequence[float],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    look: Style,
    label: str,
) -> None:
    """Draw a line within a band from `low` to `high`."""
    every = 1 if len(at) <= MAX_MARKERS else len(at) // 12
    axes.plot(
        at,
        middle,
        color=look.colour,
        marker=look.marker,
        markevery=(SHAPES.index(look.marker) % every, every),  # lines that meet take turns
        linestyle=look.dash,
        markersize=4,
        linewidth=1.3,
        label=label,
    )
    axes.fill_between(at, low, high, color=look.colour, alpha=0.15, linewidth=0)


def to_svg(figure: "Figure", prefix: str) -> str:
    """Return the figure as an <svg> element inside a page.

    It has no background. Black becomes the colour of the text around it, BLUE and GREY the page's
    --plot-blue and --plot-grey if it has them. `prefix` makes its ids unique in the page.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": prefix}):  # the same figure gives the same text
        figure.savefig(file, format="svg", transparent=True, metadata=METADATA[".svg"])
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("#000000", "currentColor")
    for colour, name in ((BLUE, "blue"), (GREY, "grey")):  # too dark for a dark page
        drawn = drawn.replace(colour.lower(), f"var(--plot-{name}, {colour.lower()})")
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn)  # not needed inside a page
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawn)
    return drawn.replace("<svg", '<svg fill="currentColor"', 1).strip()


def save_figure(figure: "Figure", path: Path, dpi: int = 120) -> None:
    """Write the figure as .png, .svg or .pdf, by the suffix. Equal figures give equal bytes.

    A .png has `dpi` pixels per inch.
    """
    from matplotlib import rc_context

    kind = path.suffix or ".png"
    with atomic_path(path) as partial, rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(partial, format=kind[1:], dpi=dpi, metadata=METADATA.get(kind))
