"""The loop: turns, then what is due after a step."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from crgan_cli.data.batches import Batches
from crgan_cli.errors import Interrupted
from crgan_cli.gan.tasks.base import Task
from crgan_cli.runs.record import MetricBuffer, Recorder
from crgan_cli.system.distributed.objects import StopFlag
from crgan_cli.system.progress import TrainingProgress
from crgan_cli.system.signals import handle_signals
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.hooks import CheckpointManager, Hook
from crgan_cli.training.optimizers import Adam

log = logging.getLogger(__name__)

WARM_WINDOWS = 2
"""The window of the log whose speed is said: the first has compilation and warm-up in it."""


def reseed(seed: int, step: int, device: torch.device) -> None:
    """All random numbers of a step derive from (seed, step), so a run resumes by counting."""
    (word,) = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    number = int(word >> np.uint64(1))
    torch.default_generator.manual_seed(number)  # torch.manual_seed takes half a millisecond
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)


ONE_SIGNAL_SECONDS = 0.5
"""A Ctrl-C reaches a sweep's jobs twice, from the terminal and from the sweep: that is one."""


class StopSignal:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a stop between two steps; a second, at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.received_at = 0.0
        self.poll = StopFlag()

    def handling_signals(self) -> AbstractContextManager[None]:
        """Handles the signals while the body runs."""
        return handle_signals(self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self.signum is not None and now - self.received_at > ONE_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        if self.signum is None:
            self.signum, self.received_at = signum, now

    def check(self) -> None:
        """Raises Interrupted where a signal has come, to whichever process of the run."""
        if self.poll(self.signum is not None):
            raise Interrupted(self.signum or signal.SIGTERM)


class StepCost(NamedTuple):
    """What a step is worth, and what the device could do."""

    flops: float  # of a step, as the networks are written: folding shows as speed
    peak: float | None  # FLOP/s of the device's matrix products; None where that is not known
    peak_name: str  # the peak, in words

    def describe(self, steps_per_second: float) -> str:
        """The speed in FLOP/s, and as a share of the peak."""
        speed = self.flops * steps_per_second
        share = f", {speed / self.peak:.1%} of {self.peak_name}" if self.peak else ""
        return f"{speed / 1e12:.3g} TFLOP/s{share}"


class Trainer:
    """Takes steps until there are `steps`, and after each does what is due."""

    def __init__(
        self,
        task: Task,
        engine: Eager,
        optimization: Adam,
        batches: Batches,
        *,
        ema: EMA | None,
        seed: int,
        steps: int,
        log_every: int,
        work: StepCost | None = None,
    ) -> None:
        self.task = task
        self.engine = engine
        self.optimization = optimization
        self.optimizers = optimization.build(engine.players)
        self.batches = batches
        self.ema = ema
        engine.attach(self.optimizers, batches, ema)
        self.seed = seed
        self.steps = steps
        self.log_every = log_every
        self.step_cost = work
        self.windows = 0
        self.window = MetricBuffer()
        self.step = 0
        self.hooks_done = True
        self.seconds_before = 0.0  # of earlier sessions
        self.began = time.monotonic()
        self.turns_per_step = {who: task.turns.count(who) for who in task.turns}

    @property
    def images_seen(self) -> int:
        """Real images that D has been shown, repeats counted."""
        return self.step * self.turns_per_step["d"] * self.batches.batch_size

    @property
    def seconds(self) -> float:
        """Spent in `fit` so far, over all sessions."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def G(self) -> nn.Module:
        """The generator to judge: the average where there is one, else the trained one."""
        return self.generator("auto")

    def generator(self, weights: str) -> nn.Module:
        """G with the weights asked for: ema, raw, or auto (the average where there is one)."""
        assert self.ema or weights != "ema", "a run without an average is refused at its start"
        return self.ema.G if self.ema and weights != "raw" else self.task.player("g")

    def fit(
        self,
        recorder: Recorder,
        hooks: Sequence[Hook],
        keeper: CheckpointManager,
        watch: TrainingProgress,
        stop: StopSignal,
    ) -> None:
        """Trains to the end. Raises Interrupted, all saved, where a signal asks to stop."""
        watch.begin()
        self.began = time.monotonic()
        clock = Clock(self.step)
        try:
            if not self.hooks_done:
                self.run_hooks(hooks, keeper, stop)
            while self.step < self.steps:
                stop.check()
                self.train_step()
                watch.advance(self.step)
                if is_due(self.step, self.log_every, self.steps):
                    self.write_window(recorder, watch, clock)
                with clock.paused():
                    self.run_hooks(hooks, keeper, stop)
        except Interrupted:
            keeper.save(self)
            raise
        finally:
            self.engine.end()

    def begin(self) -> None:
        """Before the first step of a session, when a checkpoint has been loaded."""
        self.optimization.refresh(self.optimizers)
        self.engine.begin()

    def train_step(self) -> None:
        """All turns of one step. G's turn gets the batch that D has just seen."""
        reseed(self.seed, self.step, self.engine.device)
        self.optimization.schedule(self.optimizers, self.step, self.steps)
        measure = is_due(self.step + 1, self.log_every, self.steps)
        share = self.ema.lerp_weight(self.step + 1) if self.ema else None
        done = dict.fromkeys(self.turns_per_step, 0)
        last = len(self.task.turns) - 1
        for number, who in enumerate(self.task.turns):
            own = who == "d" or number == 0
            batch = (
                self.batches.inputs(self.step * self.turns_per_step["d"] + done["d"]) if own else ()
            )
            self.task.set_turn(who, self.step * self.turns_per_step[who] + done[who])
            turn_log = self.engine.turn(
                who, batch, measure=measure, lerp_weight=share if number == last else None
            )
            self.window.append(self.step + 1, turn_log)
            done[who] += 1
        self.step += 1
        self.hooks_done = False

    def write_window(self, recorder: Recorder, watch: TrainingProgress, clock: "Clock") -> None:
        """The means of the window, and the speed."""
        means = self.window.pop_means()
        steps_per_second = clock.steps_per_second(self.step)
        speed = steps_per_second * self.turns_per_step["d"] * self.batches.batch_size
        self.windows += 1
        if self.step_cost and self.windows == WARM_WINDOWS:
            log.info("%.3g images/s, %s", speed, self.step_cost.describe(steps_per_second))
        rates = {
            f"learning_rate/{who}": self.optimization.learning_rate(who, self.step - 1, self.steps)
            for who in self.optimizers
        }
        recorder.write(
            "train",
            self.step,
            means | rates | {"speed/images_per_second": speed},
            images_seen=self.images_seen,
        )
        watch.speed(speed)

    def run_hooks(self, hooks: Sequence[Hook], keeper: CheckpointManager, stop: StopSignal) -> None:
        """Samples, metrics and checkpoint of this step, where they are due."""
        todo = [hook for hook in hooks if is_due(self.step, hook.every, self.steps)]
        if todo:
            self.window.check()  # a loss that is not finite is named before its images are scored
        for hook in todo:
            hook(self, stop.check)
        self.hooks_done = True
        if is_due(self.step, keeper.every, self.steps) or keeper.is_best(self.step):
            keeper.save(self)


def is_due(step: int, every: int, steps: int) -> bool:
    """Every `every` steps, and at the end."""
    return step % every == 0 or step == steps


class Clock:
    """The time that training takes, with samples, metrics and checkpoints left out."""

    def __init__(self, step: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.step = step
        self.now = now
        self.began = now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count."""
        before = self.now()
        yield
        self.began += self.now() - before

    def steps_per_second(self, step: int) -> float:
        """Since the last time this was asked."""
        now = self.now()
        speed = (step - self.step) / max(now - self.began, 1e-9)
        self.step, self.began = step, now
        return speed
