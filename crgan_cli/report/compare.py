"""Compare rows with each other."""

from collections.abc import Sequence

from crgan_cli.report.model import ChosenStep, Comparison, Row
from crgan_cli.report.statistics import compare_rows
from crgan_cli.runs.metric_names import higher_is_better
from crgan_cli.runs.status import Status


def ranking_key(row: Row, metric: str, step: ChosenStep) -> tuple[int, float]:
    """Return the sorting key: best first, then unfinished rows, then rows without the metric.

    At one step for all, rows whose runs go on count as well as others.
    """
    if metric not in row.numbers:
        return 2, 0.0
    mean = row.numbers[metric].mean
    going_on = all(run.status != Status.FINISHED for run in row.shown)
    unfinished = going_on and not isinstance(step, int)
    return int(unfinished), -mean if higher_is_better(metric) else mean


def compare_to_best(rows: Sequence[Row], metric: str) -> tuple[Comparison, ...]:
    """Compare every other row that has the metric with the best one of several seeds.

    One seed allows no test. Where fewer than two rows have several, it is the first row.
    """
    able = [row for row in rows if metric in row.numbers]
    several = [row for row in able if len(row.numbers[metric].values) > 1]
    if not able:
        return ()
    best = several[0] if len(several) > 1 else able[0]
    name = name_best(best.label, able)
    return tuple(compare_rows(best, row, metric, name) for row in able if row is not best)


def name_best(label: str, rows: Sequence[Row]) -> str:
    """Return what the row is called that others are compared with; a row of one seed may lead."""
    return "the best" if label == rows[0].label else "the best of several seeds"


def add_note(row: Row, comparison: str) -> Row:
    """Add the result of its comparison to a row's note, and its steps if there are several."""
    steps = f"at steps {', '.join(map(str, row.steps))}" if len(row.steps) > 1 else ""
    return row._replace(note="; ".join(filter(None, (row.note, steps, comparison))))
