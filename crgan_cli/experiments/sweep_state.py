"""The state of a sweep on disk: one JSON file per job, and the locks of the devices."""

import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar, get_type_hints

from filelock import FileLock, Timeout

from crgan_cli.runs.folder import explained_lock, require_no_links
from crgan_cli.runs.status import Status
from crgan_cli.system.atomic import write_json

log = logging.getLogger(__name__)
Fields = TypeVar("Fields")

FOLDER = ".sweep"
"""Below the sweep's folder. Describes the latest launch only."""


class SweepJob(NamedTuple):
    """One job of a sweep, as in its JSON file."""

    number: int  # from 1
    name: str  # what differs from the other jobs
    folder: str  # of the run; "" until it is known
    status: str  # a Status
    seconds: float = 0.0
    value: float | None = None  # the primary metric, once the job has ended
    error: str = ""
    code: int = 0  # the exit code of this failure, or interruption, alone
    images: int = 0  # real images that D has seen in this launch, once the job has ended
    training: float = 0.0  # seconds that this took, with samples and metrics
    began: float = 0.0  # when it got its device, in seconds since 1970
    ended: float = 0.0
    early: int = 0  # the step at which it stopped before its last one, by `early_stop`; 0 if not


class SweepState:
    """The jobs of a sweep. All its processes read and write the same files."""

    def __init__(self, folder: Path, total: int | None = None) -> None:
        """`total` is the number of jobs; None if the sweeper decides during the sweep."""
        self.typed = folder
        self.folder = folder.absolute()  # whatever becomes the working folder
        self.path = self.folder / FOLDER
        self.total = total
        self.damaged: set[str] = set()  # files of which this was said

    @contextmanager
    def launch(self) -> Iterator[None]:
        """Begin a launch, and refuse others while the body runs. Raises UserError if one runs."""
        lock = FileLock(self.path / "launch.lock")
        with explained_lock(self.typed, "trains the sweep"):
            self._make_folder()
            lock.acquire(blocking=False)
        try:
            self.clear()
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Delete the job files of the previous launch. Runs are kept, and so are the locks, which
        its jobs may still hold."""
        self._make_folder()
        for each in self.path.iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            elif each.suffix != ".lock":
                each.unlink(missing_ok=True)
        if self.total is not None:
            (self.path / "total").write_text(str(self.total))

    def _make_folder(self) -> None:
        require_no_links(self.folder, [FOLDER])
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, job: SweepJob) -> None:
        """Write the current state of a job. A metric that is no finite number is none."""
        if job.value is not None and not math.isfinite(job.value):
            job = job._replace(value=None)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / f"{job.number}.json", job._asdict())

    def jobs(self) -> list[SweepJob]:
        """Return the jobs that have started, by number. Damaged files are left out, and logged."""
        found = []
        for file in self.path.glob("[0-9]*.json"):
            job = read_fields(file, SweepJob)
            if job is not None:
                found.append(job)
            elif file.name not in self.damaged:
                self.damaged.add(file.name)  # once: a live table asks every second
                log.warning("%s is damaged: the job is left out", file)
        return sorted(found)

    def stop(self) -> None:
        """Start no further job."""
        (self.path / "stop").touch()

    @property
    def stopped(self) -> bool:
        """Whether no further job may start."""
        return (self.path / "stop").exists()

    def lock_settings(self, name: str) -> FileLock:
        """Return the lock of the jobs with the same settings, of which one runs at a time."""
        return FileLock(self.path / f"settings_{name}.lock")

    @contextmanager
    def acquire_device(self, count: int, per_device: int) -> Iterator[int]:
        """Wait for one of `count` devices that fewer than `per_device` jobs hold; give its index.

        The lock ends with the process that holds it, even if that is killed.
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


def read_fields(file: Path, kind: type[Fields]) -> Fields | None:
    """Read a NamedTuple from a JSON file. None if there is none, or a value of another type."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        found = kind(**fields)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    types = {
        key: hint | int if hint is float else hint for key, hint in get_type_hints(kind).items()
    }
    return found if all(isinstance(fields[key], types[key]) for key in fields) else None


def list_statuses(state: SweepState) -> list[str]:
    """Return the status of each job of the latest launch, also of those that have not begun."""
    statuses = [job.status for job in state.jobs()]
    with suppress(OSError, ValueError):
        total = int((state.path / "total").read_text())
        statuses += ["not begun"] * (total - len(statuses))
    return statuses


def has_jobs_to_do(folder: Path) -> bool:
    """Return whether the latest launch of a sweep here has jobs that run, or will.

    A launch that was killed never says that it has ended.
    """
    state = SweepState(folder)
    statuses = set(list_statuses(state))
    if state.stopped or Status.INTERRUPTED in statuses:
        return False
    return not statuses.isdisjoint({"not begun", Status.NOT_STARTED, Status.RUNNING})


def describe_unfinished(folder: Path) -> str:
    """Return which jobs of the latest launch did not end well, as text; "" if none."""
    statuses = list_statuses(SweepState(folder))
    counts = Counter(each for each in statuses if each not in (Status.FINISHED, Status.SKIPPED))
    if not counts:
        return ""
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"of the {len(statuses)} jobs of the sweep {folder}: {listed}"


def exit_code(codes: Iterable[int]) -> int:
    """Return 0 if no job failed, 2 if all failures are the user's mistakes, else 1."""
    failures = {code for code in codes if code}
    return max(failures, default=0) if failures <= {2} else 1
