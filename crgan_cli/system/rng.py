"""Random numbers of a training step, one row per image.

They come from the device's default generator, which the trainer seeds by (seed, step), unless a
generator is given. In a distributed run, each rank draws the rows of all ranks and takes its own.
So the numbers do not depend on how many ranks share a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor

from crgan_cli.system.distributed.world import world


class DrawOptions(TypedDict, total=False):
    """Keyword arguments of torch's random functions."""

    device: Required[torch.device]
    dtype: torch.dtype | None
    generator: torch.Generator | None


def rand(n: int, *shape: int, **options: Unpack[DrawOptions]) -> Tensor:
    """Draw (n, *shape) numbers, uniform in [0, 1)."""
    return local_rows(torch.rand((n * world().world_size, *shape), **options))


def randn(n: int, *shape: int, **options: Unpack[DrawOptions]) -> Tensor:
    """Draw (n, *shape) numbers from N(0, 1)."""
    return local_rows(torch.randn((n * world().world_size, *shape), **options))


def randint(low: int, high: int, n: int, *shape: int, **options: Unpack[DrawOptions]) -> Tensor:
    """Draw (n, *shape) int64, uniform in low .. high - 1."""
    return local_rows(torch.randint(low, high, (n * world().world_size, *shape), **options))


_batches = 1


@contextmanager
def draws_for(batches: int) -> Iterator[None]:
    """Draw rows for several consecutive batches at once while the body runs.

    Each rank owns a part of every batch, so its rows are not contiguous.
    """
    global _batches
    before, _batches = _batches, batches
    try:
        yield
    finally:
        _batches = before


def local_rows(rows: Tensor) -> Tensor:
    """Select this rank's rows from those of all ranks."""
    rank, size, _ = world()
    if size == 1:
        return rows
    return rows.unflatten(0, (_batches, size, -1))[:, rank].flatten(0, 1)
