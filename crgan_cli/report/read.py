"""One run's folder, read for a report."""

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import yaml
from filelock import FileLock, Timeout

from crgan_cli.config.choices import infer_choices
from crgan_cli.config.resolve import flatten
from crgan_cli.errors import UserError
from crgan_cli.report.model import RunFiles, Value
from crgan_cli.report.statistics import is_secondary
from crgan_cli.runs.folder import RunDir

log = logging.getLogger(__name__)

MOST_LINES = 500
"""Lines of the training log that are kept of a run, evenly over its steps."""

EVALUATIONS = "evaluations.jsonl"
"""What `crgan eval` adds to a run's folder: a line an evaluation, with its protocol."""

HEADLINE = re.compile(r"(class_)?fi?d(_infinity)?(_|$)|kid(_|$)")
"""The numbers that can pick a best step."""

KILLED = "ended without a word: killed, or out of memory"

Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it was built


def read_run(path: Path, metric: str | None = None) -> RunFiles:
    """One run's folder. Raises UserError where its configuration cannot be read."""
    run = RunDir(path)
    result = run.read_result()
    config = read_config(run, result)
    train, evals = read_metrics(run.metrics)
    protocol = read_part(result, "protocol")
    if not evals or (metric and not any(metric in line for line in evals)):
        later = read_evaluations(path / EVALUATIONS, metric)
        evals, protocol = later if later[0] else (evals, protocol)
    status, error = find_status(run, result)
    speeds = [line[key] for line in train if (key := "speed/images_per_second") in line]
    speed = median(speeds) if speeds else 0.0
    step = int(max([0, *(line["step"] for line in (*train, *evals)), result.get("step", 0)]))
    return RunFiles(
        path=path,
        status=status,
        error=error,
        config=config,
        choices={k: str(v) for k, v in read_part(result, "choices").items()}
        or infer_choices(config),
        step=step,
        steps=int(str(config["steps"])),
        seed=int(str(config["seed"])),
        train=train,
        evals=evals,
        protocol=protocol,
        headline=str(protocol.get("headline") or guess_primary_metric(evals)),
        published={
            key: config.get(f"published.{key}")
            for key in ("fid", "source")
            if config.get("published.fid") is not None
        },
        seconds=float(result.get("seconds") or estimate_seconds(train, speed)),
        device=str(read_part(result, "provenance").get("device", "")),
        images_per_second=speed,
        peak_memory_bytes=int(result.get("peak_memory_bytes", 0)),
        samples=max(run.samples.glob("step_*.png"), default=None),
        artefacts=read_artefacts(path / "artefacts"),
    )


def read_part(result: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A record within result.json; empty where there is none."""
    found = result.get(key)
    return found if isinstance(found, dict) else {}


def estimate_seconds(train: Sequence[Mapping[str, float]], speed: float) -> float:
    """Seconds of training of a run that has not said them, by its log."""
    return train[-1].get("images_seen", 0.0) / speed if speed else 0.0


def read_config(run: RunDir, result: Mapping[str, object]) -> dict[str, Value]:
    """Dotted key -> value, lists as texts. Raises UserError where it is no run's configuration."""
    try:
        content = yaml.load(run.config.read_text(encoding="utf-8"), Loader=Parser)
        keys = flatten(content) if isinstance(content, dict) else {}
        for key in ("seed", "steps"):
            int(str(keys[key]))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        made = read_part(result, "provenance").get("crgan")
        version = f" It was made by crgan {made}." if made else ""
        raise UserError(
            f"{run.config} cannot be read as the configuration of a run.{version} Leave the run "
            "out (give the folders of the others), or report it with the crgan that made it."
        ) from error
    return {key: to_value(value) for key, value in keys.items()}


def to_value(value: object) -> Value:
    """A value that can be compared and shown; a list as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str | int | float) else None


def read_metrics(
    path: Path,
) -> tuple[tuple[Mapping[str, float], ...], tuple[Mapping[str, float], ...]]:
    """The lines of kind train, at most about MOST_LINES of them, and all of kind eval."""
    lines = read_text(path).splitlines()
    # unread, a line tells its kind by how `record.py` begins it
    train = [line for line in lines if line.startswith('{"kind": "train"')]
    every = -(-len(train) // MOST_LINES) or 1
    thinned = train[:-1][::every] + train[-1:]
    rest = [line for line in lines if not line.startswith('{"kind": "train"')]
    return (
        tuple(keep_numbers(line) for line in parse_lines(thinned, path)),
        tuple(keep_numbers(line) for line in parse_lines(rest, path) if line.get("kind") == "eval"),
    )


def read_text(path: Path) -> str:
    """A file's text; empty where there is none."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def parse_lines(lines: Sequence[str], path: Path) -> Iterator[dict]:
    """The records in lines of JSON with a step. A crash cuts a line short: it is left out."""
    for line in lines:
        try:
            record = json.loads(line)
            float(record["step"])
        except (ValueError, TypeError, KeyError):
            if line is not lines[-1]:  # in the middle, something else has written there
                log.warning("%s: a line that cannot be read is left out: %.40s", path, line)
            continue
        yield record


def keep_numbers(record: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers of a line."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def read_evaluations(
    path: Path, metric: str | None
) -> tuple[tuple[Mapping[str, float], ...], Mapping[str, object]]:
    """The evaluations by the newest protocol (that has `metric`), by step, and the protocol."""
    lines = [
        line
        for line in parse_lines(read_text(path).splitlines(), path)
        if isinstance(line.get("protocol"), dict) and (metric is None or metric in line)
    ]
    if not lines:
        return (), {}
    newest = lines[-1]["protocol"]
    by_step = {line["step"]: keep_numbers(line) for line in lines if line["protocol"] == newest}
    return tuple(by_step[step] for step in sorted(by_step)), newest


def guess_primary_metric(evals: Sequence[Mapping[str, float]]) -> str:
    """What picks the best step, of a run that has not come to say it."""
    names = evals[-1] if evals else ()
    return next((name for name in names if HEADLINE.match(name) and not is_secondary(name)), "")


def find_status(run: RunDir, result: Mapping[str, object]) -> tuple[str, str]:
    """The status of a run, and its error. One that says it runs and holds no lock was killed."""
    status = str(result.get("status", "running"))
    if status == "running" and not is_locked(run.path / ".lock"):
        return "interrupted", KILLED
    return status, str(result.get("error", ""))


def is_locked(lock: Path) -> bool:
    """Whether a process holds the lock; supposed where it cannot be tried."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except (Timeout, OSError):
        return True


def read_artefacts(folder: Path) -> dict[str, Mapping[str, object]]:
    """Measurement -> its record at the last step, and of several there the one written last."""
    found: dict[str, Mapping[str, object]] = {}
    for file in sorted(folder.glob("*/*.json"), key=lambda file: file.stat().st_mtime):
        with suppress(OSError, ValueError):
            record = json.loads(file.read_text(encoding="utf-8"))
            step = found.get(file.stem, {}).get("step", 0)
            if isinstance(record, dict) and record.get("step", 0) >= step:
                found[file.stem] = record
    return found
