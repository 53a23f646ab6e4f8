"""The pictures of a report, each with its caption and with words for those who do not see it."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from crgan_cli.report import plots
from crgan_cli.report.curves import plot_losses, plot_metrics
from crgan_cli.report.drawing import (
    MOST_LINES,
    Drawing,
    add_legend,
    count_lines,
    describe_direction,
    describe_floor,
    describe_left_out,
    draw_levels,
    finite_or_none,
    is_near,
    mean_floor,
    wrap_label,
)
from crgan_cli.report.findings import QuantityByRow
from crgan_cli.report.model import Report, Row, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40
"""Rows that a plot of dots shows."""


def make_drawings(report: Report, findings: Sequence[QuantityByRow]) -> list[Drawing]:
    """All figures that there is something to draw for."""
    found = [plot_rows(report), plot_sweep(report), plot_metrics(report), plot_losses(report)]
    kinds = dict.fromkeys(each.quantity.measurement for each in findings)
    found += [
        plot_artefacts(
            report, kind, [each for each in findings if each.quantity.measurement == kind]
        )
        for kind in kinds
    ]
    return [each for each in found if each is not None]


def list_values(report: Report, rows: Sequence[Row]) -> str:
    """The rows' headlines in words."""
    return "; ".join(
        f"{row.label} {each.mean:.4g}"
        for row in rows
        if (each := finite_or_none(row.numbers.get(report.headline)))
    )


def plot_rows(report: Report) -> Drawing | None:
    """The headline of every row: each seed, mean and deviation, best on top."""
    found = [row for row in report.rows if finite_or_none(row.numbers.get(report.headline))]
    if not found:
        return None
    rows = found[:MOST_ROWS]
    names = [wrap_label(row.label) for row in rows]
    size = (7.5, 1.5 + (0.2 + 0.16 * count_lines(names)) * len(rows))
    figure, (axes,) = plots.make_panels(1, f"{report.headline}, {report.step} step", size=size)
    drawn = [draw_row(axes, row, report.headline, y) for y, row in enumerate(rows)]
    reached = [value for each in drawn for value in each]
    floor = mean_floor(report)
    if floor is not None and is_near(floor, reached):
        axes.axvline(floor, color=plots.GREY, linestyle=":", label="real against real (floor)")
    if plots.spans_decades(reached):
        plots.set_log_scale(axes, "x", reached)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{report.headline} ({describe_direction(report.headline)})")
    add_legend(figure, [axes], columns=4)
    return Drawing(
        "headline",
        f"{report.headline} at the {report.step} step: each seed (faint), the mean over seeds "
        "and one standard deviation to each side where there are several."
        + " Diamonds are published numbers of the same protocol."
        * any(row.comparable is not None for row in rows)
        + describe_floor(report)
        + describe_left_out(len(rows), len(found)),
        f"Dots, best first: {list_values(report, rows)}.",
        figure,
    )


def draw_row(axes: "Axes", row: Row, metric: str, y: float) -> list[float]:
    """One row of dots. Returns the values that it reaches to."""
    spread = row.numbers[metric]
    seeds = [value for value in spread.values if math.isfinite(value)]
    axes.scatter(
        seeds, [y] * len(seeds), s=16, color=plots.BLUE, alpha=0.35, linewidth=0, label="a seed"
    )
    axes.errorbar(
        spread.mean,
        y,
        xerr=spread.deviation or None,
        fmt="o",
        color=plots.BLUE,
        markersize=5,
        capsize=3,
        label="mean ± sd",
    )
    if row.comparable is None:
        return seeds
    axes.scatter(
        [row.comparable], [y], marker="D", facecolor="none", edgecolor="#D55E00", label="published"
    )
    return [*seeds, row.comparable]


def plot_sweep(report: Report) -> Drawing | None:
    """The headline over the value that was swept, a line for each of the other settings."""
    lines: dict[tuple[tuple[str, Value], ...], list[tuple[float, Row]]] = {}
    for row in report.rows:
        value = row.settings.get(report.swept) if report.swept else None
        if isinstance(value, int | float) and finite_or_none(row.numbers.get(report.headline)):
            others = tuple((k, v) for k, v in row.settings.items() if k != report.swept)
            lines.setdefault(others, []).append((float(value), row))
    if not any(len(line) > 1 for line in lines.values()):
        return None
    figure, (axes,) = plots.make_panels(
        1, f"{report.headline} over {report.swept}", size=(7.5, 4.6)
    )
    values = sorted({value for line in lines.values() for value, _ in line})
    set_sweep_scale(axes, values)
    shown = list(lines.items())[:MOST_LINES]
    for number, (others, line) in enumerate(shown):
        label = " ".join(f"{key}={value}" for key, value in others) or report.headline
        draw_sweep_line(axes, sorted(line, key=lambda at: at[0]), report.headline, number, label)
    drawn = [row.numbers[report.headline] for _, line in shown for _, row in line]
    draw_levels(axes, report, [value for s in drawn for value in s.values if math.isfinite(value)])
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(report.swept)
    axes.set_ylabel(f"{report.headline} ({describe_direction(report.headline)})")
    add_legend(figure, [axes], columns=2)
    return Drawing(
        "sweep",
        f"{report.headline} ({report.step} step) over {report.swept}: mean over seeds with one "
        f"standard deviation to each side, each seed faint.{describe_floor(report)}"
        + describe_left_out(len(shown), len(lines)),
        "; ".join(
            f"{report.swept}={value:g}: {row.numbers[report.headline].mean:.4g}"
            for line in lines.values()
            for value, row in sorted(line, key=lambda at: at[0])
        ),
        figure,
    )


def set_sweep_scale(axes: "Axes", values: Sequence[float]) -> None:
    """A log scale for x; around 0, where some value is not above it, linear."""
    positive = [value for value in values if value > 0]
    if positive == list(values):
        axes.set_xscale("log")
    elif positive:
        axes.set_xscale("symlog", linthresh=min(positive))


def draw_sweep_line(
    axes: "Axes", line: Sequence[tuple[float, Row]], metric: str, number: int, label: str
) -> None:
    """One line of a sweep."""
    look = plots.get_style(number)
    spreads = [(value, row.numbers[metric]) for value, row in line]
    seeds = [(value, each) for value, s in spreads for each in s.values if math.isfinite(each)]
    axes.scatter(*zip(*seeds, strict=True), s=14, color=look.colour, alpha=0.35, linewidth=0)
    axes.errorbar(
        [value for value, _ in spreads],
        [s.mean for _, s in spreads],
        yerr=[s.deviation or 0.0 for _, s in spreads],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash,
        capsize=3,
        markersize=5,
        label=wrap_label(label, 80),
    )


MEANING: Mapping[str, str] = {
    "leakage": "Share of generated images that look augmented, by a detector of T(real).",
    "consistency": "How far D's score moves under T, or under noise on the code.",
    "diversity": "Mean distance of two generated images over that of two real ones.",
    "memorisation": "Above 0.5, generated images are nearer to the training set than new ones.",
}


def plot_artefacts(report: Report, kind: str, found: Sequence[QuantityByRow]) -> Drawing:
    """One measurement: a panel a question, every run with its interval, the mean of each row."""
    shown = [i for i in range(len(report.rows)) if any(each.rows[i] for each in found)][:MOST_ROWS]
    across = min(len(found), 3)
    down = -(-len(found) // across)
    names = [wrap_label(report.rows[i].label, 32) for i in shown]
    size = (3.4 + 2.2 * across, 0.9 + (1.0 + (0.2 + 0.16 * count_lines(names)) * len(shown)) * down)
    title = f"Artefacts: {kind}"
    figure, cells = plots.make_panels(len(found), title, size=size, columns=across)
    for place, (axes, each) in enumerate(zip(cells, found, strict=True)):
        for y, i in enumerate(shown):
            draw_estimates(axes, each, i, y)
        if each.reference is not None:
            said = each.quantity.reference
            axes.axvline(each.reference, color=plots.GREY, linestyle=":", label=said)
        first = place % across == 0
        axes.set_yticks(range(len(shown)), names if first else [""] * len(shown), fontsize=8)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        low, high = axes.get_xlim()
        if high - low < each.quantity.least:
            axes.set_xlim(low, low + each.quantity.least)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title("\n".join(wrap(each.quantity.name, 34)), fontsize=9)
        axes.set_xlabel(each.quantity.unit, fontsize=8)
        axes.tick_params(labelsize=8)
    add_legend(figure, cells, columns=3)
    return Drawing(
        kind,
        f"{MEANING[kind]} Faint: each run with its 95 % interval; solid: the mean over runs.",
        "; ".join(
            f"{each.quantity.name}, {report.rows[i].label}: {mean_estimate(each.rows[i]):.3g}"
            for each in found
            for i in shown
            if each.rows[i]
        ),
        figure,
    )


def mean_estimate(readings: Sequence[tuple[float, float, float]]) -> float:
    """The mean of the values of readings."""
    return math.fsum(value for value, *_ in readings) / len(readings)


def draw_estimates(axes: "Axes", found: QuantityByRow, row: int, y: int) -> None:
    """A row's runs beside each other and their mean."""
    readings = found.rows[row]
    for i, (value, low, high) in enumerate(readings):
        at = y + 0.3 * ((i + 1) / (len(readings) + 1) - 0.5) * 2 * (len(readings) > 1)
        # chance can leave an estimate just outside its interval, which rests on moved rates
        reach = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
        axes.errorbar(
            value,
            at,
            xerr=reach,
            fmt="o",
            markersize=3,
            color=plots.BLUE,
            alpha=0.45,
            label="a run, 95 % interval",
        )
    if readings:
        axes.plot(
            mean_estimate(readings), y, "D", color=plots.BLUE, markersize=5, label="mean over runs"
        )
