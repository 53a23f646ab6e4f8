"""Start one run or a sweep through Hydra, without `hydra.main`.

`hydra.main` builds an argument parser that Python 3.14 refuses (facebookresearch/hydra issue 3121).
crgan has a parser of its own, so it calls what lies behind Hydra's: launchers, sweepers and the
printing of a configuration are Hydra's as ever.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra

from crgan_cli.config import compose
from crgan_cli.config.choices import Choices
from crgan_cli.errors import UserError
from crgan_cli.experiments.check import SweepPlan, override_key
from crgan_cli.experiments.job import single_task, sweep_task
from crgan_cli.experiments.parallel import parallel_jobs
from crgan_cli.experiments.sweep_state import SweepState, exit_code
from crgan_cli.experiments.sweep_table import live_table
from crgan_cli.experiments.throughput import format_throughput, read_throughput, write_throughput
from crgan_cli.runs.folder import shell_quoted

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

HYDRA_HELP = """\
Hydra composes the configuration and starts the jobs. crgan train has these flags of Hydra's:
-m, --cfg, --resolve, --package, --config-dir, --info ('crgan train --help' explains them).
It does not have: --run, --config-name, --config-path, --shell-completion, --experimental-rerun.

Hydra's own groups, as group=choice (for example hydra/launcher=joblib):
"""


@contextmanager
def open_hydra(choices: Choices) -> "Iterator[Hydra]":
    """Hydra over crgan's configuration files, for as long as the body runs."""
    with compose.hydra_search_path(choices):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra


def print_config(
    choices: Choices,
    overrides: Sequence[str],
    part: str,
    package: str | None,
    *,
    resolve: bool,
) -> None:
    """`--cfg PART`: print the configuration, or one package of it."""
    with open_hydra(choices) as hydra:
        hydra.show_cfg("train", list(overrides), part, package, resolve)


def print_info(choices: Choices, overrides: Sequence[str], topic: str) -> None:
    """`--info TOPIC`: print what Hydra knows about the configuration."""
    with open_hydra(choices) as hydra:
        hydra.show_info(topic, "train", list(overrides))


def print_hydra_help(choices: Choices) -> None:
    """`--hydra-help`: print Hydra's own groups, and which of its flags crgan has."""
    with open_hydra(choices) as hydra:
        groups = hydra.format_config_groups(lambda group: group.startswith("hydra/"))
    print(f"{HYDRA_HELP}{groups}\n'crgan train --cfg hydra' prints Hydra's settings.")


def train_once(choices: Choices, overrides: Sequence[str]) -> None:
    """Train one run. What it raises is raised here."""
    failures: list[Exception] = []  # Hydra would print a failure in its own way
    with open_hydra(choices) as hydra:
        hydra.run("train", single_task(failures), [*overrides, "hydra.mode=RUN"])
    if failures:
        raise failures[0]


def train_sweep(choices: Choices, overrides: Sequence[str], plan: SweepPlan) -> int:
    """Train the jobs of a sweep, print its summary, and return the exit code."""
    typed = [text for text in overrides if override_key(text) not in ("out", "hydra.sweep.dir")]
    typed += [
        f"hydra.sweep.dir='{plan.folder}'",
        # a run's folder is named after the settings in which the runs differ
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(plan.common)}]",
        "hydra.mode=MULTIRUN",
    ]
    board = SweepState(plan.folder, plan.jobs)
    board.clear()
    around = (
        parallel_jobs(board, plan.workers, shared=plan.shared) if plan.parallel else nullcontext()
    )
    began = time.monotonic()
    try:
        with live_table(board, plan.steps), around, open_hydra(choices) as hydra:
            hydra.multirun("train", sweep_task(board), typed)
    except KeyboardInterrupt:
        again = f"the same command with out={shell_quoted(plan.folder)}"
        print(f"the sweep was stopped; go on with {again}", file=sys.stderr)
        raise
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
