"""What a report shows over training: metrics, and the terms of the losses."""

from typing import TYPE_CHECKING

from crgan_cli.report import plots
from crgan_cli.report.drawing import (
    MOST_LINES,
    Drawing,
    add_legend,
    describe_direction,
    describe_left_out,
    draw_levels,
    wrap_label,
)
from crgan_cli.report.model import Report
from crgan_cli.report.series import average_over_seeds
from crgan_cli.report.tables import list_shown_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_METRICS = 6
"""Metrics whose curves are drawn beside each other."""

POINTS = 60
"""Stretches that a logged loss is averaged over."""


def plot_metrics(report: Report) -> Drawing | None:
    """The metrics over steps, a line a row."""
    keys = list_shown_metrics(report)[:MOST_METRICS]
    rows = list(enumerate(report.rows))[:MOST_LINES]
    drawn = {
        key: [(i, row, average_over_seeds((run.evals for run in row.runs), key)) for i, row in rows]
        for key in keys
    }
    kept = {
        key: [each for each in found if each[2]]
        for key, found in drawn.items()
        if any(len(series.steps) > 1 for _, _, series in found)
    }
    if not kept:
        return None
    figure, cells = make_step_panels(len(kept), "Metrics over training")
    for axes, (key, found) in zip(cells, kept.items(), strict=True):
        for i, row, series in found:
            plots.draw_band(axes, *series, look=plots.get_style(i), label=wrap_label(row.label, 80))
        reached = [value for *_, s in found for value in (*s.lows, *s.highs)]
        if plots.spans_decades(reached):
            plots.set_log_scale(axes, "y", reached)
        if key == report.headline:
            draw_levels(axes, report, reached)
        axes.set_ylabel(f"{key}\n({describe_direction(key)})", fontsize=8)
    add_legend(figure, cells, columns=2)
    return Drawing(
        "metrics",
        "Metrics over steps: a line is the mean over a row's seeds, its band reaches from the "
        "lowest to the highest seed; it ends where the first of them ends."
        + describe_left_out(len(rows), len(report.rows)),
        "; ".join(
            f"{row.label} from {s.means[0]:.4g} at step {s.steps[0]:g} to {s.means[-1]:.4g} at "
            f"step {s.steps[-1]:g}"
            for _, row, s in next(iter(kept.values()))
        ),
        figure,
    )


def make_step_panels(count: int, title: str) -> "tuple[Figure, list[Axes]]":
    """Small panels with steps along x."""
    across = min(count, 3 if count != 4 else 2)
    size = (7.5 if across == 1 else 9.5, 1.0 + (3.6 if across == 1 else 2.5) * -(-count // across))
    figure, cells = plots.make_panels(count, title, size=size, columns=across)
    for axes in cells:
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(which="both", labelsize=8)
    return figure, cells


def plot_losses(report: Report) -> Drawing | None:
    """The terms of the losses over steps, a panel a term."""
    rows = list(enumerate(report.rows))[:MOST_LINES]
    logged = [line for _, row in rows for run in row.runs for line in run.train]
    terms = sorted({key for line in logged for key in line if key.startswith("terms/")})
    if not terms:
        return None
    figure, cells = make_step_panels(
        len(terms), "Terms of the losses (as they add up, with their weights)"
    )
    for axes, term in zip(cells, terms, strict=True):
        reached: list[float] = []
        for i, row in rows:
            series = average_over_seeds((run.train for run in row.runs), term, points=POINTS)
            if series:
                look = plots.get_style(i)._replace(marker="")
                plots.draw_band(axes, *series, look=look, label=wrap_label(row.label, 80))
                reached += series.lows + series.highs
        if plots.spans_decades(reached):
            plots.set_log_scale(axes, "y", reached)
        axes.set_title(term.removeprefix("terms/"), fontsize=9)
    add_legend(figure, cells, columns=2)
    return Drawing(
        "losses",
        f"The terms of D's and G's losses as logged, averaged over {POINTS} stretches of training: "
        "mean over seeds, band from the lowest to the highest seed."
        + describe_left_out(len(rows), len(report.rows)),
        f"Small panels over steps: {', '.join(term.removeprefix('terms/') for term in terms)}.",
        figure,
    )
