"""A report as text, Markdown, CSV and LaTeX, best row first."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crgan_cli.config.resolve import format_setting
from crgan_cli.report.model import Report, Row, RunFiles, Spread, Value
from crgan_cli.report.rows import choose_evaluation, choose_metric, list_metrics
from crgan_cli.runs.metric_names import BASELINES, higher_is_better, is_secondary
from crgan_cli.system.numbers import format_mean, format_number, format_time

FORMULA = ("=", "@", "+", "-", "\t", "\r")
"""With one of these a cell of a spreadsheet begins a formula."""


class Column(NamedTuple):
    """A title, and a cell per row."""

    title: str
    numeric: bool  # aligned to the right
    cells: Sequence[str]

    @property
    def lines(self) -> list[str]:
        """The title and the cells."""
        return [self.title, *self.cells]


def build_columns(report: Report) -> list[Column]:
    """Return the columns of a table. Empty ones are left out."""
    rows = report.rows
    metrics = [
        Column(
            format_metric_title(name),
            True,
            [format_spread(row.numbers[name]) if name in row.numbers else "-" for row in rows],
        )
        for name in list_shown_metrics(report)
    ]
    columns = [
        Column("settings", False, [row.label for row in rows]),
        *metrics,
        Column(
            "step" if isinstance(report.step, int) else f"{report.step} step",
            True,
            [format_steps(row.steps) for row in rows],
        ),
        Column("time", True, [format_time(3600 * row.cost_hours) for row in rows]),
        Column("published", False, [row.published for row in rows]),
        Column("note", False, [row.note for row in rows]),
    ]
    return [column for column in columns if any(column.cells)]


def list_shown_metrics(report: Report) -> list[str]:
    """Return the primary metric, and then the others that mean something on their own."""
    names = dict.fromkeys(name for row in report.rows for name in row.numbers)
    others = [name for name in names if not is_secondary(name) and name != report.headline]
    return [report.headline, *others]


def format_metric_title(metric: str) -> str:
    """Return a metric's name with an arrow in the better direction."""
    return f"{metric} {'↑' if higher_is_better(metric) else '↓'}"


def format_steps(steps: Sequence[int]) -> str:
    """Return the step, or the first and the last of several."""
    ends = dict.fromkeys([*steps[:1], *steps[-1:]])
    return " to ".join(map(str, ends))


def format_spread(spread: Spread) -> str:
    """Return mean ± standard deviation (n) to two digits of the deviation, or to four digits."""
    parts = filter(None, format_mean(spread.mean, spread.deviation))
    return f"{' ± '.join(parts)} (n={len(spread.values)})"


def list_remarks(report: Report) -> list[str]:
    """Return the notes under a table: protocol, statistics, sources and warnings."""
    remarks = [format_protocols(report)]
    if any(row.numbers for row in report.rows):
        remarks.append(
            "mean ± sample standard deviation over n seeds; noise is a difference that chance "
            "alone gives with p > 0.05 (Welch's t-test, two-sided, of each row against the best "
            "of several seeds, not corrected for the number of tests)."
        )
    if report.step == "best":
        remarks.append(
            f"each run's best step by {report.headline} is chosen by the same numbers that are "
            "shown: this flatters every row, and most of all a row that was evaluated often."
        )
    sources = {
        f"published {format_setting(fid)}: {format_setting(source)}, "
        f"protocol {row.runs[0].published.get('protocol') or 'not known'}"
        for row in report.rows
        if (fid := row.runs[0].published.get("fid")) is not None
        and (source := row.runs[0].published.get("source"))
    }
    floors = {
        f"{name} {format_number(spread.mean)}: real-vs-real distance, the best value that can be "
        "reached"
        for row in report.rows
        for name, spread in row.numbers.items()
        if name.endswith("_floor")
    }
    reals = {
        f"{name} {format_number(spread.mean)}: that of real images"
        for row in report.rows
        for name, spread in row.numbers.items()
        if name.endswith("_real")
    }
    baselines = {
        f"{name} {format_number(spread.mean)}: {BASELINES[end]}, which learns nothing"
        for row in report.rows
        for name, spread in row.numbers.items()
        for end in BASELINES
        if name.endswith(end)
    }
    return [
        *remarks,
        *sorted(floors),
        *sorted(baselines | reals),
        *sorted(sources),
        *report.warnings,
    ]


def format_protocols(report: Report) -> str:
    """Return the protocols of the numbers, by name and extractor."""
    names = [
        f"{record.get('protocol')} (extractor {record.get('extractor')}, SHA-256 "
        f"{str(record.get('extractor_sha256'))[:8]})"
        for record in report.protocols
    ]
    return f"protocol: {'; '.join(names) or 'not recorded, as no run has finished'}"


# --- the formats ----------------------------------------------------------------------------------


def to_aligned_text(report: Report) -> str:
    """Return aligned text for a terminal or a log."""
    lines = ["  ".join(cells).rstrip() for cells in align_cells(build_columns(report))]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([report.title, "", *lines, "", *list_remarks(report)]) + "\n"


def align_cells(columns: Sequence[Column], min_width: int = 0) -> list[tuple[str, ...]]:
    """Return the lines of a table, titles first, with all cells of a column equally wide."""
    aligned = []
    for column in columns:
        width = max(min_width, *map(len, column.lines))
        justify = str.rjust if column.numeric else str.ljust
        aligned.append([justify(cell, width) for cell in column.lines])
    return list(zip(*aligned, strict=True))


def to_markdown(report: Report) -> str:
    """Return an aligned table for a README, and its remarks as a list."""
    columns = [
        Column(escape_markdown(title), numeric, list(map(escape_markdown, cells)))
        for title, numeric, cells in build_columns(report)
    ]
    head, *body = align_cells(columns, min_width=3)
    rule = [
        "-" * (len(cell) - 1) + (":" if column.numeric else "-")
        for cell, column in zip(head, columns, strict=True)
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
    notes = [f"- {escape_markdown(remark)}" for remark in list_remarks(report)]
    return "\n".join([f"# {escape_markdown(report.title)}", "", *lines, "", *notes]) + "\n"


def escape_markdown(text: str) -> str:
    """Return a text on one line with Markdown's signs escaped."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_|<>[]" else sign for sign in text)
    return " ".join(escaped.split())


def rows_to_csv(report: Report) -> str:
    """Return one line per row: its settings, each metric's mean and deviation, the comparison."""
    names = list(dict.fromkeys(name for row in report.rows for name in row.numbers))
    p_values = {each.other: each.p_value for each in report.comparisons}

    def record(row: Row) -> dict[str, object]:
        settings = {
            key: to_csv_value(row.settings[key]) for key in report.varied if key in row.settings
        }
        metrics = {}
        for name in names:
            if spread := row.numbers.get(name):
                metrics |= {name: spread.mean, f"{name}_deviation": spread.deviation}
        primary = row.numbers.get(report.headline)
        return {
            "label": row.label,
            "runs": len(row.runs),
            **settings,
            **metrics,
            "n": len(primary.values) if primary else 0,
            "steps": " ".join(map(str, row.steps)),
            "cost_hours": row.cost_hours,
            "p_against_best": p_values.get(row.label),
            **{f"published_{key}": value for key, value in row.runs[0].published.items()},
            "note": row.note,
        }

    return to_csv(map(record, report.rows))


def runs_to_csv(report: Report) -> str:
    """Return one line per run: its status, its metrics at the chosen step, and all settings."""
    names = list_metrics([run for row in report.rows for run in row.runs])

    def record(row: Row, run: RunFiles) -> dict[str, object]:
        metric = choose_metric(row.runs, report.headline)
        chosen = choose_evaluation(run, metric, report.step)
        return {
            "run": run.path,
            "row": row.label,
            "status": run.status,
            "error": run.error,
            "step": run.step,
            "of_step": chosen.get("step"),
            **{name: chosen.get(name) for name in names},
            "seconds": run.seconds,
            "images_per_second": run.images_per_second or None,
            "peak_memory_bytes": run.peak_memory_bytes or None,
            "device": run.device,
            **{key: to_csv_value(value) for key, value in run.config.items()},
        }

    return to_csv(record(row, run) for row in report.rows for run in row.runs)


def to_csv_value(value: Value) -> Value:
    """Return null, true, false and whole numbers as they are typed, and other values unchanged."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return format_setting(value) if value is None or isinstance(value, bool) else value


def defuse(value: object) -> object:
    """Return a text with an apostrophe before it if a spreadsheet would take it as a formula."""
    is_text = not (value is None or isinstance(value, int | float))
    return f"'{value}" if is_text and str(value)[:1] in FORMULA else value


def to_csv(records: Iterable[dict[str, object]]) -> str:
    """Return records as CSV. Every key is a column, empty if a record lacks it."""
    lines = list(records)
    file = io.StringIO()
    columns = dict.fromkeys(key for line in lines for key in line)
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: defuse(value) for key, value in line.items()} for line in lines)
    return file.getvalue()
