"""Evaluations as records: numbers with their protocol, in evaluations.jsonl and --json files."""

import json
from pathlib import Path
from typing import NamedTuple

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import append_line, is_evaluation, read_records
from crgan_cli.runs.protocol import Record


class Evaluation(NamedTuple):
    """What was scored, the numbers, and how they were measured."""

    source: dict[str, object]  # checkpoint and step, or samples and samples_sha256
    values: dict[str, float]
    protocol: Record

    def as_json(self) -> dict[str, object]:
        """Return one flat record, except for the protocol."""
        return {**self.source, **self.values, "protocol": self.protocol}


def append_record(evaluation: Evaluation, path: Path) -> None:
    """Append a line to a file. Raise RunFailed if it cannot be written."""
    try:
        append_line(path, json.dumps(evaluation.as_json(), allow_nan=False))
    except OSError as error:
        raise RunFailed(
            f"the metrics above could not be added to {path} ({error.strerror})."
        ) from error


def load_last_record(path: Path) -> Evaluation:
    """Load the last evaluation of a run or a file. Raise UserError if there is none.

    For a run that `crgan eval` never scored, this is the last evaluation of its training.
    """
    file = RunDir(path).evaluations if path.is_dir() else path
    if not path.exists():
        raise UserError(f"--against {path} does not exist. Give a run's folder.")
    try:
        lines = read_records(file, is_evaluation)
        if lines or not path.is_dir():
            return parse_record(lines[-1])
        result = RunDir(path).read_result()
        last = {"checkpoint": str(path), **result["last"], "protocol": result["protocol"]}
        return parse_record(last)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"--against {path}: there is no evaluation that can be read. Give the folder of a run "
            f"with metrics, evaluate that run first (crgan eval RUN metrics=...), or give the "
            "evaluations.jsonl or --json file that crgan eval has written."
        ) from error


def parse_record(record: dict) -> Evaluation:
    """Read `Evaluation.as_json` back."""
    protocol = dict(record["protocol"])
    source = {key: record[key] for key in ("checkpoint", "step", "samples") if key in record}
    values = {
        key: float(value)
        for key, value in record.items()
        if key not in source and isinstance(value, int | float)
    }
    return Evaluation(source, values, protocol)
