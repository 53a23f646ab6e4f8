"""A report as text, Markdown, CSV and LaTeX: strings, the best row first."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from crgan_cli.report.model import Report, Row, RunFiles, Spread, Value
from crgan_cli.report.rows import NOT_METRICS, choose_evaluation, choose_metric, list_metrics
from crgan_cli.report.settings import format_setting
from crgan_cli.report.statistics import higher_is_better, is_secondary

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


class Column(NamedTuple):
    """A title, and a cell for each row."""

    title: str
    numeric: bool  # aligned to the right
    cells: tuple[str, ...]


def build_columns(report: Report) -> list[Column]:
    """What a table shows; columns without any content are left out."""
    made = [
        Column("settings", False, cells(report, lambda row: row.label)),
        *(
            Column(
                format_metric_title(name), True, cells(report, lambda row, n=name: shown(row, n))
            )
            for name in list_shown_metrics(report)
        ),
        Column(step_title(report), True, cells(report, lambda row: format_steps(row.steps))),
        Column("hours", True, cells(report, lambda row: f"{row.cost_hours:.3g}")),
        Column("published", False, cells(report, lambda row: row.published)),
        Column("note", False, cells(report, lambda row: row.note)),
    ]
    return [column for column in made if any(column.cells)]


def cells(report: Report, of: Callable[[Row], str]) -> tuple[str, ...]:
    return tuple(of(row) for row in report.rows)


def list_shown_metrics(report: Report) -> list[str]:
    """The headline and the other numbers that say something on their own."""
    names = dict.fromkeys(name for row in report.rows for name in row.numbers)
    others = [name for name in names if not is_secondary(name) and name != report.headline]
    return [report.headline, *others]


def format_metric_title(metric: str) -> str:
    """A number's name, with the direction in which it is better."""
    return f"{metric} {'↑' if higher_is_better(metric) else '↓'}"


def step_title(report: Report) -> str:
    """The numbers are of these steps."""
    return f"{report.step} step"


def format_steps(steps: Sequence[int]) -> str:
    """One step, or the first to the last of several."""
    ends = dict.fromkeys([*steps[:1], *steps[-1:]])
    return " to ".join(map(str, ends))


def shown(row: Row, metric: str) -> str:
    """A number of a row; a dash where there is none."""
    return format_spread(row.numbers[metric]) if metric in row.numbers else "-"


def format_spread(spread: Spread) -> str:
    """Mean ± standard deviation (n), to two digits of the deviation; of one value four digits."""
    n = len(spread.values)
    decimals = count_decimals(spread)
    if spread.deviation is None:
        return f"{spread.mean:.{decimals}f} (n={n})"
    return f"{spread.mean:.{decimals}f} ± {spread.deviation:.{decimals}f} (n={n})"


def count_decimals(spread: Spread) -> int:
    """How many digits after the point are worth showing."""
    size, digits = (spread.deviation, 2) if spread.deviation else (abs(spread.mean), 4)
    return min(max(digits - 1 - math.floor(math.log10(size)), 0), 8) if size else 2


def list_remarks(report: Report) -> list[str]:
    """What belongs under a table: by what rules, whose published numbers, what went wrong."""
    said = [format_protocols(report)]
    if any(row.numbers for row in report.rows):
        said.append(
            "mean ± sample standard deviation over n seeds; noise is a difference that chance "
            "alone gives with p > 0.05 (Welch's t-test, two-sided, of each row against the best, "
            "not corrected for their number)."
        )
    if report.step == "best":
        said.append(
            f"each run's best step by {report.headline}, picked by the numbers that are shown: "
            "they flatter every row, and most of all one that was evaluated often."
        )
    sources = {
        f"published {format_setting(fid)}: {format_setting(source)}"
        for row in report.rows
        if (fid := row.runs[0].published.get("fid")) is not None
        and (source := row.runs[0].published.get("source"))
    }
    floors = {
        f"{name} {spread.mean:.4g}: real images against real ones, the best that can be reached"
        for row in report.rows
        for name, spread in row.numbers.items()
        if name.endswith("_floor")
    }
    return [*said, *sorted(floors), *sorted(sources), *report.warnings]


def format_protocols(report: Report) -> str:
    """The protocols of the numbers, by name and extractor."""
    named = [
        f"{record.get('protocol')} (extractor {record.get('extractor')}, SHA-256 "
        f"{str(record.get('extractor_sha256'))[:8]})"
        for record in report.protocols
    ]
    return f"protocol: {'; '.join(named) or 'not recorded, as no run has finished'}"


# --- the formats ----------------------------------------------------------------------------------


def to_text(report: Report) -> str:
    """Aligned text for a terminal or a log."""
    table = build_columns(report)
    widths = [max(map(len, (column.title, *column.cells))) for column in table]
    lines = [
        "  ".join(
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(line, widths, table, strict=True)
        ).rstrip()
        for line in list_lines(table)
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([report.title, "", *lines, "", *list_remarks(report)]) + "\n"


def list_lines(table: Sequence[Column]) -> list[tuple[str, ...]]:
    """The titles, and then each row's cells."""
    return list(zip(*((column.title, *column.cells) for column in table), strict=True))


def to_markdown(report: Report) -> str:
    """A table for a README, aligned, with what belongs under it as a list."""
    table = [
        Column(
            escape_markdown(column.title), column.numeric, tuple(map(escape_markdown, column.cells))
        )
        for column in build_columns(report)
    ]
    widths = [max(3, *map(len, (column.title, *column.cells))) for column in table]
    rule = [
        "-" * (width - 1) + ":" if column.numeric else "-" * width
        for width, column in zip(widths, table, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(line, widths, table, strict=True)
        ]
        for line in list_lines(table)
    ]
    lines = [f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]]]
    notes = [f"- {escape_markdown(remark)}" for remark in list_remarks(report)]
    return "\n".join([f"# {escape_markdown(report.title)}", "", *lines, "", *notes]) + "\n"


def escape_markdown(words: str) -> str:
    """A text that means itself in Markdown, on one line."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_|<>[]" else sign for sign in words)
    return " ".join(escaped.split())


def to_latex(report: Report) -> str:
    r"""A tabular for \usepackage{booktabs}; the best row's headline is bold."""
    table = [column for column in build_columns(report) if column.title != "note"]
    spec = "".join("r" if column.numeric else "l" for column in table)
    head, *rows = [[escape_latex(cell) for cell in line] for line in list_lines(table)]
    if rows:
        rows[0][1] = rf"\textbf{{{rows[0][1]}}}"
    body = [f"  {' & '.join(line)} \\\\" for line in [head, *rows]]
    comments = [f"% {' '.join(line.split())}" for line in (report.title, *list_remarks(report))]
    return "\n".join(
        [
            *comments,
            rf"\begin{{tabular}}{{{spec}}}",
            r"  \toprule",
            body[0],
            r"  \midrule",
            *body[1:],
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(words: str) -> str:
    """A text that means itself in LaTeX."""
    return "".join(LATEX.get(sign, sign) for sign in words)


def rows_to_csv(report: Report) -> str:
    """One line a row: its settings, each number's mean and deviation, and the comparison."""
    names = list(dict.fromkeys(name for row in report.rows for name in row.numbers))
    p_values = {each.other: each.p_value for each in report.comparisons}

    def line(row: Row) -> dict[str, object]:
        found: dict[str, object] = {"label": row.label, "runs": len(row.runs)}
        found |= {key: setting(row.settings[key]) for key in report.varied if key in row.settings}
        for name in names:
            if name in row.numbers:
                spread = row.numbers[name]
                found |= {name: spread.mean, f"{name}_deviation": spread.deviation}
        counted = row.numbers.get(report.headline)
        found["n"] = len(counted.values) if counted else 0
        found["steps"] = " ".join(map(str, row.steps))
        found |= {"cost_hours": row.cost_hours, "p_against_best": p_values.get(row.label)}
        found |= {f"published_{key}": value for key, value in row.runs[0].published.items()}
        return {**found, "note": row.note}

    return to_csv(map(line, report.rows))


def runs_to_csv(report: Report) -> str:
    """One line a run: what came of it, the numbers of the step that counts, and all settings."""
    names = list_metrics([run for row in report.rows for run in row.runs])

    def line(row: Row, run: RunFiles) -> dict[str, object]:
        at = choose_evaluation(run, choose_metric(row.runs, report.headline), report.step)
        return {
            "run": run.path,
            "row": row.label,
            "status": run.status,
            "error": run.error,
            "step": run.step,
            "of_step": at.get("step"),
            **{name: at.get(name) for name in names if name not in NOT_METRICS},
            "seconds": run.seconds,
            "images_per_second": run.images_per_second or None,
            "peak_memory_bytes": run.peak_memory_bytes or None,
            "device": run.device,
            **{key: setting(value) for key, value in run.config.items()},
        }

    return to_csv(line(row, run) for row in report.rows for run in row.runs)


def setting(value: Value) -> Value:
    """As it is typed where YAML and Python differ; a number as a number."""
    return format_setting(value) if value is None or isinstance(value, bool) else value


def to_csv(lines: Iterable[dict[str, object]]) -> str:
    """Records with any keys, all of which become columns; empty where a record has none."""
    found = list(lines)
    keys = list(dict.fromkeys(key for line in found for key in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return file.getvalue()
