"""The state of a sweep's jobs, on disk."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from crgan_cli.system.atomic import write_text

FOLDER = ".sweep"
"""In the sweep's folder: a file for each job of the newest start, and the devices' locks."""


class SweepJob(NamedTuple):
    """One job of a sweep, as its file tells."""

    number: int  # from 0
    name: str  # what differs from the other jobs
    folder: str  # of the run
    status: str  # running, finished, skipped, failed, interrupted, not started
    seconds: float = 0.0
    value: float | None = None  # the headline, once it has ended
    error: str = ""
    code: int = 0  # the exit code that the failure alone would have had
    images: int = 0  # real ones that D was shown in this start of the sweep, once it has ended
    training: float = 0.0  # seconds that this took, samples and metrics included
    began: float = 0.0  # when it had its device, in seconds since 1970
    ended: float = 0.0


class SweepState:
    """The jobs of a sweep, on disk."""

    def __init__(self, folder: Path, total: int | None = None) -> None:
        """`total` is the number of jobs, None where the sweeper decides as it goes."""
        self.folder = folder
        self.path = folder / FOLDER
        self.total = total

    def clear(self) -> None:
        """Forgets an earlier start: its jobs are about to be looked at again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        if self.total is not None:
            (self.path / "total").write_text(str(self.total))

    def write(self, job: SweepJob) -> None:
        """How a job stands now."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / f"{job.number}.json", json.dumps(job._asdict()) + "\n")

    def jobs(self) -> list[SweepJob]:
        """All jobs that have begun, by number; a file that is being written is left out."""
        found = []
        for file in self.path.glob("[0-9]*.json"):
            with suppress(OSError, ValueError, TypeError):
                found.append(SweepJob(**json.loads(file.read_text(encoding="utf-8"))))
        return sorted(found)

    def stop(self) -> None:
        """No further job is to start."""
        (self.path / "stop").touch()

    @property
    def stopped(self) -> bool:
        """Whether a job has said so."""
        return (self.path / "stop").exists()

    @contextmanager
    def acquire_device(self, count: int, per_device: int) -> Iterator[int]:
        """The index of one of `count` devices that fewer than `per_device` jobs have; waits.

        The lock ends with the process that holds it, however that ends.
        """
        while True:
            for place in range(per_device):
                for index in range(count):
                    lock = FileLock(self.path / f"device{index}_{place}.lock")
                    try:
                        lock.acquire(blocking=False)
                    except Timeout:
                        continue
                    try:
                        yield index
                    finally:
                        lock.release()
                    return
            time.sleep(0.5)


def describe_unfinished(folder: Path) -> str:
    """What the newest start of the sweep in a folder has not brought to an end; "" for nothing."""
    board = SweepState(folder)
    states = [job.status for job in board.jobs()]
    with suppress(OSError, ValueError):
        total = int((board.path / "total").read_text())
        states += ["not begun"] * (total - len(states))
    open_ones = [state for state in states if state not in ("finished", "skipped")]
    counts = {state: open_ones.count(state) for state in dict.fromkeys(open_ones)}
    if not counts:
        return ""
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"of the {len(states)} jobs of the sweep {folder}: {told}"


def exit_code(codes: Iterable[int]) -> int:
    """Of several jobs: 0 if none failed, 2 if all failures are the user's mistakes, else 1."""
    failures = {code for code in codes if code}
    return max(failures, default=0) if failures <= {2} else 1
