"""A report as one self-contained HTML page: pictures inside, no scripts, no network.

`template.html` holds the structure and the fixed text, and `style.css` the look. This module makes
what they show.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crgan_cli import __version__
from crgan_cli.config.resolve import flatten, format_setting
from crgan_cli.report import plots
from crgan_cli.report.drawing import describe_direction, finite_or_none
from crgan_cli.report.figures import make_drawings
from crgan_cli.report.findings import Interval, QuantityByRow, read_quantities
from crgan_cli.report.grids import load_grids
from crgan_cli.report.model import Report, Row, RunFiles, Spread
from crgan_cli.report.tables import (
    format_metric_title,
    format_spread,
    format_steps,
    list_shown_metrics,
)
from crgan_cli.runs.status import Status
from crgan_cli.system.numbers import format_bytes, format_number, format_rate, format_time

HERE = Path(__file__).parent

NONE = "–"
"""In a cell without a value."""

STATUS_ORDER = (
    Status.FAILED,
    Status.INTERRUPTED,
    Status.RUNNING,
    Status.NOT_STARTED,
    Status.SKIPPED,
    Status.FINISHED,
)
"""The runs that need a look come first."""


class Cell(NamedTuple):
    """A cell's text, and a second line in small type."""

    text: str
    detail: str = ""


class TableColumn(NamedTuple):
    """A column of a table."""

    title: Cell
    numeric: bool  # aligned to the right
    cells: list[Cell]


class Table(NamedTuple):
    """A table of the page. A header of a row is a text, or its settings.

    Its first number stands before the header: on a phone, settings alone would fill the screen.
    """

    name: str
    headers: list[str | list[str]]
    columns: list[TableColumn]
    note: str


def build_page(report: Report, reload_seconds: float | None = None) -> str:
    """Return the whole page. The same run folders always give the same text.

    A browser loads it again every `reload_seconds`, if given: while runs are going on.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "flatten": flatten,
        "pluralize": pluralize,
        "setting": format_setting,
        "time": format_time,
    }
    measured, unreadable = read_quantities(report)
    drawings = make_drawings(report, measured)
    samples = load_grids(report)
    runs = sort_runs(report)
    sections = {
        "results": ("Results", True),
        "figures": ("Figures", drawings),
        "samples": ("Samples", samples),
        "artefacts": ("Artefact measurements", measured),
        "protocol": ("Protocol", report.protocols),
        "runs": ("Runs", True),
        "made": ("How this was made", True),
    }
    return environment.get_template("template.html").render(
        report=report,
        reload=None if reload_seconds is None else max(1, round(reload_seconds)),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        sections={key: title for key, (title, content) in sections.items() if content},
        intro=format_intro(report),
        warnings=[*report.warnings, *unreadable],
        results=build_results(report),
        metrics=build_further_metrics(report),
        figures=[
            {**each._asdict(), "svg": plots.to_svg(each.figure, each.name)} for each in drawings
        ],
        samples=samples,
        artefacts=build_artefacts(report, measured),
        runs=runs,
        states=f"{describe_states(report)}.",
        version=__version__,
        seconds=3600 * sum(row.cost_hours for row in report.rows),
        devices=sorted({run.device for run, _ in runs if run.device}),
        date=newest_date([run for run, _ in runs]),
    )


def format_intro(report: Report) -> str:
    """Return one sentence on what the page compares."""
    count = sum(len(row.runs) for row in report.rows)
    text = f"{pluralize(count, 'run')} in {pluralize(len(report.rows), 'row')}"
    text += f", differing in {', '.join(report.varied)}" if report.varied else ""
    if report.headline:
        direction = describe_direction(report.headline)
        text += f". Ranked by {report.headline} ({direction}) {report.at_step}"
    return f"{text}."


def pluralize(count: int, noun: str) -> str:
    """Return "1 run", "2 runs"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def row_header(row: Row) -> str | list[str]:
    """Return the settings in which a row differs, or its label if there are none."""
    given = [f"{key}={format_setting(value)}" for key, value in row.settings.items()]
    return given or row.label


def format_value(spread: Spread | None) -> Cell:
    """Return mean ± deviation (n) if the mean is a finite number."""
    finite = finite_or_none(spread)
    return Cell(format_spread(finite) if finite else NONE)


def keep_on_one_line(title: str) -> Cell:
    """Return a title without line breaks."""
    return Cell(title.replace(" ", "\u00a0"))


def build_results(report: Report) -> Table:
    """Return the main table, best row first, without its empty columns."""
    rows = report.rows
    primary = TableColumn(
        keep_on_one_line(format_metric_title(report.headline)),
        True,
        [format_value(row.numbers.get(report.headline)) for row in rows],
    )
    others = [
        TableColumn(Cell("Step"), True, [Cell(format_steps(row.steps)) for row in rows]),
        TableColumn(Cell("Time"), True, [Cell(format_time(3600 * row.cost_hours)) for row in rows]),
        TableColumn(Cell("Images/s"), True, [Cell(format_speed(row)) for row in rows]),
        TableColumn(Cell("Memory"), True, [Cell(format_memory(row)) for row in rows]),
        TableColumn(Cell("Note"), False, [Cell(row.note) for row in rows]),
        TableColumn(Cell("Published"), False, [format_published_cell(row) for row in rows]),
    ]
    note = (
        "Mean ± sample standard deviation over n seeds. Time is the sum over the row's runs, "
        "images/s the median and memory the peak."
    )
    if report.step == "best":
        note += (
            " Each run's best step is chosen by the same numbers that are shown. This flatters "
            "every row, and most of all a row that was evaluated often."
        )
    filled = [column for column in others if {cell.text for cell in column.cells} - {"", NONE}]
    return Table("Results", list(map(row_header, rows)), [primary, *filled], note)


def format_published_cell(row: Row) -> Cell:
    """Return the published number next to ours, with its source."""
    source = row.runs[0].published.get("source") if row.runs else None
    return Cell(row.published, str(source) if row.published and source else "")


def format_speed(row: Row) -> str:
    """Return images per second, the median over the runs that report it."""
    speeds = [run.images_per_second for run in row.runs if run.images_per_second > 0]
    return format_rate(median(speeds)) if speeds else NONE


def format_memory(row: Row) -> str:
    """Return the peak memory over the runs that report it."""
    memory = max((run.peak_memory_bytes for run in row.runs), default=0)
    return format_bytes(memory) if memory else NONE


def build_further_metrics(report: Report) -> Table | None:
    """Return the metrics next to the primary one, and its real-vs-real distance."""
    titles = {
        name: keep_on_one_line(format_metric_title(name)) for name in list_shown_metrics(report)[1:]
    }
    floor = f"{report.headline}_floor"
    if any(floor in row.numbers for row in report.rows):
        titles[floor] = Cell(floor)
    if not titles:
        return None
    columns = [
        TableColumn(title, True, [format_value(row.numbers.get(name)) for row in report.rows])
        for name, title in titles.items()
    ]
    note = "At the same steps. A floor is what real images score against other real images."
    return Table("Further metrics", list(map(row_header, report.rows)), columns, note)


def build_artefacts(report: Report, measured: Sequence[QuantityByRow]) -> Table:
    """Return what `crgan artefacts` measured."""
    rows = [i for i in range(len(report.rows)) if any(each.rows[i] for each in measured)]
    columns = [
        TableColumn(
            Cell(f"{each.quantity.measurement}: {each.quantity.name}", each.quantity.unit),
            True,
            [
                *(Cell(format_estimates(each.rows[i])) for i in rows),
                Cell(NONE if each.reference is None else format_number(each.reference, 3)),
            ],
        )
        for each in measured
    ]
    return Table(
        "Artefact measurements",
        [*(row_header(report.rows[i]) for i in rows), "reference"],
        columns,
        "One run: its value [95 % interval]. Several: the mean over runs (lowest to highest; "
        "number of runs). The reference is the value without the artefact.",
    )


def format_estimates(estimates: Sequence[Interval]) -> str:
    """Return the estimates of a row's runs as one text."""
    if not estimates:
        return NONE
    if len(estimates) == 1:
        value, low, high = (format_number(each, 3) for each in estimates[0])
        return f"{value} [{low}, {high}]"
    values = [each.value for each in estimates]
    mean, low, high = (format_number(each, 3) for each in (fmean(values), min(values), max(values)))
    return f"{mean} ({low} to {high}; {len(values)})"


def describe_states(report: Report) -> str:
    """Return how many runs have each status: "1 failed, 3 running"."""
    states = [run.status for row in report.rows for run in row.runs]
    counts = {status: states.count(status) for status in STATUS_ORDER}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def sort_runs(report: Report) -> list[tuple[RunFiles, Row]]:
    """Return every run with its row, in `STATUS_ORDER`."""
    runs = [(run, row) for row in report.rows for run in row.runs]
    return sorted(runs, key=lambda each: STATUS_ORDER.index(each[0].status))


def newest_date(runs: Sequence[RunFiles]) -> str:
    """Return when the newest file of the runs was written; empty if they have no files."""
    files = [
        run.path / name for run in runs for name in ("config.yaml", "metrics.jsonl", "result.json")
    ]
    files += [run.samples for run in runs if run.samples]
    newest = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC") if newest else ""
