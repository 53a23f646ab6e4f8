"""What parallel jobs need around them: worker processes, shared GPUs, one Ctrl-C for all."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments.sweep_state import SweepState
from crgan_cli.system import mps
from crgan_cli.system.threads import split_threads

if TYPE_CHECKING:
    from omegaconf import DictConfig

TASKS = Path("/proc/self/task")
"""A folder for each thread of this process, on Linux."""


def count_workers(launcher: "DictConfig", jobs: int | None) -> int:
    """Return how many processes the joblib launcher starts; 0 for other launchers."""
    if not str(launcher._target_).endswith("JoblibLauncher"):
        return 0
    if launcher.n_jobs == 0:
        raise UserError(
            "hydra.launcher.n_jobs=0 runs nothing: give the number of parallel jobs, or "
            "-1 for one per CPU."
        )
    from joblib import effective_n_jobs

    return min(effective_n_jobs(launcher.n_jobs), jobs or sys.maxsize)


def may_share_gpu(cfg: "DictConfig") -> bool:
    """Whether parallel jobs should share a GPU through MPS, if both are available."""
    several = cfg.sweep.per_device > 1 and cfg.sweep.mps == "auto"
    return several and str(cfg.device).startswith(("auto", "cuda"))


@contextmanager
def parallel_jobs(state: SweepState, workers: int, *, shared: bool) -> Iterator[None]:
    """Prepare this machine for parallel jobs while the body runs.

    `workers` is the number of joblib's processes. It is 0 for other launchers, whose jobs may run
    on other machines. `shared`: several jobs share a GPU through MPS, if there is a GPU.
    """
    with ExitStack() as around:
        if workers:
            around.enter_context(split_threads(workers))
        if shared and count_visible_gpus():
            around.enter_context(mps.mps_daemon(state.path))
        if workers:
            around.enter_context(shut_down_workers())
        around.enter_context(forward_first_signal(state))
        yield


def count_visible_gpus() -> int:
    """Return the number of visible CUDA devices. Imports torch."""
    from crgan_cli.system.device import count_gpus

    return count_gpus()


@contextmanager
def shut_down_workers() -> Iterator[None]:
    """End joblib's processes after the body. Idle, they would hold GPU memory for minutes.

    If the body fails they are killed, as joblib does.
    """
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        if "joblib" in sys.modules:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True, kill_workers=not succeeded)


@contextmanager
def forward_first_signal(state: SweepState) -> Iterator[None]:
    """Forward the first Ctrl-C or SIGTERM to the jobs, which save and end. The second ends all.

    Without this the launcher would kill the jobs at once. After a signal the body ends with
    Interrupted, also if no job was there to hear it, or if it ended a process that had no job.
    """
    received: list[int] = []

    def on_first_signal(signum: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, before[each])
        received.append(signum)
        state.stop()
        print(
            "Stopping: waiting for the jobs to save. Press Ctrl-C again to quit now.",
            file=sys.stderr,
        )
        for child in child_processes():
            with suppress(ProcessLookupError):
                os.kill(child, signum)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, on_first_signal)
    try:
        yield
    except Exception as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if received:
        raise Interrupted(received[0])


def child_processes() -> list[int]:
    """Return the ids of the processes that this one has started, in whichever thread: joblib's
    are replaced by another one. Elsewhere than on Linux, those of `multiprocessing` and joblib."""
    found: list[int] = []
    for file in TASKS.glob("*/children"):
        with suppress(OSError):  # a thread has just ended
            found += map(int, file.read_text().split())
    return found or [each.pid for each in multiprocessing.active_children() if each.pid]
