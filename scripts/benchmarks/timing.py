"""How time is taken: by turns, with the device's work in it, and a word on whether to trust it.

What is compared is run in interleaved rounds (A B C A B C ...) in one process, so that a machine
that slows down slows all of them. The median of the rounds counts.
"""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

Work = Callable[[], object]

SPREAD = 0.25
"""Rounds that lie further apart than this share of their median prove nothing."""

FEWEST = 3
"""Rounds that say anything about their own spread."""


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds by part, each with the device's work in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Adds the time of the body."""
        wait(self.device)
        start = time.perf_counter()
        yield
        wait(self.device)
        self.seconds[part] += time.perf_counter() - start


def measure_seconds(work: Work, device: torch.device) -> float:
    """Of one call."""
    watch = Stopwatch(device)
    with watch.time("work"):
        work()
    return watch.seconds["work"]


class Round(NamedTuple):
    """One look at the clocks."""

    seconds: float  # on the device's own clock where it has one, else on the wall's
    cpu: float  # of all threads of this process


def time_round(work: Work, device: torch.device) -> Round:
    """One call, waited for."""
    wait(device)
    cpu = time.process_time()
    if device.type == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        wait(device)
        return Round(began.elapsed_time(ended) / 1e3, time.process_time() - cpu)
    start = time.perf_counter()
    work()
    return Round(time.perf_counter() - start, time.process_time() - cpu)


class Timing(NamedTuple):
    """What some rounds of the same work come to, in seconds a round."""

    median: float
    minimum: float
    cpu: float
    spread: float  # (longest - shortest) / median
    reliable: bool

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> "Timing":
        seconds = [each.seconds for each in rounds]
        middle = median(seconds)
        spread = (max(seconds) - min(seconds)) / middle
        trusted = spread <= SPREAD and len(seconds) >= FEWEST
        return cls(middle, min(seconds), median(each.cpu for each in rounds), spread, trusted)


def time_interleaved(
    works: Mapping[str, Work], device: torch.device, rounds: int
) -> dict[str, Timing]:
    """Each work once a round, in the same order. They are warm already."""
    looks: dict[str, list[Round]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            looks[name].append(time_round(work, device))
    return {name: Timing.of(found) for name, found in looks.items()}


def repeat(work: Work, times: int) -> Work:
    """The same work so many times."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def machine(device: torch.device) -> dict[str, str | int | float]:
    """What the times depend on."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "load_average": round(os.getloadavg()[0], 2),
    }


def heading(record: Mapping[str, object]) -> list[str]:
    """The conditions, as a list in Markdown."""
    return [f"- {key.replace('_', ' ')}: {short(value)}" for key, value in record.items()]


def short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown; None is a cell with nothing in it."""
    lines = [columns, ["---"] * len(columns)]
    cells = [["" if value is None else short(value) for value in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in [*lines, *cells]]
