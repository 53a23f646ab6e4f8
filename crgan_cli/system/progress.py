"""Show progress: one live line on a terminal, plain log lines elsewhere."""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from crgan_cli.system.crowding import CrowdWatch
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.environment import SWEEP_TABLE_VAR, set_environment
from crgan_cli.system.numbers import format_duration, format_number, format_rate

log = logging.getLogger(__name__)
PLAIN_EVERY_SECONDS = 10.0
"""Least time between two plain lines."""

RECENT_SECONDS = 60.0
"""Training time over which the recent speed is a mean."""

MARK_SECONDS = 1.0
"""Least training time between two points of that mean."""

LOOK_SECONDS = 10.0
"""Least training time between two looks at what other processes do."""


def live_progress(columns: list[ProgressColumn]) -> Progress:
    """Make a live line on stderr. Off without a terminal, below a sweep's table, or off rank 0."""
    console = Console(stderr=True)
    off = not console.is_terminal or SWEEP_TABLE_VAR in os.environ or not is_main()
    return Progress(*columns, console=console, disable=off, transient=True)


def hide_live_lines() -> AbstractContextManager[None]:
    """Print no live and no plain lines while the block lasts: a table shows all progress."""
    return set_environment({SWEEP_TABLE_VAR: "1"})


class Mark(NamedTuple):
    """How much of a work was done at a time, which counts nothing but that work."""

    seconds: float
    done: int  # steps or images

    def speed_since(self, before: "Mark") -> float:
        """Return what was done per second."""
        return (self.done - before.done) / (self.seconds - before.seconds)


class LiveDisplay:
    """A live line that is shown inside a `with` block, or plain lines if there is no terminal.

    All long work has one, so here is where a crowded machine is noticed.
    """

    def __init__(self, columns: list[ProgressColumn], crowd: CrowdWatch | None) -> None:
        """`crowd` notices that others use the CPUs; None for work on other devices."""
        self.line = live_progress(columns)
        self.live = not self.line.disable or SWEEP_TABLE_VAR in os.environ
        self.crowd = crowd
        self.last_printed = time.monotonic()
        self.begin_work("", Mark(0.0, 0), self.last_printed)

    def __enter__(self) -> Self:
        self.line.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.line.stop()

    def claim_plain_line(self, now: float) -> bool:
        """Whether a plain line should be printed now. If so, the next one waits."""
        is_due = not self.live and now - self.last_printed >= PLAIN_EVERY_SECONDS
        if is_due:
            self.last_printed = now
        return is_due

    def begin_work(self, work: str, mark: Mark, now: float) -> None:
        """Start the first interval of some work in which others are looked at."""
        self.looked_work, self.looked, self.looked_at = work, mark, now
        if self.crowd:
            self.crowd.begin()

    def look_at_others(self, work: str, mark: Mark, now: float) -> None:
        """Say if others crowd the CPUs since the last look. `mark` is how far `work` is."""
        if work != self.looked_work or mark.done < self.looked.done:
            self.begin_work(work, mark, now)
        elif self.crowd and mark.seconds - self.looked.seconds >= LOOK_SECONDS:
            speed = mark.speed_since(self.looked)
            if notice := self.crowd.look(work, now - self.looked_at, speed):
                log.warning("%s", notice)
            self.looked, self.looked_at = mark, now


class EvalProgress(LiveDisplay):
    """The progress of what counts images, one kind of work after another."""

    def __init__(self, crowd: CrowdWatch | None, what: str = "scoring") -> None:
        columns = [TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        super().__init__(columns, crowd)
        self.bar = self.line.add_task("images", total=None)
        self.what = what
        self.done = self.total = self.works = 0
        self.began = self.shown = self.last_printed

    def show(self, done: int, total: int) -> None:
        """Show how many of all images are done, and the time left by the mean speed so far.

        Other work begins behind a whole one, or where the count falls.
        """
        now = time.monotonic()
        if done < self.done or self.done == self.total:
            self.began = self.shown
            self.works += 1
            self.line.reset(self.bar)
        self.done, self.total, self.shown = done, total, now
        self.line.update(self.bar, completed=done, total=total)
        if self.claim_plain_line(now):
            left = format_duration((now - self.began) / max(done, 1) * (total - done))
            log.info("%s: %d of %d, %s left", self.what, done, total, left)
        self.look_at_others(f"{self.what} {self.works}", Mark(now, done), now)


class TrainingProgress(LiveDisplay):
    """The step, images per second, the last metric and the time left, on stderr."""

    def __init__(
        self,
        steps: int,
        *,
        step: int,
        crowd: CrowdWatch | None,
        costs: Sequence[tuple[int, float]] = ((0, 1.0),),
    ) -> None:
        """`step`: where a resumed run starts. `costs`: how long a step takes from some step on, in
        any unit; the first from 0 on."""
        self.steps = steps
        self.costs = costs
        self.step = self.first = step
        self.metric = self.images_per_second = ""
        super().__init__(
            [
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TextColumn("{task.fields[left]}"),
            ],
            crowd,
        )
        self.restart(self.last_printed)
        self.bar = self.line.add_task("step", total=steps, completed=step, note="", left="")
        self.images = self.line.add_task("scoring", total=None, visible=False, note="", left="")

    def begin(self) -> None:
        """Start the clock: the time before does not count."""
        self.last_printed = time.monotonic()
        self.restart(self.last_printed)

    def restart(self, now: float) -> None:
        """Forget all time before now."""
        self.began, self.paused_seconds = now, 0.0
        self.marks = deque([Mark(0.0, self.step)])
        self.begin_work("steps", self.marks[0], now)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the body as training."""
        before = time.monotonic()
        yield
        self.paused_seconds += time.monotonic() - before

    def training_seconds(self) -> float:
        """Return the seconds since `begin`, without those in `paused`."""
        return time.monotonic() - self.began - self.paused_seconds

    def advance(self, step: int) -> None:
        """Show that a step is done. Cheap; call it after every step."""
        self.step = step
        self.line.update(self.bar, completed=step)
        now = time.monotonic()
        mark = Mark(self.training_seconds(), step)
        if mark.seconds - self.marks[-1].seconds >= MARK_SECONDS:
            self.marks.append(mark)
            while mark.seconds - self.marks[1].seconds >= RECENT_SECONDS:
                self.marks.popleft()
            self.line.update(self.bar, left=f"{self.time_left(mark)} left")
        if self.claim_plain_line(now):
            parts = [f"step {step} of {self.steps}", *self.note(), f"{self.time_left(mark)} left"]
            log.info("%s", ", ".join(parts))
        self.look_at_others("steps", mark, now)

    def note(self) -> list[str]:
        """Return the speed and the last metric, if known."""
        return [text for text in (self.images_per_second, self.metric) if text]

    def show_speed(self, images_per_second: float) -> None:
        """Show the mean speed of the last steps."""
        self.images_per_second = f"{format_rate(images_per_second)} images/s"
        self.line.update(self.bar, note=" ".join(self.note()))

    def time_left(self, mark: Mark) -> str:
        """Return the time left by the recent speed, and by the mean time of all else so far."""
        recent = self.marks[0]
        training = (mark.seconds - recent.seconds) / (self.work(recent.done, mark.done) or 1)
        pauses = self.paused_seconds / max(mark.done - self.first, 1)
        left = training * self.work(mark.done, self.steps) + pauses * (self.steps - mark.done)
        return format_duration(left)

    def work(self, first: int, end: int) -> float:
        """Return the cost of the steps from `first` to before `end`."""
        ends = [step for step, _ in self.costs[1:]] + [self.steps]
        parts = zip(self.costs, ends, strict=True)
        return sum(
            cost * max(min(end, last) - max(first, start), 0) for (start, cost), last in parts
        )

    def show_metric(self, name: str, value: float) -> None:
        """Show the result of an evaluation."""
        self.metric = f"{name} {format_number(value)}"

    def show_scoring(self, done: int, total: int) -> None:
        """Show an evaluation's images instead of the steps, until it is done."""
        self.line.update(self.images, visible=done < total, completed=done, total=total)
        self.line.update(self.bar, visible=done >= total)
        now = time.monotonic()
        self.look_at_others("scoring", Mark(now, done), now)
