"""Read one run's folder for a report."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crgan_cli.config.choices import infer_choices
from crgan_cli.config.resolve import flatten
from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stages
from crgan_cli.report.model import Line, RunFiles, Value
from crgan_cli.report.published import find_published
from crgan_cli.report.settings import to_value
from crgan_cli.report.stages import read_stages
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import is_evaluation, is_metrics_line, read_lines, read_records
from crgan_cli.runs.metric_names import learn_measures, may_lead
from crgan_cli.runs.status import Status
from crgan_cli.system.numbers import name_nonfinite

log = logging.getLogger(__name__)

MAX_TRAIN_LINES = 500
"""Lines of the training log that are read per run, spread evenly over its steps."""

TRAIN = b'{"kind": "train"'
"""How such a line begins. record.py writes the kind first, so that most lines need no parsing."""

KILLED = "ended without a message: killed, or out of memory"

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C version is ten times faster


def read_run(path: Path, metric: str | None = None) -> RunFiles:
    """Read one run's folder. Raises UserError if its configuration cannot be read."""
    run = RunDir(path)
    result = run.read_result()
    config, stages = read_config(run, result)
    train, evals = read_metrics(run.metrics)
    protocol = read_part(result, "protocol")
    if not evals or (metric and not any(metric in line for line in evals)):
        later = read_evaluations(RunDir(path).evaluations, metric)
        evals, protocol = later if later[0] else (evals, protocol)
    learn_measures(protocol)
    status, error = find_status(run, result)
    chosen = {k: str(v) for k, v in read_part(result, "choices").items() if v is not None}
    choices = infer_choices(config) | chosen  # Hydra records no sum that an experiment's file names
    speeds = [line[key] for line in train if (key := "speed/images_per_second") in line]
    speed = median(speeds) if speeds else 0.0
    return RunFiles(
        path=path,
        status=status,
        error=error,
        config=config,
        choices=choices,
        step=int(
            max([0, *(line["step"] for line in (*train, *evals)), read_number(result, "step")])
        ),
        steps=int(str(config["steps"])),
        seed=int(str(config["seed"])),
        train=train,
        evals=evals,
        protocol=protocol,
        headline=str(protocol.get("headline") or guess_primary_metric(evals)),
        published=find_published(config, choices),
        seconds=read_number(result, "seconds") or sum_logged_seconds(run.metrics),
        device=str(read_part(result, "provenance").get("device", "")),
        images_per_second=speed,
        peak_memory_bytes=int(read_number(result, "peak_memory_bytes")),
        samples=next(iter(run.list_samples()), None),
        artefacts=read_artefacts(path / "artefacts"),
        not_finite=find_nonfinite(run, result),
        stages=stages,
        retuned="'optimizer." in str(result.get("changes", [])),
        stopped_early=bool(read_part(result, "stopped_early")),
        commit=str(read_part(result, "provenance").get("commit", "")),
    )


def read_part(result: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return a mapping inside result.json. It is empty if there is none."""
    part = result.get(key)
    return part if isinstance(part, dict) else {}


def read_number(result: Mapping[str, object], key: str) -> float:
    """Return a number of result.json. It is 0 if there is none, or one that is not finite."""
    value = result.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def parse_yaml(text: str) -> Any:
    """Read YAML. Raises yaml.YAMLError. The C version refuses names that are not UTF-8."""
    return yaml.load(text, Loader=yaml.SafeLoader if "\\uDC" in text else Loader)


def read_config(
    run: RunDir, result: Mapping[str, object]
) -> tuple[dict[str, Value], Stages | None]:
    """Return dotted key -> value, and the stages of a run that grows.

    Raises UserError if the file is not a run's configuration.
    """
    try:
        content = parse_yaml(run.config.read_text(encoding="utf-8"))
        config = flatten(content) if isinstance(content, dict) else {}
        for key in ("seed", "steps"):
            int(str(config[key]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        version = read_part(result, "provenance").get("crgan")
        writer = f" It was made by crgan {version}." if version else ""
        raise UserError(
            f"{run.config} cannot be read as the configuration of a run.{writer} Leave the run out "
            "(give the folders of the others), or report it with the crgan that made it."
        ) from error
    return {key: to_value(value) for key, value in config.items()}, read_stages(content)


def read_metrics(path: Path) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """Return about `MAX_TRAIN_LINES` lines of kind train, and all lines of kind eval."""
    lines = read_records(path, is_metrics_line, thin_train_lines)
    train, evals = ([line for line in lines if line["kind"] == kind] for kind in ("train", "eval"))
    return (
        tuple(keep_finite(keep_numbers(line)) for line in train),
        tuple(keep_numbers(line) for line in evals),
    )


def sum_logged_seconds(path: Path) -> float:
    """Return how long a run trained by its log: the images of each line at that line's speed.

    A run reports its seconds when it ends. All lines are read, as a speed is that of its own line
    only; of a step that was trained again after a crash the last line counts.
    """
    records = read_lines(path, is_metrics_line, select_train_lines).records
    lines = {line["step"]: keep_finite(keep_numbers(line)) for line in records}
    seconds, before = 0.0, 0.0
    for _, line in sorted(lines.items()):
        speed, images = line.get("speed/images_per_second", 0.0), line.get("images_seen", 0.0)
        if speed > 0 and images > before:
            seconds += (images - before) / speed
            before = images
    return seconds


def thin_train_lines(lines: list[bytes]) -> list[bytes]:
    """Choose about `MAX_TRAIN_LINES` lines of kind train, spread evenly, and all others."""
    train = select_train_lines(lines)
    every = -(-len(train) // MAX_TRAIN_LINES) or 1
    rest = [line for line in lines if not line.startswith(TRAIN)]
    return [*train[:-1][::every], *train[-1:], *rest]


def select_train_lines(lines: list[bytes]) -> list[bytes]:
    """Choose the lines of kind train."""
    return [line for line in lines if line.startswith(TRAIN)]


def keep_numbers(record: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a line. Those of older versions may be NaN."""
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


def keep_finite(line: Line) -> dict[str, float]:
    """Return the finite numbers of a line."""
    return {key: value for key, value in line.items() if math.isfinite(value)}


def find_nonfinite(run: RunDir, result: Mapping[str, object]) -> tuple[str, ...]:
    """Return which numbers in a run's files are not finite: "fid at step 300 of metrics.jsonl"."""
    found = [f"{name} of {run.result.name}" for name in name_nonfinite(result)]
    for path, is_valid in ((run.metrics, is_metrics_line), (run.evaluations, is_evaluation)):
        found += [
            f"{name} at step {record.get('step')} of {path.name}"
            for record in read_lines(path, is_valid, select_nonfinite).records
            for name in name_nonfinite(record)
        ]
    return tuple(found)


def select_nonfinite(lines: list[bytes]) -> list[bytes]:
    """Choose the lines that may hold a number that is not finite."""
    return [line for line in lines if b"NaN" in line or b"Infinity" in line]


def read_evaluations(
    path: Path, metric: str | None
) -> tuple[tuple[Line, ...], Mapping[str, object]]:
    """Return the evaluations with the newest protocol that has `metric`, and that protocol."""
    lines = [
        line
        for line in read_records(path, is_evaluation)
        if isinstance(line.get("step"), int) and (metric is None or metric in line)
    ]
    if not lines:
        return (), {}
    newest = lines[-1]["protocol"]
    by_step = {
        line["step"]: keep_numbers(line)
        for line in lines
        if without_side(line["protocol"]) == without_side(newest)
    }
    return tuple(by_step[step] for step in sorted(by_step)), newest


def without_side(protocol: Mapping[str, object]) -> dict[str, object]:
    """Return a protocol without how far the networks of its checkpoint had grown."""
    return {key: value for key, value in protocol.items() if key != "generator_side"}


def guess_primary_metric(evals: Sequence[Line]) -> str:
    """Return the primary metric of a run that has no result yet. It is empty without metrics."""
    return next((name for name in (evals[-1] if evals else ()) if may_lead(name)), "")


def find_status(run: RunDir, result: Mapping[str, object]) -> tuple[Status, str]:
    """Return a run's status and its error. A run that holds no lock is not running: killed."""
    try:
        status = Status(str(result.get("status", Status.RUNNING)))
    except ValueError:
        return Status.FAILED, f"{run.result.name} has an unknown status: {result['status']}"
    if status == Status.RUNNING and not is_locked(run.path / ".lock"):
        return Status.INTERRUPTED, KILLED
    return status, str(result.get("error", ""))


def is_locked(lock: Path) -> bool:
    """Return whether a process holds the lock, also if this cannot be tested."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except (Timeout, OSError):
        return True


def read_artefacts(folder: Path) -> dict[str, dict]:
    """Return measurement -> its record at the last step. Of several, the newest file counts."""
    records: dict[str, dict] = {}
    for file in sorted(folder.glob("*/*.json"), key=lambda file: file.lstat().st_mtime):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["step"] >= records.get(file.stem, {"step": 0})["step"]:
                records[file.stem] = record
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            log.warning("%s is damaged: it is left out", file)
    return records
