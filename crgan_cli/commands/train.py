"""`crgan train`: one run, or with -m one run for each combination of values.

The whole command line is checked before anything runs. `crgan_cli.experiments.launch` then starts
the jobs through Hydra; a job is `crgan_cli.training.start.train_run`.
"""

import argparse
import os
from collections.abc import Sequence

from crgan_cli.commands.sample import parse_path, parse_run
from crgan_cli.config.choices import Choices
from crgan_cli.errors import UserError
from crgan_cli.system.distributed.launch import is_torchrun
from crgan_cli.system.streams import require_printed

help = "Train a GAN; settings are typed as key=value."

RESUMABLE_KEYS = (
    *("steps", "early_stop", "device", "engine", "accumulate"),
    *("checkpoint", "samples", "log", "logger", "metrics.every", "optimizer"),
)
"""What may change with --from."""

TORCHRUN_SWEEP = (
    "torchrun starts several processes for one run, and -m asks for several runs. Type "
    "crgan train -m without torchrun, and give each run one GPU (hydra/launcher=joblib), "
    "or let Slurm start the processes of each run (hydra/launcher=submitit_slurm "
    "hydra.launcher.tasks_per_node=8 hydra.launcher.gpus_per_node=8)."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags. Those that Hydra has too have the same names."""
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE")
    add("-h", "--help", action="store_true")
    add("-m", "--multirun", action="store_true")
    add("--dry-run", action="store_true")
    add("-c", "--cfg", choices=("job", "hydra", "all"))
    add("--resolve", action="store_true")
    add("-p", "--package")
    add("-cd", "--config-dir", metavar="DIR", type=parse_path)
    add("--from", dest="start", metavar="RUN", type=parse_run)
    info = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    add("-i", "--info", nargs="?", const="all", choices=info)
    add("--hydra-help", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Run the command, together with the other processes if torchrun started it."""
    if not is_torchrun():
        return run_in_process(args)
    from crgan_cli.system.distributed.setup import distributed_run

    with distributed_run():
        return run_in_process(args)


def run_in_process(args: argparse.Namespace) -> int:
    """Do what was asked for, in this process."""
    choices = Choices(args.config_dir)
    if args.help:
        print(describe_help(choices, args.overrides))
        require_printed()
        return 0
    require_compatible_flags(args)
    if args.start is not None:
        return resume_run(args)
    if args.hydra_help:
        from crgan_cli.experiments.launch import print_hydra_help

        print_hydra_help(choices)
        require_printed()
        return 0
    return print_or_train(args, choices)


def describe_help(choices: Choices, topics: Sequence[str]) -> str:
    """Return the help on groups and choices, or on the whole command."""
    if topics:
        from crgan_cli.config.topic_help import describe_topic

        return "\n\n".join(describe_topic(choices, topic) for topic in topics)
    from crgan_cli.config.help import train_help

    return train_help(choices)


def require_compatible_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that exclude each other."""
    prints = args.cfg or args.info
    if args.dry_run and (prints or args.multirun or args.start is not None):
        raise UserError("--dry-run shows one run: type it without -m, --from, --cfg and --info.")
    if args.start is not None and (args.multirun or prints):
        raise UserError("--from continues one run: type it without -m, --cfg and --info.")
    if args.cfg and args.info:
        raise UserError("--cfg and --info print different things: type one of them.")
    if args.multirun and prints:
        raise UserError("--cfg and --info show one run: leave out -m, and give each key one value.")
    if args.resolve and not args.cfg:
        raise UserError("--resolve belongs to --cfg: type --cfg job --resolve")


def print_or_train(args: argparse.Namespace, choices: Choices) -> int:
    """Check the settings; then print what was asked for, or train."""
    from crgan_cli.config import compose
    from crgan_cli.experiments import launch
    from crgan_cli.experiments.check import check_jobs, prepare_overrides

    typed = prepare_overrides(args.overrides)
    prints = bool(args.cfg or args.info)
    plan = check_jobs(typed, choices, multirun=args.multirun, whole=not prints)
    overrides = [*compose.search_path_overrides(choices), *typed]
    if args.cfg:
        launch.print_config(choices, overrides, args.cfg, args.package, resolve=args.resolve)
    if args.info:
        launch.print_info(choices, overrides, args.info)
    if prints:
        require_printed()
        return 0
    if args.dry_run:
        if plan is not None:
            raise UserError("--dry-run shows one run, and this experiment is a sweep.")
        from crgan_cli.training.dry_run import describe_plan

        print(describe_plan(compose.compose(typed, args.config_dir)))
        require_printed()
        return 0
    if plan is None:
        launch.train_once(choices, overrides)
        return 0
    if is_torchrun():
        raise UserError(TORCHRUN_SWEEP)
    return launch.train_sweep(choices, overrides, plan)


def resume_run(args: argparse.Namespace) -> int:
    """`--from RUN`: resume the run in that folder with its own configuration."""
    from crgan_cli.config import stored
    from crgan_cli.runs.folder import RunDir
    from crgan_cli.runs.settings import load_text
    from crgan_cli.system.console import log_to_stderr

    if not RunDir(args.start).is_run():
        raise UserError(
            f"--from {args.start}: no run is there (it has no config.yaml). Give the folder of a "
            "run, as crgan train printed it."
        )
    typed = stored.Typed(args.overrides, RESUMABLE_KEYS, "--from")
    with log_to_stderr():
        cfg = stored.from_text(*load_text(RunDir(args.start)), typed=typed)
    RunDir(args.start).require_steps(cfg.steps)
    from crgan_cli.training.start import train_run  # brings torch: after the settings are checked

    cfg["out"], cfg["resume"] = os.fspath(args.start), "auto"
    typed_too = ["--from", str(args.start), *args.overrides]
    train_run(cfg, typed_too, {}, None, may_change=RESUMABLE_KEYS)
    return 0
