"""What happens every N steps: sample grids, metrics, checkpoints. None of it disturbs training."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.pictures import save_picture
from crgan_cli.evaluation.sampler import EvalSampler, Sampler, eval_mode, make_grid
from crgan_cli.runs import checkpoint
from crgan_cli.runs.checkpoint import Content, Stateful
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.protocol import differences
from crgan_cli.runs.record import Recorder
from crgan_cli.system.distributed.objects import on_main
from crgan_cli.system.progress import TrainingProgress

if TYPE_CHECKING:
    from crgan_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

CheckStop = Callable[[], None]
"""Raises Interrupted where somebody wants the run to stop."""


class Hook(Protocol):
    """Called after every `every` steps, and at the end."""

    every: int

    def __call__(self, trainer: "Trainer", check: CheckStop) -> None: ...


class DrawSamples:
    """A grid of images of the same codes each time, into samples/ and TensorBoard.

    Of several processes the first draws it; the others have the same G.
    """

    def __init__(
        self, every: int, sampler: Sampler, num: int, columns: int, run: RunDir, recorder: Recorder
    ) -> None:
        self.every = every
        self.sampler = sampler
        self.num = num
        self.columns = columns
        self.run = run
        self.recorder = recorder

    def __call__(self, trainer: "Trainer", check: CheckStop) -> None:
        on_main(lambda: self.draw(trainer))

    def draw(self, trainer: "Trainer") -> None:
        """Draws and writes the grid."""
        with eval_mode(trainer.G):
            picture = make_grid(self.sampler.draw(trainer.G, 0, self.num), self.columns)
        save_picture(picture, self.run.samples / f"step_{trainer.step:08d}.png")
        self.recorder.image("samples", picture, trainer.step)


class Evaluate:
    """Metrics of images of fixed codes, and which step had the best so far."""

    def __init__(
        self, evaluator: Evaluator, scored: EvalSampler, recorder: Recorder, watch: TrainingProgress
    ) -> None:
        self.every = evaluator.every
        self.evaluator = evaluator
        self.scored = scored
        self.recorder = recorder
        self.watch = watch
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}

    def __call__(self, trainer: "Trainer", check: CheckStop) -> None:
        with self.scored.images(trainer.generator(self.evaluator.protocol.weights)) as fakes:
            values = self.evaluator(fakes, progress=self.watch.scoring, stop=check)
        headline = values[self.evaluator.headline]
        self.last = {"step": trainer.step, **values}
        if headline < self.best.get(self.evaluator.headline, float("inf")):
            self.best = self.last
        self.recorder.write(
            "eval",
            trainer.step,
            values,
            tag=self.evaluator.tag,
            images_seen=trainer.images_seen,
        )
        self.watch.scored(self.evaluator.headline, headline)

    def state_dict(self) -> dict:
        return {"protocol": self.evaluator.describe(), "last": self.last, "best": self.best}

    def load_state_dict(self, state_dict: dict) -> None:
        self.last, self.best = dict(state_dict["last"]), dict(state_dict["best"])
        changed = differences(state_dict["protocol"], self.evaluator.describe())
        if changed and self.best:
            log.warning(
                "the metrics are of another protocol than before (%s), so that the best step "
                "is looked for anew",
                "; ".join(changed),
            )
            self.best = {}


class CheckpointManager:
    """Writes checkpoints: the last `keep`, and the best one."""

    def __init__(
        self,
        run: RunDir,
        *,
        every: int,
        keep: int,
        config: str,
        provenance: dict[str, str],
        evaluate: Evaluate | None,
    ) -> None:
        self.run = run
        self.every = every
        self.keep = keep
        self.config = config
        self.provenance = provenance
        self.evaluate = evaluate

    def is_best(self, step: int) -> bool:
        """Whether this step has the best metrics so far."""
        return self.evaluate is not None and self.evaluate.best.get("step") == step

    def stateful_parts(self, trainer: "Trainer") -> dict[str, Stateful]:
        """All that has a state, by the name it is saved under."""
        parts: dict[str, Stateful] = {"window": trainer.window}
        parts["task"] = cast(Stateful, trainer.task)
        parts["engine"] = trainer.engine
        for who, optimizer in trainer.optimizers.items():
            parts[f"optimizer_{who}"] = cast(Stateful, optimizer)
        if trainer.ema:
            parts["ema"] = trainer.ema
        if self.evaluate:
            parts["evaluate"] = self.evaluate
        return parts

    def save(self, trainer: "Trainer") -> None:
        """Writes the state after the trainer's last step, unless a number in it is not finite."""
        trainer.window.check()
        content: Content = {
            "format": checkpoint.FORMAT,
            "version": checkpoint.VERSION,
            "step": trainer.step,
            "settled": trainer.hooks_done,
            "seconds": trainer.seconds,
            "random": {"seed": trainer.seed, "step": trainer.step},
            "config": self.config,
            "provenance": self.provenance,
            "states": {
                name: part.state_dict() for name, part in self.stateful_parts(trainer).items()
            },
        }
        on_main(lambda: self.write(content, trainer.step))

    def write(self, content: Content, step: int) -> None:
        """Writes a checkpoint, and drops those that are no longer kept."""
        checkpoint.require_finite_states(content, self.run.checkpoints)
        path = self.run.checkpoints / checkpoint.file_name(step)
        checkpoint.save(path, content)
        self.link_best(path, step)
        checkpoint.delete_old(self.run.checkpoints, self.keep, step)

    def link_best(self, path: Path, step: int) -> None:
        """Gives the checkpoint of the best step its second name."""
        if self.is_best(step):
            checkpoint.link_or_copy(path, self.run.best)

    def load(self, trainer: "Trainer", found: checkpoint.LoadedCheckpoint) -> None:
        """Puts the trainer where the checkpoint left it."""
        checkpoint.restore(found.content, self.stateful_parts(trainer), found.path)
        trainer.step = found.content["step"]
        trainer.hooks_done = found.content["settled"]
        trainer.seconds_before = found.content["seconds"]
        # a kill may have come between the two
        on_main(lambda: self.link_best(found.path, trainer.step))
