"""Numbers over steps, averaged over the seeds of a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from crgan_cli.report.model import Line

Piece = tuple[list[float], list[float]]
"""Steps and values of one seed."""


class Series(NamedTuple):
    """A number over steps: mean, lowest and highest seed. It is false if it is empty.

    The mean is over the steps that all seeds have reached, since it would jump if a seed came or
    went. What a seed has before and after is `alone`, and begins or ends on the band.
    """

    steps: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]
    alone: tuple[Piece, ...] = ()
    seeds: int = 0
    interpolated: bool = False  # whether a seed counts by a straight line between its steps

    def __bool__(self) -> bool:
        return bool(self.steps or self.alone)

    @property
    def is_curve(self) -> bool:
        """Whether there is more than one evaluation."""
        return max(map(len, (self.steps, *(steps for steps, _ in self.alone))), default=0) > 1

    @property
    def values(self) -> list[float]:
        """All values that are drawn."""
        return [*self.lows, *self.highs, *(value for _, values in self.alone for value in values)]

    def describe_alone(self) -> str:
        """Return which part is not of all seeds, as text; "" if none."""
        if not self.steps:
            return f"its {self.seeds} seeds have no step in common" if self.alone else ""
        later = sum(steps[-1] > self.steps[-1] for steps, _ in self.alone)
        earlier = len(self.alone) - later
        parts = (
            f"{earlier} of {self.seeds} seeds before step {self.steps[0]:.0f}" if earlier else "",
            f"{later} of {self.seeds} seeds after step {self.steps[-1]:.0f}" if later else "",
        )
        return ", ".join(filter(None, parts))


def get_values(lines: Sequence[Line], key: str) -> dict[float, float]:
    """Return step -> value of one run, for finite values."""
    values = {line["step"]: line.get(key) for line in lines if "step" in line}
    return {
        step: float(value)
        for step, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def average_over_seeds(
    logs: Iterable[Sequence[Line]], key: str, *, points: int | None = None
) -> Series:
    """Return the series over the runs that have the number.

    A run that has no value at a step of another one counts there by the straight line between its
    neighbouring values. If a run has more than `points` values, all are first averaged over the
    `points` equal intervals of the longest run.
    """
    runs = [values for log in logs if (values := get_values(log, key))]
    if not runs:
        return Series([], [], [], [])
    last = max(map(max, runs))
    if points is not None and last > 0 and any(len(values) > points for values in runs):
        runs = [average_intervals(values, last, points) for values in runs]
    start, end = max(map(min, runs)), min(map(max, runs))
    steps = sorted({step for values in runs for step in values if start <= step <= end})
    table = [np.interp(steps, *split_sorted(values)).tolist() for values in runs]
    seeds = list(zip(*table, strict=True))
    return Series(
        steps,
        list(map(fmean, seeds)),
        list(map(min, seeds)),
        list(map(max, seeds)),
        tuple(piece for values in runs for piece in pieces_outside(values, start, end)),
        len(runs),
        any(step not in values for values in runs for step in steps),
    )


def split_sorted(values: Mapping[float, float]) -> Piece:
    """Return the steps in order, and their values."""
    steps = sorted(values)
    return steps, [values[step] for step in steps]


def pieces_outside(values: Mapping[float, float], start: float, end: float) -> list[Piece]:
    """Return a run's values up to `start` and from `end` on, if it has more than those of all."""
    if start > end:
        return [split_sorted(values)]
    before = {step: value for step, value in values.items() if step < start}
    after = {step: value for step, value in values.items() if step > end}
    own = split_sorted(values)
    return [
        split_sorted({**part, edge: float(np.interp(edge, *own))})
        for part, edge in ((before, start), (after, end))
        if part
    ]


def average_intervals(
    values: Mapping[float, float], last: float, points: int
) -> dict[float, float]:
    """Return step -> mean over the interval that ends there, of `points` from 0 to `last`.

    The last interval of a run that ends within it ends with the run.
    """
    intervals: dict[int, list[float]] = {}
    for step, value in values.items():
        intervals.setdefault(math.ceil(step * points / last), []).append(value)
    end = max(values)
    return {min(last * i / points, end): fmean(each) for i, each in intervals.items()}
