"""The training loop: the turns of a step, then what is due after it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import nn

from crgan_cli.data.batches import TrainingImages
from crgan_cli.errors import Interrupted, RunFailed
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.runs.checkpoint import Stateful
from crgan_cli.runs.record import MetricBuffer, Recorder
from crgan_cli.system.paths import shell_quoted
from crgan_cli.system.progress import TrainingProgress
from crgan_cli.training.clock import Clock
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import CaptureFailed
from crgan_cli.training.hooks import CheckpointManager, Hook
from crgan_cli.training.optimizers import Optimization
from crgan_cli.training.step_cost import StepCost
from crgan_cli.training.stop import StopSignal

WARM_WINDOWS = 2
"""The speed is logged at the end of this log window: the first contains compilation and warm-up."""


def reseed(seed: int, step: int, device: torch.device) -> None:
    """Seed all generators for a step by (seed, step), so that a run resumes by counting."""
    (word,) = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    number = int(word >> np.uint64(1))
    torch.default_generator.manual_seed(number)  # torch.manual_seed takes half a millisecond
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)


class Trainer:
    """Train for `steps` steps; after each one, log, run hooks and save what is due."""

    def __init__(
        self,
        task: Task,
        engine: Eager,
        optimization: Optimization,
        make_batches: Callable[[Stage], TrainingImages],
        stages: Stages,
        *,
        ema: EMA | None,
        seed: int,
        steps: int,
        log_every: int,
        count_cost: Callable[[Stage], StepCost | None] = lambda stage: None,
    ) -> None:
        """`make_batches` returns the real images of a stage, whose batches count from 0 in it.

        `count_cost` is asked when the speed of a stage is logged: it may take seconds.
        """
        self.task = task
        self.engine = engine
        self.optimization = optimization
        self.optimizers = optimization.build(engine.players)
        self.make_batches = make_batches
        self.stages = stages
        self.ema = ema
        engine.attach(self.optimizers, ema, optimization.clip_grad_norm)
        self.seed = seed
        self.steps = steps
        self.log_every = log_every
        self.count_cost = count_cost
        self.windows = 0  # of this stage, in this session
        self.window = MetricBuffer()
        self.step = 0
        self.stage: Stage | None = None
        self.batch = -1  # the number of the one that the engine holds
        self.hooks_done = True
        self.seconds_before = 0.0  # of earlier sessions
        self.began = time.monotonic()
        self.turns_per_step = {who: task.turns.count(who) for who in task.turns}

    @property
    def images_seen(self) -> int:
        """Real images that D has seen, repeats counted."""
        return self.stages.images(self.step)

    @property
    def seconds(self) -> float:
        """Seconds in `fit` so far, over all sessions, without those of `log_share`."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def G(self) -> nn.Module:
        """The player G to evaluate: the averaged one if any, else the trained one."""
        return self.generator("auto")

    def generator(self, weights: str) -> nn.Module:
        """G with these weights: ema, raw, or auto (the average if any)."""
        assert self.ema or weights != "ema", "a run without an average is refused at its start"
        return self.ema.G if self.ema and weights != "raw" else self.task.player("g")

    def stateful_parts(self) -> dict[str, Stateful]:
        """All that has a state, by the name it is saved under."""
        parts: dict[str, Stateful] = {"window": self.window, "engine": self.engine}
        parts["task"] = cast(Stateful, self.task)
        for who, optimizer in self.optimizers.items():
            parts[f"optimizer_{who}"] = cast(Stateful, optimizer)
        if self.ema:
            parts["ema"] = self.ema
        return parts

    def fit(
        self,
        recorder: Recorder,
        hooks: Sequence[Hook],
        checkpoints: CheckpointManager,
        progress: TrainingProgress,
        stop: StopSignal,
    ) -> None:
        """Train to the end. Raises Interrupted, after saving, if a signal asks to stop."""
        progress.begin()
        self.began = time.monotonic()
        clock = Clock(self.step, progress.training_seconds)

        def log_last_window() -> None:
            if self.window.turns:
                self.log_window(recorder, progress, clock)

        try:
            # Hooks that the last session did not finish, or that are due since a run ends here.
            if not self.hooks_done or checkpoints.stops_early:
                self.run_hooks(hooks, checkpoints, stop, log_last_window)
            while self.step < self.steps and not checkpoints.stops_early:
                stop.check()
                with self.saved_if_capture_fails(checkpoints):
                    self.train_step()
                progress.advance(self.step)
                if self.should_log(self.step):
                    self.log_window(recorder, progress, clock)
                with progress.paused():
                    self.run_hooks(hooks, checkpoints, stop, log_last_window)
        except Interrupted:
            checkpoints.save(self)
            raise
        finally:
            self.engine.end()

    @contextmanager
    def saved_if_capture_fails(self, checkpoints: CheckpointManager) -> Iterator[None]:
        """Save the state at the start of the body if a turn cannot be captured in the body.

        It is copied to the CPU before, since a failed capture leaves the device's allocator and
        generator in a state that PyTorch does not repair (see `Graphs.capture`).
        """
        copied = checkpoints.copy_state(self) if self.engine.has_ready_turns() else None
        try:
            yield
        except CaptureFailed as error:
            assert copied, "turns are captured only if some are ready"
            checkpoints.write_copy(copied)
            raise RunFailed(
                f"{error}\nStep {self.step} is saved. Go on without graphs: "
                f"crgan train --from {shell_quoted(checkpoints.run.path)} engine=eager"
            ) from error

    def should_log(self, step: int) -> bool:
        """Whether the log window ends with this step."""
        return is_due(step, self.log_every, self.steps)

    def begin(self) -> None:
        """Prepare the first step of a session. Call it after loading a checkpoint."""
        self.optimization.refresh(self.optimizers)
        # as they were after the last step, also in a checkpoint that is saved before the next
        last = max(0, self.step - 1)
        rate = self.stages.at(last).rate
        self.optimization.schedule(self.optimizers, last, self.steps, rate)
        self.enter(self.stages.at(self.step))

    def enter(self, stage: Stage) -> None:
        """Draw the batches of a stage from now on: turns have shapes of their own in it."""
        self.engine.end()
        self.stage, self.batch, self.windows = stage, -1, 0
        self.batches = self.make_batches(stage)
        self.engine.begin(self.batches)

    def train_step(self) -> None:
        """Run all turns of one step. G's turn gets the batch of D's last turn.

        If G plays first, it gets the batch of D's next turn.
        """
        stage = self.stages.at(self.step)
        if stage is not self.stage:
            self.enter(stage)
        if self.step == stage.first > 0:
            self.optimization.reset(self.optimizers)
        self.engine.capture_ready_turns()

        # Random numbers and learning rates of this step.
        reseed(self.seed, self.step, self.engine.device)
        self.optimization.schedule(self.optimizers, self.step, self.steps, stage.rate)

        measure = self.should_log(self.step + 1)
        lerp_weight = self.ema.lerp_weight(self.step + 1) if self.ema else None
        done = dict.fromkeys(self.turns_per_step, 0)
        last = len(self.task.turns) - 1
        for index, who in enumerate(self.task.turns):
            # Turn numbers count over the whole run. D's is the number of its batch, counted over
            # the stage.
            turn = self.step * self.turns_per_step[who] + done[who]
            last_d_turn = max(0, done["d"] - (who != "d"))
            batch = (self.step - stage.first) * self.turns_per_step["d"] + last_d_turn
            inputs = self.batches.inputs(batch) if batch != self.batch else ()
            self.batch = batch

            # One update of one player. The last one of a step also updates the average of G.
            average = lerp_weight if index == last else None
            turn_log = self.engine.turn(who, turn, inputs, measure=measure, lerp_weight=average)

            self.window.append(self.step + 1, turn_log)
            done[who] += 1
        self.step += 1
        self.hooks_done = False

    def log_window(self, recorder: Recorder, progress: TrainingProgress, clock: Clock) -> None:
        """Log the means of the window, the learning rates and the speed."""
        means = self.window.pop_means()
        last, factor = self.step - 1, self.stages.at(self.step - 1).rate
        rates = {
            f"learning_rate/{who}": factor * self.optimization.learning_rate(who, last, self.steps)
            for who in self.optimizers
        }

        # Speed, and once per stage its share of the device's peak.
        images = self.images_seen - self.stages.images(clock.step)
        steps = self.step - clock.step
        steps_per_second = clock.steps_per_second(self.step)
        if not steps:  # the window is of the session before
            recorder.write("train", self.step, means | rates, images_seen=self.images_seen)
            return
        speed = steps_per_second * images / steps
        self.windows += 1
        if self.windows == WARM_WINDOWS:
            with progress.paused():
                self.log_share(self.stages.at(last), steps_per_second, speed)
        progress.show_speed(speed)

        numbers = means | rates | {"speed/images_per_second": speed}
        recorder.write("train", self.step, numbers, images_seen=self.images_seen)

    def log_share(self, stage: Stage, steps_per_second: float, speed: float) -> None:
        """Log FLOP of a stage's step, and the speed in FLOP/s beside the device's peak."""
        before = time.monotonic()
        cost = self.count_cost(stage)
        self.began += time.monotonic() - before  # it is no training
        if cost:
            cost.log_speed(stage.sides if len(self.stages) > 1 else None, steps_per_second, speed)

    def run_hooks(
        self,
        hooks: Sequence[Hook],
        checkpoints: CheckpointManager,
        stop: StopSignal,
        log_last_window: Callable[[], None],
    ) -> None:
        """Run the hooks due at this step, then save a checkpoint if due or the best so far.

        If the run ends here before its last step, all hooks are due, and a line of the log.
        """
        due = [hook for hook in hooks if is_due(self.step, hook.every, self.steps)]
        if due and not self.hooks_done:
            self.window.check()  # a loss that is not finite is reported before images are scored
            for hook in due:
                hook(self, stop.check)
        ends = checkpoints.stops_early
        if ends:  # as at the last step
            for hook in hooks:
                if hook not in due:
                    hook(self, stop.check)
            log_last_window()
        self.hooks_done = True
        due_now = is_due(self.step, checkpoints.every, self.steps)
        if due_now or ends or checkpoints.is_best(self.step):
            checkpoints.save(self)


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something is due: every `every` steps, and at the end."""
    return step % every == 0 or step == steps
