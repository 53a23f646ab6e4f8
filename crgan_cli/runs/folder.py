"""A run's folder: its paths, locked by one process at a time."""

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from crgan_cli.errors import UserError
from crgan_cli.system.atomic import write_json
from crgan_cli.system.distributed.launch import is_distributed, is_main
from crgan_cli.system.paths import shell_quoted

log = logging.getLogger(__name__)
Value = TypeVar("Value")
OUTPUTS = Path("outputs")
"""Where runs are made that no `out=FOLDER` puts elsewhere."""

RESULT_TYPES: Mapping[str, type] = {
    "status": str,
    "error": str,
    "step": int,
    "images_seen": int,
    "seconds": float,
    "peak_memory_bytes": int,
    "choices": dict,
    "protocol": dict,
    "provenance": dict,
    "last": dict,
    "best": dict,
    "stopped_early": dict,
    "swept": list,  # keys in which the jobs of its sweep differ
    "changes": list,  # of settings when it was resumed: {"step": ..., "settings": ["key: a -> b"]}
}
"""The values of result.json that are read back. A float may be written as an integer."""


class RunDir:
    """The files of a run. `lock` makes sure that only one run uses the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.txt"
        self.log = path / "train.log"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.table = path / "metrics.csv"  # of logger=csv
        self.loggers = path / "loggers.json"  # under which names loggers know this run
        self.evaluations = path / "evaluations.jsonl"  # of `crgan eval`
        self.checkpoints = path / "checkpoints"
        self.best = path / "checkpoints" / "best.pt"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self.extra_fields: dict[str, object] = {}  # of every result: choices, protocol
        self.is_single_run = True  # not a job of a sweep
        self.created_here = False  # by this process: removed if the run does not start
        self.created_parent = False  # by this process too
        # files of a run that stopped before it started
        self.leftovers = {".lock", self.log.name, self.result.name, self.overrides.name}
        self.written_whole = (
            *(self.config, self.overrides, self.metrics, self.result),
            *(self.table, self.loggers),
        )

    def is_run(self) -> bool:
        """Return whether a run was started here."""
        return self.config.is_file()

    def require_no_links(self) -> None:
        """Raise UserError if something in the folder that crgan writes to is a symbolic link."""
        folders = (self.checkpoints, self.samples, self.tensorboard, self.path / "artefacts")
        files = (self.path / ".lock", self.log, self.evaluations, *self.written_whole)
        require_no_links(self.path, [path.name for path in (*folders, *files)])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder and lock it while the body runs, or until the process ends.

        In a distributed run the main process does this for all. Raises UserError if another process
        trains here, or if the folder holds other files.
        """
        locks: list[FileLock] = []
        decide_on_main(lambda: locks.append(self._locked()))
        try:
            yield
        finally:
            for lock in locks:
                lock.release()

    def _locked(self) -> FileLock:
        require_utf8(self.path)
        lock = FileLock(self.path / ".lock")
        with explained_lock(self.path, "is training in"):
            self.created_here = self.created_here or not self.path.exists()
            self.created_parent = not self.path.parent.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self.require_no_links()
            partial = {path.name for path in self._partial_files()}
            foreign = set(os.listdir(self.path)) - self.leftovers - partial
            if foreign and not self.is_run():
                raise UserError(
                    f"the folder {self.path} holds other files ({', '.join(sorted(foreign)[:3])}) "
                    "and no run. Choose another with out=FOLDER, or omit out= for a new one."
                )
            lock.acquire(blocking=False)
            for path in self._partial_files():
                path.unlink()
        return lock

    def _partial_files(self) -> list[Path]:
        """What a kill left of files that were being written."""
        names = (f"{path.name}.*.partial" for path in self.written_whole)
        return [path for name in names for path in self.path.glob(name)]

    def discard_if_empty(self) -> None:
        """Remove what was created for a run that did not start."""
        if not is_main() or self.is_run() or not set(os.listdir(self.path)) <= self.leftovers:
            return
        with suppress(OSError):  # the parent may hold other runs
            for name in self.leftovers:
                (self.path / name).unlink(missing_ok=True)
            if self.created_here:
                self.path.rmdir()
            if self.created_parent:
                self.path.parent.rmdir()

    def write_result(self, result: Mapping[str, object]) -> None:
        """Write result.json in the main process of a run."""
        if not is_main():
            return
        write_json(self.result, {**result, **self.extra_fields}, indent=2)

    def read_result(self) -> dict:
        """Return the content of result.json. It is empty if there is none, or a damaged one."""
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            result = None
        if not isinstance(result, dict) or not all(map(has_result_type, result, result.values())):
            log.warning("%s is damaged: it is left out", self.result)
            return {}
        return result

    def list_checkpoints(self) -> list[Path]:
        """Return the numbered checkpoints, newest first."""
        return list_checkpoints(self.checkpoints)

    def list_samples(self) -> list[Path]:
        """Return the sample grids, newest first."""
        return list_numbered(self.samples, ".png")

    def require_steps(self, steps: int) -> None:
        """Raise UserError if the run has a checkpoint after `steps`. Opens none."""
        done = next(map(find_step, self.list_checkpoints()), 0)
        if done > steps:
            raise UserError(
                f"the run in {self.path} has {done} steps already, and steps={steps}. To train "
                f"longer: {self.format_longer(done)}"
            )

    def format_longer(self, done: int) -> str:
        """Return the command that trains the run twice as long."""
        return f"crgan train --from {shell_quoted(self.path)} steps={2 * done}"

    def format_past_stop(self) -> str:
        """Return the command that goes on with the run where it stopped early."""
        return f"crgan train --from {shell_quoted(self.path)} early_stop.patience=null"


def require_utf8(folder: Path) -> None:
    """Raise UserError for a folder to which TensorBoard cannot write."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the name of the folder {folder} is not UTF-8, and TensorBoard writes to no such "
            "folder. Rename it, or choose another with out=FOLDER."
        ) from None


def has_result_type(key: str, value: object) -> bool:
    """Whether a value of result.json has its type; metrics are numbers."""
    kind = RESULT_TYPES.get(key, object)
    if key in ("last", "best") and isinstance(value, dict):
        return all(isinstance(number, int | float) for number in value.values())
    return isinstance(value, int | float if kind is float else kind)


def require_no_links(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of these names in a folder is a symbolic link, or has one below it.

    So a folder from a stranger cannot make crgan change files elsewhere. `folder` itself may be a
    link, for example to a larger disk.
    """
    for name in names:
        if link := find_link(folder / name):
            raise UserError(
                f"{link} is a symbolic link to {os.readlink(link)}. crgan writes to no link inside "
                f"a folder of runs, as it could change files elsewhere. Put the real file or "
                f"folder in its place, or remove it. ({folder} itself may be a link.)"
            )


def find_link(path: Path) -> Path | None:
    """Return `path` if it is a symbolic link, or else the first one below it."""
    if path.is_symlink():
        return path
    if not path.is_dir():
        return None
    with os.scandir(path) as entries:  # no further system call for each of many samples
        for entry in entries:
            if entry.is_symlink():
                return Path(entry.path)
            if entry.is_dir() and (link := find_link(Path(entry.path))):
                return link
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the numbered checkpoints in a folder, newest first."""
    return list_numbered(folder, ".pt")


def list_numbered(folder: Path, suffix: str) -> list[Path]:
    """Return the files step_NUMBER of a suffix in a folder, newest first. Others are the user's."""
    paths = folder.glob(f"step_*{suffix}")
    numbered = [path for path in paths if re.fullmatch(r"step_[0-9]+", path.stem)]
    return sorted(numbered, key=find_step, reverse=True)


def find_step(path: Path) -> int:
    """Return the step in the name of a numbered checkpoint or sample grid."""
    return int(path.stem.removeprefix("step_"))


def decide_on_main(fn: Callable[[], Value]) -> Value:
    """Call `fn` in the main process of a run only, and return its result in all."""
    if not is_distributed():  # torch takes seconds to import
        return fn()
    from crgan_cli.system.distributed.objects import broadcast_from_main

    return broadcast_from_main(fn)


def new_folder(root: Path, name: str | None, choices: Mapping[str, str | None]) -> Path:
    """Create a folder with a new name: outputs/<experiment or date>/<time>-...

    Microseconds and four random letters keep runs apart that start together. All processes of a
    run get the same folder. Raises UserError if it cannot be created.
    """
    return decide_on_main(lambda: create_folder(root, name, choices))


def create_folder(root: Path, name: str | None, choices: Mapping[str, str | None]) -> Path:
    """Do `new_folder` in one process."""
    now = datetime.now()
    words = [choices.get(group) for group in ("dataset", "architecture", "regularizer")]
    label = "_".join(word.strip("[]").replace(",", "+") for word in words if word)
    stamp = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    folder = root / (name or f"{now:%Y-%m-%d}") / "-".join(filter(None, (stamp, label)))
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise cannot_create(folder, error) from None
    return folder


@contextmanager
def explained_lock(folder: Path, what: str) -> Iterator[None]:
    """Raise UserError if the body cannot make a folder, or take its lock as another crgan has it.

    `what` that one does, before the name of the folder.
    """
    try:
        yield
    except Timeout:
        raise UserError(
            f"another crgan {what} {folder} now. Wait for it, stop it, or choose another folder "
            "with out=FOLDER."
        ) from None
    except OSError as error:
        raise cannot_create(folder, error) from None


def cannot_create(folder: Path, error: OSError) -> UserError:
    """Return the error of a folder that cannot be created."""
    return UserError(
        f"the run folder {folder} cannot be created ({error.strerror}). Choose another with "
        "out=FOLDER."
    )
