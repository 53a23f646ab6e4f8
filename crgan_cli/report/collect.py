"""Run folders -> `RunFiles`, from files alone: also of runs that are half-finished or damaged.

Every file is read once, and no more of a log than a plot shows: a thousand runs take seconds.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from crgan_cli.errors import UserError
from crgan_cli.report.model import RunFiles
from crgan_cli.report.read import read_run

log = logging.getLogger(__name__)


def collect(paths: Sequence[Path], metric: str | None = None) -> list[RunFiles]:
    """The runs in these folders and anywhere below them, by path, each once.

    A run's numbers are those of its training; or, where it has none or lacks `metric`, those of its
    newest `crgan eval`. Raises UserError where there is no run, none with numbers, or one that
    cannot be read.
    """
    folders = {folder.resolve(): folder for path in paths for folder in find_runs(path)}
    runs = [read_run(folder, metric) for folder in sorted(folders.values())]
    if not any(run.evals for run in runs):
        raise UserError(describe_unmeasured(runs))
    return runs


def find_runs(path: Path) -> list[Path]:
    """The runs at or below `path`. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(
            f"there is nothing at {path}. Give the folders of runs, of a sweep, or outputs itself."
        )
    if not path.is_dir():
        raise UserError(f"{path} is a file: give its run's folder ({path.parent}).")
    found = []
    for folder, below, files in os.walk(path):
        if "config.yaml" in files and {"overrides.txt", "result.json", "metrics.jsonl"} & {*files}:
            found.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    if not found:
        what = "is empty" if not any(path.iterdir()) else "holds no run"
        raise UserError(
            f"{path} {what}: a run's folder has a config.yaml and a metrics.jsonl, as crgan train "
            "writes them. Give the folders of runs, of a sweep, or outputs itself."
        )
    return found


def describe_unmeasured(runs: Sequence[RunFiles]) -> str:
    """What to say where no run was ever evaluated."""
    first = runs[0].path
    if any(run.config.get("metrics._target_") for run in runs):
        return (
            f"none of the {len(runs)} runs has been evaluated yet ({first} is at step "
            f"{runs[0].step}). Wait for the first evaluation, every metrics.every steps, or "
            f"evaluate what is there: crgan eval {first}"
        )
    return (
        f"none of the {len(runs)} runs has metrics: there is nothing to compare. Evaluate each, "
        f"as in crgan eval {first} metrics=demo, or train with metrics=demo or metrics=fid10k_test."
    )
