"""Start one run or a sweep through Hydra, without `hydra.main`.

`hydra.main` builds an argument parser that Python 3.14 refuses (facebookresearch/hydra issue 3121).
crgan has a parser of its own, so it calls the functions behind Hydra's parser. Launchers, sweepers
and the printing of configurations are still Hydra's. `hydra._internal.hydra.Hydra` is private: this
is why pyproject.toml allows hydra-core below 1.4 only.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.sweeper import Sweeper

from crgan_cli.config import compose
from crgan_cli.config.choices import Choices
from crgan_cli.config.messages import hydra_quoted, override_key, type_again
from crgan_cli.config.resolve import explained_interpolations
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments.check import MAX_CHECKED, SweepPlan
from crgan_cli.experiments.job import SingleRun, run_job_on_every_rank, run_single
from crgan_cli.experiments.parallel import parallel_jobs
from crgan_cli.experiments.sweep_state import SweepJob, SweepState, exit_code
from crgan_cli.experiments.sweep_table import live_table
from crgan_cli.experiments.throughput import format_throughput, read_throughput, write_throughput
from crgan_cli.runs.status import Status
from crgan_cli.system.paths import shell_quoted

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
    """Open Hydra over crgan's configuration files while the body runs."""
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
    with open_hydra(choices) as hydra, explained_interpolations():
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


def train_once(choices: Choices, overrides: Sequence[str]) -> Path | None:
    """Train one run, and return its folder. What it raises is raised here."""
    outcome = SingleRun()
    with open_hydra(choices) as hydra:
        hydra.run("train", partial(run_single, outcome), [*overrides, "hydra.mode=RUN"])
    if outcome.failure:
        raise outcome.failure
    return outcome.folder


def train_sweep(choices: Choices, overrides: Sequence[str], plan: SweepPlan) -> int:
    """Train the jobs of a sweep, print its summary, and return the exit code."""
    typed = [text for text in overrides if override_key(text) not in ("out", "hydra.sweep.dir")]
    typed += [
        f"hydra.sweep.dir={hydra_quoted(str(plan.folder))}",
        # a run's folder is named after the settings in which the runs differ: see job_folder.py
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(plan.common)}]",
        "hydra.mode=MULTIRUN",
    ]
    state = SweepState(plan.folder, plan.jobs)
    with state.launch():
        around = (
            parallel_jobs(state, plan.workers, shared=plan.shared)
            if plan.parallel
            else nullcontext()
        )
        checked = plan.jobs is not None and plan.jobs <= MAX_CHECKED
        once = composed_once() if checked else nullcontext()
        start = time.monotonic()
        try:
            with live_table(state, plan.steps), around, once, open_hydra(choices) as hydra:
                hydra.multirun("train", partial(run_job_on_every_rank, state), typed)
                raise_interruption(state)
        except KeyboardInterrupt:
            again = f"the same command with {type_again('out', str(plan.folder))}"
            print(f"Sweep stopped. Resume with {again}", file=sys.stderr)
            raise
        write_throughput(state, time.monotonic() - start)
        return finish_sweep(state)


@contextmanager
def composed_once() -> Iterator[None]:
    """Keep Hydra's sweeper from composing every job to check it (0.1 s each): `check_jobs` did."""
    validate = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = lambda self, batch: None
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate


def raise_interruption(state: SweepState) -> None:
    """Raise Interrupted if a signal stopped a job."""
    for job in state.jobs():
        if job.status == Status.INTERRUPTED:
            raise Interrupted(job.code - 128)


def finish_sweep(state: SweepState) -> int:
    """Print the table of a sweep's runs, and which jobs failed. Return the exit code."""
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report
    from crgan_cli.report.write import print_report

    jobs = state.jobs()
    if any(job.value is not None for job in jobs):
        try:
            runs = collect([state.typed])
            print_report(build_report(runs, title=f"sweep of {len(jobs)} jobs", force=True))
            print(f"report with curves and samples: crgan report {shell_quoted(state.typed)}")
        except UserError as error:  # for example metrics that cannot be compared
            print(f"no table: {error}", file=sys.stderr)
    elif any(job.status in (Status.FINISHED, Status.SKIPPED) for job in jobs):
        print(f"runs, with their samples: {state.typed} (no metrics, so no table)")
    if trained := read_throughput(state):
        print(format_throughput(trained))
    return report_unfinished(state, jobs)


def report_unfinished(state: SweepState, jobs: Sequence[SweepJob]) -> int:
    """Print which jobs have not ended well. Return the exit code: 0 only if each has said so."""
    failed = [job for job in jobs if job.status == Status.FAILED]
    waiting = [job for job in jobs if job.status == Status.NOT_STARTED]
    lost = [job for job in jobs if job.status == Status.RUNNING]
    absent = max((state.total or 1) - len(jobs), 0)  # a sweeper starts at least one job
    counts = {
        "failed": len(failed),
        "not started": len(waiting),
        "ended without a record": len(lost) + absent,
    }
    (count, what), *more = [(n, what) for what, n in counts.items() if n] or [(0, "")]
    if not count:
        return 0
    others = "".join(f", {n} {status}" for n, status in more)
    print(f"crgan train: {count} of {len(jobs) + absent} jobs {what}{others}:", file=sys.stderr)
    for job in [*failed, *waiting, *lost]:
        print(f"  job {job.number} ({job.name}): {job.error or job.status}", file=sys.stderr)
    print(
        "The same command, as it is or corrected, runs them again and skips what is done, "
        f"if it has {type_again('out', str(state.typed))}",
        file=sys.stderr,
    )
    codes = [job.code for job in failed] + [1] * (len(lost) + absent)
    return exit_code(codes or [1])
