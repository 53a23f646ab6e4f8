"""`crgan reproduce`: all rows of a table of the papers, reported beside the published numbers."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_seed
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments.paper_tables import load_scale, load_table, scale_names, table_names
from crgan_cli.experiments.sweep_state import exit_code

if TYPE_CHECKING:
    from crgan_cli.experiments.paper_tables import PaperTable, Scale
    from crgan_cli.experiments.plan import TableJob
    from crgan_cli.report.model import Report

help = "Train all rows of a table of the papers, and report them beside the published numbers."

DESCRIPTION = """Train all rows of a table of the papers, each with several seeds, and report them
beside the published numbers. What is finished is skipped, and what was stopped is gone on with:
type the same command again. Several GPUs share a table when it is started once on each."""

EXAMPLES = """examples:
  crgan reproduce small_models --dry-run               what there is to do, and what it will cost
  crgan reproduce small_models --seeds 1 device=cuda:0
  crgan reproduce small_models --scale demo            minutes on a CPU: shows that all of it works

Settings typed as KEY=VALUE hold for every row."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("table", metavar="TABLE", help=", ".join(table_names()))
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add(
        "--scale",
        choices=scale_names(),
        default="full",
        help="full, as published (the default), or demo",
    )
    add("--seeds", type=parse_seeds, metavar="1,2,3", help="one run each (1,2,3; of the demo 1)")
    add("--out", type=Path, metavar="FOLDER", help="of the runs (outputs/reproduce/TABLE)")
    add("--dry-run", action="store_true", help="print the runs and what they cost; train nothing")


def parse_seeds(words: str) -> tuple[int, ...]:
    """Seeds, by commas."""
    return tuple(dict.fromkeys(parse_seed(word) for word in words.split(",")))


def run(args: argparse.Namespace) -> int:
    """Plans, trains and reports."""
    from crgan_cli.experiments import plan, run_table
    from crgan_cli.system.console import log_to_stderr

    table, scale = load_table(args.table), load_scale(args.scale)
    size = f"_{scale.name}" if scale.title else ""
    out = args.out or Path("outputs", "reproduce", f"{table.name}{size}")
    jobs = plan.plan_jobs(table, scale, args.seeds or scale.seeds, args.overrides, out)
    states = [run_table.job_state(job) for job in jobs]  # before the first is started
    if args.dry_run:
        print(preview(table, scale, jobs, states))
        return 0
    with log_to_stderr():
        try:
            failures = run_table.run_jobs(jobs, print_progress)
        except Interrupted as error:
            raise Interrupted(error.signum, f"Go on with: {same_command(args)}") from error
        for failure in failures:
            print_progress(f"crgan reproduce: {run_table.describe_failure(failure)}")
        if failures:
            print_progress(
                "what failed is tried again, and what is finished skipped, by: "
                f"{same_command(args)}"
            )
        try:
            report_table(table, scale, jobs, out)
        except UserError as error:
            if not failures:
                raise
            print_progress(f"no report: {error}")
    return exit_code(failure.code for failure in failures)


def print_progress(words: str) -> None:
    """A line on stderr, where the runs speak too."""
    print(words, file=sys.stderr, flush=True)


def same_command(args: argparse.Namespace) -> str:
    """The command line, as it can be typed again."""
    words = ["crgan", "reproduce", args.table, *args.overrides]
    words += ["--scale", args.scale] if args.scale != "full" else []
    words += ["--seeds", ",".join(map(str, args.seeds))] if args.seeds else []
    words += ["--out", str(args.out)] if args.out else []
    return shlex.join(words)


def report_table(
    table: "PaperTable", scale: "Scale", jobs: Sequence["TableJob"], out: Path
) -> None:
    """Prints the table of all runs that there are, and writes the report."""
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.report.write import FORMATS, make_report_folder, print_report, write_report
    from crgan_cli.runs.folder import RunDir

    begun = [job.folder for job in jobs if RunDir(job.folder).is_run()]
    if not begun:
        raise UserError(f"no run of the table {table.name} has begun in {out}.")
    found = rename_settings(build_report(collect(begun), title=report_title(table, scale)), jobs)
    print_report(found)
    for path in write_report(found, make_report_folder(out / "report"), FORMATS):
        print(path)


def report_title(table: "PaperTable", scale: "Scale") -> str:
    """What is reported, and that it is not to be compared where it is not."""
    return " – ".join(filter(None, (table.title, scale.title)))


def rename_settings(report: "Report", jobs: Sequence["TableJob"]) -> "Report":
    """The report with its rows called as the paper calls them, beside their settings."""
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


def preview(
    table: "PaperTable", scale: "Scale", jobs: Sequence["TableJob"], states: Sequence[str]
) -> str:
    """The runs, what is left to do of each, and what that costs."""
    minutes = [minutes_left(job, scale, state) for job, state in zip(jobs, states, strict=True)]
    head = ("run", "row", "seed", "state", "minutes", "command")
    cells = [
        (job.folder.name, job.row.label, str(job.seed), state, format_minutes(left), job.command)
        for job, state, left in zip(jobs, states, minutes, strict=True)
    ]
    return "\n".join(
        [
            report_title(table, scale),
            f"published: {table.protocol}",
            "",
            *align_columns([head, *cells]),
            "",
            *format_totals(scale, jobs, states, minutes),
        ]
    )


def minutes_left(job: "TableJob", scale: "Scale", state: str) -> float | None:
    """What is left of a run; None where it cannot be told."""
    from crgan_cli.experiments.run_table import FINISHED, NEW
    from crgan_cli.training.costs import gpu_minutes

    steps = int(job.config["steps"])
    done = 0 if state == NEW else steps if state == FINISHED else count_steps_done(job.folder)
    if scale.cpu_minutes is not None:
        return scale.cpu_minutes * (steps - done) / steps
    return gpu_minutes(job.config, steps - done)


def count_steps_done(folder: Path) -> int:
    """Steps of a run that are safe: those of its newest checkpoint."""
    saved = [path.stem.rpartition("_")[2] for path in folder.glob("checkpoints/step_*.pt")]
    return max((int(step) for step in saved if step.isdigit()), default=0)


def format_totals(
    scale: "Scale",
    jobs: Sequence["TableJob"],
    states: Sequence[str],
    minutes: Sequence[float | None],
) -> list[str]:
    """What all of it comes to."""
    from crgan_cli.system.progress import format_duration

    counted = [each for each in minutes if each is not None]
    where = (
        "one CPU thread [measured on a busy machine]"
        if scale.cpu_minutes is not None
        else "one H200 [derived: performance model, not measured]"
    )
    unknown = len(minutes) - len(counted)
    more = f", without {unknown} runs of unknown cost" if unknown else ""
    done = states.count("finished")
    return [
        f"{len(jobs)} runs, {done} finished; "
        f"left: {format_duration(60 * sum(counted))} on {where}{more}",
        f"disk: {sum(checkpoint_size(jobs)) / 1e9:.2g} GB of checkpoints",
    ]


def checkpoint_size(jobs: Sequence["TableJob"]) -> list[int]:
    """Of each run. Those of a row are alike, and rows often are: networks are counted once."""
    from crgan_cli.config.resolve import flatten
    from crgan_cli.training.costs import disk_bytes

    known: dict[tuple[str, ...], int] = {}
    found = []
    for job in jobs:
        kinds = ("architecture", "ema", "checkpoint")
        key = tuple(str(flatten(job.config[kind])) for kind in kinds)
        if key not in known:
            known[key] = disk_bytes(job.config)
        found.append(known[key])
    return found


def format_minutes(minutes: float | None) -> str:
    """Minutes in two digits."""
    return "?" if minutes is None else f"{minutes:.2g}" if minutes < 10 else f"{minutes:.0f}"


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns, the last of its own width."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
