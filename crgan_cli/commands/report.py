"""`crgan report`: runs side by side, from their files alone."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from crgan_cli.report.model import Report

help = "Compare runs: a table over seeds, curves and samples, from files alone."

FORMATS = ("md", "csv", "tex", "html", "png")

DESCRIPTION = """Compare runs, also while they are trained. A row are the runs that differ in
nothing but their seed; the best row is the first. Prints a table, and writes

  report.md     the table, for a README          runs.csv   one line a run, with all settings
  table.tex     the same for LaTeX (booktabs)    rows.csv   one line a row
  report.html   one page, curves and samples     figures/ samples/   these as PNG files"""

EXAMPLES = """examples:
  crgan report outputs/sweeps/20260101-120000-000000
  crgan report RUN_A RUN_B --step best --metric is --format md,csv --out here
  crgan report outputs --title 'Weights of CR'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("folders", nargs="+", metavar="DIR", type=Path, help="runs, or folders of runs")
    add("--out", type=Path, metavar="FOLDER", help="where to write (DIR/report; of several report)")
    add("--format", type=formats, default=FORMATS, metavar=",".join(FORMATS), help="which (all)")
    add("--step", choices=("last", "best"), default="last", help="of each run (last)")
    add("--metric", metavar="NAME", help="the number to compare by (what the protocol names)")
    add("--title", help="of the report")
    add("--force", action="store_true", help="also of numbers of different protocols")


def formats(words: str) -> tuple[str, ...]:
    """Names of formats, by commas."""
    found = tuple(words.split(","))
    if not set(found) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"{words!r} is not of {', '.join(FORMATS)}")
    return found


def run(args: argparse.Namespace) -> int:
    """Reads, prints and writes."""
    from crgan_cli.experiments.sweep import unfinished
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import report_of
    from crgan_cli.system.console import speaking

    with speaking():
        found = collect(args.folders, args.metric)
        report = report_of(
            found,
            step=args.step,
            metric=args.metric,
            force=args.force,
            title=args.title or title(args.folders, len(found)),
        )
        lacking = tuple(words for folder in args.folders if (words := unfinished(folder)))
        report = report._replace(warnings=(*lacking, *report.warnings))
        alone = len(args.folders) == 1
        out = made(args.out or (args.folders[0] / "report" if alone else Path("report")))
        show(report)
        for path in write(report, out, args.format):
            print(path)
    return 0


def title(folders: list[Path], runs: int) -> str:
    """What is compared."""
    names = ", ".join(folder.resolve().name for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{runs} run{'s' if runs > 1 else ''} of {names}{more}"


def show(report: "Report") -> None:
    """The table: with lines that wrap on a terminal, else as text."""
    from crgan_cli.report import tables

    if not sys.stdout.isatty():
        print(tables.plain(report))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(report.title), title_justify="left", box=SIMPLE_HEAD)
    shown = tables.columns(report)
    for column in shown:
        side = "right" if column.numeric else "left"
        table.add_column(escape(column.title), justify=side, overflow="fold")
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*map(escape, cells))
    console = Console()
    console.print(table)
    for remark in tables.remarks(report):
        console.print(remark, markup=False, highlight=False)


def made(folder: Path) -> Path:
    """The folder, there now. Raises UserError where it cannot be made."""
    from crgan_cli.errors import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be made ({error.strerror}). Choose another with "
            "--out FOLDER."
        ) from None
    return folder


def write(report: "Report", out: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The files. Raises RunFailed where they cannot be written."""
    from crgan_cli.errors import RunFailed
    from crgan_cli.report import tables
    from crgan_cli.system.atomic import write_text

    texts: dict[str, dict[str, Callable[[Report], str]]] = {
        "md": {"report.md": tables.markdown},
        "csv": {"runs.csv": tables.runs_csv, "rows.csv": tables.rows_csv},
        "tex": {"table.tex": tables.latex},
    }
    written = []
    try:
        shown = pictures(report, out) if "png" in wanted else []
        written += [path for path, _ in shown]
        for kind in wanted:
            for name, render in texts.get(kind, {}).items():
                write_text(out / name, render(report))
                written.append(out / name)
        if "html" in wanted:
            from crgan_cli.report.html import render as page

            written.append(page(report, out))
        if "md" in wanted:
            with open(out / "report.md", "a", encoding="utf-8") as file:
                for path, caption in shown:
                    link = quote(path.relative_to(out).as_posix())
                    file.write(f"\n![{caption}]({link})\n\n{caption}\n")
    except OSError as error:
        raise RunFailed(f"writing to {out} failed: {error.strerror or error}.") from error
    return written


def pictures(report: "Report", out: Path) -> list[tuple[Path, str]]:
    """Figures and sample grids as PNG files, each with its caption."""
    from crgan_cli.report.drawing import write as write_drawings
    from crgan_cli.report.figures import drawings
    from crgan_cli.report.findings import findings
    from crgan_cli.report.grids import pictured

    drawn = drawings(report, findings(report)[0])
    captions = [each.caption for each in drawn]
    found = list(zip(write_drawings(drawn, out / "figures"), captions, strict=True))
    labels = {run.path: row.label for row in report.rows for run in row.runs}
    (out / "samples").mkdir(exist_ok=True)
    for number, run in enumerate(pictured(report), start=1):
        if run.samples:
            path = out / "samples" / f"{number:02d}_{run.path.name}.png"
            shutil.copyfile(run.samples, path)
            found.append((path, f"{labels[run.path]}, step {run.step}"))
    return found
