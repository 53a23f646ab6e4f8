"""What a person watching sees: one live line on a terminal, plain lines anywhere else."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from crgan_cli.system.distributed.launch import is_main

log = logging.getLogger(__name__)
PLAIN_EVERY_SECONDS = 10.0
"""A log gets a line of progress at most this often, whatever the speed."""


SWEEP_TABLE_VAR = "CRGAN_TABLED"
"""Set while a sweep's table shows the progress of all jobs, also of those in other processes."""


def live_progress(columns: list[ProgressColumn]) -> Progress:
    """A live line on stderr, and nothing where that is no terminal or another stands there."""
    console = Console(stderr=True)
    off = not console.is_terminal or SWEEP_TABLE_VAR in os.environ or not is_main()
    return Progress(*columns, console=console, disable=off, transient=True)


@contextmanager
def hide_live_lines() -> Iterator[None]:
    """A table shows all progress while the block lasts: no live lines, no plain ones."""
    os.environ[SWEEP_TABLE_VAR] = "1"
    try:
        yield
    finally:
        del os.environ[SWEEP_TABLE_VAR]


class LiveDisplay:
    """Something with a live line, which is there while a `with` block lasts."""

    line: Progress

    def __enter__(self) -> Self:
        self.line.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.line.stop()


class EvalProgress(LiveDisplay):
    """The progress of an evaluation on its own."""

    def __init__(self, what: str = "scoring") -> None:
        self.line = live_progress(
            [TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        )
        self.bar = self.line.add_task("images", total=None)
        self.what = what
        self.live = not self.line.disable or SWEEP_TABLE_VAR in os.environ
        self.last_printed = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Images scored, of all."""
        self.line.update(self.bar, completed=done, total=total)
        now = time.monotonic()
        if not self.live and now - self.last_printed >= PLAIN_EVERY_SECONDS:
            self.last_printed = now
            log.info("%s: %d of %d", self.what, done, total)


class TrainingProgress(LiveDisplay):
    """Shows the step, images per second, the time left and the last metric, on stderr."""

    def __init__(self, steps: int, *, step: int) -> None:
        """`step` is where a resumed run goes on."""
        self.steps = steps
        self.step = self.first = step
        self.began = self.last_printed = time.monotonic()
        self.metric = self.images_per_second = ""
        self.line = live_progress(
            [
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            ]
        )
        self.live = not self.line.disable or SWEEP_TABLE_VAR in os.environ
        self.bar = self.line.add_task("step", total=steps, completed=step, note="")
        self.images = self.line.add_task("scoring", total=None, visible=False, note="")

    def begin(self) -> None:
        """Training starts now: the time before does not count."""
        self.began = self.last_printed = time.monotonic()

    def advance(self, step: int) -> None:
        """After every step; cheap."""
        self.step = step
        self.line.update(self.bar, completed=step)
        now = time.monotonic()
        if not self.live and now - self.last_printed >= PLAIN_EVERY_SECONDS:
            self.last_printed = now
            told = [f"step {step} of {self.steps}", *self.note(), f"{self.time_left(now)} left"]
            log.info("%s", ", ".join(told))

    def note(self) -> list[str]:
        """The speed and the last metric, as far as they are known."""
        return [text for text in (self.images_per_second, self.metric) if text]

    def speed(self, images_per_second: float) -> None:
        """After every window of steps."""
        self.images_per_second = f"{images_per_second:.0f} images/s"
        self.line.update(self.bar, note=" ".join(self.note()))

    def time_left(self, now: float) -> str:
        """The time left, from the mean speed so far with all samples and metrics in it."""
        seconds = (now - self.began) / max(self.step - self.first, 1) * (self.steps - self.step)
        return format_duration(seconds)

    def scored(self, name: str, value: float) -> None:
        """After an evaluation."""
        self.metric = f"{name} {value:.4g}"

    def scoring(self, done: int, total: int) -> None:
        """During an evaluation: the line shows its images instead of the steps."""
        self.line.update(self.images, visible=done < total, completed=done, total=total)
        self.line.update(self.bar, visible=done >= total)


def format_duration(seconds: float) -> str:
    """Seconds in the two largest units that fit: 3 h 5 min, 42 s."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{hours} h {m} min"
    return f"{m} min {s} s" if m else f"{s} s"
