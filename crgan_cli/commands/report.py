"""`crgan report`: runs side by side, from their files alone."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.report.write import FORMATS, make_report_folder, print_report, write_report

if TYPE_CHECKING:
    pass

help = "Compare runs: a table over seeds, curves and samples, from files alone."

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
    add(
        "--format",
        type=parse_formats,
        default=FORMATS,
        metavar=",".join(FORMATS),
        help="which (all)",
    )
    add("--step", choices=("last", "best"), default="last", help="of each run (last)")
    add("--metric", metavar="NAME", help="the number to compare by (what the protocol names)")
    add("--title", help="of the report")
    add("--force", action="store_true", help="also of numbers of different protocols")


def parse_formats(words: str) -> tuple[str, ...]:
    """Names of formats, by commas."""
    found = tuple(words.split(","))
    if not set(found) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"{words!r} is not of {', '.join(FORMATS)}")
    return found


def run(args: argparse.Namespace) -> int:
    """Reads, prints and writes."""
    from crgan_cli.experiments.sweep_state import describe_unfinished
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.system.console import log_to_stderr

    with log_to_stderr():
        found = collect(args.folders, args.metric)
        report = build_report(
            found,
            step=args.step,
            metric=args.metric,
            force=args.force,
            title=args.title or default_title(args.folders, len(found)),
        )
        lacking = tuple(words for folder in args.folders if (words := describe_unfinished(folder)))
        report = report._replace(warnings=(*lacking, *report.warnings))
        alone = len(args.folders) == 1
        out = make_report_folder(
            args.out or (args.folders[0] / "report" if alone else Path("report"))
        )
        print_report(report)
        for path in write_report(report, out, args.format):
            print(path)
    return 0


def default_title(folders: list[Path], runs: int) -> str:
    """What is compared."""
    names = ", ".join(folder.resolve().name for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{runs} run{'s' if runs > 1 else ''} of {names}{more}"
