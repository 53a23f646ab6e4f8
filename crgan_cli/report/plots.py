"""How numbers are drawn: one look, readable without colour, and without pyplot's global state."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from crgan_cli.system.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design": told apart whatever the eyes; a marker for each too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"
MARKERS = {BLUE: "o", ORANGE: "s", GREEN: "^", PURPLE: "D"}
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, "#D55E00", "#56B4E9")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: pairs repeat after 42
DASHES = ("-", "--", "-.", ":")

DECADE = 8.0
"""Positive values that lie further apart than this are drawn on a log axis."""


class Style(NamedTuple):
    """How one of many series looks, wherever it is drawn."""

    colour: str
    marker: str
    dash: str


def get_style(number: int) -> Style:
    """The look of series `number`, from 0: colour and marker change together, dashes by round."""
    return Style(
        CYCLE[number % len(CYCLE)],
        SHAPES[number % len(SHAPES)],
        DASHES[number // len(CYCLE) % len(DASHES)],
    )


def make_panels(
    count: int, title: str, *, size: tuple[float, float] | None = None, columns: int | None = None
) -> "tuple[Figure, list[Axes]]":
    """An empty figure of `count` panels, `columns` or all of them beside each other; `size` is
    width and height in inches."""
    from matplotlib.figure import Figure  # a second of imports that only a plot needs

    across = min(columns or count, count)
    down = -(-count // across)
    figure = Figure(figsize=size or (max(4.2 * across, 5.6), 4.2 * down), layout="constrained")
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
    """A line with a band of two standard errors. A log axis leaves out what is not above 0."""
    log_x, log_y = axes.get_xscale() == "log", axes.get_yscale() == "log"
    shown = [
        (x, mean, se)
        for x, mean, se in zip(at, means, ses, strict=True)
        if (x > 0 or not log_x) and (mean > 0 or not log_y)
    ]
    if not shown:
        return
    x, mean, se = zip(*shown, strict=True)
    # a band that reaches 0 would reach minus infinity on a log axis
    low = [max(m - 2 * s, m / 10 if log_y else m - 2 * s) for m, s in zip(mean, se, strict=True)]
    high = [m + 2 * s for m, s in zip(mean, se, strict=True)]
    axes.plot(x, mean, color=colour, marker=MARKERS[colour], markersize=4, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def draw_distribution(axes: "Axes", values: Sequence[float], *, colour: str, label: str) -> None:
    """The share of values up to x, with the 95 % band of Dvoretzky, Kiefer & Wolfowitz 1956, with
    Massart's constant (1990): sqrt(ln(2 / 0.05) / 2n) up and down."""
    ordered, n = sorted(values), len(values)
    share = [(i + 1) / n for i in range(n)]
    half = math.sqrt(math.log(2 / 0.05) / (2 * n))
    low, high = [max(p - half, 0) for p in share], [min(p + half, 1) for p in share]
    axes.plot(ordered, share, color=colour, drawstyle="steps-post", label=label)
    axes.fill_between(ordered, low, high, color=colour, alpha=0.2, linewidth=0, step="post")


def set_log_y_if_positive(axes: "Axes", curves: Sequence[Sequence[float]]) -> None:
    """A log scale for y, unless no value of the curves is above 0."""
    if any(value > 0 for curve in curves for value in curve):
        axes.set_yscale("log")


def spans_decades(values: Sequence[float]) -> bool:
    """Whether a log axis suits the values: all above 0, and far apart."""
    return bool(values) and min(values) > 0 and max(values) > DECADE * min(values)


def set_log_scale(axes: "Axes", which: Literal["x", "y"], values: Sequence[float]) -> None:
    """A log axis with plain numbers, 1 2 5 10 or, over more than two decades, powers of ten."""
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
    """A line within a band from `low` to `high`."""
    dots = look.marker if len(at) <= 30 else None  # more would hide the line
    axes.plot(
        at,
        middle,
        color=look.colour,
        marker=dots,
        linestyle=look.dash,
        markersize=4,
        linewidth=1.3,
        label=label,
    )
    axes.fill_between(at, low, high, color=look.colour, alpha=0.15, linewidth=0)


def to_svg(figure: "Figure", prefix: str) -> str:
    """The figure as an <svg> element to stand inside a page: without a background, its black in the
    colour of the text around it, its BLUE and GREY the page's --plot-blue and --plot-grey if it has
    them. `prefix` keeps its ids apart from other figures'."""
    from matplotlib import rc_context

    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": prefix}):  # the same figure makes the same text
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("#000000", "currentColor")
    for colour, name in ((BLUE, "blue"), (GREY, "grey")):  # too dark for a dark page
        drawn = drawn.replace(colour.lower(), f"var(--plot-{name}, {colour.lower()})")
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn)  # a page knows these itself
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawn)
    return drawn.replace("<svg", '<svg fill="currentColor"', 1).strip()


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes the figure as the kind of file that the name says, .png or .svg or .pdf."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".") or "png", dpi=120)
