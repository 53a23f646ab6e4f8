"""What a run is and where it stands, as plain values. For a run's folder it imports no torch."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from crgan_cli.config.changes import list_changes, list_unchosen
from crgan_cli.config.choices import infer_choices
from crgan_cli.config.resolve import flatten
from crgan_cli.config.stored import read_stored
from crgan_cli.errors import UserError
from crgan_cli.report.collect import find_runs
from crgan_cli.report.model import Line, RunFiles
from crgan_cli.report.read import keep_finite, read_part, read_run
from crgan_cli.runs.folder import RunDir, find_step
from crgan_cli.runs.metric_names import higher_is_better
from crgan_cli.runs.next_commands import list_next_commands
from crgan_cli.runs.outcome import has_ended
from crgan_cli.runs.settings import load_text
from crgan_cli.runs.started import read_start
from crgan_cli.runs.status import Status
from crgan_cli.system.digest import check_digest

log = logging.getLogger(__name__)
Facts = dict[str, object]
GOOD, DAMAGED, UNREAD = "good", "damaged", "not checked"


def describe_run(path: Path) -> Facts:
    """Return what is known of a run's folder. Raises UserError if it cannot be read."""
    run, folder = read_run(path), RunDir(path)
    stored = read_stored(*load_text(folder))
    checkpoints = list_saved(folder)
    resumable = [each["step"] for each in checkpoints if each["state"] != DAMAGED]
    result = folder.read_result()
    going = run.status == Status.RUNNING  # it holds its folder: to resume it would be refused
    ended = has_ended(result, stored)
    resumes = not going and not ended
    stopped = read_part(result, "stopped_early") if ended else {}
    following = list_next_commands(path, run.config, resumes=resumes)
    if not resumable:
        following = following[:1] if resumes else []
    elif stopped:
        following.append(folder.format_past_stop())
    return {
        "path": str(path),
        "status": run.status,
        "error": run.error,
        "stopped_early": str(stopped.get("reason", "")),
        "typed": read_typed(folder),
        "started": f"{read_start(path):%Y-%m-%d %H:%M:%S}",
        **describe_settings(stored, run.choices),
        "step": run.step,
        "steps": run.steps,
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "peak_memory_bytes": run.peak_memory_bytes,
        **describe_scores(run),
        "checkpoints": checkpoints,
        "best_checkpoint": str(folder.best) if folder.best.exists() else None,
        "resumes_from": next(iter(resumable), None),
        "provenance": dict(read_part(result, "provenance")),
        "bytes": count_bytes(path),
        "next": following,
    }


def describe_settings(stored: Mapping[str, object], choices: Mapping[str, str]) -> Facts:
    """Return the choices, the groups without one that is known, the settings that differ from their
    defaults, and the seed."""
    named = {group: name for group, name in choices.items() if name != "None"}
    told = list_changes(stored, named)
    seed = told.pop("seed", stored["seed"])
    told.pop("steps", None)
    unchosen = list_unchosen(stored, named)
    return {"choices": named, "unchosen": unchosen, "settings": told, "seed": seed}


def describe_scores(run: RunFiles) -> Facts:
    """Return the last and the best evaluation by the primary metric, and their protocol."""
    measured = [line for line in map(keep_finite, run.evals) if run.headline in line]
    return {
        "metric": run.headline,
        "last": dict(measured[-1]) if measured else {},
        "best": dict(choose_best(measured, run.headline)) if measured else {},
        "protocol": dict(run.protocol),
    }


def choose_best(evals: Sequence[Line], metric: str) -> Line:
    """Return the evaluation with the best value of a metric, the earliest of equal ones."""
    pick = max if higher_is_better(metric) else min
    return pick(evals, key=lambda line: line[metric])


def read_typed(folder: RunDir) -> str:
    """Return the command that started a run; "" if it is not recorded."""
    try:
        return folder.overrides.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def list_saved(folder: RunDir) -> list[dict[str, object]]:
    """Return the numbered checkpoints, newest first: step, bytes and state.

    They are read until one is as it was written: a run resumes from that one.
    """
    found: list[dict[str, object]] = []
    for path in folder.list_checkpoints():
        known = any(each["state"] == GOOD for each in found)
        try:
            size = path.stat().st_size
            state = UNREAD if known else read_state(path)
        except FileNotFoundError:  # a run that trains deletes files meanwhile
            continue
        found.append({"step": find_step(path), "bytes": size, "state": state})
    return found


def read_state(path: Path) -> str:
    """Return whether a checkpoint is as it was written. Those of older versions do not tell.

    Raises FileNotFoundError.
    """
    try:
        with path.open("rb") as file:
            undamaged, _ = check_digest(file)
    except FileNotFoundError:
        raise
    except OSError:
        return DAMAGED
    return {True: GOOD, False: DAMAGED, None: UNREAD}[undamaged]


def count_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder; a file with two names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:  # a run that trains deletes files meanwhile
                continue
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def describe_checkpoint(path: Path) -> Facts:
    """Return what is known of a checkpoint's file. Raises UserError if it cannot be read."""
    from crgan_cli.runs.checkpoint import load  # brings torch

    size = 0
    with suppress(FileNotFoundError):  # which `load` says better
        size = path.stat().st_size  # first: a run that trains may delete what was read
    content = load(path)
    stored = read_stored(content["config"], str(path))
    config = flatten(stored)
    run = RunDir(path.absolute().parent.parent)
    in_run = run.is_run() and run.checkpoints == path.absolute().parent
    choices = read_part(run.read_result(), "choices") if in_run else {}
    named = infer_choices(config) | {group: str(name) for group, name in choices.items()}
    weights = {
        part: sum(each.numel() for each in state.values() if hasattr(each, "numel"))
        for part, state in content["states"].items()
    }
    return {
        "path": str(path),
        "run": os.path.relpath(run.path) if in_run else None,
        **describe_settings(stored, named),
        "step": content["step"],
        "steps": config["steps"],
        "settled": content["settled"],
        "seconds": content["seconds"],
        "class_names": list(content.get("class_names", ())),
        "numbers": {part: count for part, count in weights.items() if count},
        "provenance": dict(content["provenance"]),
        "bytes": size,
        "next": list_next_commands(path, config, resumes=False),
    }


def summarise_runs(folder: Path) -> Facts:
    """Return a line for each run below a folder, such as a sweep's. Raises UserError for none."""
    return {
        "path": str(folder),
        "runs": [summarise_run(each, folder) for each in sorted(find_runs(folder))],
    }


def summarise_run(path: Path, above: Path) -> Facts:
    """Return the status and the best score of a run. One that cannot be read is told as failed."""
    name = {"path": str(path), "job": str(path.relative_to(above))}
    try:
        run = read_run(path)
    except UserError as error:
        return {**name, "status": Status.FAILED, "error": str(error), "metric": "", "best": {}}
    scores = describe_scores(run)
    return {
        **name,
        "status": run.status,
        "error": run.error,
        "step": run.step,
        "steps": run.steps,
        "metric": run.headline,
        "best": scores["best"],
    }
