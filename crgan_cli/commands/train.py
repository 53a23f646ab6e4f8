"""`crgan train`: one run, or with -m one run for each combination of values.

The command line is checked here before anything runs; the jobs are then started by `hydra.main`,
so that Hydra's flags, launchers and sweepers are there as its users know them. What a job does is
`crgan_cli.training.start.train_job`.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.config import stored
from crgan_cli.config.choices import Choices
from crgan_cli.config.messages import quote_overrides
from crgan_cli.errors import UserError
from crgan_cli.experiments.check import check_jobs, override_key
from crgan_cli.experiments.launch import run_hydra
from crgan_cli.system.distributed.launch import is_torchrun

if TYPE_CHECKING:
    pass

help = "Train a GAN; settings are typed as key=value."

RESUMABLE_KEYS = ("steps", "device", "engine")


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
    if not is_torchrun():
        return run_in_process(args)
    from crgan_cli.system.distributed.setup import distributed_run

    with distributed_run():
        return run_in_process(args)


def run_in_process(args: argparse.Namespace) -> int:
    """`run` in one process."""
    choices = Choices(args.config_dir)
    if args.help:
        from crgan_cli.config.help import train_help

        print(train_help(choices))
        return 0
    if args.start is not None:
        return resume_run(args)
    if args.hydra_help:
        return run_hydra(args, ["--hydra-help"], [])
    flags = print_flags(args)
    args.overrides = quote_overrides(args.overrides)
    plan = check_jobs(args.overrides, choices, multirun=args.multirun, whole=not flags)
    if flags or plan is None:
        return run_hydra(args, flags, args.overrides)
    if is_torchrun():
        raise UserError(
            "torchrun starts several processes for one run, and -m asks for several runs. Type "
            "crgan train -m without torchrun, and give each run one GPU (hydra/launcher=joblib), "
            "or have Slurm start the processes of each (hydra/launcher=submitit_slurm "
            "hydra.launcher.tasks_per_node=8 hydra.launcher.gpus_per_node=8)."
        )
    # the runs' folders are named after what differs between them
    unnamed = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(plan.common)}]"
    placed = f"hydra.sweep.dir='{plan.folder}'"
    own = [each for each in args.overrides if override_key(each) not in ("out", "hydra.sweep.dir")]
    return run_hydra(args, ["--multirun"], [unnamed, placed, *own], plan)


def print_flags(args: argparse.Namespace) -> list[str]:
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


def resume_run(args: argparse.Namespace) -> int:
    """`--from RUN`: goes on where the run in that folder left off, as it was configured."""

    if args.multirun or args.cfg or args.info:
        raise UserError("--from continues one run: type it without -m, --cfg and --info.")
    folder = Path(args.start)
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"--from {args.start}: no run is there (it has no config.yaml). Give the folder of a "
            "run, as crgan train printed it."
        )
    cfg = stored.from_text(file.read_text(encoding="utf-8"), str(file))
    cfg = stored.with_overrides(cfg, args.overrides, RESUMABLE_KEYS, "--from")
    cfg["out"], cfg["resume"] = os.fspath(folder), "auto"
    from crgan_cli.training.start import train_job

    train_job(cfg, list(args.overrides), {}, None)
    return 0
