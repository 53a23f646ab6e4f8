"""The figures over training: metrics, and the loss terms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crgan_cli.report import plots
from crgan_cli.report.drawing import (
    MAX_LINES,
    Drawing,
    add_legend,
    describe_direction,
    describe_left_out,
    draw_baselines,
    draw_levels,
)
from crgan_cli.report.layout import SCREEN, Layout
from crgan_cli.report.model import Report, Row
from crgan_cli.report.series import Series, average_over_seeds
from crgan_cli.report.stages import StageMarks
from crgan_cli.system.numbers import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TERMS = "terms/"
"""Loss terms have keys in metrics.jsonl that begin so."""

MAX_POINTS = 60
"""A longer series of losses is averaged over so many intervals."""


def plot_metrics(report: Report, metrics: Sequence[str], layout: Layout = SCREEN) -> Drawing | None:
    """Plot metrics over steps, one line per row."""
    rows = list(enumerate(report.rows))[:MAX_LINES]
    curves = {
        metric: [
            (i, row, series)
            for i, row in rows
            if (series := average_over_seeds((run.evals for run in row.shown), metric))
        ]
        for metric in metrics
    }
    # one evaluation is not a curve
    curves = {
        metric: lines
        for metric, lines in curves.items()
        if any(series.is_curve for *_, series in lines)
    }
    if not curves:
        return None
    marks = StageMarks([row for lines in curves.values() for _, row, _ in lines])
    figure, panels = make_step_panels(len(curves), "Metrics over training", layout)
    for axes, (metric, lines) in zip(panels, curves.items(), strict=True):
        for i, row, series in lines:
            draw_series(axes, series, plots.get_style(i), row.label)
        values = [value for *_, series in lines for value in series.values]
        if plots.spans_decades(values):
            plots.set_log_scale(axes, "y", values)
        if metric == report.headline:
            draw_levels(axes, report, values)
        draw_baselines(axes, report, metric, values)
        marks.draw(axes, [row for _, row, _ in lines])
        axes.set_ylabel(f"{metric}\n({describe_direction(metric)})", fontsize=8)
    add_legend(figure, panels, columns=2)
    return Drawing(
        layout.name_figure("metrics", metrics),
        "Metrics over steps: a line is the mean over the seeds that count in a row, its band "
        "reaches from the lowest to the highest of them."
        + describe_seeds([(row, series) for lines in curves.values() for _, row, series in lines])
        + marks.describe()
        + (" Images of less than the full size are doubled to it." if marks.begun else "")
        + describe_left_out(len(rows), len(report.rows)),
        "; ".join(
            f"{row.label} {describe_ends(series)}" for _, row, series in next(iter(curves.values()))
        )
        + marks.describe(),
        figure,
    )


def draw_series(axes: "Axes", series: Series, look: plots.Style, label: str) -> None:
    """Draw the mean within its band, and thin lines for the seeds outside of it."""
    plots.draw_band(axes, *series[:4], look=look, label=label)
    for steps, values in series.alone:
        marker = "." if len(steps) == 1 else ""
        axes.plot(
            steps, values, color=look.colour, linestyle=look.dash, linewidth=0.6, marker=marker
        )


def describe_seeds(lines: Sequence[tuple[Row, Series]]) -> str:
    """Return sentences on the parts of the lines that are not of all their seeds."""
    parts = dict.fromkeys(
        f"{row.label}: {words}" for row, series in lines if (words := series.describe_alone())
    )
    text = f" Thin lines are single seeds ({'; '.join(parts)})." if parts else ""
    if any(series.interpolated for _, series in lines):
        text += " Between its own steps, a seed counts by the straight line."
    return text


def describe_ends(series: Series) -> str:
    """Return the first and the last mean of a line, as text."""
    if not series.steps:
        return series.describe_alone()
    first, last = map(format_number, (series.means[0], series.means[-1]))
    return f"from {first} at step {series.steps[0]:.0f} to {last} at step {series.steps[-1]:.0f}"


def make_step_panels(count: int, title: str, layout: Layout) -> "tuple[Figure, list[Axes]]":
    """Return small panels with steps along x."""
    columns = min(count, 3 if count != 4 else 2)
    width, height = (7.5, 3.6) if columns == 1 else (9.5, 2.5)
    size = layout.choose_size(width, 1.0 + height * -(-count // columns))
    title = layout.choose_title(title)
    figure, panels = plots.make_panels(count, title, size=size, columns=columns)
    for axes in panels:
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(which="both", labelsize=8)
    return figure, panels


def list_terms(report: Report) -> list[str]:
    """Return the names of the loss terms that the drawn rows have logged."""
    logged = [line for row in report.rows[:MAX_LINES] for run in row.shown for line in run.train]
    keys = {key for line in logged for key in line if key.startswith(TERMS)}
    return sorted(key.removeprefix(TERMS) for key in keys)


def plot_losses(report: Report, names: Sequence[str], layout: Layout = SCREEN) -> Drawing:
    """Plot loss terms over steps, one panel per term."""
    rows = list(enumerate(report.rows))[:MAX_LINES]
    marks = StageMarks([row for _, row in rows])
    figure, panels = make_step_panels(len(names), "Loss terms, weighted as in the sum", layout)
    drawn: list[tuple[Row, Series]] = []
    for axes, name in zip(panels, names, strict=True):
        values: list[float] = []
        here: list[tuple[Row, Series]] = []
        for i, row in rows:
            trains = (run.train for run in row.shown)
            if series := average_over_seeds(trains, TERMS + name, points=MAX_POINTS):
                draw_series(axes, series, plots.get_style(i), row.label)
                values += series.values
                here.append((row, series))
        if plots.spans_decades(values):
            plots.set_log_scale(axes, "y", values)
        marks.draw(axes, [row for row, _ in here])
        axes.set_title(layout.choose_title(name), fontsize=9)
        axes.set_ylabel("" if layout.choose_title(name) else name)
        drawn += here
    add_legend(figure, panels, columns=2)
    return Drawing(
        layout.name_figure("losses", names),
        f"The loss terms of D and G as logged, averaged over {MAX_POINTS} intervals of training: "
        "mean over the seeds that count, band from the lowest to the highest seed."
        + describe_seeds(drawn)
        + marks.describe()
        + describe_left_out(len(rows), len(report.rows)),
        f"Small panels over steps: {', '.join(names)}.{marks.describe()}",
        figure,
    )
