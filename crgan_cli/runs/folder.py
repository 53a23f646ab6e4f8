"""A run's folder: typed paths, claimed by one process at a time."""

import json
import os
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from crgan_cli.errors import UserError
from crgan_cli.system.atomic import write_text
from crgan_cli.system.distributed.launch import is_distributed, is_main

Value = TypeVar("Value")


class RunDir:
    """Where everything of a run lies. Two processes never share one: `lock` locks it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.txt"
        self.log = path / "train.log"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.checkpoints = path / "checkpoints"
        self.best = path / "checkpoints" / "best.pt"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self.extra_fields: dict[str, object] = {}  # written with every result: choices, protocol
        self.is_single_run = True  # no job of a sweep
        self.created_parent = False  # by this process as well
        self.created_here = False  # by this process, and so to be removed where no run comes of it
        # of a run that was stopped before it began
        self.leftovers = {".lock", self.log.name, self.result.name}

    def is_run(self) -> bool:
        """Whether a run has been started here."""
        return self.config.is_file()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the folder and locks it while the body runs, or until the process ends.

        Raises UserError where another process trains here, or something else lies here. Of the
        processes of one run the first does that for all.
        """
        locks: list[FileLock] = []
        on_main_only(lambda: locks.append(self._locked()))
        try:
            yield
        finally:
            for lock in locks:
                lock.release()

    def _locked(self) -> FileLock:
        lock = FileLock(self.path / ".lock")
        try:
            self.created_here = self.created_here or not self.path.exists()
            self.created_parent = not self.path.parent.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = set(os.listdir(self.path)) - self.leftovers
            if foreign and not self.is_run():
                raise UserError(
                    f"the folder {self.path} holds other things ({', '.join(sorted(foreign)[:3])}) "
                    "and no run. Choose another with out=FOLDER, or leave it out."
                )
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"another crgan is training in {self.path} right now. Wait for it, stop it, or "
                "choose another folder with out=FOLDER."
            ) from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be made ({error.strerror}). Choose another "
                "with out=FOLDER."
            ) from None
        return lock

    def discard_if_empty(self) -> None:
        """Removes what was made for a run that did not begin."""
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
        """Writes result.json, in the first process of a run."""
        if not is_main():
            return
        whole = {**result, **self.extra_fields}
        write_text(self.result, json.dumps(whole, indent=2) + "\n")

    def read_result(self) -> dict:
        """What `write_result` wrote; empty where nothing was, or nothing that can be read."""
        try:
            found = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def on_main_only(act: Callable[[], Value]) -> Value:
    """What `act` gives in the first process of a run, which alone calls it."""
    if not is_distributed():  # torch takes seconds to import
        return act()
    from crgan_cli.system.distributed.objects import broadcast_from_main

    return broadcast_from_main(act)


def shell_quoted(path: Path) -> str:
    """A path as it can be typed."""
    return shlex.quote(str(path))


def new_folder(root: Path, name: str | None, choices: Mapping[str, str | None]) -> Path:
    """A folder of a name that nobody has, made at once: outputs/<experiment or date>/<time>-...

    Microseconds and four random letters keep two runs started together apart; the processes of one
    run get one. Raises UserError where it cannot be made.
    """
    return on_main_only(lambda: create_folder(root, name, choices))


def create_folder(root: Path, name: str | None, choices: Mapping[str, str | None]) -> Path:
    """`new_folder` in one process."""
    now = datetime.now()
    words = [choices.get(group) for group in ("dataset", "architecture", "regularizer")]
    label = "_".join(word.strip("[]").replace(",", "+") for word in words if word)
    stamp = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    folder = root / (name or f"{now:%Y-%m-%d}") / "-".join(filter(None, (stamp, label)))
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be made ({error.strerror}). Choose another with "
            "out=FOLDER."
        ) from None
    return folder
