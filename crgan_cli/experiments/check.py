"""Check all jobs of a sweep before the first one starts."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from crgan_cli.config import resolve
from crgan_cli.config.choices import Choices
from crgan_cli.errors import UserError
from crgan_cli.experiments.parallel import count_workers, may_share_gpu
from crgan_cli.report.latest import LATEST, resolve_run
from crgan_cli.system.paths import expand_home

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override

MAX_CHECKED = 64
"""Jobs that are checked before the first starts (0.1 s each). The others check themselves."""


class SweepPlan(NamedTuple):
    """A sweep whose jobs have been checked."""

    common: list[str]  # the keys that all jobs have in common
    folder: Path
    jobs: int | None  # None if the sweeper decides during the sweep
    steps: int  # of each
    parallel: bool  # jobs in processes of their own
    workers: int = 0  # processes of the joblib launcher; 0 for other launchers
    shared: bool = False  # jobs share a GPU through MPS, if there is a GPU


RUN_KEYS = ("init_from",)
"""Settings that name a run."""


def prepare_overrides(overrides: Sequence[str]) -> list[str]:
    """Return what was typed behind `crgan train` as Hydra reads it.

    `latest` becomes the newest run as it is now: before the jobs of a sweep, of which one would be
    the newest.
    """
    from crgan_cli.config import messages

    return messages.quote_overrides([name_latest(word) for word in overrides])


def name_latest(override: str) -> str:
    """Put the newest run in the place of `latest` in a setting that names a run."""
    key, _, value = override.partition("=")
    if key not in RUN_KEYS or value.partition("/")[0] != LATEST:
        return override
    return f"{key}={resolve_run(value)}"


def check_jobs(
    overrides: Sequence[str], choices: Choices, *, multirun: bool, whole: bool
) -> SweepPlan | None:
    """Compose and check every job. Raises UserError for the first wrong one.

    `whole`: check also what only training needs. Return None for a single run. An experiment file
    can ask for a sweep too (hydra.mode).
    """
    from crgan_cli.config import compose, messages
    from crgan_cli.config.trust import require_code_typed

    with compose.hydra_search_path(choices) as parser:
        parsed = messages.parse_overrides(overrides, choices, parser)
        first_job = next(jobs_to_check(parsed))
        first = compose.compose_unchecked(first_job, choices)
        multirun = multirun or str(first.hydra.mode).endswith("MULTIRUN")
        if not multirun:
            for override in parsed:
                messages.require_one_value(override, choices)
        swept = dict(first.hydra.sweeper.get("params") or {}) if multirun else {}
        added = messages.parse_overrides(
            [f"{key}={text}" for key, text in swept.items()], choices, parser
        )
        every, typed = [*added, *parsed], {each.key_or_group for each in parsed}
        basic = str(first.hydra.sweeper._target_).endswith("BasicSweeper")
        if basic and multirun:
            require_finite_sweep(every)
        for job in itertools.islice(jobs_to_check(every), MAX_CHECKED):
            try:
                again = job != first_job  # 0.1 s
                composed = compose.compose_unchecked(job, choices) if again else first
                compose.require_own_paths(composed.hydra)
                composed = compose.drop_hydra_node(composed)
                if whole or resolve.is_complete(composed):
                    compose.require_valid(composed, messages.trace_keys(job, choices))
                    require_code_typed(composed, typed, "an experiment's file")
                    compose.expand_paths(composed)  # refuses a ~NAME of nobody
            except UserError as error:
                raise UserError(
                    f"{error} (in the job {' '.join(job)})" if multirun else error
                ) from error
    typed = {messages.override_key(str(each.input_line)): each for each in parsed}
    if "hydra.sweep.dir" in typed and (first.out is not None or not multirun):
        raise UserError("hydra.sweep.dir is the folder of a sweep: type out=FOLDER instead.")
    if not multirun:
        return None
    if "out" in typed and typed["out"].is_sweep_override():
        raise UserError("out= of a sweep is the one folder in which its runs are made: give one.")
    jobs = math.prod(len(column) for column in override_columns(every)) if basic else None
    parallel = not str(first.hydra.launcher._target_).endswith("BasicLauncher")
    workers = count_workers(first.hydra.launcher, jobs)
    return SweepPlan(
        [o.get_key_element() for o in parsed if not o.is_sweep_override()],
        expand_home(first.out or first.hydra.sweep.dir),
        jobs,
        int(first.steps),
        parallel,
        workers,
        parallel and workers != 1 and may_share_gpu(first),
    )


def require_finite_sweep(parsed: "Sequence[Override]") -> None:
    """Raise UserError for an interval, which the basic sweeper cannot enumerate."""
    for override in parsed:
        if override.is_interval_sweep():
            key = override.get_key_element()
            raise UserError(
                f"'{override.input_line}' has no end of values: type some, as {key}=1,2,3 or "
                f"{key}=range(1,10,2), or let a sweeper choose: hydra/sweeper=optuna."
            )


def override_columns(parsed: "Sequence[Override]") -> list[list[str]]:
    """Return per key its overrides, in the order of Hydra's basic sweeper."""
    table = {override.get_key_element(): list(expand(override)) for override in parsed}
    return list(table.values())


def jobs_to_check(parsed: "Sequence[Override]") -> Iterator[tuple[str, ...]]:
    """Yield the jobs of a sweep: first a few that contain every value, then the others."""
    values = override_columns(parsed)
    longest = max(map(len, values), default=1)
    first = [tuple(column[i % len(column)] for column in values) for i in range(longest)]
    yield from first
    yield from (job for job in itertools.product(*values) if job not in first)


def expand(override: "Override") -> Iterator[str]:
    """Yield the override once per value."""
    key = override.get_key_element()
    if override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
    elif override.is_interval_sweep():  # for a sweeper that chooses the values
        ends = cast("IntervalSweep", override.value())
        yield from (f"{key}={end}" for end in (ends.start, ends.end))
    else:
        yield override.input_line or key
