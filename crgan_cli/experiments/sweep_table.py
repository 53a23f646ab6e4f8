"""The live table of a sweep on a terminal, and its lines in a log."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.system.progress import format_duration, hide_live_lines

LINES_READ = 4096
"""Bytes at the end of metrics.jsonl in which the newest line is looked for."""


class RunProgress(NamedTuple):
    """How far a run is, from its metrics.jsonl."""

    step: int = 0
    per_second: float = 0.0  # steps
    metric: str = ""  # value of the newest evaluation
    images_per_second: float = 0.0


def read_progress(run: Path) -> RunProgress:
    """Reads the end of a run's log; cheap, whatever its length."""
    step, metric, steps, images = 0, "", 0.0, 0.0
    for line in read_last_lines(run / "metrics.jsonl"):
        step = int(line.get("step", step))
        if line.get("kind") == "eval":
            name = next((key for key in line if key.startswith(("fid", "fd"))), "")
            metric = f"{line[name]:.4g}" if name else ""
        elif line.get("images_seen"):
            images = line.get("speed/images_per_second", 0.0)
            steps = images * step / line["images_seen"]
    return RunProgress(step, steps, metric, images)


def read_last_lines(path: Path) -> list[dict]:
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
def live_table(board: SweepState, steps: int) -> Iterator[None]:
    """A live table of the jobs on a terminal, while the block lasts; nothing anywhere else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    began = time.monotonic()
    with (
        hide_live_lines(),
        Live(
            console=console,
            get_renderable=lambda: make_table(board, steps, time.monotonic() - began),
            refresh_per_second=1,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else it belongs in the file it was sent to
        ),
    ):
        yield


def make_table(board: SweepState, steps: int, seconds: float) -> Table:
    """How each job stands; of many, those that run and the last that ended."""
    jobs = board.jobs()
    far = {job: read_progress(board.folder / job.folder) for job in jobs[-20:]}
    title = summarize(board, jobs, seconds)
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
            format_duration(left) if left is not None else "",
        )
    return table


def summarize(board: SweepState, jobs: Sequence[SweepJob], seconds: float) -> str:
    """How many jobs are in which state, and about how long the rest takes."""
    states = ["finished", "skipped", "running", "failed", "interrupted", "not started"]
    counts = {state: sum(job.status == state for job in jobs) for state in states}
    told = [f"{count} {state}" for state, count in counts.items() if count]
    total = f" of {board.total}" if board.total else ""
    ended = [job for job in jobs if job.status in ("finished", "failed")]
    waiting = (board.total or len(jobs)) - len(jobs)
    if waiting:
        time_left = f", about {format_duration(seconds / len(ended) * waiting)}" if ended else ""
        told.append(f"{waiting} to come{time_left}")
    return f"{len(jobs)}{total} jobs: {', '.join(told)}"


def format_finished(job: SweepJob, board: SweepState) -> str:
    """One line when a job has ended well."""
    value = "" if job.value is None else f", {job.value:.4g}"
    jobs = board.jobs()
    spent = sum(each.seconds for each in jobs)
    return f"{job.status} in {format_duration(job.seconds)}{value}; {summarize(board, jobs, spent)}"
