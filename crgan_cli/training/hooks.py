"""What runs every N steps: sample grids, metrics, checkpoints. None of it disturbs training."""

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from crgan_cli.evaluation.drawing import DrawsSampler, Painter
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.pictures import save_picture
from crgan_cli.runs import checkpoint
from crgan_cli.runs.checkpoint import Content, Stateful
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.protocol import differences
from crgan_cli.runs.record import MetricBuffer, Recorder
from crgan_cli.system.distributed.launch import is_main
from crgan_cli.system.distributed.objects import on_main
from crgan_cli.system.progress import TrainingProgress
from crgan_cli.training.early_stop import EarlyStop

log = logging.getLogger(__name__)

CheckStop = Callable[[], None]
"""Raises Interrupted if the run has been asked to stop."""


class TrainerView(Protocol):
    """What a hook reads of the trainer: how far the run is, and its generators."""

    step: int

    @property
    def images_seen(self) -> int: ...

    @property
    def G(self) -> nn.Module: ...

    def generator(self, weights: str) -> nn.Module: ...


class ResumableTrainer(TrainerView, Protocol):
    """What a checkpoint saves and restores besides."""

    seed: int
    hooks_done: bool
    seconds_before: float
    window: MetricBuffer

    @property
    def seconds(self) -> float: ...

    def stateful_parts(self) -> dict[str, Stateful]: ...


class Hook(Protocol):
    """Called after every `every` steps, and at the end."""

    every: int

    def __call__(self, trainer: TrainerView, check_stop: CheckStop) -> None: ...


class DrawSamples:
    """A grid of the same images each time, into samples/ and the loggers.

    With several processes, only the main one draws: all have the same G.
    """

    def __init__(self, every: int, paint: Painter, run: RunDir, recorder: Recorder) -> None:
        self.every = every
        self.paint = paint
        self.run = run
        self.recorder = recorder

    def __call__(self, trainer: TrainerView, check_stop: CheckStop) -> None:
        on_main(lambda: self.draw(trainer))

    def draw(self, trainer: TrainerView) -> None:
        """Draw and write the grid."""
        picture = self.paint(trainer.G)
        save_picture(picture, self.run.samples / f"step_{trainer.step:08d}.png")
        self.recorder.each(lambda logger: logger.image("samples", picture, trainer.step))


class Evaluate:
    """Metrics of images of fixed latents or inputs, and the step with the best so far."""

    def __init__(
        self,
        evaluator: Evaluator,
        scored: DrawsSampler,
        recorder: Recorder,
        watch: TrainingProgress,
        early_stop: EarlyStop,
    ) -> None:
        self.every = evaluator.every
        self.evaluator = evaluator
        self.sampler = scored
        self.recorder = recorder
        self.progress = watch
        self.early_stop = early_stop
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}

    def __call__(self, trainer: TrainerView, check_stop: CheckStop) -> None:
        G = trainer.generator(self.evaluator.protocol.weights)
        with self.sampler.images(G) as drawn:
            values = self.evaluator.score_draws(
                drawn, progress=self.progress.show_scoring, stop=check_stop
            )
        headline = values[self.evaluator.headline]
        self.last = {"step": trainer.step, **values}
        if headline < self.best.get(self.evaluator.headline, float("inf")):
            self.best = self.last
        self.early_stop.observe(headline, trainer.step)
        self.recorder.write(
            "eval",
            trainer.step,
            values,
            tag=self.evaluator.tag,
            images_seen=trainer.images_seen,
        )
        self.progress.show_metric(self.evaluator.headline, headline)

    def state_dict(self) -> dict:
        return {
            "protocol": self.evaluator.describe(),
            "last": self.last,
            "best": self.best,
            "early_stop": self.early_stop.state_dict(),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        self.last, self.best = dict(state_dict["last"]), dict(state_dict["best"])
        changed = differences(state_dict["protocol"], self.evaluator.describe())
        if changed and self.best:
            log.warning(
                "the metrics have another protocol than before (%s): the best step is searched "
                "again from here",
                "; ".join(changed),
            )
            self.best = {}
        elif "early_stop" in state_dict:  # not in the checkpoints of older versions
            self.early_stop.load_state_dict(state_dict["early_stop"])


class CheckpointManager:
    """Save checkpoints, the last `keep` and the best one, and restore them."""

    def __init__(
        self,
        run: RunDir,
        *,
        every: int,
        keep: int,
        config: str,
        provenance: dict[str, str],
        class_names: Sequence[str],
        evaluate: Evaluate | None,
    ) -> None:
        self.run = run
        self.every = every
        self.keep = keep
        self.config = config
        self.provenance = provenance
        self.class_names = list(class_names)
        self.evaluate = evaluate

    def is_best(self, step: int) -> bool:
        """Whether this step has the best metrics so far."""
        return self.evaluate is not None and self.evaluate.best.get("step") == step

    @property
    def stops_early(self) -> bool:
        """Whether the run should end at this step."""
        return self.evaluate is not None and self.evaluate.early_stop.ended

    def stateful_parts(self, trainer: ResumableTrainer) -> dict[str, Stateful]:
        """All that has a state, by the name it is saved under."""
        return trainer.stateful_parts() | ({"evaluate": self.evaluate} if self.evaluate else {})

    def save(self, trainer: ResumableTrainer) -> None:
        """Save the state after the last step. Raises RunFailed if a number is not finite."""
        content = self.content(trainer)
        on_main(lambda: self.write(content))

    def copy_state(self, trainer: ResumableTrainer) -> io.BytesIO:
        """Return what `save` would save, in memory of its own; for `write_copy`."""
        content = self.content(trainer)
        return checkpoint.save_to_memory(content) if is_main() else io.BytesIO()

    def write_copy(self, copied: io.BytesIO) -> None:
        """Write the checkpoint of `copy_state`. The device is not used."""
        on_main(lambda: self.write(checkpoint.load_from_memory(copied)))

    def content(self, trainer: ResumableTrainer) -> Content:
        """The content of a checkpoint. Raises RunFailed if a logged number is not finite."""
        trainer.window.check()
        return {
            "format": checkpoint.FORMAT,
            "version": checkpoint.VERSION,
            "step": trainer.step,
            "settled": trainer.hooks_done,
            "seconds": trainer.seconds,
            "random": {"seed": trainer.seed, "step": trainer.step},
            "config": self.config,
            "provenance": self.provenance,
            "class_names": self.class_names,
            "states": {
                name: part.state_dict() for name, part in self.stateful_parts(trainer).items()
            },
        }

    def write(self, content: Content) -> None:
        """Write a checkpoint, and delete those that are too old."""
        step = content["step"]
        checkpoint.require_finite_states(content)
        path = self.run.checkpoints / checkpoint.file_name(step)
        checkpoint.save(path, content)
        self.link_best(path, step)
        checkpoint.delete_old(self.run.checkpoints, self.keep, step)

    def link_best(self, path: Path, step: int) -> None:
        """Give the checkpoint of the best step its second name."""
        if self.is_best(step):
            checkpoint.link_or_copy(path, self.run.best)

    def load(self, trainer: ResumableTrainer, found: checkpoint.LoadedCheckpoint) -> None:
        """Restore the trainer from a checkpoint. Writes nothing; `complete` does."""
        checkpoint.restore(found.content, self.stateful_parts(trainer), found.path)
        trainer.step = found.content["step"]
        trainer.hooks_done = found.content["settled"]
        trainer.seconds_before = found.content["seconds"]

    def complete(self, path: Path, step: int) -> None:
        """Do what a kill left undone of `write`. Newer files are damaged: they stay until then."""
        self.link_best(path, step)
        if next(iter(self.run.list_checkpoints()), None) == path:
            checkpoint.delete_old(self.run.checkpoints, self.keep, step)
