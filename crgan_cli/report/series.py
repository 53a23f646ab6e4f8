"""Numbers over steps, of one run and over the seeds of a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Lines = Sequence[Mapping[str, float]]
"""What a run logged, by step."""


class Series(NamedTuple):
    """A number over steps: the mean over seeds, between the least and the greatest of them."""

    steps: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]

    def __bool__(self) -> bool:
        return bool(self.steps)


def get_values(lines: Lines, key: str) -> dict[float, float]:
    """Step -> value of one run, where it is a finite number."""
    found = {line["step"]: line.get(key) for line in lines if "step" in line}
    return {
        step: float(value)
        for step, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def average_over_seeds(logs: Iterable[Lines], key: str, *, points: int | None = None) -> Series:
    """The series over the runs that have the number.

    Only steps that all of those have reached: the mean would jump where one drops out. With more
    than `points` steps, each run is averaged over as many stretches of equal length first.
    """
    runs = [own for log in logs if (own := get_values(log, key))]
    last = min((max(own) for own in runs), default=0.0)
    if points is not None and last > 0 and any(len(own) > points for own in runs):
        runs = [average_stretches(own, last, points) for own in runs]
    steps = sorted(set.intersection(*(set(own) for own in runs))) if runs else []
    at = [[own[step] for own in runs] for step in steps]
    means = [math.fsum(each) / len(each) for each in at]
    return Series(steps, means, list(map(min, at)), list(map(max, at)))


def average_stretches(own: Mapping[float, float], last: float, points: int) -> dict[float, float]:
    """Step -> mean over the stretch that ends there; `points` stretches from 0 to `last`."""
    stretches: dict[int, list[float]] = {}
    for step, value in own.items():
        if step <= last:
            stretches.setdefault(math.ceil(step * points / last), []).append(value)
    return {last * i / points: math.fsum(each) / len(each) for i, each in stretches.items()}
