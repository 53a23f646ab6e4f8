"""Whole turns as CUDA graphs: one launch in place of some hundred.

At 32 pixels the kernels of a turn take less time than their launches. A captured turn is the same
kernels on the same addresses, so its numbers are those of `engine=eager`, bit for bit. Whatever a
turn reads must therefore lie where it lay at the capture: the inputs, the batch and the learning
rate have fixed places that are written to before a replay.

Random numbers come from the device's default generator, whose seed and offset a graph reads at each
replay (PyTorch, "CUDA semantics", graph-safe generators); so a turn may be captured at any step.
"""

import logging
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from crgan_cli.data.batches import TrainingImages
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import BatchInputs, TurnLog, Views
from crgan_cli.runs.checkpoint import first_line
from crgan_cli.system.distributed.objects import on_every_rank
from crgan_cli.training.engine.eager import Eager, Turn

log = logging.getLogger(__name__)

WARM_UP = 3
"""Turns of a kind that run before it is captured: libraries allocate workspaces, and the optimizer
its moments. They are real turns of the run."""


class CaptureFailed(RunFailed):
    """A turn could not be captured. The process should not use the device any more."""


class ReadyTurn(NamedTuple):
    """A turn that has been warmed up: what `run_turn` needs besides to run it again."""

    number: int
    inputs: BatchInputs  # in their fixed place


class Captured(NamedTuple):
    """A turn that can be replayed."""

    replay: Callable[[], None]
    release: Callable[[], None]  # gives the graph back to the driver
    turn_log: TurnLog  # where a replay writes


class Graphs(Eager):
    """Run each kind of turn a few times as `Eager` does, then capture it and replay it.

    Turns are captured between two steps, where the state of a run can be saved.
    """

    def for_device(self, device: torch.device, accumulate: int = 1) -> Eager:
        if accumulate > 1:
            raise UserError(
                f"accumulate={accumulate} draws the random numbers of a turn several times, which "
                "a CUDA graph cannot. Type engine=auto or engine=eager, or accumulate=1."
            )
        if device.type != "cuda":
            raise UserError(
                f"engine=graphs needs a CUDA device, and device is {device}. Type engine=auto, "
                "which takes CUDA graphs where there are any, or engine=eager."
            )
        return super().for_device(device, accumulate)

    def prepare(self, task: Task, device: torch.device) -> None:
        super().prepare(task, device)
        self.captured: dict[Turn, Captured] = {}

    def begin(self, batches: TrainingImages) -> None:
        super().begin(batches)  # a checkpoint that was loaded may have put tensors elsewhere
        self.open_memory()
        self.static_inputs: BatchInputs = ()
        self.played: Counter[Turn] = Counter()
        self.ready: dict[Turn, ReadyTurn] = {}

    def turn(
        self,
        who: str,
        number: int,
        inputs: BatchInputs,
        *,
        measure: bool = False,
        lerp_weight: float | None = None,
    ) -> TurnLog:
        self.task.set_turn(who, number)
        turn = Turn(who, self.task.signature(), measure, lerp_weight)
        mine = self.copy_to_static_inputs(inputs)
        captured = self.captured.get(turn)
        if captured:
            captured.replay()
            return TurnLog(captured.turn_log.names, captured.turn_log.values.clone())
        self.played[turn] += 1
        if self.played[turn] >= WARM_UP:
            self.ready[turn] = ReadyTurn(number, mine)
        return self.warm_up(lambda: self.run_turn(turn, mine))

    def has_ready_turns(self) -> bool:
        return bool(self.ready)

    def capture_ready_turns(self) -> None:
        """Capture what has been warmed up. Raises CaptureFailed, on all ranks if on any."""
        if self.ready:
            on_every_rank(self.capture_each)

    def capture_each(self) -> None:
        """Capture what has been warmed up. Raises CaptureFailed."""
        for turn, ready in self.ready.items():
            self.captured[turn] = self.capture(turn, ready)
            log.debug("captured the turn %s", turn)
        self.ready.clear()

    def capture(self, turn: Turn, ready: ReadyTurn) -> Captured:
        """Record the kernels of a turn without running them.

        Raises CaptureFailed if something in the turn cannot be captured, or memory is short. The
        process does not go on then, not even operation by operation. In PyTorch 2.11 a
        broken capture leaves the default generator in capturing mode, so that the next random
        number is an error, and the allocator may go on giving out the graphs' memory
        (CUDAGraph::capture_end, CUDAGeneratorState; pull requests 171265 and 190308 of PyTorch).
        Later versions clean up more; whether it is enough has not been tried.
        """
        self.task.set_turn(turn.who, ready.number)
        try:
            return self.record(lambda: self.run_turn(turn, ready.inputs))
        except RuntimeError as error:
            failure = locate_failure(error)
            raise CaptureFailed(
                f"a turn of {turn.who} could not be captured in a CUDA graph: {failure}"
            ) from error

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
        """Make the stream and the memory pool that all graphs of the stage share.

        A pool whose graphs are all released must not be given to another graph.
        """
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

    def record(self, run: Callable[[], TurnLog]) -> Captured:
        """Record the kernels of `run`. RuntimeError for what cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: a thread that prefetches images may pin memory meanwhile
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            turn_log = run()
        return Captured(graph.replay, graph.reset, turn_log)


PYTORCH, PACKAGE = Path(torch.__file__).parent, Path(__file__).parents[2]


def locate_failure(error: RuntimeError) -> str:
    """PyTorch's first line on what broke a capture, and the innermost line outside PyTorch."""
    # the end of a broken capture is an error as well, and hides what broke it
    first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
    frames = traceback.extract_tb(first.__traceback__)
    line = [frame for frame in frames if not Path(frame.filename).is_relative_to(PYTORCH)][-1]
    path = Path(line.filename)
    if path.is_relative_to(PACKAGE):
        path = path.relative_to(PACKAGE.parent)
    return f"{first_line(first)} ({path}:{line.lineno}, in {line.name}: {line.line})"
