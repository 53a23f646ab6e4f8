"""Python objects and decisions across the processes of a run."""

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
"""A flag that any process may raise is seen by all about as late as this."""


def barrier() -> None:
    """Until all processes are here."""
    any_rank(False)


def any_rank(flag: bool) -> bool:
    """Whether any process says so."""
    return all_reduce_max(float(flag))[0] > 0 if world().world_size > 1 else flag


def all_reduce_max(*values: float) -> list[float]:
    """The largest of each value over the processes."""
    table = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(table, dist.ReduceOp.MAX)
    return table.tolist()


def all_gather_objects(value: Value) -> list[Value]:
    """A value of every process, by rank. It must be one that can be pickled."""
    if world().world_size == 1:
        return [value]
    values: list[Value | None] = [None] * world().world_size
    dist.all_gather_object(values, value)
    return values  # pyright: ignore[reportReturnType]


class Result(NamedTuple):
    """What came of a function."""

    value: object = None
    error: Exception | None = None


def capture(act: Callable[[], object]) -> Result:
    """What comes of `act`, an exception too."""
    try:
        return Result(act())
    except Exception as error:
        return Result(error=error)


def picklable_error(error: Exception | None) -> Exception | None:
    """The error as another process can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunFailed(f"{type(error).__name__}: {error}")
    return error


def broadcast_from_main(act: Callable[[], Value]) -> Value:
    """What `act` gives in the first process, which alone calls it; what it raises, all raise."""
    if world().world_size == 1:
        return act()
    is_first = world().rank == 0
    with as_single_process():  # the others do not join in
        mine = capture(act) if is_first else Result()
    box = [mine._replace(error=picklable_error(mine.error))]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    error = mine.error or box[0].error
    if error is not None:
        raise error
    return box[0].value  # pyright: ignore[reportReturnType]


def on_main(act: Callable[[], object]) -> None:
    """The first process calls `act`, the others wait; what it raises, all raise."""

    def silently() -> None:
        act()

    broadcast_from_main(silently)


def on_every_rank(act: Callable[[], Value]) -> Value:
    """What `act` gives in this process. All call it, and what it raises in one, all raise."""
    if world().world_size == 1:
        return act()
    mine = capture(act)
    errors = [
        error for error in all_gather_objects(picklable_error(mine.error)) if error is not None
    ]
    if mine.error is not None or errors:
        raise mine.error or errors[0]
    return mine.value  # pyright: ignore[reportReturnType]


class StopFlag:
    """Whether any process has raised its flag: asked at every step, settled twice a second.

    All ask equally often, and the slowest one's speed decides after how many askings they exchange
    their flags, so that they come to the same answer at the same step.
    """

    def __init__(self) -> None:
        self.calls_left = self.sync_every = (
            1  # askings until the next exchange, and between the last two
        )
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
