"""How far the jobs of a sweep are: a live table on a terminal, and lines for a log."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.runs.jsonl import is_metrics_line, parse_line
from crgan_cli.runs.status import Status
from crgan_cli.system.captured_lines import captured_lines, copy_terminal
from crgan_cli.system.numbers import format_duration, format_number, format_rate
from crgan_cli.system.progress import hide_live_lines
from crgan_cli.system.streams import STDERR, STDOUT

LINES_READ = 4096
"""Bytes read at the end of metrics.jsonl."""


SUMMARY_ORDER = (
    Status.FINISHED,
    Status.SKIPPED,
    Status.RUNNING,
    Status.FAILED,
    Status.INTERRUPTED,
    Status.NOT_STARTED,
)


class RunProgress(NamedTuple):
    """How far a run is, according to its metrics.jsonl."""

    step: int = 0
    per_second: float = 0.0  # steps
    metric: str = ""  # value of the newest evaluation
    images_per_second: float = 0.0


def read_progress(run: Path) -> RunProgress:
    """Read a run's progress from the end of its log. Cheap for a log of any length."""
    step, metric, steps, images = 0, "", 0.0, 0.0
    before = (0, 0.0)  # step and images seen of the line before: steps of one stage show as many
    for line in read_last_lines(run / "metrics.jsonl"):
        step = int(line.get("step", step))
        if line.get("kind") == "eval":
            name = next((key for key in line if key.startswith(("fid", "fd"))), "")
            metric = format_number(line[name]) if name else ""
        elif line.get("images_seen"):
            images, seen = line.get("speed/images_per_second", 0.0), line["images_seen"]
            steps = images * (step - before[0]) / (seen - before[1]) if seen > before[1] else steps
            before = step, seen
    return RunProgress(step, steps, metric, images)


def read_last_lines(path: Path) -> list[dict]:
    """Return the complete lines at the end of a JSONL file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LINES_READ, 0))
            texts = file.read().split(b"\n")[:-1]
    except OSError:
        return []
    found = (parse_line(text, is_metrics_line) for text in texts)  # the first is often cut off
    return [line for line in found if line is not None]


@contextmanager
def live_table(state: SweepState, steps: int) -> Iterator[None]:
    """Show a live table of the jobs while the body runs, if stderr is a terminal.

    What is written to the terminal meanwhile, by the processes of the jobs too, is above the table.
    """
    if not Console(stderr=True).is_terminal:
        yield
        return
    began = time.monotonic()
    with copy_terminal(STDERR, sys.stderr) as terminal:  # type: ignore[arg-type]  # is a terminal
        console = Console(file=terminal)
        tabled = [STDERR, *([STDOUT] if sys.stdout.isatty() else [])]  # a file stays one
        with (
            hide_live_lines(),
            Live(
                console=console,
                get_renderable=lambda: make_table(state, steps, time.monotonic() - began),
                refresh_per_second=1,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            ),
            captured_lines(tabled, lambda line: console.print(Text.from_ansi(line))),
        ):
            yield


def make_table(state: SweepState, steps: int, seconds: float) -> Table:
    """Return a table of the last 20 jobs."""
    jobs = state.jobs()
    progress = {job: read_progress(state.folder / job.folder) for job in jobs[-20:]}
    title = summarize(state, jobs, seconds)
    if speed := sum(
        now.images_per_second for job, now in progress.items() if job.status == Status.RUNNING
    ):
        title += f"; {format_rate(speed)} images/s together"
    table = Table(title=title, title_justify="left", box=None, expand=True)
    for column in ("job", "settings", "state", "step", "metric", "time left"):
        table.add_column(column, justify="right" if column in ("step", "metric") else "left")
    for job, now in progress.items():
        running = job.status == Status.RUNNING
        left = (steps - now.step) / now.per_second if running and now.per_second else None
        table.add_row(
            str(job.number),
            escape(job.name),
            f"{job.status} early" if job.early else job.status,
            f"{now.step} / {steps}",
            format_number(job.value) if job.value is not None else now.metric,
            format_duration(left) if left is not None else "",
        )
    return table


def summarize(state: SweepState, jobs: Sequence[SweepJob], seconds: float) -> str:
    """Return how many jobs have which status, and about how long the rest will take, as text."""
    counts = Counter(job.status for job in jobs)
    parts = [f"{counts[status]} {status}" for status in SUMMARY_ORDER if counts[status]]
    total = f" of {state.total}" if state.total else ""
    ended = [job for job in jobs if job.status in (Status.FINISHED, Status.FAILED)]
    waiting = (state.total or len(jobs)) - len(jobs)
    if waiting:
        time_left = f", about {format_duration(seconds / len(ended) * waiting)}" if ended else ""
        parts.append(f"{waiting} to come{time_left}")
    return f"{len(jobs)}{total} jobs: {', '.join(parts)}"


def format_finished(job: SweepJob, state: SweepState) -> str:
    """Return the line that reports a job that has ended well."""
    value = "" if job.value is None else f", {format_number(job.value)}"
    jobs = state.jobs()
    spent = sum(each.seconds for each in jobs)
    early = f" early, at step {job.early}," if job.early else ""
    ended = f"{job.status}{early} in {format_duration(job.seconds)}{value}"
    return f"job {job.number} ({job.name}) {ended}; {summarize(state, jobs, spent)}"
