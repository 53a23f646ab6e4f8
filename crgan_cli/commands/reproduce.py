"""`crgan reproduce`: train all rows of a published table, and report them next to its numbers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_path, parse_seed
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments.paper_tables import (
    choose_row_names,
    load_scale,
    load_table,
    scale_names,
    table_names,
)
from crgan_cli.experiments.sweep_state import exit_code
from crgan_cli.system.paths import shell_joined
from crgan_cli.system.streams import require_printed

if TYPE_CHECKING:
    from crgan_cli.experiments.paper_tables import PaperTable, Scale
    from crgan_cli.experiments.plan import TableJob
    from crgan_cli.report.model import Report

help = "Train all rows of a table of the papers, and report them next to the published numbers."

DESCRIPTION = """Train all rows of a table of the papers, each with several seeds, and report them
next to the published numbers. The same command again skips finished runs and resumes stopped ones.
Several GPUs share a table: start the command once per GPU."""

EXAMPLES = """examples:
  crgan reproduce --list                               all tables, with the cost of every row
  crgan reproduce small_models --dry-run               print the runs and what they cost
  crgan reproduce small_models --seeds 1 device=cuda:0
  crgan reproduce small_models --scale demo            minutes on a CPU: shows that every row works

Settings typed as KEY=VALUE hold for every row. A choice in which the rows differ is refused."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("table", nargs="?", metavar="TABLE", help=", ".join(table_names()))
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add(
        "--scale",
        choices=scale_names(),
        default="full",
        help="full, as published (the default), or demo",
    )
    add("--seeds", type=parse_seeds, metavar="1,2,3", help="one run each (1,2,3; of the demo 1)")
    add(
        "--rows",
        type=lambda words: words.split(","),
        default=[],
        metavar="NAME,NAME",
        help="train only these rows; the report still shows all that have begun",
    )
    add("--out", type=parse_path, metavar="FOLDER", help="of the runs (outputs/reproduce/TABLE)")
    add("--dry-run", action="store_true", help="print the runs and what they cost; train nothing")
    add("--list", action="store_true", help="print all tables (or TABLE), with each row's cost")


def parse_seeds(words: str) -> tuple[int, ...]:
    """Parse seeds separated by commas."""
    return tuple(dict.fromkeys(parse_seed(word) for word in words.split(",")))


def run(args: argparse.Namespace) -> int:
    """Plan, train and report."""
    from crgan_cli.experiments import plan, preview, run_table
    from crgan_cli.system.console import log_to_stderr

    scale = load_scale(args.scale)
    if args.list:
        if args.rows or args.seeds or args.overrides or args.out or args.dry_run:
            raise UserError(
                "--list prints what the tables are. Type it with a TABLE at most; the runs of one "
                "are printed by crgan reproduce TABLE --dry-run"
            )
        names = [args.table] if args.table else table_names()
        print(preview.list_tables([load_table(each) for each in names], scale))
        require_printed()
        return 0
    if args.table is None:
        names = ", ".join(table_names())
        raise UserError(f"required: TABLE, one of {names}. What they are: crgan reproduce --list")
    table = load_table(args.table)
    size = f"_{scale.name}" if scale.title else ""
    rows = choose_row_names(table, args.rows)
    out = args.out or Path("outputs", "reproduce", f"{table.name}{size}")
    seeds = args.seeds or scale.seeds
    # with the seeds of earlier calls, which the report shows too
    every = dict.fromkeys((*seeds, *sorted(plan.find_seeds(out, table))))
    planned = plan.plan_jobs(table, scale, tuple(every), args.overrides, out)
    found = [(job, run_table.job_state(job)) for job in planned]  # before the first one starts
    due = [(job, state) for job, state in found if job.row.name in rows and job.seed in seeds]
    jobs, states = [job for job, _ in due], [state for _, state in due]
    if args.dry_run:
        print(preview.preview_jobs(table, scale, jobs, states))
        require_printed()
        return 0
    with log_to_stderr():
        try:
            failures = run_table.run_jobs(jobs, print_progress)
        except Interrupted as error:
            raise Interrupted(error.signum, f"Resume with: {same_command(args)}") from error
        for failure in failures:
            print_progress(f"crgan reproduce: {run_table.describe_failure(failure)}")
        if failures:
            print_progress(
                f"To train the failed runs again and skip the finished ones: {same_command(args)}"
            )
        try:
            report_table(table, scale, planned, out)
        except UserError as error:
            if not failures:
                raise
            print_progress(f"no report: {error}")
    return exit_code(failure.code for failure in failures)


def print_progress(words: str) -> None:
    """Print a line to stderr, as the runs do."""
    print(words, file=sys.stderr, flush=True)


def same_command(args: argparse.Namespace) -> str:
    """Return the command line to type again."""
    words = ["crgan", "reproduce", args.table, *args.overrides]
    words += ["--scale", args.scale] if args.scale != "full" else []
    words += ["--rows", ",".join(args.rows)] if args.rows else []
    words += ["--seeds", ",".join(map(str, args.seeds))] if args.seeds else []
    words += ["--out", str(args.out)] if args.out else []
    return shell_joined(words)


def report_table(
    table: "PaperTable", scale: "Scale", jobs: Sequence["TableJob"], out: Path
) -> None:
    """Print the table of all runs so far, and write the report."""
    from crgan_cli.experiments import preview
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.report.write import FORMATS, make_report_folder, print_report, write_report
    from crgan_cli.runs.folder import RunDir

    begun = [job.folder for job in jobs if RunDir(job.folder).is_run()]
    if not begun:
        raise UserError(f"no run of the table {table.name} has begun in {out}.")
    title = preview.format_title(table, scale)
    report = build_report(collect(begun), title=title, force=table.mixed)
    found = rename_settings(report, jobs)
    print_report(found)
    for path in write_report(found, make_report_folder(out / "report"), FORMATS):
        print(path)


def rename_settings(report: "Report", jobs: Sequence["TableJob"]) -> "Report":
    """Name the rows of the report as the paper does, next to their settings."""
    papers = {job.folder: job.row.label for job in jobs}
    labels = {row.label: papers[row.runs[0].path] for row in report.rows}
    return report._replace(
        rows=tuple(
            row._replace(
                label=labels[row.label], settings={"row": labels[row.label], **row.settings}
            )
            for row in report.rows
        ),
        varied=("row", *report.varied),
        comparisons=tuple(
            each._replace(best=labels[each.best], other=labels[each.other])
            for each in report.comparisons
        ),
    )
