"""Read runs again while they train: only those whose files have changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crgan_cli.report.collect import fill_defaults, find_runs, require_measured
from crgan_cli.report.model import RunFiles
from crgan_cli.report.read import is_locked, read_run
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.status import Status

Signature = tuple[tuple[int, int] | None, ...]
"""Of the files of a run: the time of each one's last change and its size, None if it is absent."""


class SeenRun(NamedTuple):
    """A run as it was read, and the signature of its files just before."""

    signature: Signature
    run: RunFiles


class RunWatcher:
    """The runs in and below some folders, also those that appear later."""

    def __init__(self, folders: Sequence[Path], metric: str | None = None) -> None:
        self.folders = folders
        self.metric = metric
        self.seen: dict[Path, SeenRun] = {}
        self.runs: list[RunFiles] = []  # of the last look, as `collect` gives them
        self.is_going = True  # whether any run has not ended, or none has begun

    def look(self) -> bool:
        """Return whether any run has changed, come or gone since the last look.

        Raises NothingMeasured while there is no run, or none with metrics, and UserError as
        `collect` does.
        """
        found = {folder.resolve(): folder for path in self.folders for folder in find_runs(path)}
        now = {path: self.look_at(path, folder) for path, folder in sorted(found.items())}
        changed = list(now.items()) != list(self.seen.items())
        if changed:
            self.seen = now
            self.runs = fill_defaults([each.run for each in now.values()])
            self.is_going = any(run.status == Status.RUNNING for run in self.runs)
        require_measured(self.runs)
        return changed

    def look_at(self, path: Path, folder: Path) -> SeenRun:
        """Read a run if its files have changed, or if its process has been killed."""
        signature = sign_files(folder)  # before reading: a change meanwhile is seen next time
        before = self.seen.get(path)
        if before is None or before.signature != signature or was_killed(before.run):
            return SeenRun(signature, read_run(folder, self.metric))
        return before


def was_killed(run: RunFiles) -> bool:
    """Return whether a run that was running holds its lock no more."""
    return run.status == Status.RUNNING and not is_locked(run.path / ".lock")


def sign_files(folder: Path) -> Signature:
    """Return the signature of all that a report reads of a run."""
    run = RunDir(folder)
    artefacts = folder / "artefacts"
    paths = (run.config, run.metrics, run.result, run.evaluations, run.samples, artefacts)
    return tuple(map(sign_file, (*paths, *sorted(artefacts.glob("*")))))


def sign_file(path: Path) -> tuple[int, int] | None:
    """Return when a file, or the list of files of a folder, has changed, and its size."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
