"""The log of a run: metrics.jsonl, which counts, and the same numbers in its loggers.

Values stay on the device between two lines of the log and are read together, once per line.
"""

import itertools
import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from crgan_cli.errors import NotFinite
from crgan_cli.gan.types import TurnLog
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import (
    append_line,
    describe_damaged,
    is_metrics_line,
    read_lines,
    read_records,
)
from crgan_cli.runs.loggers.base import Logger
from crgan_cli.system.atomic import write_text
from crgan_cli.system.distributed.launch import is_main

log = logging.getLogger(__name__)


class MetricBuffer:
    """The values of the turns since the last line of the log, still on the device."""

    def __init__(self) -> None:
        self.turns: dict[tuple[str, ...], list[tuple[int, Tensor]]] = defaultdict(list)

    def append(self, step: int, turn_log: TurnLog) -> None:
        """Keep the values of a turn of step number `step`. Does not wait for the device."""
        self.turns[turn_log.names].append((step, turn_log.values))

    def pop_means(self) -> dict[str, float]:
        """Return the mean of every value over the turns that have it, and empty the buffer.

        Waits for the device. Raises NotFinite if a value is not.
        """
        self.check()
        values: dict[str, list[float]] = defaultdict(list)
        for names, turns in self.turns.items():
            for _, row in turns:
                for name, value in zip(names, row.tolist(), strict=True):
                    values[name].append(value)
        self.turns.clear()
        return {name: sum(each) / len(each) for name, each in values.items()}

    def check(self) -> None:
        """Raise NotFinite for the first value that is not finite. Waits for the device."""
        self.turns = defaultdict(list, {names: to_cpu(rows) for names, rows in self.turns.items()})
        turns = [(step, names, row) for names, rows in self.turns.items() for step, row in rows]
        for step, names, row in sorted(turns, key=lambda turn: turn[0]):
            require_finite_values(dict(zip(names, row.tolist(), strict=True)), step)

    def state_dict(self) -> dict[str, list]:
        """Return the turns, so that a resumed run writes the same means."""
        return {"turns": [(list(names), to_cpu(turns)) for names, turns in self.turns.items()]}

    def load_state_dict(self, state_dict: dict[str, list]) -> None:
        turns = {tuple(names): list(rows) for names, rows in state_dict["turns"]}
        self.turns = defaultdict(list, turns)


def to_cpu(turns: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """Return the turns with their values on the CPU. Those on a device are copied in one piece."""
    on_cpu = [turn for turn in turns if turn[1].device.type == "cpu"]
    on_device = [turn for turn in turns if turn[1].device.type != "cpu"]
    if on_device:
        table = torch.stack([values for _, values in on_device]).cpu()
        on_cpu += [(step, row) for (step, _), row in zip(on_device, table, strict=True)]
    return on_cpu


def require_finite_values(values: Mapping[str, float], step: int) -> None:
    """Raise NotFinite for the first value that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(f"{name} became {value} at step {step}.")


class Recorder:
    """Write the numbers of a run to metrics.jsonl, and let its loggers show them, and all else.

    A logger that raises is left out from then on, which is said once: a run does not end because a
    server is away. What metrics.jsonl raises ends the run. Only the main process writes; in others
    there are no loggers.
    """

    def __init__(self, run: RunDir, loggers: Mapping[str, Logger]) -> None:
        self.run = run
        self.loggers = dict(loggers) if is_main() else {}

    def open(self, *, step: int, hooks_done: bool) -> None:
        """Begin to write. Drop all that was written after the checkpoint's `step`.

        `hooks_done` is the checkpoint's too: whether samples and metrics of `step` are done.
        """
        if is_main():
            drop_lines_after(self.run, step, hooks_done=hooks_done)
        self.each(lambda logger: logger.open(self.run, step=step))

    def each(self, act: Callable[[Logger], None]) -> None:
        """Let every logger act. One that cannot is left out from now on."""
        for name, logger in [*self.loggers.items()]:
            try:
                act(logger)
            except Exception as error:
                del self.loggers[name]
                log.warning(
                    "logger=%s failed, and the run goes on without it (metrics.jsonl has all "
                    "numbers): %s: %s",
                    *(name, type(error).__name__, error),
                )
                with suppress(Exception):  # which may fail for the same reason
                    logger.close()

    def write(
        self,
        kind: str,
        step: int,
        values: Mapping[str, float],
        *,
        tag: Callable[[str], str] = str,
        **facts: float,
    ) -> None:
        """Write one line to metrics.jsonl and one scalar per value. `kind` is "train" or "eval".

        `tag` turns a name into the tag that loggers show. Raises NotFinite if a value is not.
        """
        require_finite_values(values, step)
        if not is_main():
            return
        line = {"kind": kind, "step": step, **facts, **values}
        group = "metrics/" if kind == "eval" else ""
        scalars = {f"{group}{tag(name)}": value for name, value in values.items()}
        append_line(self.run.metrics, json.dumps(line, allow_nan=False))
        self.each(lambda logger: logger.write(line, scalars, step))


def read_history(run: RunDir) -> list[dict]:
    """Return the lines of metrics.jsonl. Those that cannot be read are left out, and logged."""
    return read_records(run.metrics, is_metrics_line)


def drop_lines_after(run: RunDir, step: int, *, hooks_done: bool) -> None:
    """Remove from metrics.jsonl what was written after a checkpoint's step.

    If lines cannot be read, keep a copy of the file, and go on without them.
    """
    if step and not run.metrics.exists():
        log.warning("%s is missing: this run's log begins anew after step %d", run.metrics, step)
    records, texts, damaged = read_lines(run.metrics, is_metrics_line)
    if damaged:
        copy = keep_copy(run.metrics)
        log.warning("%s: %s. A copy is %s", run.metrics, describe_damaged(damaged), copy.name)
    kept = [
        text.decode() + "\n"
        for line, text in zip(records, texts, strict=True)
        if line["step"] < step or (line["step"] == step and (hooks_done or line["kind"] == "train"))
    ]
    write_text(run.metrics, "".join(kept))


def keep_copy(path: Path) -> Path:
    """Copy a damaged file to a new name beside it."""
    names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
    copy = next(new for name in names if not os.path.lexists(new := path.with_name(name)))
    shutil.copyfile(path, copy)
    return copy
