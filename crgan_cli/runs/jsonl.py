"""Read and append JSON records, one per line. A damaged line costs only itself."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

IsValid = Callable[[Mapping[str, object]], bool]
"""Whether a record is one of this file, with values of the right types."""

Select = Callable[[list[bytes]], Sequence[bytes]]
"""Which of a file's lines to read."""


class Lines(NamedTuple):
    """What was read of a file."""

    records: list[dict]
    texts: list[bytes]  # their lines
    damaged: list[bytes]  # lines that hold no valid record


def read_lines(path: Path, is_valid: IsValid, select: Select = list) -> Lines:
    """Read a file; an absent one has no lines. Raises OSError.

    A last line without a newline that holds no record is no damage: a crash cut it short.
    """
    try:
        *whole, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Lines([], [], [])
    lines = [line for line in [*select(whole), last] if line.strip()]
    parsed = [(line, parse_line(line, is_valid)) for line in lines]
    return Lines(
        [record for _, record in parsed if record is not None],
        [line for line, record in parsed if record is not None],
        [line for line, record in parsed if record is None and line is not last],
    )


def parse_line(line: bytes, is_valid: IsValid) -> dict | None:
    """Return the record in a line. None if it holds none, or one that is not valid."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        return None
    return record if isinstance(record, dict) and is_valid(record) else None


def read_records(path: Path, is_valid: IsValid, select: Select = list) -> list[dict]:
    """Return a file's records, and log which lines were left out. Raises OSError."""
    records, _, damaged = read_lines(path, is_valid, select)
    if damaged:
        log.warning("%s: %s", path, describe_damaged(damaged))
    return records


def describe_damaged(lines: Sequence[bytes]) -> str:
    """Say which lines are left out."""
    first = ascii(lines[0][:60].decode("utf-8", "replace"))
    if len(lines) == 1:
        return f"a line that cannot be read is left out: {first}"
    return f"{len(lines)} lines that cannot be read are left out, the first: {first}"


def append_line(path: Path, text: str) -> None:
    """Append a line, after what a crash may have left of the last one. Raises OSError."""
    with open(path, "ab") as file:
        file.write(("" if is_new_line(path) else "\n").encode() + text.encode() + b"\n")


def is_new_line(path: Path) -> bool:
    """Whether what is appended to a file begins a line. A terminal or a pipe counts as one."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def is_metrics_line(record: Mapping[str, object]) -> bool:
    """Whether this is a record of metrics.jsonl: a kind, a step, and numbers."""
    return (
        isinstance(record.get("kind"), str)
        and isinstance(record.get("step"), int)
        and all(isinstance(value, int | float) for key, value in record.items() if key != "kind")
    )


def is_evaluation(record: Mapping[str, object]) -> bool:
    """Whether this is a record of evaluations.jsonl: numbers with their protocol."""
    return isinstance(record.get("protocol"), dict)
