r"""A report for a paper: its table, its figures, and the sentences that say how it was measured.

`example.tex` shows how they are included, with a caption for each figure; pdflatex compiles it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crgan_cli.config.resolve import format_setting
from crgan_cli.report.compare import name_best
from crgan_cli.report.drawing import Drawing, describe_direction, save_drawings
from crgan_cli.report.figures import make_drawings
from crgan_cli.report.findings import read_quantities
from crgan_cli.report.latex import escape_latex, to_latex
from crgan_cli.report.layout import COLUMNS
from crgan_cli.report.model import Report, Row
from crgan_cli.report.plots import paper_style
from crgan_cli.report.protocols import NOT_COMPARABLE
from crgan_cli.report.statistics import format_p
from crgan_cli.runs.protocol import differences
from crgan_cli.runs.status import Status
from crgan_cli.system.atomic import write_text

DPI = 300
"""Pixels per inch of a figure that is a picture, as journals ask for."""

EXAMPLE = r"""% pdflatex example.tex
\documentclass[twocolumn]{article}
\usepackage{booktabs,adjustbox,graphicx}
\begin{document}
\input{statement}

\begin{table*}
\centering
\caption{TITLE}
\input{table}
\end{table*}
FIGURES
\end{document}
"""

FIGURE = r"""
\begin{figure}[p]
\centering
\includegraphics[width=\columnwidth]{figures/NAME}
\caption{CAPTION}
\end{figure}"""

FLUSH = 6
"""Figures of the example between two \\clearpage: LaTeX can keep few of them waiting."""


def write_paper(report: Report, folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write table.tex, statement.tex and .txt, the figures and example.tex. Return their paths."""
    statement = describe_experiment(report)
    figures = write_figures(report, folder / "figures", kinds)
    texts: dict[str, Callable[[], str]] = {
        "table.tex": lambda: to_latex(report),
        "statement.txt": lambda: "\n\n".join(statement) + "\n",
        "statement.tex": lambda: "\n\n".join(map(escape_latex, statement)) + "\n",
        "example.tex": lambda: make_example(report, figures),
    }
    for name, make in texts.items():
        write_text(folder / name, make())
    return [*(folder / name for name in texts), *figures]


def write_figures(report: Report, folder: Path, kinds: Sequence[str]) -> dict[Path, Drawing]:
    """Write each figure as wide as one and as two columns, as files of these kinds.

    Return each file with its drawing. An earlier report's files stay.
    """
    measured, _ = read_quantities(report)
    written = {}
    with paper_style():
        for layout in COLUMNS:
            drawings = make_drawings(report, measured, layout)
            for kind in kinds:
                paths = save_drawings(drawings, folder, f"{layout.ending}.{kind}", DPI)
                written |= dict(zip(paths, drawings, strict=True))
    return written


def make_example(report: Report, figures: Mapping[Path, Drawing]) -> str:
    """Return a document with the statement, the table and the figures that fit one column."""
    one, _ = COLUMNS
    captions = {
        path.stem: drawing.caption
        for path, drawing in figures.items()
        if path.stem.endswith(one.ending)
    }
    blocks = []
    for number, (name, caption) in enumerate(captions.items(), start=1):
        block = FIGURE.replace("NAME", name).replace("CAPTION", escape_latex(caption))
        blocks.append(block + ("\n\\clearpage" if number % FLUSH == 0 else ""))
    text = EXAMPLE.replace("FIGURES", "\n".join(blocks))
    return text.replace("TITLE", escape_latex(report.title))


# --- the sentences --------------------------------------------------------------------------------


def describe_experiment(report: Report) -> list[str]:
    """Return paragraphs that say how the numbers were measured, over which seeds, and tested."""
    beware = [text for text in report.warnings if text.startswith(NOT_COMPARABLE)]
    protocols = [describe_protocol(record, report) for record in report.protocols]
    return [
        *beware,
        *(protocols or ["The protocol is not recorded, as no run has finished."]),
        describe_seeds_of_rows(report),
        describe_test(report),
    ]


def describe_protocol(record: Mapping[str, object], report: Report) -> str:
    """Return a protocol as sentences: images, extractor and weights."""

    def get(key: str) -> str:
        return format_setting(record.get(key, "unrecorded"))

    repeats = record.get("repeats", 1)
    return (
        f"Protocol {get('protocol')}: {get('num_samples')} generated images"
        + (f", the mean over {repeats} such sets," if repeats != 1 else "")
        + f" against {get('num_real')} real ones of the split {get('reference_split')}"
        + (f" of {get('dataset')}" if "dataset" in record else "")
        + f", extractor {get('extractor')} (SHA-256 of its weights {get('extractor_sha256')}), "
        f"weights of the generator: {', '.join(list_weights(record, report))}."
    )


def list_weights(record: Mapping[str, object], report: Report) -> list[str]:
    """Return which of the generator's weights were measured by this protocol: ema, raw."""
    ours = [
        run.protocol
        for row in report.rows
        for run in row.shown
        if run.protocol and not differences(run.protocol, record)
    ]
    found = [each.get("generator_weights", each.get("weights")) for each in [*ours, record]]
    return sorted({format_setting(each) for each in found if each is not None}) or ["unrecorded"]


def describe_seeds_of_rows(report: Report) -> str:
    """Return which metric at which step, and the seeds that each row's number is the mean of."""
    rows = [row for row in report.rows if report.headline in row.numbers]
    if not rows:
        return "No run has been measured."
    seeds = {row.label: ", ".join(str(run.seed) for run in row.shown) for row in rows}
    text = f"Numbers are {report.headline} ({describe_direction(report.headline)}) {report.at_step}"
    if report.step == "best":
        text += (
            ", which is each run's own, chosen by the same numbers that are reported: this "
            "flatters every row"
        )
    if all(len(row.shown) == 1 for row in rows):
        text += ", of one seed"
        seeds = {row: f"({each})" for row, each in seeds.items()}
    else:
        text += ", as mean and sample standard deviation over seeds"
        one = (row.label for row in rows if len(row.shown) == 1)
        seeds |= {label: f"{seeds[label]} alone, without a deviation" for label in one}
    return f"{text} {list_by_row(seeds)}.{describe_steps(rows)}" + "".join(map(describe_part, rows))


def list_by_row(texts: Mapping[str, str]) -> str:
    """Return the text of most rows, and then each row with another one."""
    usual = Counter(texts.values()).most_common(1)[0][0]
    return usual + "".join(f"; {row}: {each}" for row, each in texts.items() if each != usual)


def describe_steps(rows: Sequence[Row]) -> str:
    """Return at which steps rows were measured, if these differ; else ""."""
    steps = {row.label: ", ".join(map(str, row.steps)) for row in rows}
    return f" Measured at step {list_by_row(steps)}." if len({*steps.values()}) > 1 else ""


def describe_part(row: Row) -> str:
    """Return sentences on a row's runs that do not count or have not finished; "" if none."""
    runs = len(row.runs)
    left = runs - len(row.shown)
    going = sum(run.status != Status.FINISHED for run in row.shown)
    text = f" Left out of {row.label}: {left} of {runs} runs." if left else ""
    return text + (f" Not finished of {row.label}: {going} of {runs} runs." if going else "")


def describe_test(report: Report) -> str:
    """Return the test of each row against the best of several seeds, with its p-value."""
    each_p = {each.other: each.p_value for each in report.comparisons}
    tested = {other: p for other, p in each_p.items() if p is not None}
    untested = [other for other in each_p if other not in tested]
    if not tested:
        return "No difference was tested: a test needs two rows of at least two seeds that differ."
    p_values = "; ".join(f"{other}: {format_p(p)}" for other, p in tested.items())
    best = report.comparisons[0].best
    name = name_best(best, report.rows)
    text = (
        f"Each row was compared with {name}, {best}, by Welch's t-test (two-sided, over seeds, "
        f"p-values not corrected for the number of tests, {len(tested)}): {p_values}."
    )
    return text + (f" Not tested, having no spread: {'; '.join(untested)}." if untested else "")
