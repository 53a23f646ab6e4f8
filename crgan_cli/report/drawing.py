"""What all figures of a report have in common."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from crgan_cli.report import plots
from crgan_cli.report.model import Report, Spread
from crgan_cli.report.statistics import higher_is_better

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 12
"""Rows that a plot of lines shows; more cannot be told apart."""


class Drawing(NamedTuple):
    """A figure of a report."""

    name: str  # of a file, without its kind
    caption: str  # what it shows and how to read it
    alt_text: str  # what a reader sees in it
    figure: "Figure"


def save_drawings(found: Iterable[Drawing], folder: Path, kind: str = ".png") -> list[Path]:
    """One file a drawing, NAME.png in `folder` (or .svg, .pdf)."""
    paths = []
    for each in found:
        paths.append(folder / f"{each.name}{kind}")
        plots.save_figure(each.figure, paths[-1])
    return paths


def describe_direction(metric: str) -> str:
    """In which direction a metric is better."""
    return "higher is better" if higher_is_better(metric) else "lower is better"


def wrap_label(label: str, width: int = 40) -> str:
    """A label that fits beside a plot, on up to four lines."""
    lines = wrap(label, width)
    return "\n".join(lines if len(lines) <= 4 else [*lines[:3], lines[3][: width - 1] + "…"])


def count_lines(labels: Iterable[str]) -> int:
    """The most lines of any label."""
    return max((label.count("\n") + 1 for label in labels), default=1)


def finite_or_none(spread: Spread | None) -> Spread | None:
    """A spread, unless its mean cannot be drawn."""
    return spread if spread is not None and math.isfinite(spread.mean) else None


def describe_left_out(shown: int, rows: int) -> str:
    """A sentence on what a figure leaves out."""
    return f" The best {shown} of {rows} rows." if rows > shown else ""


def mean_floor(report: Report) -> float | None:
    """The headline of real against real images, over all rows."""
    name = f"{report.headline}_floor"
    found = [each.mean for row in report.rows if (each := finite_or_none(row.numbers.get(name)))]
    return sum(found) / len(found) if found else None


def is_near(floor: float | None, values: Sequence[float]) -> bool:
    """Whether a floor can be drawn beside values: not where they would shrink to less than half."""
    return floor is not None and min(values) - floor <= max(values) - min(values)


def describe_floor(report: Report) -> str:
    """A sentence on the floor, whether it is drawn or not."""
    floor = mean_floor(report)
    return "" if floor is None else f" Real images against real ones have {floor:.4g}."


def draw_levels(axes: "Axes", report: Report, values: Sequence[float]) -> None:
    """Lines across for the floor, where it is near, and for published numbers, where they are few;
    `values` are what the axis is for."""
    floor = mean_floor(report)
    if floor is not None and is_near(floor, values):
        axes.axhline(floor, color=plots.GREY, linestyle=":", label="real against real (floor)")
    published = {row.comparable: row.label for row in report.rows if row.comparable is not None}
    for number, label in list(published.items()) if len(published) <= 3 else ():
        said = f"published {number:g}" + (
            f" ({wrap_label(label, 80)})" if len(published) > 1 else ""
        )
        axes.axhline(number, color="#D55E00", linestyle="--", linewidth=1, label=said)


def add_legend(figure: "Figure", cells: Sequence["Axes"], *, columns: int) -> None:
    """One legend below all panels, each label once; the figure grows by its height."""
    once: dict[str, Artist] = {}
    for axes in cells:
        handles, labels = axes.get_legend_handles_labels()
        once |= {la: h for la, h in zip(labels, handles, strict=True) if la not in once}
    if not once:
        return
    if any(len(label) > 36 for label in once):
        columns = 1
    width, height = figure.get_size_inches()
    rows = -(-len(once) // columns)
    figure.set_size_inches(width, height + (0.06 + 0.16 * count_lines(once)) * rows)
    figure.legend(
        list(once.values()),
        list(once),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )
