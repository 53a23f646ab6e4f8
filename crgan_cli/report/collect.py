"""Find and read run folders, also unfinished and damaged ones.

Every file is read once, and only as much of a log as a plot shows: a thousand runs take seconds.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from crgan_cli.errors import UserError
from crgan_cli.report.model import RunFiles
from crgan_cli.report.read import read_run
from crgan_cli.report.settings import fill_config
from crgan_cli.runs.next_commands import suggest_metrics
from crgan_cli.system.paths import shell_quoted


class NothingMeasured(UserError):
    """The folders hold no run with metrics: not yet, where runs are going on."""


def collect(paths: Sequence[Path], metric: str | None = None) -> list[RunFiles]:
    """Read all runs in and below these folders, each once, sorted by path.

    The metrics are those of training. If a run has none or lacks `metric`, they are those of the
    newest `crgan eval`. Raises UserError if there is no run, no run with metrics, or a run that
    cannot be read.
    """
    folders = {folder.resolve(): folder for path in paths for folder in find_runs(path)}
    runs = fill_defaults([read_run(folder, metric) for folder in sorted(folders.values())])
    require_measured(runs)
    return runs


def require_measured(runs: Sequence[RunFiles]) -> None:
    """Raise NothingMeasured if no run has metrics."""
    if not any(run.evals for run in runs):
        raise NothingMeasured(describe_unmeasured(runs))


def fill_defaults(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Give each run the defaults of the keys that only other runs have.

    So a run from before a key existed has the settings of a later one that leaves it alone.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [run._replace(config=fill_config(run.config, keys)) for run in runs]


def find_runs(path: Path) -> list[Path]:
    """Return the run folders at or below `path`. Raises UserError if there is none."""
    if not path.exists():
        raise UserError(
            f"there is nothing at {path}. Give the folders of runs, of a sweep, or outputs itself."
        )
    if not path.is_dir():
        raise UserError(f"{path} is a file: give its run's folder ({path.parent}).")
    folders = []
    for folder, below, files in os.walk(path):
        if "config.yaml" in files and {"overrides.txt", "result.json", "metrics.jsonl"} & {*files}:
            folders.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    if not folders:
        state = "contains no run" if any(path.iterdir()) else "is empty"
        raise NothingMeasured(
            f"{path} {state}: a run's folder has a config.yaml and a metrics.jsonl, as crgan train "
            "writes them. Give the folders of runs, of a sweep, or outputs itself."
        )
    return folders


def describe_unmeasured(runs: Sequence[RunFiles]) -> str:
    """Return the error message for runs without any metric."""
    first = runs[0].path
    evaluate = f"crgan eval {shell_quoted(first)}"
    if any(run.config.get("metrics._target_") for run in runs):
        return (
            f"none of the {len(runs)} runs has been evaluated yet ({first} is at step "
            f"{runs[0].step}). Wait for the first evaluation, every metrics.every steps, or "
            f"evaluate the newest checkpoint: {evaluate}"
        )
    metrics = suggest_metrics(runs[0].config)
    return (
        f"none of the {len(runs)} runs has metrics: there is nothing to compare. Evaluate each run "
        f"({evaluate} {metrics[0]}), or train with {' or '.join(metrics)}."
    )
