"""What a run writes down: metrics.jsonl, the source of truth, and the same numbers in TensorBoard.

Terms stay on the device while a window of steps lasts and are read once, at its end.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from crgan_cli.errors import RunFailed
from crgan_cli.gan.types import TurnLog
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.atomic import write_text
from crgan_cli.system.distributed.launch import is_main


class MetricBuffer:
    """The terms of the turns since the last reading, still on the device."""

    def __init__(self) -> None:
        self.turns: dict[tuple[str, ...], list[tuple[int, Tensor]]] = defaultdict(list)

    def append(self, step: int, turn_log: TurnLog) -> None:
        """Remembers a turn of step number `step`. Does not wait for the device."""
        self.turns[turn_log.names].append((step, turn_log.values))

    def pop_means(self) -> dict[str, float]:
        """The mean of every value over the turns that had it, and an empty window.

        Waits for the device. Raises RunFailed where a value is not finite.
        """
        self.check()
        sums: dict[str, list[float]] = defaultdict(list)
        for names, turns in self.turns.items():
            for _, values in turns:
                for name, value in zip(names, values.tolist(), strict=True):
                    sums[name].append(value)
        self.turns.clear()
        return {name: sum(values) / len(values) for name, values in sums.items()}

    def check(self) -> None:
        """Waits for the device. Raises RunFailed with the first step that is not finite."""
        self.turns = defaultdict(list, {names: to_cpu(rows) for names, rows in self.turns.items()})
        turns = [(step, names, row) for names, rows in self.turns.items() for step, row in rows]
        for step, names, row in sorted(turns, key=lambda turn: turn[0]):
            require_finite_values(names, row.tolist(), step)

    def state_dict(self) -> dict[str, list]:
        """The open window, so that a resumed run writes the means that it would have written."""
        return {"turns": [(list(names), to_cpu(turns)) for names, turns in self.turns.items()]}

    def load_state_dict(self, state_dict: dict[str, list]) -> None:
        kept = {tuple(names): list(turns) for names, turns in state_dict["turns"]}
        self.turns = defaultdict(list, kept)


def to_cpu(turns: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """The turns' values on the CPU, copied in one piece where they are not there yet."""
    there = [turn for turn in turns if turn[1].device.type == "cpu"]
    waiting = [turn for turn in turns if turn[1].device.type != "cpu"]
    if waiting:
        table = torch.stack([values for _, values in waiting]).cpu()
        there += [(step, row) for (step, _), row in zip(waiting, table, strict=True)]
    return there


def require_finite_values(names: tuple[str, ...], values: list[float], step: int) -> None:
    """Raises RunFailed with the first term that is not finite, and the step."""
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise RunFailed(
                f"{name} became {value} at step {step}. The last good checkpoint is kept. Try a "
                "smaller learning rate or regularizer weight, or engine.precision=fp32."
            )


class Recorder:
    """Writes numbers, pictures and texts by step, and drops what a resumed run will write again."""

    def __init__(self, run: RunDir, *, step: int, hooks_done: bool) -> None:
        """`step` and `hooks_done` are the checkpoint's: what lies beyond them is dropped."""
        self.run = run
        drop_lines_after(run, step, settled=hooks_done)
        # also at step 0: a run killed before its first checkpoint has logged steps as well
        resumed = run.tensorboard.exists()
        self.writer = SummaryWriter(
            str(run.tensorboard), purge_step=step + 1 if resumed else None, flush_secs=10
        )

    def write(
        self,
        kind: str,
        step: int,
        values: Mapping[str, float],
        *,
        tag: Callable[[str], str] = str,
        **facts: float,
    ) -> None:
        """One line of metrics.jsonl, and one scalar a value. `kind` is "train" or "eval".

        `tag` makes TensorBoard's tag of a name. Raises RunFailed where a value is not
        finite.
        """
        require_finite_values(tuple(values), list(values.values()), step)
        line = {"kind": kind, "step": step, **facts, **values}
        with open(self.run.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        group = "metrics/" if kind == "eval" else ""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}{tag(name)}", value, step)
        self.writer.flush()  # what a kill takes from memory, a resumed run would not write again

    def image(self, name: str, image: Tensor, step: int) -> None:
        """A uint8 picture, (C, H, W)."""
        self.writer.add_image(name, image, step)

    def text(self, name: str, text: str) -> None:
        """A text in a block of its own."""
        self.writer.add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def hparams(self, settings: Mapping[str, object], metric: str | None) -> None:
        """One row of TensorBoard's HPARAMS: the settings, and the tag of a metric logged already.

        `SummaryWriter.add_hparams` would open a further run for it, and a false point of the curve.
        """
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in settings.items()
        }
        *start, self.end = hparams(plain, {f"metrics/{metric}": 0.0} if metric else {})
        for summary in start:
            self.writer._get_file_writer().add_summary(summary)

    def finish(self) -> None:
        """Marks the row of HPARAMS as a run that came to its end."""
        self.writer._get_file_writer().add_summary(self.end)

    def close(self) -> None:
        """Writes out what is still in memory."""
        self.writer.close()


class NullRecorder(Recorder):
    """The recorder of a process that is not the first of its run: it writes nothing."""

    def __init__(self) -> None:
        pass

    def write(
        self,
        kind: str,
        step: int,
        values: Mapping[str, float],
        *,
        tag: Callable[[str], str] = str,
        **facts: float,
    ) -> None:
        require_finite_values(tuple(values), list(values.values()), step)

    def image(self, name: str, image: Tensor, step: int) -> None:
        pass

    def text(self, name: str, text: str) -> None:
        pass

    def hparams(self, settings: Mapping[str, object], metric: str | None) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


def make_recorder(run: RunDir, *, step: int, settled: bool) -> Recorder:
    """The recorder of this process; of several that train one run, the first one's writes."""
    return Recorder(run, step=step, hooks_done=settled) if is_main() else NullRecorder()


def read_history(run: RunDir) -> list[dict]:
    """All whole lines of metrics.jsonl; a last line cut short by a crash is left out."""
    if not run.metrics.is_file():
        return []
    lines = run.metrics.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def drop_lines_after(run: RunDir, step: int, *, settled: bool) -> None:
    """Removes from metrics.jsonl what came after a checkpoint's step."""
    kept = [
        line
        for line in read_history(run)
        if line["step"] < step or (line["step"] == step and (settled or line["kind"] == "train"))
    ]
    write_text(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
