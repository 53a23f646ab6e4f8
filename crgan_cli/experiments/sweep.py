"""A sweep while it runs: how its jobs stand, which device each has, and what came of them.

Everything is read from and written to files in the sweep's folder, so that it makes no difference
whether the jobs run one after another, in other processes (joblib) or on other machines (submitit).
Free of torch: it runs beside the jobs.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.table import Table

from crgan_cli.system.atomic import write_text
from crgan_cli.system.progress import duration, one_table

FOLDER = ".sweep"
"""In the sweep's folder: a file for each job of the newest start, and the devices' locks."""

LINES_READ = 4096
"""Bytes at the end of metrics.jsonl in which the newest line is looked for."""


class Job(NamedTuple):
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


class Throughput(NamedTuple):
    """What one start of a sweep has trained, all jobs together."""

    jobs: int  # that trained to their end
    others: int  # skipped, failed or not started: they count for nothing
    side_by_side: int  # jobs at most at one time
    seconds: float  # from the start of the first job to the end of the last, set-up included
    images: int  # real images that D was shown
    images_per_second: float  # images / seconds
    of_a_job: float  # images/s while it trained, the mean over the jobs


class Board:
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

    def write(self, job: Job) -> None:
        """How a job stands now."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / f"{job.number}.json", json.dumps(job._asdict()) + "\n")

    def jobs(self) -> list[Job]:
        """All jobs that have begun, by number; a file that is being written is left out."""
        found = []
        for file in self.path.glob("[0-9]*.json"):
            with suppress(OSError, ValueError, TypeError):
                found.append(Job(**json.loads(file.read_text(encoding="utf-8"))))
        return sorted(found)

    def end(self, seconds: float) -> None:
        """Writes down what the jobs have trained in the seconds since the sweep was started."""
        trained = throughput(self.jobs(), seconds)
        write_text(self.path / "throughput.json", json.dumps(trained._asdict(), indent=2) + "\n")

    def throughput(self) -> Throughput | None:
        """What `end` wrote; None where that is nothing."""
        with suppress(OSError, ValueError, TypeError):
            found = Throughput(**json.loads((self.path / "throughput.json").read_text("utf-8")))
            return found if found.images else None
        return None

    def stop(self) -> None:
        """No further job is to start."""
        (self.path / "stop").touch()

    @property
    def stopped(self) -> bool:
        """Whether a job has said so."""
        return (self.path / "stop").exists()

    @contextmanager
    def device(self, count: int, per_device: int) -> Iterator[int]:
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


def throughput(jobs: Sequence[Job], seconds: float) -> Throughput:
    """Of the jobs that finished in a start of the sweep, which took so many seconds."""
    counted = [job for job in jobs if job.status == "finished" and job.images]
    images = sum(job.images for job in counted)
    speeds = [job.images / job.training for job in counted if job.training > 0]
    return Throughput(
        jobs=len(counted),
        others=len(jobs) - len(counted),
        side_by_side=most_at_once([(job.began, job.ended) for job in counted]),
        seconds=round(seconds, 1),
        images=images,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        of_a_job=sum(speeds) / len(speeds) if speeds else 0.0,
    )


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many of the spans of time overlap at most; one that begins as another ends does not."""
    changes = sorted((when, up) for span in spans for when, up in zip(span, (1, -1), strict=True))
    return max(accumulate(up for _, up in changes), default=0)


def told(trained: Throughput) -> str:
    """A start's throughput in one line."""
    jobs = f"{trained.jobs} job{'s' * (trained.jobs != 1)}"
    others = f"; {trained.others} more trained nothing to its end" if trained.others else ""
    return (
        f"{jobs} trained in {duration(trained.seconds)}, at most {trained.side_by_side} side by "
        f"side: {trained.images_per_second:.4g} images/s together, {trained.of_a_job:.4g} images/s "
        f"a job on average{others}"
    )


class Progress(NamedTuple):
    """How far a run is, from its metrics.jsonl."""

    step: int = 0
    per_second: float = 0.0  # steps
    metric: str = ""  # value of the newest evaluation
    images_per_second: float = 0.0


def progress_of(run: Path) -> Progress:
    """Reads the end of a run's log; cheap, whatever its length."""
    step, metric, steps, images = 0, "", 0.0, 0.0
    for line in last_lines(run / "metrics.jsonl"):
        step = int(line.get("step", step))
        if line.get("kind") == "eval":
            name = next((key for key in line if key.startswith(("fid", "fd"))), "")
            metric = f"{line[name]:.4g}" if name else ""
        elif line.get("images_seen"):
            images = line.get("speed/images_per_second", 0.0)
            steps = images * step / line["images_seen"]
    return Progress(step, steps, metric, images)


def last_lines(path: Path) -> list[dict]:
    """The whole lines at the end of a JSONL file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LINES_READ, 0))
            texts = file.read().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for text in texts:
        with suppress(ValueError):  # the first is cut off, as a rule
            found.append(json.loads(text))
    return [line for line in found if isinstance(line, dict)]


@contextmanager
def shown(board: Board, steps: int) -> Iterator[None]:
    """A live table of the jobs on a terminal, while the block lasts; nothing anywhere else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    began = time.monotonic()
    with (
        one_table(),
        Live(
            console=console,
            get_renderable=lambda: table_of(board, steps, time.monotonic() - began),
            refresh_per_second=1,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else it belongs in the file it was sent to
        ),
    ):
        yield


def table_of(board: Board, steps: int, seconds: float) -> Table:
    """How each job stands; of many, those that run and the last that ended."""
    jobs = board.jobs()
    far = {job: progress_of(board.folder / job.folder) for job in jobs[-20:]}
    title = summary(board, jobs, seconds)
    if speed := sum(now.images_per_second for job, now in far.items() if job.status == "running"):
        title += f"; {speed:.4g} images/s together"
    table = Table(title=title, title_justify="left", box=None, expand=True)
    for column in ("job", "settings", "state", "step", "metric", "time left"):
        table.add_column(column, justify="right" if column in ("step", "metric") else "left")
    for job, now in far.items():
        running = job.status == "running"
        left = (steps - now.step) / now.per_second if running and now.per_second else None
        table.add_row(
            str(job.number),
            job.name,
            job.status,
            f"{now.step} / {steps}",
            f"{job.value:.4g}" if job.value is not None else now.metric,
            duration(left) if left is not None else "",
        )
    return table


def summary(board: Board, jobs: Sequence[Job], seconds: float) -> str:
    """How many jobs are in which state, and about how long the rest takes."""
    states = ["finished", "skipped", "running", "failed", "interrupted", "not started"]
    counts = {state: sum(job.status == state for job in jobs) for state in states}
    told = [f"{count} {state}" for state, count in counts.items() if count]
    total = f" of {board.total}" if board.total else ""
    ended = [job for job in jobs if job.status in ("finished", "failed")]
    waiting = (board.total or len(jobs)) - len(jobs)
    if waiting:
        time_left = f", about {duration(seconds / len(ended) * waiting)}" if ended else ""
        told.append(f"{waiting} to come{time_left}")
    return f"{len(jobs)}{total} jobs: {', '.join(told)}"


def said_of(job: Job, board: Board) -> str:
    """One line when a job has ended well."""
    value = "" if job.value is None else f", {job.value:.4g}"
    jobs = board.jobs()
    spent = sum(each.seconds for each in jobs)
    return f"{job.status} in {duration(job.seconds)}{value}; {summary(board, jobs, spent)}"


def unfinished(folder: Path) -> str:
    """What the newest start of the sweep in a folder has not brought to an end; "" for nothing."""
    board = Board(folder)
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


def exit_code(jobs: Sequence[Job]) -> int:
    """0 where nothing failed, 2 where all failures are the user's mistakes, else 1."""
    codes = [job.code for job in jobs if job.status == "failed"]
    if not codes:
        return 0
    return 2 if all(code == 2 for code in codes) else 1
