"""Whole turns as CUDA graphs: one launch in place of some hundred.

At 32 pixels the kernels of a turn take less time than their launches. A captured turn is the same
kernels on the same addresses, so its numbers are those of `engine=eager`, bit for bit. Whatever a
turn reads must therefore lie where it lay at the capture: the inputs, the batch and the learning
rate have fixed places that are written to before a replay.

Random numbers come from the device's default generator, whose seed and offset a graph reads at each
replay (PyTorch, "CUDA semantics", graph-safe generators); so a turn may be captured at any step.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import BatchInputs, TurnLog, Views
from crgan_cli.training.engine.eager import Eager, Turn

log = logging.getLogger(__name__)

WARM_UP = 3
"""Turns of a kind that run before it is captured: libraries allocate workspaces, and the optimizer
its moments. They are real turns of the run."""


class Captured(NamedTuple):
    """A turn that can be replayed."""

    replay: Callable[[], None]
    release: Callable[[], None]  # gives the graph back to the driver
    turn_log: TurnLog  # where a replay writes


class Graphs(Eager):
    """Run each kind of turn a few times as `Eager` does, then capture it and replay it."""

    def for_device(self, device: torch.device) -> Eager:
        if device.type != "cuda":
            raise UserError(
                f"engine=graphs needs a CUDA device, and device is {device}. Type engine=auto, "
                "which takes CUDA graphs where there are any, or engine=eager."
            )
        return super().for_device(device)

    def prepare(self, task: Task, device: torch.device) -> None:
        super().prepare(task, device)
        self.static_inputs: BatchInputs = ()
        self.open_memory()

    def begin(self) -> None:
        super().begin()  # a checkpoint that was loaded may have put tensors elsewhere
        self.played: Counter[Turn] = Counter()
        self.captured: dict[Turn, Captured] = {}

    def turn(
        self,
        who: str,
        inputs: BatchInputs,
        *,
        measure: bool = False,
        lerp_weight: float | None = None,
    ) -> TurnLog:
        turn = Turn(who, self.task.signature(), measure, lerp_weight)
        mine = self.copy_to_static_inputs(inputs)
        if turn not in self.captured:
            if self.played[turn] < WARM_UP:
                self.played[turn] += 1
                return self.warm_up(lambda: self.run_turn(turn, mine))
            self.captured[turn] = self.capture(lambda: self.run_turn(turn, mine))
            log.debug("captured the turn %s", turn)
        captured = self.captured[turn]
        captured.replay()
        return TurnLog(captured.turn_log.names, captured.turn_log.values.clone())

    def end(self) -> None:
        """Release all graphs: NCCL waits for those that hold its calls before it ends."""
        for captured in self.captured.values():
            captured.release()
        self.captured.clear()

    def copy_to_static_inputs(self, inputs: BatchInputs) -> BatchInputs:
        """Copy the inputs to their fixed place and return them. Empty ones stay empty."""
        if not inputs:
            return ()
        if not self.static_inputs:
            self.static_inputs = tuple(part.clone() for part in inputs)
        for place, part in zip(self.static_inputs, inputs, strict=True):
            place.copy_(part)
        return self.static_inputs

    def hold_reals(self, reals: Views) -> None:
        """Copy the real images to a fixed place: later turns of the step read them there."""
        if not self.reals:
            super().hold_reals(reals)
            return
        for name, batch in reals.items():
            x, y = self.reals[name]
            x.copy_(batch.x)
            if y is not None and batch.y is not None:
                y.copy_(batch.y)

    # --- what only a CUDA device can do ----------------------------------------------------------

    def open_memory(self) -> None:
        """Make the stream and the memory pool that all graphs of the run share."""
        # Adam says at its first uncaptured step that `capturable` costs time: it is meant
        warnings.filterwarnings("ignore", message=".*capturable=True.*")
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], TurnLog]) -> TurnLog:
        """Run a turn on the stream of the captures, so that memory and libraries know it."""
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with torch.cuda.stream(self.stream):
            done = run()
        outer.wait_stream(self.stream)
        return done

    def capture(self, run: Callable[[], TurnLog]) -> Captured:
        """Record the kernels of a turn without running them.

        Raises RunFailed if something in the turn cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: a thread that prefetches images may pin memory meanwhile
            with torch.cuda.graph(
                graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
            ):
                turn_log = run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a broken capture hides what broke it
            raise RunFailed(
                f"a turn could not be captured in a CUDA graph: {cause}\nResume without "
                "graphs: crgan train --from RUN engine=eager"
            ) from error
        return Captured(graph.replay, graph.reset, turn_log)
