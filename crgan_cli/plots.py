"""How numbers are drawn: one look, readable without colour, and without pyplot's global state."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.atomic import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design": told apart whatever the eyes; a marker for each too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"
MARKERS = {BLUE: "o", ORANGE: "s", GREEN: "^", PURPLE: "D"}


def panels(
    count: int, title: str, *, size: tuple[float, float] | None = None
) -> "tuple[Figure, list[Axes]]":
    """An empty figure of `count` panels beside each other; `size` is width and height in inches."""
    from matplotlib.figure import Figure  # a second of imports that only a plot needs

    figure = Figure(figsize=size or (max(4.2 * count, 5.6), 4.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


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


def log_where_possible(axes: "Axes", curves: Sequence[Sequence[float]]) -> None:
    """A log scale for y, unless no value of the curves is above 0."""
    if any(value > 0 for curve in curves for value in curve):
        axes.set_yscale("log")


def save(figure: "Figure", path: Path) -> None:
    """Writes the figure as the kind of file that the name says, .png or .svg or .pdf."""
    with whole(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".") or "png", dpi=120)
