"""One job of a sweep, or the one of a single run: what Hydra calls."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.experiments.sweep_state import Board, Job
from crgan_cli.experiments.sweep_table import said_of
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.distributed.launch import first, together

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig
from crgan_cli.experiments.parallel import number_of_gpus

ASKED_FROM = "crgan_cli.commands.train"
"""Hydra asks which module a job is from, and names it after the last part."""


def single(failures: list[Exception]) -> "Callable[[DictConfig], float | None]":
    """What Hydra calls for one run; its failure goes into the list."""

    def train(cfg: "DictConfig") -> float | None:
        from hydra.core.hydra_config import HydraConfig

        try:
            return trained(cfg, HydraConfig.get(), None)
        except Exception as error:
            failures.append(error)
            return None

    train.__module__ = ASKED_FROM
    return train


def jobs_of(board: Board) -> "Callable[[DictConfig], float | None]":
    """What Hydra calls for each job of a sweep, in whatever process."""

    def train(cfg: "DictConfig") -> float | None:
        return train_together(board, cfg) if together() else train_next(board, cfg)

    train.__module__ = ASKED_FROM
    return train


def train_together(board: Board, cfg: "DictConfig") -> float | None:
    """One job of a sweep by several processes, of which the first keeps the sweep's records."""
    from crgan_cli.system.distributed.objects import from_first
    from crgan_cli.system.distributed.setup import joined

    with joined():
        if from_first(lambda: board.stopped) and not first():
            return float("nan")
        return train_next(board, cfg) if first() else follow(cfg)


def follow(cfg: "DictConfig") -> float | None:
    """What a process that is not the first does of a job: all but the records."""
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose
    from crgan_cli.system.console import complain
    from crgan_cli.system.distributed.errors import Lost

    node = HydraConfig.get()
    try:
        compose.checked(cfg)
        return trained(cfg, node, Path(node.runtime.output_dir))
    except Exception as error:
        if not isinstance(error, Lost):  # into the log that Slurm keeps of each task
            complain(f"crgan train: {type(error).__name__}: {error}", code=1)
        return float("nan")


def train_next(board: Board, cfg: "DictConfig") -> float | None:
    """One job of a sweep: its headline metric, NaN for a failure.

    It raises nothing but an interruption: Hydra would say nothing of a failed job before the last
    one ends.
    """
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose

    node = HydraConfig.get()
    folder = Path(node.runtime.output_dir)
    job = Job(int(node.job.num), node.job.override_dirname, folder.name, "running")
    if board.stopped:
        board.write(job._replace(status="not started"))
        return float("nan")
    board.write(job)
    number = f"job {job.number + 1} of {board.total}" if board.total else f"job {job.number + 1}"
    print(f"{number}: {job.name}", file=sys.stderr)
    began, before, step = time.monotonic(), RunDir(folder).read_result(), steps_done(folder)
    try:
        compose.checked(cfg)  # a sweeper may think of values that nobody typed
        with placed(board, cfg, node):
            job = job._replace(began=time.time())
            value = trained(cfg, node, folder)
            job = job._replace(ended=time.time())
    except KeyboardInterrupt:
        board.write(job._replace(status="interrupted"))
        raise
    except Exception as error:
        failed(board, job, error, began)
        if cfg.sweep.on_error == "stop":
            board.stop()
        # they hold the networks
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return float("nan")
    result = RunDir(folder).read_result()
    status = "skipped" if before and result == before else "finished"
    images, training = shown_since(step, result, job.ended - job.began)
    job = job._replace(images=images, training=training)
    ended = job._replace(status=status, seconds=time.monotonic() - began, value=value)
    board.write(ended)
    print(said_of(ended, board), file=sys.stderr)
    return value


def steps_done(folder: Path) -> int:
    """The step of the newest checkpoint of a run that may be gone on with."""
    found = RunDir(folder).checkpoints.glob("step_*.pt")
    return max((int(path.stem.removeprefix("step_")) for path in found), default=0)


def shown_since(step: int, result: dict, seconds: float) -> tuple[int, float]:
    """The real images that D was shown since a step, by a run's result.json, and how long it took.

    A run that was gone on with does not say which of its seconds are new: then those of the job.
    """
    done = result.get("step", 0)
    if done <= step:
        return 0, 0.0
    images = result.get("images_seen", 0) * (done - step) // done  # each step shows as many
    return images, seconds if step else result.get("seconds", seconds)


@contextmanager
def placed(board: Board, cfg: "DictConfig", node: "HydraConf") -> Iterator[None]:
    """A device of a job's own, or its part of one, where several run side by side; waits for it."""
    one_by_one = str(node.launcher._target_).endswith("BasicLauncher")
    if one_by_one or together() or cfg.device != "auto" or not (count := number_of_gpus()):
        yield
        return
    with board.device(count, cfg.sweep.per_device) as index:
        cfg.device = f"cuda:{index}"
        yield


def trained(cfg: "DictConfig", node: "HydraConf", folder: Path | None) -> float | None:
    """A run, with what was typed for it, in a job's folder or in one of its own."""
    from crgan_cli.training.run import train_job

    overrides = list(node.overrides.task)
    return train_job(cfg, overrides, chosen_from(node.runtime.choices, overrides), folder)


def failed(board: Board, job: Job, error: Exception, began: float) -> None:
    """Says at once that a job has failed, and writes it down."""
    from crgan_cli.system.console import complain, unforeseen

    foreseen = isinstance(error, (UserError, RunFailed))
    said = str(error) if foreseen else unforeseen(error)
    code = 2 if isinstance(error, UserError) else 1
    board.write(
        job._replace(status="failed", seconds=time.monotonic() - began, error=said, code=code)
    )
    complain(f"crgan train: job {job.number + 1} ({job.name}) failed: {said}", code=1)


def chosen_from(known: Mapping[str, str | None], overrides: Sequence[str]) -> dict[str, str | None]:
    """Group -> choice. Hydra leaves out a choice that is a list, such as regularizer=[cr,gp]."""
    chosen = {group: name for group, name in known.items() if "/" not in group}
    for override in overrides:
        key, _, value = override.partition("=")
        if value.startswith("[") and "." not in key:
            chosen[key] = value
    return chosen
