"""Tensors without values, to count what networks are made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class NoDraws(TorchFunctionMode):
    """Draws no numbers into tensors.

    For normal ones in a tensor without values PyTorch imports its compiler, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.Tensor.normal_ or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def without_values() -> Iterator[None]:
    """Build networks without values while the body runs. Random states stay as they are."""
    with torch.device("meta"), NoDraws(), torch.random.fork_rng(devices=[]):
        yield
