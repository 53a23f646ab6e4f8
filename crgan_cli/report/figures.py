"""The figures of a report, each with its caption and its content as text."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING

from crgan_cli.config.resolve import format_setting
from crgan_cli.report import plots
from crgan_cli.report.curves import list_terms, plot_losses, plot_metrics
from crgan_cli.report.drawing import (
    MAX_LINES,
    Drawing,
    add_legend,
    describe_direction,
    describe_floor,
    describe_left_out,
    draw_floor,
    draw_levels,
    finite_or_none,
    wrap_label,
)
from crgan_cli.report.findings import Interval, QuantityByRow
from crgan_cli.report.layout import SCREEN, Layout
from crgan_cli.report.model import Report, Row, Value
from crgan_cli.report.tables import list_shown_metrics
from crgan_cli.system.numbers import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_METRICS = 6
"""Metrics whose curves are drawn."""

MEANING: Mapping[str, str] = {
    "leakage": "Share of generated images that look augmented, by a detector of T(real).",
    "consistency": "How far D's score moves under T, or under noise on the latent.",
    "diversity": "Mean distance of two generated images over that of two real ones.",
    "memorisation": "Above 0.5, generated images are nearer to the training set than new ones.",
}


def make_drawings(
    report: Report, measured: Sequence[QuantityByRow], layout: Layout = SCREEN
) -> list[Drawing]:
    """Return all figures of a report. A figure without content is left out."""
    metrics = layout.split(list_shown_metrics(report)[:MAX_METRICS])
    drawings = [plot_rows(report, layout), plot_sweep(report, layout)]
    drawings += [plot_metrics(report, panels, layout) for panels in metrics]
    drawings += [plot_losses(report, panels, layout) for panels in layout.split(list_terms(report))]
    for kind in dict.fromkeys(each.quantity.measurement for each in measured):
        found = [each for each in measured if each.quantity.measurement == kind]
        drawings += [plot_artefacts(report, kind, each, layout) for each in layout.split(found)]
    return [each for each in drawings if each is not None]


def plot_rows(report: Report, layout: Layout = SCREEN) -> Drawing | None:
    """Plot the primary metric of every row: each seed, mean and deviation, best on top."""
    metric = report.headline
    able = [row for row in report.rows if finite_or_none(row.numbers.get(metric))]
    if not able:
        return None
    names = [wrap_label(row.label, layout.letters) for row in able]
    rows = able[: layout.count_rows(names)]
    names = names[: len(rows)]
    size = (layout.width or 7.5, 1.5 + layout.row_height(names) * len(rows))
    title = layout.choose_title(f"{metric} {report.at_step}")
    figure, (axes,) = plots.make_panels(1, title, size=size)
    values = [value for y, row in enumerate(rows) for value in draw_row(axes, row, metric, y)]
    draw_floor(axes.axvline, report, values)
    if plots.spans_decades(values):
        plots.set_log_scale(axes, "x", values)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{metric} ({describe_direction(metric)})")
    add_legend(figure, [axes], columns=4)
    caption = (
        f"{metric} {report.at_step}: each seed (faint), the mean over seeds and, for "
        "several seeds, one standard deviation to each side."
    )
    if any(row.comparable is not None for row in rows):
        caption += " Diamonds are published numbers of the same protocol."
    content = "; ".join(f"{row.label} {format_number(row.numbers[metric].mean)}" for row in rows)
    return Drawing(
        "headline",
        caption + describe_floor(report) + describe_left_out(len(rows), len(able)),
        f"Dots, best first: {content}.",
        figure,
    )


def draw_row(axes: "Axes", row: Row, metric: str, y: float) -> list[float]:
    """Draw one row of dots. Return the values that were drawn."""
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
        [row.comparable], [y], marker="D", facecolor="none", edgecolor=plots.RED, label="published"
    )
    return [*seeds, row.comparable]


def plot_sweep(report: Report, layout: Layout = SCREEN) -> Drawing | None:
    """Plot the primary metric over the swept value, one line per choice of the other settings."""
    metric, swept = report.headline, report.swept
    lines: dict[tuple[tuple[str, Value], ...], list[tuple[float, Row]]] = {}
    for row in report.rows:
        value = row.settings.get(swept) if swept else None
        if isinstance(value, int | float) and finite_or_none(row.numbers.get(metric)):
            others = tuple((k, v) for k, v in row.settings.items() if k != swept)
            lines.setdefault(others, []).append((float(value), row))
    for line in lines.values():
        line.sort(key=lambda point: point[0])
    if not any(len(line) > 1 for line in lines.values()):
        return None
    title = layout.choose_title(f"{metric} over {swept}")
    figure, (axes,) = plots.make_panels(1, title, size=layout.choose_size(7.5, 4.6))
    ticks = sorted({value for line in lines.values() for value, _ in line})
    set_sweep_scale(axes, ticks)
    shown = list(lines.items())[:MAX_LINES]
    for number, (others, line) in enumerate(shown):
        label = " ".join(f"{key}={value}" for key, value in others) or metric
        draw_sweep_line(axes, line, metric, number, label)
    values = [value for _, line in shown for _, row in line for value in row.numbers[metric].values]
    draw_levels(axes, report, [value for value in values if math.isfinite(value)])
    axes.set_xticks(ticks, list(map(format_setting, ticks)))
    axes.minorticks_off()
    axes.set_xlabel(swept)
    axes.set_ylabel(f"{metric} ({describe_direction(metric)})")
    add_legend(figure, [axes], columns=2)
    return Drawing(
        "sweep",
        f"{metric} {report.at_step} over {swept}: mean over seeds with one standard deviation "
        f"to each side, each seed faint.{describe_floor(report)}"
        + describe_left_out(len(shown), len(lines)),
        "; ".join(
            f"{swept}={format_setting(value)}: {format_number(row.numbers[metric].mean)}"
            for line in lines.values()
            for value, row in line
        ),
        figure,
    )


def set_sweep_scale(axes: "Axes", values: Sequence[float]) -> None:
    """Use a log scale for x. If some values are not above 0, it is linear around 0."""
    positive = [value for value in values if value > 0]
    if positive == list(values):
        axes.set_xscale("log")
    elif positive:
        axes.set_xscale("symlog", linthresh=min(positive))


def draw_sweep_line(
    axes: "Axes", line: Sequence[tuple[float, Row]], metric: str, number: int, label: str
) -> None:
    """Draw one line of a sweep."""
    look = plots.get_style(number)
    spreads = [(value, row.numbers[metric]) for value, row in line]
    seeds = [(value, each) for value, s in spreads for each in s.values if math.isfinite(each)]
    axes.scatter(*zip(*seeds, strict=True), s=14, color=look.colour, alpha=0.35, linewidth=0)
    axes.errorbar(
        [value for value, _ in spreads],
        [spread.mean for _, spread in spreads],
        yerr=[spread.deviation or 0.0 for _, spread in spreads],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash,
        capsize=3,
        markersize=5,
        label=label,
    )


def plot_artefacts(
    report: Report, kind: str, measured: Sequence[QuantityByRow], layout: Layout = SCREEN
) -> Drawing:
    """Plot one measurement, one panel per quantity: every run with its interval, and row means."""
    able = [i for i in range(len(report.rows)) if any(each.rows[i] for each in measured)]
    names = [wrap_label(report.rows[i].label, min(32, layout.letters)) for i in able]
    rows = able[: layout.count_rows(names)]
    names = names[: len(rows)]
    columns = min(len(measured), 3)
    down = -(-len(measured) // columns)
    size = (
        layout.width or 3.4 + 2.2 * columns,
        0.9 + (1.0 + layout.row_height(names) * len(rows)) * down,
    )
    title = layout.choose_title(f"Artefacts: {kind}")
    figure, panels = plots.make_panels(len(measured), title, size=size, columns=columns)
    for place, (axes, each) in enumerate(zip(panels, measured, strict=True)):
        for y, i in enumerate(rows):
            draw_estimates(axes, each.rows[i], y)
        if each.reference is not None:
            label = each.quantity.reference
            axes.axvline(each.reference, color=plots.GREY, linestyle=":", label=label)
        first = place % columns == 0
        axes.set_yticks(range(len(rows)), names if first else [""] * len(rows), fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        low, high = axes.get_xlim()
        if high - low < each.quantity.min_span:
            axes.set_xlim(low, low + each.quantity.min_span)
        axes.locator_params(axis="x", nbins=5)
        name, unit = each.quantity.name, each.quantity.unit
        axes.set_title("\n".join(wrap(layout.choose_title(name), 34)), fontsize=9)
        axes.set_xlabel(unit if layout.choose_title(name) else f"{name}\n{unit}", fontsize=8)
        axes.tick_params(labelsize=8)
    add_legend(figure, panels, columns=3)
    return Drawing(
        layout.name_figure(kind, [each.quantity.name for each in measured]),
        f"{MEANING[kind]} Faint: each run with its 95 % interval; solid: the mean over runs."
        + describe_left_out(len(rows), len(able)),
        "; ".join(
            f"{each.quantity.name}, {report.rows[i].label}: "
            f"{format_number(fmean(estimate.value for estimate in each.rows[i]), 3)}"
            for each in measured
            for i in rows
            if each.rows[i]
        ),
        figure,
    )


def draw_estimates(axes: "Axes", estimates: Sequence[Interval], y: int) -> None:
    """Draw the runs of a row next to each other, and their mean."""
    for i, (value, low, high) in enumerate(estimates):
        # by chance an estimate can lie just outside its interval, which uses shifted error rates
        axes.errorbar(
            value,
            y + 0.6 * ((i + 1) / (len(estimates) + 1) - 0.5),
            xerr=[[max(value - low, 0.0)], [max(high - value, 0.0)]],
            fmt="o",
            markersize=3,
            color=plots.BLUE,
            alpha=0.45,
            label="a run, 95 % interval",
        )
    if estimates:
        mean = fmean(estimate.value for estimate in estimates)
        axes.plot(mean, y, "D", color=plots.BLUE, markersize=5, label="mean over runs")
