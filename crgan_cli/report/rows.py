"""Runs -> a report: rows of runs that differ in their seed alone, compared, the best first."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from crgan_cli.errors import UserError
from crgan_cli.report.compare import (
    add_note,
    comparable_published,
    compare_to_best,
    format_published,
    ranking_key,
)
from crgan_cli.report.model import Report, Row, RunFiles, Spread, Value
from crgan_cli.report.protocols import protocol_warning, unique_protocols
from crgan_cli.report.settings import (
    Settings,
    find_row_settings,
    find_swept_key,
    format_setting,
    identifying_settings,
    make_row_title,
    shorten_names,
)
from crgan_cli.report.statistics import higher_is_better, mean_and_std

NOT_METRICS = ("step", "images_seen")
"""What stands in a line of metrics and is none."""

Line = Mapping[str, float]


def build_report(
    runs: Sequence[RunFiles],
    *,
    step: str = "last",
    metric: str | None = None,
    force: bool = False,
    title: str = "crgan report",
) -> Report:
    """Compares runs by `metric`, or by what their protocol names, at each one's last or best step.

    Raises UserError where no run has that number; and where numbers were measured by different
    protocols, unless `force`.
    """
    headline = metric or find_primary_metric(runs)
    require_metric(runs, headline)
    warnings = [*protocol_warning(runs, force=force), *describe_failures(runs)]
    groups = group_by_settings(runs)
    table, varied = find_row_settings([group[0] for group in groups])
    names = shorten_names(varied, runs)
    rows = []
    for group, settings in zip(groups, table, strict=True):
        single, repeated = one_per_seed(group, headline)
        warnings += repeated
        label = " ".join(f"{names[key]}={format_setting(value)}" for key, value in settings.items())
        counted = choose_metric(single, headline)
        rows.append(build_row(label or make_row_title(group[0]), settings, single, counted, step))
    rows.sort(key=lambda row: ranking_key(row, headline))
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


# --- which numbers --------------------------------------------------------------------------------


def find_primary_metric(runs: Sequence[RunFiles]) -> str:
    """The number that most runs name."""
    named = Counter(run.headline for run in runs if run.headline)
    if not named:
        raise UserError(
            "no run says which of its numbers tells the best step: give one with --metric, of "
            f"{', '.join(list_metrics(runs))}."
        )
    return named.most_common(1)[0][0]


def choose_metric(runs: Sequence[RunFiles], headline: str) -> str:
    """The number that picks the step of a row: its own where a forced report is by another one."""
    if any(headline in line for run in runs for line in run.evals):
        return headline
    return next((run.headline for run in runs if run.headline), headline)


def list_metrics(runs: Sequence[RunFiles]) -> list[str]:
    """All numbers that there are, in the order of the runs."""
    names = dict.fromkeys(name for run in runs for line in run.evals for name in line)
    return [name for name in names if name not in NOT_METRICS]


def require_metric(runs: Sequence[RunFiles], metric: str) -> None:
    """Raises UserError where no run has this number."""
    if metric not in (known := list_metrics(runs)):
        raise UserError(f"--metric {metric}: no run has it. There are {', '.join(known)}.")


def describe_failures(runs: Sequence[RunFiles]) -> list[str]:
    """A line for every run that ended badly."""
    return [
        f"{run.path} {run.status} at step {run.step} of {run.steps}"
        + (f": {run.error}" if run.error else "")
        for run in runs
        if run.status in ("failed", "interrupted")
    ]


# --- rows -----------------------------------------------------------------------------------------


def group_by_settings(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    """Runs that differ in nothing but SILENT keys, in the order in which they come."""
    groups: dict[frozenset[tuple[str, Value]], list[RunFiles]] = {}
    for run in runs:
        groups.setdefault(frozenset(identifying_settings(run.config).items()), []).append(run)
    return list(groups.values())


def one_per_seed(group: Sequence[RunFiles], metric: str) -> tuple[list[RunFiles], list[str]]:
    """The run of each seed that came furthest, and a warning for every other.

    A seed that is run twice gives the same numbers twice, and no further evidence.
    """
    kept: dict[int, RunFiles] = {}
    for run in sorted(group, key=lambda run: (progress_key(run, metric), run.step), reverse=True):
        kept.setdefault(run.seed, run)
    repeated = [
        f"{run.path} repeats {kept[run.seed].path} (the same settings and seed {run.seed}) and is "
        "left out"
        for run in group
        if run is not kept[run.seed]
    ]
    return [run for _, run in sorted(kept.items())], repeated


def progress_key(run: RunFiles, metric: str) -> tuple[bool, bool]:
    """Whether a run has the number, and whether it has ended well."""
    return any(metric in line for line in run.evals), run.status == "finished"


def build_row(
    label: str, settings: Settings, runs: Sequence[RunFiles], metric: str, step: str
) -> Row:
    """A row, with a note on what its numbers are of.

    Where some of its runs have finished, the numbers are theirs: another's at half its way would
    pull the mean.
    """
    lines = {run.path: choose_evaluation(run, metric, step) for run in runs}
    able = [run for run in runs if lines[run.path]]
    ended = [run for run in able if run.status == "finished"] or able
    at = [lines[run.path] for run in ended]
    row = Row(
        label=label,
        settings=settings,
        runs=tuple(runs),
        numbers=summarize_metrics(at, metric),
        cost_hours=sum(run.seconds for run in runs) / 3600,
        note=describe_runs(runs, ended),
        steps=tuple(sorted({int(line["step"]) for line in at})),
    )
    return row._replace(
        published=format_published(row, metric), comparable=comparable_published(row, metric)
    )


def choose_evaluation(run: RunFiles, metric: str, step: str) -> Line:
    """The evaluation that counts; empty where none has the number."""
    lines = [line for line in run.evals if math.isfinite(line.get(metric, math.nan))]
    if not lines or step == "last":
        return lines[-1] if lines else {}
    sign = -1 if higher_is_better(metric) else 1
    return min(lines, key=lambda line: sign * line[metric])


def summarize_metrics(lines: Sequence[Line], metric: str) -> dict[str, Spread]:
    """Name -> spread, `metric` first; of numbers that all lines have."""
    names = [name for name in (lines[0] if lines else {}) if name not in (*NOT_METRICS, metric)]
    return {
        name: mean_and_std([line[name] for line in lines])
        for name in ([metric, *names] if lines else [])
        if all(name in line for line in lines)
    }


def describe_runs(runs: Sequence[RunFiles], counted: Sequence[RunFiles]) -> str:
    """What a reader must know of a row's runs, of which `counted` gave the numbers."""
    states = Counter(run.status for run in runs if run.status != "finished")
    said = [f"{count} of {len(runs)} {state}" for state, count in states.items()]
    if not counted:
        said.append("no numbers")
    elif counted[0].status != "finished":
        said.append("numbers of the way so far")
    elif states:
        said.append("left out")
    lacking = len(runs) - len(counted) - states.total()
    if counted and lacking > 0:
        said.append(f"{lacking} of {len(runs)} without numbers")
    return ", ".join(said)
