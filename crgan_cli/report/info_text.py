"""What `run_info` found, as text."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from crgan_cli.config.resolve import format_setting
from crgan_cli.report.run_info import DAMAGED, Facts
from crgan_cli.report.tables import Column, align_cells
from crgan_cli.runs.status import Status
from crgan_cli.system.numbers import format_bytes, format_duration, format_metric, format_rate

WIDTH, INDENT = 100, 16

SHOWN = ("task", "dataset", "architecture", "loss", "regularizer", "augment", "augment_both")
"""The groups that say what a run is, in this order; then those that are left."""


def format_facts(facts: Facts) -> str:
    """Return a run, or a checkpoint, one fact per line, and the next commands."""
    found: Any = facts
    lines = [f"{found['path']}"]
    lines += [entry(name, text) for name, text in list_entries(found) if text]
    following = [f"  {command}" for command in found["next"]]
    return "\n".join([*lines, *(["next:"] if following else []), *following])


def entry(name: str, text: str) -> str:
    """Return a line, or several, with the name at its left."""
    return textwrap.fill(
        text,
        width=WIDTH,
        initial_indent=f"  {name:{INDENT - 3}} ",
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def list_entries(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each fact; the text is empty where nothing is known."""
    yield "status", format_status(found)
    yield "typed", found.get("typed", "")
    yield "started", found.get("started", "")
    yield "run", found.get("run") or ""
    choices = found["choices"]
    first = [group for group in ("experiment", *SHOWN) if group in choices]
    for group in dict.fromkeys([*first, *choices]):
        if group in SHOWN or choices[group] != "none":
            yield group, choices[group]
    changed = (f"{key}={format_setting(value)}" for key, value in found["settings"].items())
    yield "changed", " ".join(changed) or "nothing: the defaults of these choices"
    if unchosen := found["unchosen"]:
        yield "not known", f"the choices of {', '.join(unchosen)}, and what was changed in them"
    yield "seed", str(found["seed"])
    yield "classes", ", ".join(found.get("class_names", ()))
    yield from list_scores(found)
    yield "checkpoints", format_checkpoints(found)
    yield "numbers", ", ".join(f"{n:,} in {part}" for part, n in found.get("numbers", {}).items())
    yield "made by", format_origin(found["provenance"])
    yield "on disk", format_bytes(found["bytes"])


def format_status(found: Mapping[str, Any]) -> str:
    """Return how far it is, and why it is not further."""
    progress = f"{found['step']} of {found['steps']} steps"
    if found["seconds"]:
        progress += f" in {format_duration(found['seconds'])}"
    if found.get("images_per_second"):
        progress += f", {format_rate(found['images_per_second'])} images/s"
    if "status" not in found:
        return f"checkpoint after {progress}"
    early = found["stopped_early"] and f"Stopped early: {found['stopped_early']}"
    return ". ".join(filter(None, [f"{found['status']}: {progress}", early, found["error"]]))


def list_scores(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the last and the best score of a run, and how they were measured."""
    metric, protocol = found.get("metric"), found.get("protocol", {})
    for when in ("last", "best") if metric else ():
        if line := found[when]:
            yield when, f"{metric} {format_metric(line[metric])} at step {int(line['step'])}"
    if protocol:
        counts = (
            f"{protocol.get('num_samples')} generated and {protocol.get('num_real')} real images"
        )
        yield (
            "protocol",
            f"{protocol.get('protocol')}: {counts} ({protocol.get('reference_split')}), extractor "
            f"{protocol.get('extractor')} (SHA-256 {str(protocol.get('extractor_sha256'))[:8]}), "
            f"{protocol.get('generator_weights')} weights",
        )


def format_checkpoints(found: Mapping[str, Any]) -> str:
    """Return the steps of the checkpoints, which are damaged, and from which the run resumes."""
    if "checkpoints" not in found:
        return ""
    if not found["checkpoints"] and not found["best_checkpoint"]:
        return "none"
    texts = [
        f"step {each['step']} ({format_bytes(each['bytes'])}"
        + (", resumes from here" if each["step"] == found["resumes_from"] else "")
        + (f", {DAMAGED})" if each["state"] == DAMAGED else ")")
        for each in found["checkpoints"]
    ]
    return ", ".join([*texts, *(["best.pt"] if found["best_checkpoint"] else [])])


def format_origin(record: Mapping[str, Any]) -> str:
    """Return versions, commit and device; what is missing is left out."""
    if not record:
        return "not recorded in result.json: crgan info with a checkpoint tells"
    names = ("crgan", "commit", "python", "torch", "torchvision")
    versions = [f"{name} {record[name]}" for name in names if record.get(name)]
    return ", ".join([*versions, f"on {record.get('device', 'an unknown device')}"])


def format_runs(facts: Facts) -> str:
    """Return a table of runs: job, status, step and best score."""
    runs: Any = facts["runs"]
    steps = [f"{run['step']} of {run['steps']}" if "step" in run else "-" for run in runs]
    columns = [
        Column("job", False, [run["job"] for run in runs]),
        Column("status", False, [run["status"] for run in runs]),
        Column("step", True, steps),
        Column("best", True, [format_best(run) for run in runs]),
        Column("metric", False, [run["metric"] for run in runs]),
    ]
    lines = ["  ".join(line).rstrip() for line in align_cells(columns)]
    failed = [run for run in runs if run["status"] == Status.FAILED]
    return "\n".join([*lines, *(f"{run['job']}: {run['error']}" for run in failed)])


def format_best(run: Mapping[str, Any]) -> str:
    """Return the best score and its step; - if there is none yet."""
    if not run["best"]:
        return "-"
    return f"{format_metric(run['best'][run['metric']])} at {int(run['best']['step'])}"
