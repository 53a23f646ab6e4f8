"""What the figures of a report share: labels, reference lines, legends, files."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crgan_cli.report import plots
from crgan_cli.report.model import Report, Spread
from crgan_cli.runs.metric_names import BASELINES, higher_is_better
from crgan_cli.system.numbers import format_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 12
"""Rows in a plot of lines. More could not be told apart."""


MAX_LETTERS = 160
"""Of a label next to a plot."""

LETTER, LEGEND_KEY = 0.07, 0.6
"""Widths in a legend, in inches: of a letter of 8 points, and of a line's sample with its gaps."""


class Drawing(NamedTuple):
    """A figure of a report."""

    name: str  # of its file, without the suffix
    caption: str  # what it shows and how to read it
    alt_text: str  # its content, for those who cannot see it
    figure: "Figure"


def save_drawings(
    drawings: Iterable[Drawing], folder: Path, end: str = ".png", dpi: int = 120
) -> list[Path]:
    """Write one file per drawing: its name with `end` (.png, .svg or .pdf), in `folder`."""
    paths = []
    for drawing in drawings:
        paths.append(folder / f"{drawing.name}{end}")
        plots.save_figure(drawing.figure, paths[-1], dpi)
    return paths


def describe_direction(metric: str) -> str:
    """Return "higher is better" or "lower is better"."""
    return f"{'higher' if higher_is_better(metric) else 'lower'} is better"


def wrap_label(label: str, width: int = 40) -> str:
    """Wrap a label next to a plot, to at most `MAX_LETTERS` letters."""
    lines, most = wrap(label, width), MAX_LETTERS // width
    if len(lines) <= most:
        return "\n".join(lines)
    return "\n".join([*lines[: most - 1], lines[most - 1][: width - 1] + "…"])


def count_lines(labels: Iterable[str]) -> int:
    """Return the number of lines of the longest label."""
    return max((label.count("\n") + 1 for label in labels), default=1)


def finite_or_none(spread: Spread | None) -> Spread | None:
    """Return the spread if its mean can be drawn."""
    return spread if spread is not None and math.isfinite(spread.mean) else None


def describe_left_out(shown: int, rows: int) -> str:
    """Return a sentence on the rows that a figure leaves out."""
    return f" The best {shown} of {rows} rows." if rows > shown else ""


def mean_floor(report: Report) -> float | None:
    """Return the real-vs-real distance of the primary metric, as a mean over the rows."""
    name = f"{report.headline}_floor"
    floors = [each.mean for row in report.rows if (each := finite_or_none(row.numbers.get(name)))]
    return sum(floors) / len(floors) if floors else None


def is_near(floor: float | None, values: Sequence[float]) -> bool:
    """Return whether a floor fits on the axis: the values still fill at least half of it."""
    return floor is not None and min(values) - floor <= max(values) - min(values)


def describe_floor(report: Report) -> str:
    """Return a sentence on the real-vs-real distance, whether it is drawn or not."""
    floor = mean_floor(report)
    return "" if floor is None else f" The real-vs-real distance is {format_number(floor)}."


def draw_floor(draw_line: Callable[..., object], report: Report, values: Sequence[float]) -> None:
    """Draw the real-vs-real distance with axes.axvline or axhline, if it is near the values."""
    floor = mean_floor(report)
    if floor is not None and is_near(floor, values):
        draw_line(floor, color=plots.GREY, linestyle=":", label="real-vs-real distance")


def draw_baselines(axes: "Axes", report: Report, metric: str, values: Sequence[float]) -> None:
    """Draw what answers without learning score, where it fits on the y axis."""
    span = max(values) - min(values)
    for (end, answer), dash in zip(BASELINES.items(), (":", "-."), strict=True):
        spreads = (row.numbers.get(metric + end) for row in report.rows)
        levels = [each.mean for spread in spreads if (each := finite_or_none(spread))]
        if levels and min(values) - span <= levels[0] <= max(values) + span:
            axes.axhline(levels[0], color=plots.GREY, linestyle=dash, linewidth=1, label=answer)


def draw_levels(axes: "Axes", report: Report, values: Sequence[float]) -> None:
    """Draw the real-vs-real distance and up to three published numbers on the y axis."""
    draw_floor(axes.axhline, report, values)
    published = {row.comparable: row.label for row in report.rows if row.comparable is not None}
    if len(published) > 3:
        return
    for number, label in published.items():
        text = f"published {number:g}"
        text += f" ({label})" if len(published) > 1 else ""
        axes.axhline(number, color=plots.RED, linestyle="--", linewidth=1, label=text)


def fits_across(labels: Iterable[str], columns: int, width: float) -> bool:
    """Return whether a legend of these labels in so many columns is at most `width` inches wide."""
    letters = [max(map(len, label.split("\n"))) for label in labels]
    parts = filter(len, np.array_split(letters, columns))  # as a legend does
    return sum(LETTER * max(part) + LEGEND_KEY for part in parts) <= width


def add_legend(figure: "Figure", panels: Sequence["Axes"], *, columns: int) -> None:
    """Add one legend below all panels with each label once, in up to `columns` columns that fit.

    The figure grows by its height.
    """
    width, height = figure.get_size_inches()
    letters = min(80, int((width - LEGEND_KEY) / LETTER))
    artists: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        for label, handle in zip(labels, handles, strict=True):
            artists.setdefault(label, handle)
    if not artists:
        return
    labels = ["\n".join(wrap(label, letters)) for label in artists]
    columns = next(n for n in range(columns, 0, -1) if n == 1 or fits_across(labels, n, width))
    rows = -(-len(artists) // columns)
    figure.set_size_inches(width, height + (0.06 + 0.16 * count_lines(labels)) * rows)
    figure.legend(
        list(artists.values()),
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )
