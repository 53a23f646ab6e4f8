"""Build a report from runs: one row per setting, over its seeds, best row first."""

import math
from collections import Counter
from collections.abc import Sequence

from crgan_cli.config.resolve import format_setting
from crgan_cli.errors import UserError
from crgan_cli.report.compare import add_note, compare_to_best, ranking_key
from crgan_cli.report.model import ChosenStep, Line, Report, Row, RunFiles, Spread, Value
from crgan_cli.report.notes import describe_row
from crgan_cli.report.protocols import protocol_warning, unique_protocols
from crgan_cli.report.published import comparable_published, format_published
from crgan_cli.report.settings import (
    Settings,
    find_row_settings,
    find_swept_key,
    identifying_settings,
    make_row_title,
    shorten_names,
)
from crgan_cli.report.statistics import mean_and_std
from crgan_cli.runs.metric_names import higher_is_better
from crgan_cli.runs.status import Status

NOT_METRICS = ("step", "images_seen")
"""Keys of a line of metrics.jsonl that are not metrics."""


def build_report(
    runs: Sequence[RunFiles],
    *,
    step: ChosenStep = "last",
    metric: str | None = None,
    force: bool = False,
    title: str = "crgan report",
) -> Report:
    """Compare runs by `metric`, or by their protocol's primary metric, at the last, best or a step.

    Raises UserError if no run has the metric, or none at this step, or, unless `force`, if the
    numbers were measured by different protocols.
    """
    headline = metric or find_primary_metric(runs)
    if headline not in (known := list_metrics(runs)):
        raise UserError(
            f"--metric {headline}: no run has this metric. Choose one of: {', '.join(known)}."
        )
    require_measured_at(step, runs, headline)
    warnings = [
        *protocol_warning(runs, force=force),
        *describe_failures(runs),
        *describe_nonfinite(runs),
    ]
    groups = group_by_settings(runs)
    table, varied = find_row_settings([group[0] for group in groups])
    names = shorten_names(varied, runs)
    rows = []
    for group, settings in zip(groups, table, strict=True):
        single, repeated = one_per_seed(group, headline)
        warnings += repeated
        label = " ".join(f"{names[key]}={format_setting(value)}" for key, value in settings.items())
        by = choose_metric(single, headline)
        rows.append(build_row(label or make_row_title(group[0]), settings, single, by, step))
    rows.sort(key=lambda row: ranking_key(row, headline, step))
    comparisons = compare_to_best(rows, headline)
    words = {each.other: each.words for each in comparisons}
    return Report(
        title=title,
        headline=headline,
        step=step,
        rows=tuple(add_note(row, words.get(row.label, "")) for row in rows),
        varied=varied,
        swept=find_swept_key(varied, table),
        comparisons=comparisons,
        protocols=unique_protocols([run.protocol for run in runs if run.protocol and run.evals]),
        warnings=tuple(warnings),
    )


# --- which metric ---------------------------------------------------------------------------------


def find_primary_metric(runs: Sequence[RunFiles]) -> str:
    """Return the primary metric of most runs. Raises UserError if none has one."""
    names = Counter(run.headline for run in runs if run.headline)
    if not names:
        raise UserError(
            "no run has a metric that can choose the best step. Give one with --metric: "
            f"{', '.join(list_metrics(runs))}."
        )
    return names.most_common(1)[0][0]


def choose_metric(runs: Sequence[RunFiles], headline: str) -> str:
    """Return the metric that chooses the step of a row.

    It is the row's own primary metric if the row lacks the report's, as with --force.
    """
    if any(headline in line for run in runs for line in run.evals):
        return headline
    return next((run.headline for run in runs if run.headline), headline)


def require_measured_at(step: ChosenStep, runs: Sequence[RunFiles], metric: str) -> None:
    """Raise UserError if no run was measured at this step."""
    steps = sorted({int(line["step"]) for run in runs for line in run.evals if metric in line})
    if isinstance(step, int) and step not in steps:
        below, above = [each for each in steps if each < step], [s for s in steps if s > step]
        near = " and ".join(map(str, [*below[-1:], *above[:1]]))
        raise UserError(
            f"--step {step}: no run has {metric} at this step. The nearest evaluations are at "
            f"{near}, from {steps[0]} to {steps[-1]} in all."
        )


def list_metrics(runs: Sequence[RunFiles]) -> list[str]:
    """Return the names of all metrics, in the order of the runs."""
    names = dict.fromkeys(name for run in runs for line in run.evals for name in line)
    return [name for name in names if name not in NOT_METRICS]


def describe_failures(runs: Sequence[RunFiles]) -> list[str]:
    """Return one line per run that failed or was interrupted."""
    return [
        f"{run.path} {run.status} at step {run.step} of {run.steps}"
        + (f": {run.error}" if run.error else "")
        for run in runs
        if run.status in (Status.FAILED, Status.INTERRUPTED)
    ]


def describe_nonfinite(runs: Sequence[RunFiles]) -> list[str]:
    """Return one line per run whose files hold numbers that are not finite."""
    return [
        f"{run.path} holds numbers that are not finite, which count nowhere: "
        + ", ".join(run.not_finite[:3])
        + (f" and {len(run.not_finite) - 3} more" if len(run.not_finite) > 3 else "")
        for run in runs
        if run.not_finite
    ]


# --- rows -----------------------------------------------------------------------------------------


def group_by_settings(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    """Group the runs that differ only in keys of `NOT_COMPARED`, in the order of the runs."""
    groups: dict[frozenset[tuple[str, Value]], list[RunFiles]] = {}
    for run in runs:
        groups.setdefault(frozenset(identifying_settings(run.config).items()), []).append(run)
    return list(groups.values())


def one_per_seed(group: Sequence[RunFiles], metric: str) -> tuple[list[RunFiles], list[str]]:
    """Return the run of each seed that got furthest, and one warning per other run.

    The same seed again gives the same numbers, which are no further evidence.
    """
    furthest: dict[int, RunFiles] = {}
    for run in sorted(group, key=lambda run: progress_key(run, metric), reverse=True):
        furthest.setdefault(run.seed, run)
    repeated = [
        f"{run.path} repeats {furthest[run.seed].path} (the same settings and seed {run.seed}) and "
        f"is left out{describe_difference(run, furthest[run.seed], metric)}"
        for run in group
        if run is not furthest[run.seed]
    ]
    return [run for _, run in sorted(furthest.items())], repeated


def describe_difference(run: RunFiles, other: RunFiles, metric: str) -> str:
    """Return how a repeat differs at the last step that both evaluated; "" if it is equal."""
    values = [
        {line["step"]: line[metric] for line in r.evals if metric in line} for r in (run, other)
    ]
    common = [step for step in values[0] if step in values[1]]
    if not common or values[0][common[-1]] == values[1][common[-1]]:
        return ""
    one, two = (format_setting(each[common[-1]]) for each in values)
    return f", though unequal: {metric} is {one} and {two} at step {common[-1]:.0f}"


def progress_key(run: RunFiles, metric: str) -> tuple[bool, bool, int]:
    """Return the sorting key of how far a run got: has the metric, has finished, its step."""
    return (
        any(has_finite(line, metric) for line in run.evals),
        run.status == Status.FINISHED,
        run.step,
    )


def has_finite(line: Line, metric: str) -> bool:
    """Return whether the metric is there, and a finite number."""
    return math.isfinite(line.get(metric, math.nan))


def build_row(
    label: str, settings: Settings, runs: Sequence[RunFiles], metric: str, step: ChosenStep
) -> Row:
    """Build a row with a note on its numbers.

    If some of its runs have finished, only they count: a run at half its steps would shift the
    mean. At one step for all, every run counts that was measured at it. A run whose last evaluation
    is not finite does not count either: an earlier one would stand under a step that it is not of.
    """
    lines = {run.path: choose_evaluation(run, metric, step) for run in runs}
    measured = [run for run in runs if lines[run.path]]
    counted = measured
    if not isinstance(step, int):
        counted = [run for run in measured if run.status == Status.FINISHED] or measured
    chosen = [lines[run.path] for run in counted]
    row = Row(
        label=label,
        settings=settings,
        runs=tuple(runs),
        numbers=summarize_metrics(chosen, metric),
        cost_hours=sum(run.seconds for run in runs) / 3600,
        note=describe_row(runs, counted, chosen, metric, step),
        counted=tuple(counted),
        steps=tuple(sorted({int(line["step"]) for line in chosen})),
    )
    return row._replace(
        published=format_published(row, metric, step),
        comparable=comparable_published(row, metric, step),
    )


def choose_evaluation(run: RunFiles, metric: str, step: ChosenStep) -> Line:
    """Return the evaluation at the last, best or this step.

    It is empty if none has the metric, or if it is not finite at the last or this step.
    """
    lines = [line for line in run.evals if metric in line]
    if step != "best":
        at_step = [line for line in lines if step in ("last", line["step"])][-1:]
        return at_step[0] if at_step and has_finite(at_step[0], metric) else {}
    sign = -1 if higher_is_better(metric) else 1
    finite = [line for line in lines if has_finite(line, metric)]
    return min(finite, key=lambda line: sign * line[metric], default={})


def summarize_metrics(lines: Sequence[Line], metric: str) -> dict[str, Spread]:
    """Return name -> spread of the metrics that all lines have, `metric` first.

    Values that are not finite are left out, which the n of the spread shows.
    """
    if not lines:
        return {}
    names = [metric, *(name for name in lines[0] if name not in (*NOT_METRICS, metric))]
    return {
        name: mean_and_std(values)
        for name in names
        if all(name in line for line in lines)
        and (values := [line[name] for line in lines if has_finite(line, name)])
    }
