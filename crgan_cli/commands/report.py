"""`crgan report`: compare runs, from their files only."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_path
from crgan_cli.report.write import (
    FIGURE_KINDS,
    FORMATS,
    explain_write_errors,
    make_report_folder,
    print_report,
    write_report,
)

if TYPE_CHECKING:
    from crgan_cli.report.model import Report

help = "Compare runs: a table over seeds, curves and samples, from files only."

DESCRIPTION = """Compare runs, also while they train. Runs that differ only in their seed are one
row; the best row comes first. Prints a table and writes

  report.md     the table, for a README          runs.csv   one line per run, with all settings
  table.tex     the same for LaTeX (booktabs)    rows.csv   one line per row
  report.html   one page, curves and samples     figures/ samples/   the same as PNG files

For a paper, --figures writes each figure once more, without a title, 3.25 and 6.75 inches wide.
--paper writes a folder with them, the table, and the sentences on protocol, seeds and test."""

EXAMPLES = """examples:
  crgan report outputs/sweeps/20260101-120000-000000
  crgan report RUN_A RUN_B --step best --metric is --format md,csv --out here
  crgan report outputs --title 'Weights of CR'
  crgan report outputs/sweeps/20260101-120000-000000 --paper paper"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("folders", nargs="+", metavar="DIR", type=parse_path, help="runs, or folders of runs")
    add(
        "--out",
        type=parse_path,
        metavar="FOLDER",
        help="where to write (DIR/report, or report for several DIRs)",
    )
    add(
        "--format",
        type=parse_names(FORMATS),
        default=FORMATS,
        metavar=",".join(FORMATS),
        help="which files (all)",
    )
    add(
        "--figures",
        type=parse_names(FIGURE_KINDS),
        default=(),
        metavar=",".join(FIGURE_KINDS),
        help="figures for a paper too, as these files",
    )
    add(
        "--paper",
        type=parse_path,
        metavar="FOLDER",
        help="write FOLDER for a paper: table.tex, statement.tex, figures as PDF, example.tex",
    )
    add("--step", choices=("last", "best"), default="last", help="of each run (last)")
    add("--metric", metavar="NAME", help="metric to compare by (the protocol's primary metric)")
    add("--title", help="of the report")
    add("--force", action="store_true", help="compare numbers of different protocols too")


def parse_names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Return the parser of a list with commas of known names."""

    def parse(words: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(words.split(",")))
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"{words!r} is not of {', '.join(known)}")
        return names

    return parse


def run(args: argparse.Namespace) -> int:
    """Read the runs, print the table and write the files."""
    from crgan_cli.experiments.sweep_state import describe_unfinished
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.runs.folder import require_no_links
    from crgan_cli.system.console import log_to_stderr

    with log_to_stderr():
        runs = collect(args.folders, args.metric)
        report = build_report(
            runs,
            step=args.step,
            metric=args.metric,
            force=args.force,
            title=args.title or make_title(args.folders, len(runs)),
        )
        unfinished = filter(None, map(describe_unfinished, args.folders))
        report = report._replace(warnings=(*unfinished, *report.warnings))
        default = args.folders[0] / "report" if len(args.folders) == 1 else Path("report")
        if args.out is None:
            require_no_links(default.parent, [default.name])
        out = make_report_folder(args.out or default)
        print_report(report)
        for path in write_report(report, out, args.format):
            print(path)
        write_for_paper(report, out, args.paper, args.figures)
    return 0


def write_for_paper(report: "Report", out: Path, paper: Path | None, kinds: Sequence[str]) -> None:
    """Write what --figures and --paper ask for, and print its files."""
    if not (paper or kinds):
        return
    from crgan_cli.report.paper import write_figures, write_paper

    folder = make_report_folder(paper, "--paper") if paper else out
    with explain_write_errors(folder):
        if paper:
            paths = write_paper(report, folder, tuple(dict.fromkeys(("pdf", *kinds))))
        else:
            paths = write_figures(report, folder / "figures", kinds)
    for path in paths:
        print(path)


def make_title(folders: list[Path], runs: int) -> str:
    """Return the title of a report without --title."""
    names = ", ".join(folder.resolve().name for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{runs} run{'s' if runs > 1 else ''} of {names}{more}"
