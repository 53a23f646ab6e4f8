"""`crgan report`: compare runs, from their files only."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_path, parse_positive_float, parse_run
from crgan_cli.errors import UserError
from crgan_cli.report.write import (
    FIGURE_KINDS,
    FORMATS,
    make_report_folder,
    print_report,
    write_report,
)

if TYPE_CHECKING:
    from crgan_cli.report.model import ChosenStep, Report, RunFiles

help = "Compare runs: a table over seeds, curves and samples, from files only."

DESCRIPTION = """Compare runs, also while they train. Runs that differ only in their seed are one
row; the best row comes first. Prints a table and writes

  report.md     the table, for a README          runs.csv   one line per run, with all settings
  table.tex     the same for LaTeX (booktabs)    rows.csv   one line per row
  report.html   one page, curves and samples     figures/ samples/   the same as PNG files

For a paper, --figures writes each figure once more, without a title, 3.25 and 6.75 inches wide.
--paper writes a folder with them, the table, and the sentences on protocol, seeds and test.

With --watch, report.html alone is written, again whenever a run has changed or is new, until all
have ended. A browser that shows it loads it again by itself. Ctrl-C ends it too."""

WATCH_SECONDS = 5
"""Between two looks at the runs' files."""

EXAMPLES = """examples:
  crgan report outputs/sweeps/20260101-120000-000000
  crgan report RUN_A RUN_B --step best --metric is --format md,csv --out here
  crgan report outputs --title 'Weights of CR'
  crgan report outputs --step 15000                     all runs at this step, also unfinished ones
  crgan report outputs/sweeps/20260101-120000-000000 --paper paper
  crgan report --watch outputs/sweeps/20260101-120000-000000"""


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
        type=parse_names(FORMATS),
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
    add("--watch", action="store_true", help="write report.html anew whenever a run has changed")
    add(
        "--every",
        type=parse_positive_float,
        metavar="SECONDS",
        help=f"of --watch: how often to look ({WATCH_SECONDS})",
    )
    add("--step", type=parse_step, default="last", metavar="last|best|N", help="of each run (last)")
    add("--metric", metavar="NAME", help="metric to compare by (the protocol's primary metric)")
    add("--title", help="of the report")
    add("--force", action="store_true", help="compare numbers of different protocols too")


def parse_step(word: str) -> "ChosenStep":
    """Parse which evaluation of each run counts."""
    if word == "last" or word == "best":
        return word
    if word.isdecimal() and int(word):
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not last, best or a step such as 3000")


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
    from crgan_cli.report.collect import collect
    from crgan_cli.system.console import log_to_stderr

    require_options_that_fit(args)
    with log_to_stderr():
        if args.watch:
            return watch(args)
        report = make_asked_report(args, collect(args.folders, args.metric))
        paper = make_report_folder(args.paper, "--paper") if args.paper else None
        out = make_out_folder(args)
        print_report(report)
        for path in write_report(report, out, args.format or FORMATS):
            print(path)
        write_for_paper(report, out, paper, args.figures)
    return 0


def require_options_that_fit(args: argparse.Namespace) -> None:
    """Raise UserError for options that mean nothing together."""
    if args.every and not args.watch:
        raise UserError("--every SECONDS is of --watch: add --watch, or leave it out.")
    others = [name for name in ("format", "figures", "paper") if getattr(args, name)]
    if args.watch and others:
        raise UserError(
            f"--watch writes report.html alone: leave out --{' and --'.join(others)}, and type "
            "them without --watch when the runs have ended."
        )


def make_report(
    folders: list[Path],
    runs: Sequence["RunFiles"],
    *,
    step: "ChosenStep",
    metric: str | None,
    title: str | None,
    force: bool,
) -> "Report":
    """Compare the runs that were read in folders."""
    from crgan_cli.experiments.sweep_state import describe_unfinished
    from crgan_cli.report.rows import build_report

    title = title or make_title(folders, len(runs))
    report = build_report(runs, step=step, metric=metric, force=force, title=title)
    unfinished = filter(None, map(describe_unfinished, folders))
    return report._replace(warnings=(*unfinished, *report.warnings))


def make_asked_report(args: argparse.Namespace, runs: Sequence["RunFiles"]) -> "Report":
    """Return the report that the command line asks for."""
    return make_report(
        args.folders,
        runs,
        step=args.step,
        metric=args.metric,
        title=args.title,
        force=args.force,
    )


def make_out_folder(args: argparse.Namespace) -> Path:
    """Create and return the folder of the report."""
    from crgan_cli.runs.folder import require_no_links

    default = args.folders[0] / "report" if len(args.folders) == 1 else Path("report")
    if args.out is None:
        require_no_links(default.parent, [default.name])
    return make_report_folder(args.out or default)


def watch(args: argparse.Namespace) -> int:
    """Write the page whenever a run has changed, until all have ended or Ctrl-C is pressed.

    A browser loads the page again by itself, but not the last one.
    """
    from crgan_cli.experiments.sweep_state import has_jobs_to_do
    from crgan_cli.report.collect import NothingMeasured
    from crgan_cli.report.watch import RunWatcher

    watcher = RunWatcher(args.folders, args.metric)
    seconds = args.every or WATCH_SECONDS
    report, waiting = None, False
    try:
        while True:
            jobs_left = any(map(has_jobs_to_do, args.folders))
            try:
                changed = watcher.look()
            except NothingMeasured as error:
                if not (jobs_left or watcher.is_going):
                    raise
                if not waiting:
                    print(f"waiting: {error}", file=sys.stderr)
                waiting = True
                time.sleep(seconds)
                continue
            going = jobs_left or watcher.is_going
            if changed or not going:
                report = make_asked_report(args, watcher.runs)
                write_page(args, report, seconds if going else None)
            if not going:
                return 0
            time.sleep(seconds)
    except KeyboardInterrupt:
        if report:
            write_page(args, report, None)
        return 0


def write_page(args: argparse.Namespace, report: "Report", seconds: float | None) -> None:
    """Write the page, which a browser loads again every `seconds`, and say so."""
    from crgan_cli.report.html import build_page, describe_states
    from crgan_cli.system.atomic import explain_write_failure, write_text

    page = make_out_folder(args) / "report.html"
    with explain_write_failure(page.parent):
        write_text(page, build_page(report, seconds))
    print(f"{page}: {describe_states(report)}", flush=True)


def write_for_paper(report: "Report", out: Path, paper: Path | None, kinds: Sequence[str]) -> None:
    """Write what --figures and --paper ask for, and print its files."""
    if not (paper or kinds):
        return
    from crgan_cli.report.paper import write_figures, write_paper
    from crgan_cli.system.atomic import explain_write_failure

    with explain_write_failure(paper or out):
        if paper:
            paths = write_paper(report, paper, tuple(dict.fromkeys(("pdf", *kinds))))
        else:
            paths = write_figures(report, out / "figures", kinds)
    for path in paths:
        print(path)


def make_title(folders: list[Path], runs: int) -> str:
    """Return the title of a report without --title."""
    names = ", ".join(folder.resolve().name for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{runs} run{'s' if runs > 1 else ''} of {names}{more}"
