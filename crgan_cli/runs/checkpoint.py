"""Checkpoints: one file with all that a run needs to resume as if it had never stopped.

Format 2 is a torch file of tensors and plain containers. It is read with `weights_only=True`, so
that an untrusted file cannot run code:

    format, version   what the file is
    step, settled     steps done; whether samples and metrics of that step are done too
    seconds           of training, samples and metrics, over all sessions
    random            seed and step: all random numbers of a step derive from them (trainer.py)
    config            the run's whole configuration, as YAML text
    provenance        versions of crgan and torch, commit, data set fingerprint
    class_names       of the data set, empty without classes; older files have none
    states            by name: "task" (networks, regularizer), "ema", "optimizer_d", "window", ...

It ends with its SHA-256 (`system/digest.py`), since torch.load believes a flipped bit.
"""

import io
import logging
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import (
    BinaryIO,
    NamedTuple,
    NotRequired,
    Protocol,
    TypedDict,
    cast,
    get_origin,
    get_type_hints,
)

import torch

from crgan_cli.errors import NotFinite, RunFailed, UserError
from crgan_cli.runs.folder import find_step, list_checkpoints
from crgan_cli.system.atomic import atomic_path
from crgan_cli.system.digest import DigestWriter, check_digest
from crgan_cli.system.paths import shell_quoted
from crgan_cli.system.read_errors import may_be_whole

log = logging.getLogger(__name__)
FORMAT = "crgan checkpoint"

VERSION = 2


class Stateful(Protocol):
    """A part of a checkpoint: networks, optimizers, EMA, the metric buffer."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state_dict: dict) -> object: ...


class Content(TypedDict):
    """The content of the file."""

    format: str
    version: int
    step: int
    settled: bool
    seconds: float
    random: dict[str, int]
    config: str
    provenance: dict[str, str]
    class_names: NotRequired[list[str]]
    states: dict[str, dict]


TYPES = {key: get_origin(hint) or hint for key, hint in get_type_hints(Content).items()}
"""Key -> its type: int, bool, float, str, list or dict."""


class LoadedCheckpoint(NamedTuple):
    """A checkpoint and its file."""

    path: Path
    content: Content
    sha256: str  # of the file, as it was when it was read; "" of another kind of file


def file_name(step: int) -> str:
    """Return the file name of the checkpoint after `step` steps."""
    return f"step_{step:08d}.pt"


def save(path: Path, content: Content) -> None:
    """Write a checkpoint. A crash or a full disk leaves the old file unchanged.

    Raises RunFailed if the file cannot be written.
    """
    try:
        with atomic_path(path) as partial, open(partial, "wb") as file:
            writer = DigestWriter(file)
            torch.save(content, cast(BinaryIO, writer))  # which only writes and flushes
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk is full or has been removed"
        raise RunFailed(
            f"the checkpoint {path} could not be written ({reason}). Earlier checkpoints are not "
            "affected. Free some space and resume with `crgan train --from` and the run's folder."
        ) from error


def save_to_memory(content: Content) -> io.BytesIO:
    """Return what the file of a checkpoint would contain."""
    file = io.BytesIO()
    torch.save(content, file)
    return file


def load_from_memory(file: io.BytesIO) -> Content:
    """Invert `save_to_memory`. All tensors are on the CPU."""
    file.seek(0)
    return cast(Content, torch.load(file, map_location="cpu", weights_only=True))


def load(path: Path) -> Content:
    """Return what a checkpoint holds. Raises UserError as `load_checkpoint` does."""
    return load_checkpoint(path).content


def load_checkpoint(path: Path) -> LoadedCheckpoint:
    """Read a checkpoint. Raises UserError if the file is damaged or is not a checkpoint.

    It is opened once: a run that still trains may put another file in its place, or delete it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from torch; the errors below say it plainly
            with path.open("rb") as file:  # torch takes no name that is not UTF-8
                digest = require_undamaged(file)
                content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}. Give a checkpoint (.pt) or a run folder."
        ) from None
    except Exception as error:  # a damaged pickle can raise any exception
        # an older one must not take its place
        if may_be_whole(error):
            raise RunFailed(
                f"{path} could not be read ({first_line(error)}). Nothing was changed: try again, "
                "or move that file away to use an older one."
            ) from error
        # torch's message on a refused pickle recommends weights_only=False: not shown
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain containers" if refused else first_line(error)
        raise UserError(
            f"{path} cannot be read as a crgan checkpoint: it is damaged, truncated or another "
            f"kind of file ({reason}). Give the run's folder to use its newest good checkpoint."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is a PyTorch file, but not a crgan checkpoint. `crgan train` writes "
            "checkpoints to the checkpoints/ folder of a run."
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} has checkpoint version {content.get('version')}; this crgan reads version "
            f"{VERSION}. Use the crgan that wrote it: {content.get('provenance')}."
        )
    absent = Content.__optional_keys__ - content.keys()
    types = {key: kind for key, kind in TYPES.items() if key not in absent}
    if wrong := [key for key, kind in types.items() if not isinstance(content.get(key), kind)]:
        raise UserError(
            f"{path} is damaged: {', '.join(wrong)} is missing or has the wrong type. Give the "
            "run's folder to use its newest good checkpoint."
        )
    return LoadedCheckpoint(path, cast(Content, content), digest)


def require_undamaged(file: BinaryIO) -> str:
    """Return the SHA-256 of a file. Raise an exception if it is not as it was written.

    A file from before crgan wrote digests ends as a zip file does, and is held against the CRC-32
    of each of its records.
    """
    undamaged, digest = check_digest(file)
    if undamaged is None:
        with zipfile.ZipFile(file) as archive:
            file.seek(-22, 2)  # the record that ends a zip file
            undamaged = file.read(4) == b"PK\5\6" and archive.testzip() is None
        file.seek(0)
    if not undamaged:
        raise ValueError("it is not as it was written: its checksum is another")
    return digest


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def load_latest(folder: Path) -> LoadedCheckpoint | None:
    """Return the newest checkpoint that can be read, or None if the folder has none.

    Damaged ones are skipped with a warning. Raises UserError if all are damaged.
    """
    paths = [*list_checkpoints(folder), *folder.glob("best.pt")]
    for path in paths:
        try:
            return load_checkpoint(path)
        except UserError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
    if paths:
        raise UserError(
            f"none of the {len(paths)} checkpoints in {folder} can be read, so the run cannot be "
            "resumed; nothing was changed. Start again with out=FOLDER, or put a good copy back."
        )
    return None


def delete_old(folder: Path, keep: int, step: int) -> None:
    """Delete half-written files and all but the newest `keep` checkpoints up to `step`.

    Checkpoints after `step` are damaged: else the run would have resumed from them.
    """
    paths = list_checkpoints(folder)
    up_to_step = [path for path in paths if find_step(path) <= step]
    for path in {*paths, *folder.glob("*.partial")} - set(up_to_step[:keep]):
        path.unlink()


def restore(content: Content, parts: Mapping[str, Stateful], path: Path) -> None:
    """Load the state of every part. Raises UserError if the file does not fit."""
    if missing := sorted(parts.keys() ^ content["states"].keys()):
        raise UserError(f"{path} and this configuration differ in the parts {missing}.")
    for name, part in parts.items():
        try:
            part.load_state_dict(content["states"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
            raise UserError(
                f"{path} does not fit this configuration: {name} ({type(part).__name__}): {said}. "
                f"crgan info {shell_quoted(path)} shows what it was trained with."
            ) from None


def require_finite_states(content: Content) -> None:
    """Raise NotFinite if a network holds a value that is not finite. Waits for the device."""
    for part in ("task", "ema"):
        for name, value in content["states"].get(part, {}).items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise NotFinite(
                    f"{part}.{name} is not finite after step {content['step']}, so this state is "
                    "not saved."
                )


def link_or_copy(path: Path, to: Path) -> None:
    """Give a checkpoint a second name: a hard link, or a copy if the file system has no links."""
    with atomic_path(to) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)
