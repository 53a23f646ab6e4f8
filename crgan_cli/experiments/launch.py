"""Starts one run or the jobs of a sweep, and sums them up."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.config.choices import Choices
from crgan_cli.errors import UserError
from crgan_cli.experiments.job import single_task, sweep_task
from crgan_cli.experiments.parallel import parallel_jobs
from crgan_cli.experiments.sweep_state import SweepState, exit_code
from crgan_cli.experiments.sweep_table import live_table
from crgan_cli.experiments.throughput import format_throughput, read_throughput, write_throughput
from crgan_cli.runs.folder import shell_quoted

if TYPE_CHECKING:
    pass
from crgan_cli.experiments.check import SweepPlan


def run_hydra(
    args: argparse.Namespace,
    flags: list[str],
    overrides: Sequence[str],
    plan: SweepPlan | None = None,
) -> int:
    """Hands the command line on to `hydra.main`, and gives the exit code."""
    import hydra

    folder = Path(args.config_dir).absolute() if args.config_dir else None
    extra = ["--config-dir", str(folder)] if folder else []
    entry = hydra.main(str(Choices().folders[0]), config_name="train", version_base="1.3")
    argv, sys.argv = sys.argv, ["crgan train", *flags, *extra, *overrides]
    try:
        if plan is None:
            failures: list[Exception] = []
            entry(single_task(failures))()
            if failures:  # to the command line's front; Hydra would print it in its own way
                raise failures[0]
            return 0
        board = SweepState(plan.folder, plan.jobs)
        board.clear()
        around = parallel_jobs(board, plan.workers, shared=plan.shared)
        began = time.monotonic()
        with live_table(board, plan.steps), around if plan.parallel else nullcontext():
            entry(sweep_task(board))()
    except KeyboardInterrupt:
        if plan:
            again = f"the same command with out={shell_quoted(plan.folder)}"
            print(f"the sweep was stopped; go on with {again}", file=sys.stderr)
        raise
    finally:
        sys.argv = argv
    write_throughput(board, time.monotonic() - began)
    return finish_sweep(board)


def finish_sweep(board: SweepState) -> int:
    """What came of a sweep: the table of its runs, its failures, and the exit code."""
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.report.write import print_report

    jobs = board.jobs()
    if any(job.value is not None for job in jobs):
        try:
            runs = collect([board.folder])
            print_report(build_report(runs, title=f"sweep of {len(jobs)} jobs", force=True))
            print(f"report with curves and samples: crgan report {shell_quoted(board.folder)}")
        except UserError as error:  # metrics that do not fit together, say
            print(f"no table: {error}", file=sys.stderr)
    if trained := read_throughput(board):
        print(format_throughput(trained))
    lost = [job for job in jobs if job.status == "failed"]
    waiting = [job for job in jobs if job.status == "not started"]
    if lost:
        more = f", {len(waiting)} not started" if waiting else ""
        print(f"crgan train: {len(lost)} of {len(jobs)} jobs failed{more}:", file=sys.stderr)
        for job in [*lost, *waiting]:
            print(
                f"  job {job.number + 1} ({job.name}): {job.error or job.status}", file=sys.stderr
            )
        print(
            "the same command, as it is or corrected, goes on with them and skips what is done, "
            f"if it has out={shell_quoted(board.folder)}",
            file=sys.stderr,
        )
    return exit_code(job.code for job in lost)
