"""Rows beside each other, and beside published numbers."""

from collections.abc import Sequence

from crgan_cli.report.model import Comparison, Row
from crgan_cli.report.statistics import compare_rows, describe_published, higher_is_better


def format_published(row: Row, metric: str) -> str:
    """The published FID beside ours. It is compared only where the protocols are one.

    The papers' CIFAR-10 tables: FID of 10,000 images against the 10,000 test images.
    """
    fid = row.runs[0].published.get("fid")
    if not isinstance(fid, int | float):
        return ""
    if comparable_published(row, metric) is None:
        return f"{fid:g} (protocol differs)" if row.numbers else f"{fid:g}"
    return describe_published(row.numbers["fid"], fid)


def comparable_published(row: Row, metric: str) -> float | None:
    """The published FID, where ours is of the papers' protocol."""
    fid = row.runs[0].published.get("fid")
    protocol = next((run.protocol for run in row.runs if run.protocol), {})
    papers = {"num_samples": 10000, "num_real": 10000, "reference_split": "test"}
    same = all(protocol.get(key) == value for key, value in papers.items())
    if metric == "fid" and same and metric in row.numbers and isinstance(fid, int | float):
        return float(fid)
    return None


def ranking_key(row: Row, metric: str) -> tuple[int, float]:
    """Best first; then rows of which no run has finished, then those without the number."""
    if metric not in row.numbers:
        return 2, 0.0
    mean = row.numbers[metric].mean
    unfinished = all(run.status != "finished" for run in row.runs)
    return int(unfinished), -mean if higher_is_better(metric) else mean


def compare_to_best(rows: Sequence[Row], metric: str) -> tuple[Comparison, ...]:
    """The best row beside each other that has the number."""
    able = [row for row in rows if metric in row.numbers]
    return tuple(compare_rows(able[0], row, metric) for row in able[1:])


def add_note(row: Row, words: str) -> Row:
    """The row with what its comparison came to, and with the steps where they are several."""
    said = [row.note, f"at steps {', '.join(map(str, row.steps))}" if len(row.steps) > 1 else ""]
    return row._replace(note="; ".join(part for part in (*said, words) if part))
