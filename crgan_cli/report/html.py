"""A report as one HTML page that needs nothing else: pictures inside, no scripts, no network."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from crgan_cli.report import plots
from crgan_cli.report.drawing import Drawing, describe_direction
from crgan_cli.report.figures import make_drawings, mean_estimate
from crgan_cli.report.findings import Estimate, QuantityByRow, read_quantities
from crgan_cli.report.grids import samples
from crgan_cli.report.markup import NONE, Markup, counted, escaped, joined, table, tag
from crgan_cli.report.model import Report, Row, Spread
from crgan_cli.report.origins import made, protocols, runs
from crgan_cli.report.tables import (
    format_metric_title,
    format_spread,
    format_steps,
    list_shown_metrics,
)
from crgan_cli.system.atomic import write_text

STYLE = Path(__file__).with_name("style.css")

GUARD = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A browser loads nothing for this page, even where somebody's text managed to ask for it."""


def render(report: Report, folder: Path) -> Path:
    """Writes `folder`/report.html and returns its path. Nothing in it depends on when it is
    written: the same run folders give the same bytes."""
    path = folder / "report.html"
    write_text(path, build_page(report))
    return path


def build_page(report: Report) -> str:
    """The whole page."""
    found, unread = read_quantities(report)
    sections = [
        ("results", "Results", [results(report), more_metrics(report), *comparisons(report)]),
        ("figures", "Figures", figure_section(make_drawings(report, found))),
        ("samples", "Samples", samples(report)),
        ("artefacts", "Artefact measurements", artefacts(report, found)),
        ("protocol", "Protocol", protocols(report)),
        ("runs", "Runs", [runs(report)]),
        ("made", "How this was made", made(report)),
    ]
    kept = [(key, title, parts) for key, title, parts in sections if any(parts)]
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in kept]
    body = [
        tag("header", tag("h1", report.title), tag("p", intro(report), class_="lead")),
        warnings([*report.warnings, *unread]),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag(
            "main",
            *(
                tag("section", tag("h2", title, id=f"{key}-title"), *parts, id=key)
                for key, title, parts in kept
            ),
        ),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=GUARD),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", report.title),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    ]
    return "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", *body), lang="en")


def intro(report: Report) -> str:
    """What the page is about, in a sentence."""
    count = sum(len(row.runs) for row in report.rows)
    text = f"{counted(count, 'run')} in {counted(len(report.rows), 'row')}"
    text += f", differing in {', '.join(report.varied)}" if report.varied else ""
    if report.headline:
        text += f". Ranked by {report.headline} ({describe_direction(report.headline)}), {report.step} step"
    return f"{text}."


def warnings(lines: Sequence[str]) -> Markup:
    """What a reader must know before anything else."""
    if not lines:
        return Markup()
    items = tag("ul", *(tag("li", line) for line in lines))
    return tag("div", tag("strong", "Beware"), items, class_="warning", role="note")


def chips(row: Row) -> Markup:
    """The settings in which a row differs."""
    if not row.settings:
        return escaped(row.label)
    given = [f"{key}={value}" for key, value in row.settings.items() if value is not None]
    return joined(tag("span", each, class_="chip") for each in given) if given else escaped(NONE)


def count_text(spread: Spread | None) -> str:
    """Mean ± deviation (n) where there is one."""
    return NONE if spread is None or not math.isfinite(spread.mean) else format_spread(spread)


def unbroken(title: str) -> str:
    """A title that stays on one line."""
    return title.replace(" ", "\u00a0")


def results(report: Report) -> Markup:
    """The main table, best row first."""
    head = [
        "Settings",
        unbroken(format_metric_title(report.headline)),
        "Step",
        "Note",
        "Published",
        "Hours",
        "Images/s",
        "Memory",
    ]
    body = [
        (
            chips(row),
            count_text(row.numbers.get(report.headline)),
            format_steps(row.steps),
            row.note,
            published(row),
            f"{row.cost_hours:.3g}",
            *speed_and_memory(row),
        )
        for row in report.rows
    ]
    # a column that says nothing is left out
    kept = [i for i in range(len(head)) if i < 2 or any(row[i] not in ("", NONE) for row in body)]
    numbers = [place for place, i in enumerate(kept) if i in (1, 2, 5, 6, 7)]
    flattering = (
        " Each run's best step is picked by the very numbers that are shown: they flatter every "
        "row, and most of all one that was evaluated often."
    )
    return table(
        "Results",
        [head[i] for i in kept],
        [[row[i] for i in kept] for row in body],
        numeric=numbers,
        note="Mean ± sample standard deviation over n seeds. Hours are of all of the row's "
        "runs, images/s the median and memory the peak over them."
        + flattering
        * (report.step == "best"),
    )


def published(row: Row) -> Markup:
    """The published number beside ours, and where it stands."""
    if not row.published:
        return Markup()
    source = row.runs[0].published.get("source") if row.runs else None
    return joined([row.published, tag("span", str(source), class_="quiet") if source else ""])


def speed_and_memory(row: Row) -> tuple[str, str]:
    """Images a second and peak memory, where some run knows them."""
    speeds = [run.images_per_second for run in row.runs if run.images_per_second > 0]
    memory = max((run.peak_memory_bytes for run in row.runs), default=0)
    return (
        f"{median(speeds):.0f}" if speeds else NONE,
        f"{memory / 2**30:.2f} GiB" if memory else NONE,
    )


def more_metrics(report: Report) -> Markup:
    """The metrics beside the headline."""
    others, floor = list_shown_metrics(report)[1:], f"{report.headline}_floor"
    known = any(floor in row.numbers for row in report.rows)
    names = [*others, *([floor] if known else [])]
    if not names:
        return Markup()
    return joined(
        [
            tag("h3", "Further metrics"),
            table(
                "Further metrics",
                [
                    "Settings",
                    *(unbroken(format_metric_title(n)) for n in others),
                    *names[len(others) :],
                ],
                [
                    [chips(r), *(count_text(r.numbers.get(name)) for name in names)]
                    for r in report.rows
                ],
                numeric=range(1, len(names) + 1),
                note="At the same steps. A floor is what real images score against real ones.",
            ),
        ]
    )


def comparisons(report: Report) -> list[Markup]:
    """Whether rows differ by more than chance."""
    if not report.comparisons:
        return []
    lines = [tag("li", tag("code", each.other), f": {each.words}") for each in report.comparisons]
    return [
        tag("h3", "Is the difference more than chance?"),
        tag("p", "Against the best row, ", tag("code", report.comparisons[0].best), ":"),
        tag("ul", *lines),
        tag(
            "p",
            "By Welch's t-test (1947), two-sided, over seeds, not corrected for the number of "
            "comparisons.",
            class_="quiet",
        ),
    ]


def figure_section(found: Sequence[Drawing]) -> list[Markup]:
    """The figures, drawn into the page."""
    parts = []
    for each in found:
        drawn = plots.to_svg(each.figure, each.name)
        label = tag("div", Markup(drawn), class_="scroll", role="img", aria_label=each.alt_text)
        parts.append(tag("figure", label, tag("figcaption", each.caption), class_="plot"))
    return parts


def artefacts(report: Report, found: Sequence[QuantityByRow]) -> list[Markup]:
    """What `crgan artefacts` measured, where it did."""
    if not found:
        return []
    head = [
        joined(
            [
                f"{each.quantity.measurement}: {each.quantity.name}",
                tag("span", each.quantity.unit, class_="quiet"),
            ]
        )
        for each in found
    ]
    body = [
        [chips(row), *(finding_section(each.rows[i]) for each in found)]
        for i, row in enumerate(report.rows)
        if any(each.rows[i] for each in found)
    ]
    references = [NONE if e.reference is None else f"{e.reference:.3g}" for e in found]
    return [
        table(
            "Artefact measurements",
            ["Settings", *head],
            [*body, ["reference", *references]],
            numeric=range(1, len(head) + 1),
            note="One run: its value [95 % interval]. Several: the mean over runs (lowest to "
            "highest; runs). The reference is what the number would be without the artefact.",
        )
    ]


def finding_section(readings: Sequence[Estimate]) -> str:
    """The readings of a row in a cell."""
    if not readings:
        return NONE
    if len(readings) == 1:
        (only,) = readings
        return f"{only.value:.3g} [{only.low:.3g}, {only.high:.3g}]"
    values = [each.value for each in readings]
    return f"{mean_estimate(readings):.3g} ({min(values):.3g} to {max(values):.3g}; {len(values)})"
