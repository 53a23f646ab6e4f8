"""Numbers over steps, averaged over the seeds of a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from crgan_cli.report.model import Line


class Series(NamedTuple):
    """A number over steps: mean, lowest and highest seed. It is false if it is empty."""

    steps: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]

    def __bool__(self) -> bool:
        return bool(self.steps)


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

    It ends where the first run ends: the mean would jump if a run dropped out. Runs with more than
    `points` values are first averaged over `points` intervals of equal length.
    """
    runs = [values for log in logs if (values := get_values(log, key))]
    last = min((max(values) for values in runs), default=0.0)
    if points is not None and last > 0 and any(len(values) > points for values in runs):
        runs = [average_intervals(values, last, points) for values in runs]
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    seeds = [[values[step] for values in runs] for step in steps]
    return Series(steps, list(map(fmean, seeds)), list(map(min, seeds)), list(map(max, seeds)))


def average_intervals(
    values: Mapping[float, float], last: float, points: int
) -> dict[float, float]:
    """Return step -> mean over the interval that ends there, of `points` from 0 to `last`."""
    intervals: dict[int, list[float]] = {}
    for step, value in values.items():
        if step <= last:
            intervals.setdefault(math.ceil(step * points / last), []).append(value)
    return {last * i / points: fmean(each) for i, each in intervals.items()}
