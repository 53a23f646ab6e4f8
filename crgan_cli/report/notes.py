"""What a reader must know of the runs behind a row's numbers."""

from collections import Counter
from collections.abc import Sequence

from crgan_cli.report.model import ChosenStep, Line, RunFiles
from crgan_cli.runs.status import Status


def describe_row(
    runs: Sequence[RunFiles],
    counted: Sequence[RunFiles],
    lines: Sequence[Line],
    metric: str,
    step: ChosenStep,
) -> str:
    """Return the note of a row, whose numbers are the lines of the counted runs."""
    parts = (
        describe_runs(runs, counted, metric, step),
        describe_growth(counted, lines),
        describe_commits(counted),
    )
    return ", ".join(filter(None, parts))


def describe_runs(
    runs: Sequence[RunFiles], counted: Sequence[RunFiles], metric: str, step: ChosenStep
) -> str:
    """Return what a reader must know of a row's runs, if the numbers are those of `counted`."""
    going = [run for run in runs if run.status != Status.FINISHED]
    if isinstance(step, int):  # a run that goes on counts like others
        going = [run for run in going if run not in counted]
    states = Counter(run.status for run in going)
    parts = [f"{count} of {len(runs)} {state}" for state, count in states.items()]
    if not counted:
        parts.append("no numbers")
    elif counted[0].status != Status.FINISHED and not isinstance(step, int):
        parts.append("numbers so far")
    elif states:
        parts.append("left out")
    unmeasured = [run for run in runs if run.status == Status.FINISHED and run not in counted]
    broken = [
        run
        for run in unmeasured
        if any(metric in line and step in (line["step"], "last", "best") for line in run.evals)
    ]
    if broken:
        parts.append(f"{len(broken)} of {len(runs)} not finite, left out")
    if counted and len(unmeasured) > len(broken):
        parts.append(f"{len(unmeasured) - len(broken)} of {len(runs)} without numbers")
    if retuned := sum(run.retuned for run in runs):
        parts.append(f"{retuned} of {len(runs)} began with another optimizer")
    if early := sum(run.stopped_early for run in runs):
        parts.append(f"{early} of {len(runs)} stopped early")
    return ", ".join(parts)


def describe_growth(runs: Sequence[RunFiles], lines: Sequence[Line]) -> str:
    """Return how far networks had grown, if any had not yet, at the evaluation of each run."""
    states = dict.fromkeys(
        run.stages.describe_growth(int(line["step"]))
        for run, line in zip(runs, lines, strict=True)
        if run.stages
    )
    states.pop("", None)
    return f"grown to {', '.join(states)}" if states else ""


def describe_commits(runs: Sequence[RunFiles]) -> str:
    """Return the commits of crgan that made a row, if they differ."""
    known = dict.fromkeys(run.commit for run in runs)
    words = [f"{commit[:7]}{commit[40:]}" if commit else "unknown" for commit in known]
    return f"of different commits: {', '.join(words)}" if len(known) > 1 else ""
