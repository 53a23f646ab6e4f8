"""The folder of a sweep's job: the run that has its settings, or a new one named after them.

A job is known by its settings. So a sweep can grow: more values, more seeds, another order.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crgan_cli.config.messages import override_key
from crgan_cli.config.resolve import Settings, flatten
from crgan_cli.config.stored import (
    MAY_CHANGE_ON_RESUME,
    differing_keys,
    is_below,
    make_paths_absolute,
)
from crgan_cli.report.read import parse_yaml
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.status import Status

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

MAX_NAME = 80
"""Characters in the name of a folder."""

HOW_TRAINED = ("steps", "early_stop", "engine", "checkpoint", "data_root", "dataset.root")
"""Of the keys that may change on resume, those that an experiment file may set."""


def job_name(node: "HydraConf") -> str:
    """Return what differs between a job and the others; all that was typed if nothing does."""
    return node.job.override_dirname or full_name(node) or "run"


def full_name(node: "HydraConf") -> str:
    """Return all settings that were typed for a job, except those that may change on resume."""
    typed = sorted(node.overrides.task)
    return ",".join(word for word in typed if not may_change(override_key(word), ()))


def folder_name(overrides: str) -> str:
    """Name a job's folder: legal on every system, at most `MAX_NAME` characters.

    A name that does not show everything has a hash, so that different jobs have different folders.
    """
    name = re.sub(r"[^\w.,=+\[\]-]+", "-", overrides).rstrip("._-")
    if name == overrides and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 10]}-{hashlib.sha256(os.fsencode(overrides)).hexdigest()[:8]}"


def choose_folder(sweep: Path, config: "DictConfig", node: "HydraConf") -> Path:
    """Return the folder in `sweep` of the run with these settings, or a new one.

    A new folder is named after what is swept. If another run has this name, and what was typed
    explains how they differ, the name has all that was typed. Else it is that run's folder:
    `training.start` will refuse to train there, and tell what differs.
    """
    make_paths_absolute(config)
    new = flatten(config)
    typed = {override_key(word) for word in node.overrides.task}
    common = set(map(override_key, node.job.config.override_dirname.exclude_keys))
    own = sweep / folder_name(job_name(node))
    if found := find_matching_run(own, new, typed - common):
        return found
    before = load_flat_settings(own)
    if before and config.resume != "force":
        changed = [key for key in differing_keys(before, new) if not may_change(key, ())]
        other = sweep / folder_name(full_name(node))
        if (
            changed
            and all(is_below(key, typed) for key in changed)
            and not load_flat_settings(other)
        ):
            return other
    return own


def find_matching_run(own: Path, new: Settings, swept: Collection[str]) -> Path | None:
    """Return the run next to `own` that a job with these settings should skip or resume.

    Of several, one with as many steps comes first, then a finished one, then `own`. One of several
    with other steps is not lengthened: the number of steps may have been swept.
    """
    found, strict = [], strict_keys(swept, new)
    for file in own.parent.glob("*/config.yaml"):
        changed = differing_keys(load_flat_settings(file.parent), new)
        if all(may_change(key, strict) for key in changed):
            status = RunDir(file.parent).read_result().get("status")
            rank = ("steps" in changed, status != Status.FINISHED, file.parent != own, len(changed))
            found.append((*rank, file.parent))
    if not found:
        return None
    longer, _, foreign, _, best = min(found)
    return None if longer and foreign and len(found) > 1 else best


def strict_keys(swept: Collection[str], new: Settings) -> Collection[str]:
    """Return the keys that may change on resume, and that yet tell the jobs of this sweep apart."""
    strict = [key for key in swept if is_below(key, MAY_CHANGE_ON_RESUME)]
    strict += [key for key in MAY_CHANGE_ON_RESUME if is_below(key, swept)]  # of a swept group
    if all(any(is_below(each, (key,)) for each in new) for key in swept):
        return strict
    return [*strict, *HOW_TRAINED]  # an experiment is swept


def may_change(key: str, strict: Collection[str]) -> bool:
    """Whether two runs may differ in a key and still be the same run."""
    return is_below(key, MAY_CHANGE_ON_RESUME) and not is_below(key, strict)


def load_flat_settings(run: Path) -> dict[str, Any]:
    """Return the flat settings of a run; empty if there is none, or if it cannot be read."""
    file = run / "config.yaml"
    try:
        return parse_settings(file, file.stat().st_mtime_ns)
    except OSError:
        return {}


@cache
def parse_settings(file: Path, changed: int) -> dict[str, Any]:
    """Read a file once for each of its versions: every job of a sweep asks for all."""
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        return {}
    return flatten(content) if isinstance(content, dict) else {}


def hash_settings(config: "DictConfig") -> str:
    """Return a name for the settings of a job: equal for jobs of a launch that are the same."""
    return hashlib.sha256(json.dumps(flatten(config), sort_keys=True).encode()).hexdigest()[:16]
