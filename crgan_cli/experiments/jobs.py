"""The jobs of a sweep, and the one of a single run: what Hydra calls, in whatever process.

`crgan_cli.commands.train` checks what was typed and starts them; what a job does is
`crgan_cli.training.run.train_job`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.experiments.sweep import Board, Job, said_of
from crgan_cli.runs.folder import RunDir
from crgan_cli.system import mps
from crgan_cli.system.launch import first, together
from crgan_cli.system.threads import shared_by

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

ASKED_FROM = "crgan_cli.commands.train"
"""Hydra asks which module a job is from, and names it after the last part."""


def workers_of(launcher: "DictConfig", jobs: int | None) -> int:
    """The processes that joblib's launcher starts for some jobs; 0 for another launcher."""
    if not str(launcher._target_).endswith("JoblibLauncher"):
        return 0
    if launcher.n_jobs == 0:
        raise UserError(
            "hydra.launcher.n_jobs=0 runs nothing: give the number of jobs that are to run side by "
            "side, or -1 for one on each CPU."
        )
    from joblib import effective_n_jobs

    return min(effective_n_jobs(launcher.n_jobs), jobs or sys.maxsize)


def may_share(cfg: "DictConfig") -> bool:
    """Whether jobs side by side are to share a GPU by MPS, where there are both."""
    several = cfg.sweep.per_device > 1 and cfg.sweep.mps == "auto"
    return several and str(cfg.device).startswith(("auto", "cuda"))


@contextmanager
def side_by_side(board: Board, workers: int, *, shared: bool) -> Iterator[None]:
    """What jobs in processes of their own need around them.

    `workers` is how many joblib starts, 0 for other launchers, whose jobs may be on other machines;
    `shared`: several are to share a GPU, if there is one, through MPS.
    """
    with ExitStack() as around:
        if workers:
            around.enter_context(shared_by(workers))
        if shared and number_of_gpus():
            around.enter_context(mps.serving(board.path))
        if workers:
            around.enter_context(workers_leaving())
        around.enter_context(letting_jobs_save(board))
        yield


def number_of_gpus() -> int:
    """How many CUDA devices jobs find here; imports torch."""
    from crgan_cli.system.device import gpus

    return gpus()


@contextmanager
def workers_leaving() -> Iterator[None]:
    """joblib's processes end with the body; idle, they would keep their part of a GPU for minutes.

    They are killed where the body ends badly, as joblib does itself.
    """
    well = False
    try:
        yield
        well = True
    finally:
        if "joblib" in sys.modules:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True, kill_workers=not well)


@contextmanager
def letting_jobs_save(board: Board) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM goes to the jobs, which save and end; the second ends all.

    Without it the launcher would kill them where they are.
    """

    def asked(signum: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, before[each])
        board.stop()
        print("stopping: the jobs save what they have; once more ends at once", file=sys.stderr)
        for child in children():
            with suppress(ProcessLookupError):
                os.kill(child, signum)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, asked)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def children() -> list[int]:
    """Processes that this one has started; none where the system does not tell (it is Linux's)."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in listed.split()]


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
    from crgan_cli.system.processes import from_first, joined

    with joined():
        if from_first(lambda: board.stopped) and not first():
            return float("nan")
        return train_next(board, cfg) if first() else follow(cfg)


def follow(cfg: "DictConfig") -> float | None:
    """What a process that is not the first does of a job: all but the records."""
    from hydra.core.hydra_config import HydraConfig

    from crgan_cli.config import compose
    from crgan_cli.system.console import complain
    from crgan_cli.system.voices import Lost

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
