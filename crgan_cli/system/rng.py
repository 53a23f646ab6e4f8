"""The random numbers of a training step, one row an image.

All are drawn from the device's default generator, which the trainer seeds by (seed, step), unless
one is given. Where several processes train one run, each draws the rows of all and takes its own:
the numbers of a run do not depend on how many processes share its batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from crgan_cli.system.distributed.world import world


def rand(
    n: int,
    *shape: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(n, *shape), uniform in [0, 1)."""
    whole = (n * world().world_size, *shape)
    return local_rows(torch.rand(whole, device=device, dtype=dtype, generator=generator))


def randn(
    n: int,
    *shape: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(n, *shape), N(0, 1)."""
    whole = (n * world().world_size, *shape)
    return local_rows(torch.randn(whole, device=device, dtype=dtype, generator=generator))


def randint(
    low: int,
    high: int,
    n: int,
    *shape: int,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(n, *shape) int64, uniform in low .. high - 1."""
    whole = (n * world().world_size, *shape)
    return local_rows(torch.randint(low, high, whole, device=device, generator=generator))


_batches = 1


@contextmanager
def draws_for(batches: int) -> Iterator[None]:
    """While the body runs, rows are drawn for as many batches one after another.

    Every process has a part of each, so its rows of all do not lie in one piece.
    """
    global _batches
    before, _batches = _batches, batches
    try:
        yield
    finally:
        _batches = before


def local_rows(rows: Tensor) -> Tensor:
    """This process's share of the rows of all."""
    rank, size, _ = world()
    if size == 1:
        return rows
    return rows.unflatten(0, (_batches, size, -1))[:, rank].flatten(0, 1)
