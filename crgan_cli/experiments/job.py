"""One job of a sweep, or the one of a single run: what Hydra calls."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.experiments.sweep_table import format_finished
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.distributed.launch import is_distributed, is_main

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig
from crgan_cli.experiments.parallel import count_visible_gpus

TASK_MODULE = "crgan_cli.commands.train"
"""Hydra asks which module a job is from, and names it after the last part."""


def single_task(failures: list[Exception]) -> "Callable[[DictConfig], float | None]":
    """What Hydra calls for one run; its failure goes into the list."""

    def train(cfg: "DictConfig") -> float | None:
        from hydra.core.hydra_config import HydraConfig

        try:
            return call_training(cfg, HydraConfig.get(), None)
        except Exception as error:
            failures.append(error)
            return None

    train.__module__ = TASK_MODULE
    return train


def sweep_task(board: SweepState) -> "Callable[[DictConfig], float | None]":
    """What Hydra calls for each job of a sweep, in whatever process."""

    def train(cfg: "DictConfig") -> float | None:
        return run_job_on_every_rank(board, cfg) if is_distributed() else run_job(board, cfg)

    train.__module__ = TASK_MODULE
    return train


def run_job_on_every_rank(board: SweepState, cfg: "DictConfig") -> float | None:
    """One job of a sweep by several processes, of which the first keeps the sweep's records."""
    from crgan_cli.system.distributed.objects import broadcast_from_main
    from crgan_cli.system.distributed.setup import distributed_run

    with distributed_run():
        if broadcast_from_main(lambda: board.stopped) and not is_main():
            return float("nan")
        return run_job(board, cfg) if is_main() else run_job_on_worker_rank(cfg)


def run_job_on_worker_rank(cfg: "DictConfig") -> float | None:
    """What a process that is not the first does of a job: all but the records."""
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose
    from crgan_cli.system.console import print_error
    from crgan_cli.system.distributed.errors import PeerLost

    node = HydraConfig.get()
    try:
        compose.require_valid(cfg)
        return call_training(cfg, node, Path(node.runtime.output_dir))
    except Exception as error:
        if not isinstance(error, PeerLost):  # into the log that Slurm keeps of each task
            print_error(f"crgan train: {type(error).__name__}: {error}", code=1)
        return float("nan")


def run_job(board: SweepState, cfg: "DictConfig") -> float | None:
    """One job of a sweep: its headline metric, NaN for a failure.

    It raises nothing but an interruption: Hydra would say nothing of a failed job before the last
    one ends.
    """
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose

    node = HydraConfig.get()
    folder = Path(node.runtime.output_dir)
    job = SweepJob(int(node.job.num), node.job.override_dirname, folder.name, "running")
    if board.stopped:
        board.write(job._replace(status="not started"))
        return float("nan")
    board.write(job)
    number = f"job {job.number + 1} of {board.total}" if board.total else f"job {job.number + 1}"
    print(f"{number}: {job.name}", file=sys.stderr)
    began, before, step = time.monotonic(), RunDir(folder).read_result(), count_steps_done(folder)
    try:
        compose.require_valid(cfg)  # a sweeper may think of values that nobody typed
        with with_device(board, cfg, node):
            job = job._replace(began=time.time())
            value = call_training(cfg, node, folder)
            job = job._replace(ended=time.time())
    except KeyboardInterrupt:
        board.write(job._replace(status="interrupted"))
        raise
    except Exception as error:
        fail_job(board, job, error, began)
        if cfg.sweep.on_error == "stop":
            board.stop()
        # they hold the networks
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return float("nan")
    result = RunDir(folder).read_result()
    status = "skipped" if before and result == before else "finished"
    images, training = images_since(step, result, job.ended - job.began)
    job = job._replace(images=images, training=training)
    ended = job._replace(status=status, seconds=time.monotonic() - began, value=value)
    board.write(ended)
    print(format_finished(ended, board), file=sys.stderr)
    return value


def count_steps_done(folder: Path) -> int:
    """The step of the newest checkpoint of a run that may be gone on with."""
    found = RunDir(folder).checkpoints.glob("step_*.pt")
    return max((int(path.stem.removeprefix("step_")) for path in found), default=0)


def images_since(step: int, result: dict, seconds: float) -> tuple[int, float]:
    """The real images that D was shown since a step, by a run's result.json, and how long it took.

    A run that was gone on with does not say which of its seconds are new: then those of the job.
    """
    done = result.get("step", 0)
    if done <= step:
        return 0, 0.0
    images = result.get("images_seen", 0) * (done - step) // done  # each step shows as many
    return images, seconds if step else result.get("seconds", seconds)


@contextmanager
def with_device(board: SweepState, cfg: "DictConfig", node: "HydraConf") -> Iterator[None]:
    """A device of a job's own, or its part of one, where several run side by side; waits for it."""
    one_by_one = str(node.launcher._target_).endswith("BasicLauncher")
    if (
        one_by_one
        or is_distributed()
        or cfg.device != "auto"
        or not (count := count_visible_gpus())
    ):
        yield
        return
    with board.acquire_device(count, cfg.sweep.per_device) as index:
        cfg.device = f"cuda:{index}"
        yield


def call_training(cfg: "DictConfig", node: "HydraConf", folder: Path | None) -> float | None:
    """A run, with what was typed for it, in a job's folder or in one of its own."""
    from crgan_cli.training.start import train_job

    overrides = list(node.overrides.task)
    return train_job(cfg, overrides, chosen_choices(node.runtime.choices, overrides), folder)


def fail_job(board: SweepState, job: SweepJob, error: Exception, began: float) -> None:
    """Says at once that a job has failed, and writes it down."""
    from crgan_cli.system.console import format_unexpected, print_error

    foreseen = isinstance(error, (UserError, RunFailed))
    said = str(error) if foreseen else format_unexpected(error)
    code = 2 if isinstance(error, UserError) else 1
    board.write(
        job._replace(status="failed", seconds=time.monotonic() - began, error=said, code=code)
    )
    print_error(f"crgan train: job {job.number + 1} ({job.name}) failed: {said}", code=1)


def chosen_choices(
    known: Mapping[str, str | None], overrides: Sequence[str]
) -> dict[str, str | None]:
    """Group -> choice. Hydra leaves out a choice that is a list, such as regularizer=[cr,gp]."""
    chosen = {group: name for group, name in known.items() if "/" not in group}
    for override in overrides:
        key, _, value = override.partition("=")
        if value.startswith("[") and "." not in key:
            chosen[key] = value
    return chosen
