"""Python objects and decisions across ranks."""

import pickle
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from crgan_cli.errors import RunFailed
from crgan_cli.system.distributed.world import as_single_process, world

Value = TypeVar("Value")

POLL_SECONDS = 0.5
"""Typical delay until all ranks see a flag that one of them raised."""


def barrier() -> None:
    """Wait until all ranks are here."""
    any_rank(False)


def any_rank(flag: bool) -> bool:
    """Whether the flag is true on any rank."""
    return all_reduce_max(float(flag))[0] > 0 if world().world_size > 1 else flag


def all_reduce_max(*values: float) -> list[float]:
    """Return the maximum of each value over the ranks."""
    table = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(table, dist.ReduceOp.MAX)
    return table.tolist()


def all_gather_objects(value: Value) -> list[Value]:
    """Gather a picklable value of every rank, by rank."""
    if world().world_size == 1:
        return [value]
    values: list[Value | None] = [None] * world().world_size
    dist.all_gather_object(values, value)
    return values  # pyright: ignore[reportReturnType]


class Result(NamedTuple):
    """The value that a function returned, or the exception that it raised."""

    value: object = None
    error: Exception | None = None


def capture(fn: Callable[[], object]) -> Result:
    """Call `fn`; return its value or exception."""
    try:
        return Result(fn())
    except Exception as error:
        return Result(error=error)


def picklable_error(error: Exception | None) -> Exception | None:
    """Return the error, or a RunFailed with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunFailed(f"{type(error).__name__}: {error}")
    return error


def broadcast_from_main(fn: Callable[[], Value]) -> Value:
    """Call `fn` on rank 0; return its result on every rank. If it raises, all ranks raise."""
    if world().world_size == 1:
        return fn()
    is_main = world().rank == 0
    with as_single_process():  # `fn` must not wait for the other ranks
        local = capture(fn) if is_main else Result()
    box = [local._replace(error=picklable_error(local.error))]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    if error := local.error or box[0].error:
        raise error
    return box[0].value  # pyright: ignore[reportReturnType]


def on_main(fn: Callable[[], object]) -> None:
    """Call `fn` on rank 0 while the others wait. If it raises, all ranks raise."""

    def without_result() -> None:  # nothing to send
        fn()

    broadcast_from_main(without_result)


def on_every_rank(fn: Callable[[], Value]) -> Value:
    """Call `fn` on every rank; return the local result. If one rank raises, all ranks raise."""
    if world().world_size == 1:
        return fn()
    local = capture(fn)
    errors = [local.error, *all_gather_objects(picklable_error(local.error))]
    if error := next(filter(None, errors), None):
        raise error
    return local.value  # pyright: ignore[reportReturnType]


class StopFlag:
    """Whether any rank has raised its flag. Called at every step, synchronised twice a second.

    All ranks call it equally often. The slowest rank's speed sets the number of calls between two
    synchronisations, so that all ranks get the same answer at the same step.
    """

    def __init__(self) -> None:
        self.sync_every = 1  # calls between two synchronisations
        self.calls_left = 1  # until the next one
        self.since = time.monotonic()

    def __call__(self, flag: bool) -> bool:
        if world().world_size == 1:
            return flag
        self.calls_left -= 1
        if self.calls_left:
            return False
        seconds = (time.monotonic() - self.since) / self.sync_every
        raised, slowest = all_reduce_max(float(flag), seconds)
        self.sync_every = self.calls_left = min(max(int(POLL_SECONDS / max(slowest, 1e-9)), 1), 100)
        self.since = time.monotonic()
        return raised > 0
