"""`crgan report`: compare runs, from their files only."""

import argparse
from pathlib import Path

from crgan_cli.commands.sample import parse_path, parse_run
from crgan_cli.report.write import FORMATS, make_report_folder, print_report, write_report

help = "Compare runs: a table over seeds, curves and samples, from files only."

DESCRIPTION = """Compare runs, also while they train. Runs that differ only in their seed are one
row; the best row comes first. Prints a table and writes

  report.md     the table, for a README          runs.csv   one line per run, with all settings
  table.tex     the same for LaTeX (booktabs)    rows.csv   one line per row
  report.html   one page, curves and samples     figures/ samples/   the same as PNG files"""

EXAMPLES = """examples:
  crgan report outputs/sweeps/20260101-120000-000000
  crgan report RUN_A RUN_B --step best --metric is --format md,csv --out here
  crgan report outputs --title 'Weights of CR'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("folders", nargs="+", metavar="DIR", type=parse_run, help="runs, or folders of runs")
    add(
        "--out",
        type=parse_path,
        metavar="FOLDER",
        help="where to write (DIR/report, or report for several DIRs)",
    )
    add(
        "--format",
        type=parse_formats,
        default=FORMATS,
        metavar=",".join(FORMATS),
        help="which files (all)",
    )
    add("--step", choices=("last", "best"), default="last", help="of each run (last)")
    add("--metric", metavar="NAME", help="metric to compare by (the protocol's primary metric)")
    add("--title", help="of the report")
    add("--force", action="store_true", help="compare numbers of different protocols too")


def parse_formats(words: str) -> tuple[str, ...]:
    """Return the names of formats in a list with commas."""
    formats = tuple(words.split(","))
    if not set(formats) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"{words!r} is not of {', '.join(FORMATS)}")
    return formats


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
    return 0


def make_title(folders: list[Path], runs: int) -> str:
    """Return the title of a report without --title."""
    names = ", ".join(folder.resolve().name for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{runs} run{'s' if runs > 1 else ''} of {names}{more}"
