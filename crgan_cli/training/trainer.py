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
from crgan_cli.runs.record import Recorder, Window
from crgan_cli.system.distributed.objects import Poll
from crgan_cli.system.progress import Watch
from crgan_cli.system.signals import heard_by
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.hooks import Hook, Keeper
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


class Stop:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a stop between two steps; a second, at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.came = 0.0
        self.poll = Poll()

    def listening(self) -> AbstractContextManager[None]:
        """Handles the signals while the body runs."""
        return heard_by(self.heard)

    def heard(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self.signum is not None and now - self.came > ONE_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        if self.signum is None:
            self.signum, self.came = signum, now

    def check(self) -> None:
        """Raises Interrupted where a signal has come, to whichever process of the run."""
        if self.poll(self.signum is not None):
            raise Interrupted(self.signum or signal.SIGTERM)


class Work(NamedTuple):
    """What a step is worth, and what the device could do."""

    flop: float  # of a step, as the networks are written: folding shows as speed
    peak: float | None  # FLOP/s of the device's matrix products; None where that is not known
    of: str  # the peak, in words

    def words(self, steps_per_second: float) -> str:
        """The speed in FLOP/s, and as a share of the peak."""
        speed = self.flop * steps_per_second
        share = f", {speed / self.peak:.1%} of {self.of}" if self.peak else ""
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
        work: Work | None = None,
    ) -> None:
        self.task = task
        self.engine = engine
        self.optimization = optimization
        self.optimizers = optimization.optimizers(engine.players)
        self.batches = batches
        self.ema = ema
        engine.equip(self.optimizers, batches, ema)
        self.seed = seed
        self.steps = steps
        self.log_every = log_every
        self.work = work
        self.windows = 0
        self.window = Window()
        self.step = 0
        self.settled = True
        self.seconds_before = 0.0  # of earlier sessions
        self.began = time.monotonic()
        self.turns_of = {who: task.turns.count(who) for who in task.turns}

    @property
    def images_seen(self) -> int:
        """Real images that D has been shown, repeats counted."""
        return self.step * self.turns_of["d"] * self.batches.batch_size

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
        keeper: Keeper,
        watch: Watch,
        stop: Stop,
    ) -> None:
        """Trains to the end. Raises Interrupted, all saved, where a signal asks to stop."""
        watch.begin()
        self.began = time.monotonic()
        clock = Clock(self.step)
        try:
            if not self.settled:
                self.settle(hooks, keeper, stop)
            while self.step < self.steps:
                stop.check()
                self.take_step()
                watch.advance(self.step)
                if due(self.step, self.log_every, self.steps):
                    self.write_window(recorder, watch, clock)
                with clock.paused():
                    self.settle(hooks, keeper, stop)
        except Interrupted:
            keeper.save(self)
            raise
        finally:
            self.engine.end()

    def begin(self) -> None:
        """Before the first step of a session, when a checkpoint has been loaded."""
        self.optimization.refresh(self.optimizers)
        self.engine.begin()

    def take_step(self) -> None:
        """All turns of one step. G's turn gets the batch that D has just seen."""
        reseed(self.seed, self.step, self.engine.device)
        self.optimization.schedule(self.optimizers, self.step, self.steps)
        measure = due(self.step + 1, self.log_every, self.steps)
        share = self.ema.share(self.step + 1) if self.ema else None
        done = dict.fromkeys(self.turns_of, 0)
        last = len(self.task.turns) - 1
        for number, who in enumerate(self.task.turns):
            own = who == "d" or number == 0
            batch = self.batches.ticket(self.step * self.turns_of["d"] + done["d"]) if own else ()
            self.task.advance(who, self.step * self.turns_of[who] + done[who])
            reading = self.engine.turn(
                who, batch, measure=measure, share=share if number == last else None
            )
            self.window.keep(self.step + 1, reading)
            done[who] += 1
        self.step += 1
        self.settled = False

    def write_window(self, recorder: Recorder, watch: Watch, clock: "Clock") -> None:
        """The means of the window, and the speed."""
        means = self.window.read()
        steps_per_second = clock.steps_per_second(self.step)
        speed = steps_per_second * self.turns_of["d"] * self.batches.batch_size
        self.windows += 1
        if self.work and self.windows == WARM_WINDOWS:
            log.info("%.3g images/s, %s", speed, self.work.words(steps_per_second))
        rates = {
            f"learning_rate/{who}": self.optimization.rate(who, self.step - 1, self.steps)
            for who in self.optimizers
        }
        recorder.write(
            "train",
            self.step,
            means | rates | {"speed/images_per_second": speed},
            images_seen=self.images_seen,
        )
        watch.speed(speed)

    def settle(self, hooks: Sequence[Hook], keeper: Keeper, stop: Stop) -> None:
        """Samples, metrics and checkpoint of this step, where they are due."""
        todo = [hook for hook in hooks if due(self.step, hook.every, self.steps)]
        if todo:
            self.window.check()  # a loss that is not finite is named before its images are scored
        for hook in todo:
            hook(self, stop.check)
        self.settled = True
        if due(self.step, keeper.every, self.steps) or keeper.is_best(self.step):
            keeper.save(self)


def due(step: int, every: int, steps: int) -> bool:
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
