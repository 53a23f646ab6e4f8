"""`crgan train`: one run, or with -m one run for each combination of values.

The command line is checked here before anything runs; the jobs are then started by `hydra.main`,
so that Hydra's flags, launchers and sweepers are there as its users know them. What a job does is
`crgan_cli.training.run.train_job`.
"""

import argparse
import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from crgan_cli.config.choices import Choices
from crgan_cli.errors import UserError
from crgan_cli.experiments.jobs import jobs_of, may_share, side_by_side, single, workers_of
from crgan_cli.experiments.sweep import Board, exit_code, shown, told
from crgan_cli.runs.folder import quoted
from crgan_cli.system.launch import by_torchrun

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override

help = "Train a GAN; settings are typed as key=value."

MOST_CHECKED = 64
"""Jobs of a sweep that are checked before the first starts (0.1 s each); the rest in their turn."""

CONTINUABLE = ("steps", "device", "engine")


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags. They are Hydra's own where there is one of the same name."""
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE")
    add("-h", "--help", action="store_true")
    add("-m", "--multirun", action="store_true")
    add("-c", "--cfg", choices=("job", "hydra", "all"))
    add("--resolve", action="store_true")
    add("-p", "--package")
    add("-cd", "--config-dir", metavar="DIR")
    add("--from", dest="start", metavar="RUN")
    info = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    add("-i", "--info", nargs="?", const="all", choices=info)
    add("--hydra-help", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Checks everything that was typed, then trains, together with what torchrun has started."""
    if not by_torchrun():
        return answered(args)
    from crgan_cli.system.processes import joined

    with joined():
        return answered(args)


def answered(args: argparse.Namespace) -> int:
    """`run` in one process."""
    choices = Choices(args.config_dir)
    if args.help:
        from crgan_cli.config.help import manual

        print(manual(choices))
        return 0
    if args.start is not None:
        return continue_run(args)
    if args.hydra_help:
        return through_hydra(args, ["--hydra-help"], [])
    flags = shown_only(args)
    args.overrides = read(args.overrides)
    plan = check(args.overrides, choices, multirun=args.multirun, whole=not flags)
    if flags or plan is None:
        return through_hydra(args, flags, args.overrides)
    if by_torchrun():
        raise UserError(
            "torchrun starts several processes for one run, and -m asks for several runs. Type "
            "crgan train -m without torchrun, and give each run one GPU (hydra/launcher=joblib), "
            "or have Slurm start the processes of each (hydra/launcher=submitit_slurm "
            "hydra.launcher.tasks_per_node=8 hydra.launcher.gpus_per_node=8)."
        )
    # the runs' folders are named after what differs between them
    unnamed = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(plan.common)}]"
    placed = f"hydra.sweep.dir='{plan.folder}'"
    own = [each for each in args.overrides if key_of(each) not in ("out", "hydra.sweep.dir")]
    return through_hydra(args, ["--multirun"], [unnamed, placed, *own], plan)


def read(overrides: Sequence[str]) -> list[str]:
    """The overrides, with text in quotes where it needs them.

    A key typed twice counts as it is typed last, in a sweep too: scripts append to theirs.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from crgan_cli.config import messages

    parser = OverridesParser.create()
    last = {text.partition("=")[0]: text for text in overrides}
    return [messages.as_text(text, parser) for text in last.values()]


def shown_only(args: argparse.Namespace) -> list[str]:
    """Hydra's flags that print something instead of training."""
    if args.cfg and args.info:
        raise UserError("--cfg and --info print different things: type one of them.")
    if args.multirun and (args.cfg or args.info):
        raise UserError("--cfg and --info show one run: leave out -m, and give each key one value.")
    if args.resolve and not args.cfg:
        raise UserError("--resolve belongs to --cfg: type --cfg job --resolve")
    flags = ["--cfg", args.cfg] if args.cfg else []
    flags += ["--resolve"] if args.resolve else []
    flags += ["--package", args.package] if args.package and args.cfg else []
    return flags or (["--info", args.info] if args.info else [])


# --- checking -------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """A sweep that was checked."""

    common: list[str]  # the keys that all jobs have in common
    folder: Path
    jobs: int | None  # None where the sweeper decides as it goes
    steps: int  # of each
    side_by_side: bool  # in processes of their own
    workers: int = 0  # that joblib's launcher starts; 0 for other launchers
    shared: bool = False  # several are to share a GPU, if there is one, by MPS


def check(
    overrides: Sequence[str], choices: Choices, *, multirun: bool, whole: bool
) -> Plan | None:
    """Composes and checks every job; UserError on the first that is wrong.

    `whole`: also what only a run needs. Returns None for a single run; an experiment can ask for a
    sweep as well (hydra.mode).
    """
    from crgan_cli.config import compose, messages

    with compose.searching(choices) as parser:
        parsed = messages.parse(overrides, choices, parser)
        first = compose.draft(next(typical(parsed)), choices)
        multirun = multirun or str(first.hydra.mode).endswith("MULTIRUN")
        if not multirun:
            for override in parsed:
                messages.single(override, choices)
        swept = dict(first.hydra.sweeper.get("params") or {}) if multirun else {}
        added = messages.parse([f"{key}={text}" for key, text in swept.items()], choices, parser)
        every = [*added, *parsed]
        basic = str(first.hydra.sweeper._target_).endswith("BasicSweeper")
        if basic and multirun:
            require_countable(every)
        for job in itertools.islice(typical(every), MOST_CHECKED):
            try:
                composed = compose.without_hydra(compose.draft(job, choices))
                if whole or compose.complete(composed):
                    compose.checked(composed)
            except UserError as error:
                raise UserError(
                    f"{error} (in the job {' '.join(job)})" if multirun else error
                ) from error
    if not multirun:
        return None
    if any(key_of(str(each.input_line)) == "out" and each.is_sweep_override() for each in parsed):
        raise UserError("out= of a sweep is the one folder in which its runs are made: give one.")
    jobs = math.prod(len(column) for column in columns(every)) if basic else None
    beside = not str(first.hydra.launcher._target_).endswith("BasicLauncher")
    workers = workers_of(first.hydra.launcher, jobs)
    return Plan(
        [o.get_key_element() for o in parsed if not o.is_sweep_override()],
        Path(first.out or first.hydra.sweep.dir),
        jobs,
        int(first.steps),
        beside,
        workers,
        beside and workers != 1 and may_share(first),
    )


def require_countable(parsed: "Sequence[Override]") -> None:
    """Raises UserError where Hydra's own sweeper would not know which values to take."""
    for override in parsed:
        if override.is_interval_sweep():
            key = override.get_key_element()
            raise UserError(
                f"'{override.input_line}' has no end of values: type some, as {key}=1,2,3 or "
                f"{key}=range(1,10,2), or let a sweeper choose: hydra/sweeper=optuna."
            )


def key_of(override: str) -> str:
    """The key of KEY=VALUE."""
    return override.partition("=")[0].lstrip("+~")


def columns(parsed: "Sequence[Override]") -> list[list[str]]:
    """For each key its overrides, in the order in which Hydra's own sweeper takes them."""
    table = {override.get_key_element(): list(alternatives(override)) for override in parsed}
    return list(table.values())


def typical(parsed: "Sequence[Override]") -> Iterator[tuple[str, ...]]:
    """The jobs of a sweep: first some that have every value at least once, then all."""
    values = columns(parsed)
    longest = max(map(len, values), default=1)
    first = [tuple(column[i % len(column)] for column in values) for i in range(longest)]
    yield from first
    yield from (job for job in itertools.product(*values) if job not in first)


def alternatives(override: "Override") -> Iterator[str]:
    """An override with each of its values."""
    key = override.get_key_element()
    if override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
    elif override.is_interval_sweep():  # of a sweeper that chooses values itself
        ends = cast("IntervalSweep", override.value())
        yield from (f"{key}={end}" for end in (ends.start, ends.end))
    else:
        yield override.input_line or key


# --- running --------------------------------------------------------------------------------------


def through_hydra(
    args: argparse.Namespace, flags: list[str], overrides: Sequence[str], plan: Plan | None = None
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
            entry(single(failures))()
            if failures:  # to the command line's front; Hydra would print it in its own way
                raise failures[0]
            return 0
        board = Board(plan.folder, plan.jobs)
        board.clear()
        around = side_by_side(board, plan.workers, shared=plan.shared)
        began = time.monotonic()
        with shown(board, plan.steps), around if plan.side_by_side else nullcontext():
            entry(jobs_of(board))()
    except KeyboardInterrupt:
        if plan:
            again = f"the same command with out={quoted(plan.folder)}"
            print(f"the sweep was stopped; go on with {again}", file=sys.stderr)
        raise
    finally:
        sys.argv = argv
    board.end(time.monotonic() - began)
    return verdict(board)


def verdict(board: Board) -> int:
    """What came of a sweep: the table of its runs, its failures, and the exit code."""
    from crgan_cli.commands.report import show
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import report_of

    jobs = board.jobs()
    if any(job.value is not None for job in jobs):
        try:
            runs = collect([board.folder])
            show(report_of(runs, title=f"sweep of {len(jobs)} jobs", force=True))
            print(f"report with curves and samples: crgan report {quoted(board.folder)}")
        except UserError as error:  # metrics that do not fit together, say
            print(f"no table: {error}", file=sys.stderr)
    if trained := board.throughput():
        print(told(trained))
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
            f"if it has out={quoted(board.folder)}",
            file=sys.stderr,
        )
    return exit_code(jobs)


def continue_run(args: argparse.Namespace) -> int:
    """`--from RUN`: goes on where the run in that folder left off, as it was configured."""
    from crgan_cli.config import compose

    if args.multirun or args.cfg or args.info:
        raise UserError("--from continues one run: type it without -m, --cfg and --info.")
    folder = Path(args.start)
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"--from {args.start}: no run is there (it has no config.yaml). Give the folder of a "
            "run, as crgan train printed it."
        )
    cfg = compose.from_text(file.read_text(encoding="utf-8"), str(file))
    cfg = compose.amended(cfg, args.overrides, CONTINUABLE, "--from")
    cfg["out"], cfg["resume"] = os.fspath(folder), "auto"
    from crgan_cli.training.run import train_job

    train_job(cfg, list(args.overrides), {}, None)
    return 0
