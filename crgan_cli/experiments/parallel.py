"""Jobs side by side: processes, shared GPUs, and the first Ctrl-C."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from crgan_cli.errors import UserError
from crgan_cli.experiments.sweep_state import SweepState
from crgan_cli.system import mps
from crgan_cli.system.threads import split_threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def count_workers(launcher: "DictConfig", jobs: int | None) -> int:
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


def may_share_gpu(cfg: "DictConfig") -> bool:
    """Whether jobs side by side are to share a GPU by MPS, where there are both."""
    several = cfg.sweep.per_device > 1 and cfg.sweep.mps == "auto"
    return several and str(cfg.device).startswith(("auto", "cuda"))


@contextmanager
def parallel_jobs(board: SweepState, workers: int, *, shared: bool) -> Iterator[None]:
    """What jobs in processes of their own need around them.

    `workers` is how many joblib starts, 0 for other launchers, whose jobs may be on other machines;
    `shared`: several are to share a GPU, if there is one, through MPS.
    """
    with ExitStack() as around:
        if workers:
            around.enter_context(split_threads(workers))
        if shared and count_visible_gpus():
            around.enter_context(mps.mps_daemon(board.path))
        if workers:
            around.enter_context(shut_down_workers())
        around.enter_context(forward_first_signal(board))
        yield


def count_visible_gpus() -> int:
    """How many CUDA devices jobs find here; imports torch."""
    from crgan_cli.system.device import count_gpus

    return count_gpus()


@contextmanager
def shut_down_workers() -> Iterator[None]:
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
def forward_first_signal(board: SweepState) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM goes to the jobs, which save and end; the second ends all.

    Without it the launcher would kill them where they are.
    """

    def asked(signum: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, before[each])
        board.stop()
        print("stopping: the jobs save what they have; once more ends at once", file=sys.stderr)
        for child in child_processes():
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


def child_processes() -> list[int]:
    """Processes that this one has started; none where the system does not tell (it is Linux's)."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in listed.split()]
