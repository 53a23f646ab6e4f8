"""How numbers are written for a reader: enough digits, and a unit that fits.

JSON and CSV files hold every digit, in fixed units.
"""

import math
from collections.abc import Iterator, Mapping

PLAIN = (1e-6, 1e9)
"""Sizes that are written without an exponent."""

Units = tuple[tuple[float, str], ...]

BYTES: Units = tuple(
    (2.0**power, name) for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))
)
FLOP: Units = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
TIME: Units = ((3600.0, "h"), (60.0, "min"))


def format_number(value: float, digits: int = 4) -> str:
    """Return `digits` significant digits, and all digits before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:g}"  # + 0.0: never "-0"
    if not PLAIN[0] <= abs(value) < PLAIN[1]:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{count_decimals(value, digits)}f}"


def count_decimals(value: float, digits: int) -> int:
    """Return how many digits after the point belong to the first `digits` of a finite value."""
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value
    return max(digits - 1 - exponent, 0)


def format_metric(value: float, sign: str = "-") -> str:
    """Return a metric with at least four significant digits, and at least four decimals.

    So an FID shows the last digits in which two machines differ, and a KID of 0.00009123 is not 0.
    With the sign "+" a value from 0 on has one too.
    """
    if not math.isfinite(value) or 0 < abs(value) < PLAIN[0]:
        return f"{value:{sign}.3e}"
    return f"{value + 0.0:{sign}.{max(count_decimals(value, 4), 4)}f}"


def align_points(texts: list[str]) -> list[str]:
    """Return numbers with their points below each other. Texts without one are right-aligned."""
    decimals = [len(text.partition(".")[2]) for text in texts]
    padded = [
        text + " " * (max(decimals) - count if "." in text else 0)
        for text, count in zip(texts, decimals, strict=True)
    ]
    width = max(map(len, padded))
    return [text.rjust(width) for text in padded]


def format_mean(mean: float, deviation: float | None) -> tuple[str, str]:
    """Return the mean, and the deviation to two significant digits; both end at one place.

    Without a deviation, the mean has four digits, and the second text is empty.
    """
    size, digits = (deviation, 2) if deviation else (mean, 4)
    decimals = min(count_decimals(size, digits), 9) if size and math.isfinite(size) else 2
    first = f"{round(mean, decimals) + 0.0:.{decimals}f}"
    return first, "" if deviation is None else f"{deviation:.{decimals}f}"


def format_rate(per_second: float) -> str:
    """Return a speed in whole numbers, 1,740, or in three digits if it is below 100."""
    return f"{per_second:,.0f}" if per_second >= 99.95 else format_number(per_second, 3)


def format_share(share: float) -> str:
    """Return a share in percent, to three digits."""
    return f"{format_number(100 * share, 3)}%"


def format_bytes(count: float) -> str:
    """Return 1.25 GiB, 356 MiB."""
    return in_units(count, BYTES, "B", 3)


def format_flop(flop: float) -> str:
    """Return floating-point operations: 9.07 GFLOP. With "/s" after it, a speed."""
    return in_units(flop, FLOP, "FLOP", 3)


def format_time(seconds: float) -> str:
    """Return what something costs, in one unit and to two digits: 4.4 min, 33 min, 45 s."""
    return in_units(seconds, TIME, "s", 2)


def in_units(value: float, units: Units, smallest: str, digits: int) -> str:
    """Return a value in the largest of these units that it reaches, rounded."""
    for size, name in units:
        if float(f"{value / size:.{digits - 1}e}") >= 1:
            return f"{format_number(value / size, digits)} {name}"
    return f"{format_number(value, digits)} {smallest}"


def format_duration(seconds: float) -> str:
    """Return seconds in their two largest units: 3 h 5 min, 42 s, 0.4 s."""
    if 0 < seconds < 0.95:
        return f"{format_number(seconds, 1)} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{hours} h {m} min"
    return f"{m} min {s} s" if m else f"{s} s"


def name_nonfinite(record: object) -> list[str]:
    """Return where a record of mappings and lists has numbers that are not finite: a.b.3"""

    def walk(value: object, name: str) -> Iterator[str]:
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        else:
            if isinstance(value, float) and not math.isfinite(value):
                yield name
            return
        for key, each in items:
            yield from walk(each, f"{name}.{key}" if name else str(key))

    return list(walk(record, ""))
