"""Checkpoints: one file with everything a run needs to go on as if it had never stopped.

Format 2 is a torch file of tensors and plain containers, so that it can be read with
`weights_only=True` and a stranger's file runs no code:

    format, version   what this is
    step, settled     steps done; whether that step's samples and metrics are done as well
    seconds           of training, samples and metrics, over all sessions
    random            seed and step: all random numbers of a step derive from them (trainer.py)
    config            the run's whole configuration, as YAML text
    provenance        versions of crgan and torch, commit, data set fingerprint
    states            by name: "task" (networks, regularizer), "ema", "optimizer_d", "window", ...
"""

import logging
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict, cast

import torch

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system.atomic import atomic_path

log = logging.getLogger(__name__)
FORMAT = "crgan checkpoint"
VERSION = 2


class Stateful(Protocol):
    """What can be saved: networks, optimizers, the average, the records."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state_dict: dict) -> object: ...


class Content(TypedDict):
    """What the file holds."""

    format: str
    version: int
    step: int
    settled: bool
    seconds: float
    random: dict[str, int]
    config: str
    provenance: dict[str, str]
    states: dict[str, dict]


KINDS = {
    "step": int,
    "settled": bool,
    "seconds": float,
    "random": dict,
    "config": str,
    "provenance": dict,
    "states": dict,
}
"""What a file of this version must hold before anything in it is used."""


class LoadedCheckpoint(NamedTuple):
    """A checkpoint with its place."""

    path: Path
    content: Content


def file_name(step: int) -> str:
    """The file name of the checkpoint after `step` steps."""
    return f"step_{step:08d}.pt"


def save(path: Path, content: Content) -> None:
    """Writes all or nothing: a crash or a full disk leaves what was there before.

    Raises RunFailed where it cannot be written.
    """
    try:
        with atomic_path(path) as partial, open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
        reason = getattr(error, "strerror", None) or "the disk is full, or gone"
        raise RunFailed(
            f"the checkpoint {path} could not be written ({reason}). Earlier ones are "
            "whole: free some space, and go on with `crgan train --from` and the run's folder."
        ) from error


def load(path: Path) -> Content:
    """The content of a checkpoint. Raises UserError for what is none, or is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of odd files; what follows says it in words
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}. Give a checkpoint (.pt) or a run folder."
        ) from None
    except Exception as error:  # a damaged pickle raises almost anything
        # torch's own words on a refused pickle advise to load it with weights_only=False
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "it is not made of tensors and plain containers" if refused else first_line(error)
        raise UserError(
            f"{path} cannot be read as a crgan checkpoint: it is damaged, truncated or something "
            f"else ({reason}). Give the run's folder to take its newest good one."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is a PyTorch file, but not a crgan checkpoint. Those lie in a run's "
            "checkpoints/ folder and are written by `crgan train`."
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} has checkpoint version {content.get('version')}; this crgan reads version "
            f"{VERSION}. Use the crgan that wrote it: {content.get('provenance')}."
        )
    if wrong := [key for key, kind in KINDS.items() if not isinstance(content.get(key), kind)]:
        raise UserError(
            f"{path} is damaged: {', '.join(wrong)} is missing or of the wrong kind. Give the "
            "run's folder to take its newest good one."
        )
    return cast(Content, content)


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def load_latest(folder: Path) -> LoadedCheckpoint | None:
    """The newest checkpoint of a run that can be read; None where there are none.

    Damaged ones are passed over, and said. Raises UserError where all are damaged.
    """
    paths = [*list_checkpoints(folder), *folder.glob("best.pt")]
    for path in paths:
        try:
            return LoadedCheckpoint(path, load(path))
        except UserError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
    if paths:
        raise UserError(
            f"none of the {len(paths)} checkpoints in {folder} can be read, so the run cannot go "
            "on; nothing was changed. Start anew with out=FOLDER, or put a good copy back."
        )
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints in a folder, newest first."""
    paths = (path for path in folder.glob("step_*.pt") if re.fullmatch(r"step_\d+\.pt", path.name))
    return sorted(paths, key=lambda path: int(path.stem[5:]), reverse=True)


def delete_old(folder: Path, keep: int, step: int) -> None:
    """Deletes all but the newest `keep` checkpoints up to `step`, and half-written files.

    What is newer than `step` was damaged, or the run would have gone on from there.
    """
    upto = [path for path in list_checkpoints(folder) if int(path.stem[5:]) <= step]
    for path in {*list_checkpoints(folder), *folder.glob("*.partial")} - set(upto[:keep]):
        path.unlink()


def state_dicts(parts: Mapping[str, Stateful]) -> dict[str, dict]:
    """The states of all parts, by name."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(content: Content, parts: Mapping[str, Stateful], path: Path) -> None:
    """Loads every part's state. Raises UserError where the file does not fit."""
    if missing := sorted(parts.keys() ^ content["states"].keys()):
        raise UserError(f"{path} and this configuration differ in the parts {missing}.")
    for name, part in parts.items():
        try:
            part.load_state_dict(content["states"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} does not fit this configuration: {name}: {first_line(error)}"
            ) from None


def require_finite_states(content: Content, folder: Path) -> None:
    """Raises RunFailed where a network holds a number that is not finite. Waits for the device."""
    for part in ("task", "ema"):
        for name, value in content["states"].get(part, {}).items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                kept = next(iter(list_checkpoints(folder)), None)
                raise RunFailed(
                    f"{part}.{name} is not finite after step {content['step']}, so this state is "
                    f"not saved; the last good checkpoint is {kept}. Try a smaller learning rate "
                    "or regularizer weight, or engine.precision=fp32."
                )


def link_or_copy(path: Path, to: Path) -> None:
    """A second name for a checkpoint, all or nothing: a link where the file system has links."""
    with atomic_path(to) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)
