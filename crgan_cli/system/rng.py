"""Random numbers of a training step, one row per image.

They come from the device's default generator, which the trainer seeds by (seed, step), unless a
generator is given. In a distributed run, each rank draws the rows of all ranks and takes its own.
So the numbers do not depend on how many ranks share a batch, nor on how many parts a rank makes of
its own (`each_part`).
"""

from collections.abc import Generator, Iterator
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
    return local_rows(torch.rand((n * count_shares(), *shape), **options))


def randn(n: int, *shape: int, **options: Unpack[DrawOptions]) -> Tensor:
    """Draw (n, *shape) numbers from N(0, 1)."""
    return local_rows(torch.randn((n * count_shares(), *shape), **options))


def randint(low: int, high: int, n: int, *shape: int, **options: Unpack[DrawOptions]) -> Tensor:
    """Draw (n, *shape) int64, uniform in low .. high - 1."""
    return local_rows(torch.randint(low, high, (n * count_shares(), *shape), **options))


_batches = 1
_part, _parts = 0, 1


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


def each_part(parts: int, device: torch.device) -> Generator[int]:
    """Yield 0 .. parts - 1, for loops whose bodies draw the rows of one part of the batch each.

    All of them draw the same numbers, those of the whole batch, and take their own rows. After the
    loop the generator is where one body with the whole batch leaves it. Close it
    where a body may fail.
    """
    global _part, _parts
    if parts == 1:
        yield 0
        return
    state = get_generator_state(device)
    try:
        for number in range(parts):
            set_generator_state(device, state)
            _part, _parts = number, parts
            yield number
    finally:
        _part, _parts = 0, 1


def get_generator_state(device: torch.device) -> Tensor:
    """Return the state of a device's default generator."""
    if device.type == "cpu":
        return torch.get_rng_state()
    return torch.get_device_module(device).get_rng_state()


def set_generator_state(device: torch.device, state: Tensor) -> None:
    """Set the state of a device's default generator."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state)


def count_shares() -> int:
    """How many equal shares there are of a batch: one for each part of each rank."""
    return world().world_size * _parts


def local_rows(rows: Tensor) -> Tensor:
    """Select the rows of this rank, and of the part at hand, from those of all."""
    shares = count_shares()
    if shares == 1:
        return rows
    return rows.unflatten(0, (_batches, shares, -1))[:, world().rank * _parts + _part].flatten(0, 1)
