"""What a CUDA graph does, on a CPU: the operations of a turn, recorded and replayed.

A replay runs the same operations on the same tensors and writes every result to where it lay at the
capture. So a number of Python that went into an operation stays as it was, and a tensor that was
put elsewhere since is not seen: exactly what a CUDA graph forgets.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from crgan_cli.gan.types import TurnLog
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import Captured, Graphs


def tensors(tree: object) -> list[Tensor]:
    return [each for each in tree_flatten(tree)[0] if isinstance(each, Tensor)]


class Tape(TorchDispatchMode):
    """Records operations while they run, and runs them again."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            for place, new in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
                if new.data_ptr() != place.data_ptr():
                    place.copy_(new)


class Taped(Graphs):
    """`Graphs`, with a tape where a GPU has a graph."""

    def for_device(self, device: torch.device, accumulate: int = 1) -> Eager:
        return Eager.for_device(self, device, accumulate)

    def open_memory(self) -> None:
        self.tapes: list[Tape] = []

    def warm_up(self, play: Callable[[], TurnLog]) -> TurnLog:
        return play()

    def record(self, play: Callable[[], TurnLog]) -> Captured:
        """Records; and puts all back, since a capture runs nothing."""
        states = [self.task, *self.optimizers.values(), *([self.ema.G] if self.ema else [])]
        kept = [each for part in states for each in tensors(part.state_dict())]
        kept += [*self.static_inputs, *tensors(self.reals)]
        before = [each.detach().clone() for each in kept]
        random = torch.get_rng_state()
        with Tape() as tape:
            reading = play()
        with torch.no_grad():
            for each, old in zip(kept, before, strict=True):
                each.copy_(old)
        torch.set_rng_state(random)
        self.tapes.append(tape)
        return Captured(tape.replay, tape.operations.clear, reading)
