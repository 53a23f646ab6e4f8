"""Compare rows with each other and with published numbers."""

from collections.abc import Sequence

from crgan_cli.report.model import Comparison, Row
from crgan_cli.report.statistics import compare_rows, describe_published
from crgan_cli.runs.metric_names import higher_is_better
from crgan_cli.runs.status import Status

PAPERS_PROTOCOL = {"num_samples": 10000, "num_real": 10000, "reference_split": "test"}
"""The papers' CIFAR-10 tables: FID of 10,000 images against the 10,000 test images."""


def format_published(row: Row, metric: str) -> str:
    """Return the published FID next to ours, compared only if both have the same protocol."""
    fid = row.runs[0].published.get("fid")
    if not isinstance(fid, int | float):
        return ""
    if comparable_published(row, metric) is None:
        return f"{fid:g} (protocol differs)" if row.numbers else f"{fid:g}"
    return describe_published(row.numbers["fid"], fid)


def comparable_published(row: Row, metric: str) -> float | None:
    """Return the published FID if ours has the papers' protocol."""
    fid = row.runs[0].published.get("fid")
    protocol = next((run.protocol for run in row.runs if run.protocol), {})
    same = all(protocol.get(key) == value for key, value in PAPERS_PROTOCOL.items())
    if metric == "fid" and same and metric in row.numbers and isinstance(fid, int | float):
        return float(fid)
    return None


def ranking_key(row: Row, metric: str) -> tuple[int, float]:
    """Return the sorting key: best first, then unfinished rows, then rows without the metric."""
    if metric not in row.numbers:
        return 2, 0.0
    mean = row.numbers[metric].mean
    unfinished = all(run.status != Status.FINISHED for run in row.shown)
    return int(unfinished), -mean if higher_is_better(metric) else mean


def compare_to_best(rows: Sequence[Row], metric: str) -> tuple[Comparison, ...]:
    """Compare every other row that has the metric with the first one."""
    able = [row for row in rows if metric in row.numbers]
    return tuple(compare_rows(able[0], row, metric) for row in able[1:])


def add_note(row: Row, comparison: str) -> Row:
    """Add the result of its comparison to a row's note, and its steps if there are several."""
    steps = f"at steps {', '.join(map(str, row.steps))}" if len(row.steps) > 1 else ""
    return row._replace(note="; ".join(filter(None, (row.note, steps, comparison))))
