"""`crgan train`: one run, or with -m one run for each combination of values.

The command line is checked here before anything runs; the jobs are then started by `hydra.main`,
so that Hydra's flags, launchers and sweepers are there as its users know them. What a job does is
`crgan_cli.training.train_job`.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.choices import Choices
from crgan_cli.errors import RunFailed, UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

help = "Train a GAN; settings are typed as key=value."

MOST_CHECKED = 64
"""Jobs of a sweep that are checked before the first starts (0.1 s each); the rest in their turn."""

CONTINUABLE = ("steps", "device")


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
    """Checks everything that was typed, then trains."""
    choices = Choices(args.config_dir)
    if args.help:
        from crgan_cli.manual import manual

        print(manual(choices))
        return 0
    if args.start is not None:
        return continue_run(args)
    if args.hydra_help:
        return through_hydra(args, ["--hydra-help"], [])
    shown = shown_only(args)
    args.overrides = read(args.overrides)
    common = check(args.overrides, choices, multirun=args.multirun, whole=not shown)
    if shown or common is None:
        return through_hydra(args, shown, args.overrides)
    # the runs' folders are named after what differs between them
    unnamed = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(common)}]"
    return through_hydra(args, ["--multirun"], [unnamed, *args.overrides])


def read(overrides: Sequence[str]) -> list[str]:
    """The overrides, with text in quotes where it needs them.

    A key typed twice counts as it is typed last, in a sweep too: scripts append to theirs.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from crgan_cli import explain

    parser = OverridesParser.create()
    last = {text.partition("=")[0]: text for text in overrides}
    return [explain.as_text(text, parser) for text in last.values()]


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


def check(
    overrides: Sequence[str], choices: Choices, *, multirun: bool, whole: bool
) -> list[str] | None:
    """Composes and checks every job; UserError on the first that is wrong.

    `whole`: also what only a run needs. Returns the keys that all jobs of a sweep have in common,
    and None for a single run; an experiment can ask for a sweep as well (hydra.mode).
    """
    from crgan_cli import config, explain

    with config.searching(choices) as parser:
        parsed = explain.parse(overrides, choices, parser)
        first = config.draft(next(typical(parsed)), choices)
        multirun = multirun or str(first.hydra.mode).endswith("MULTIRUN")
        if not multirun:
            for override in parsed:
                explain.single(override, choices)
        swept = dict(first.hydra.sweeper.get("params") or {}) if multirun else {}
        added = explain.parse([f"{key}={text}" for key, text in swept.items()], choices, parser)
        for job in itertools.islice(typical([*added, *parsed]), MOST_CHECKED):
            try:
                composed = config.without_hydra(config.draft(job, choices))
                if whole or config.complete(composed):
                    config.checked(composed)
                if multirun and composed.out is not None:
                    raise UserError(
                        f"out={composed.out} is one folder, and a sweep needs one for each run: "
                        "type hydra.sweep.dir=FOLDER, in which they are made."
                    )
            except UserError as error:
                raise UserError(
                    f"{error} (in the job {' '.join(job)})" if multirun else error
                ) from error
    if not multirun:
        return None
    return [o.get_key_element() for o in parsed if not o.is_sweep_override()]


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
    elif override.is_sweep_override():
        raise UserError(
            f"'{override.input_line}' has no end of values: type some, as {key}=1,2,3 or "
            f"{key}=range(1,10,2)."
        )
    else:
        yield override.input_line or key


# --- running --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A job that ended badly, and what it was."""

    job: str
    error: Exception


def through_hydra(args: argparse.Namespace, flags: list[str], overrides: Sequence[str]) -> int:
    """Hands the command line on to `hydra.main`, and gives the exit code."""
    import hydra

    failures: list[Failure] = []
    folder = Path(args.config_dir).absolute() if args.config_dir else None
    extra = ["--config-dir", str(folder)] if folder else []
    entry = hydra.main(str(Choices().folders[0]), config_name="train", version_base="1.3")
    argv, sys.argv = sys.argv, ["crgan train", *flags, *extra, *overrides]
    try:
        entry(task(failures))()
    finally:
        sys.argv = argv
    return verdict(failures, multirun="--multirun" in flags)


def task(failures: list[Failure]) -> "Callable[[DictConfig], float | None]":
    """What Hydra calls for each job. It raises nothing but an interruption: Hydra would say
    nothing of a failed job before the last one ends."""

    def train(cfg: "DictConfig") -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from crgan_cli import config

        node = HydraConfig.get()
        several = str(node.mode).endswith("MULTIRUN")
        overrides = list(node.overrides.task)
        chosen = chosen_from(node.runtime.choices, overrides)
        folder = Path(node.runtime.output_dir) if several else None
        try:
            from crgan_cli.training import train_job

            if several:
                print(f"job {node.job.num}: {node.job.override_dirname}", file=sys.stderr)
            config.checked(cfg)  # a sweeper may think of values that nobody typed
            return train_job(cfg, overrides, chosen, folder)
        except KeyboardInterrupt:
            if several:
                again = f"the same command with hydra.sweep.dir={node.sweep.dir}"
                print(f"the sweep was stopped; go on with {again}", file=sys.stderr)
            raise
        except Exception as error:
            job = f"job {node.job.num} ({' '.join(overrides)})" if several else ""
            failures.append(Failure(job, error))
            if several:
                report(failures[-1])
                # they hold the networks
                error.__traceback__ = error.__cause__ = error.__context__ = None
            return None

    train.__module__ = __name__
    return train


def chosen_from(known: Mapping[str, str | None], overrides: Sequence[str]) -> dict[str, str | None]:
    """Group -> choice. Hydra leaves out a choice that is a list, such as regularizer=[cr,gp]."""
    chosen = {group: name for group, name in known.items() if "/" not in group}
    for override in overrides:
        key, _, value = override.partition("=")
        if value.startswith("[") and "." not in key:
            chosen[key] = value
    return chosen


def report(failure: Failure) -> None:
    """Says at once that one job of several has failed."""
    from crgan_cli.cli import complain, unforeseen

    foreseen = isinstance(failure.error, (UserError, RunFailed))
    said = str(failure.error) if foreseen else unforeseen(failure.error)
    complain(f"crgan train: {failure.job} failed: {said}", code=1)


def verdict(failures: list[Failure], *, multirun: bool) -> int:
    """The exit code; a single run's failure goes on to the command line's front."""
    if not failures:
        return 0
    if not multirun:
        raise failures[0].error
    print(f"crgan train: {len(failures)} failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.job}", file=sys.stderr)
    return 2 if all(isinstance(failure.error, UserError) for failure in failures) else 1


def continue_run(args: argparse.Namespace) -> int:
    """`--from RUN`: goes on where the run in that folder left off, as it was configured."""
    from crgan_cli import config

    if args.multirun or args.cfg or args.info:
        raise UserError("--from continues one run: type it without -m, --cfg and --info.")
    folder = Path(args.start)
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"--from {args.start}: no run is there (it has no config.yaml). Give the folder of a "
            "run, as crgan train printed it."
        )
    cfg = config.from_text(file.read_text(encoding="utf-8"), str(file))
    cfg = config.amended(cfg, args.overrides, CONTINUABLE, "--from")
    cfg["out"], cfg["resume"] = os.fspath(folder), "auto"
    from crgan_cli.training import train_job

    train_job(cfg, list(args.overrides), {}, None)
    return 0
