"""Python objects and decisions across the processes of a run."""

import pickle
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

from crgan_cli.errors import RunFailed
from crgan_cli.system.distributed.world import alone, world

Value = TypeVar("Value")

POLL_SECONDS = 0.5
"""A flag that any process may raise is seen by all about as late as this."""


def wait() -> None:
    """Until all processes are here."""
    agree(False)


def agree(flag: bool) -> bool:
    """Whether any process says so."""
    return highest(float(flag))[0] > 0 if world().size > 1 else flag


def highest(*values: float) -> list[float]:
    """The largest of each value over the processes."""
    table = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(table, dist.ReduceOp.MAX)
    return table.tolist()


def everyones(value: Value) -> list[Value]:
    """A value of every process, by rank. It must be one that can be pickled."""
    if world().size == 1:
        return [value]
    values: list[Value | None] = [None] * world().size
    dist.all_gather_object(values, value)
    return values  # pyright: ignore[reportReturnType]


class Outcome(NamedTuple):
    """What came of a function."""

    value: object = None
    error: Exception | None = None


def tried(act: Callable[[], object]) -> Outcome:
    """What comes of `act`, an exception too."""
    try:
        return Outcome(act())
    except Exception as error:
        return Outcome(error=error)


def sendable(error: Exception | None) -> Exception | None:
    """The error as another process can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunFailed(f"{type(error).__name__}: {error}")
    return error


def from_first(act: Callable[[], Value]) -> Value:
    """What `act` gives in the first process, which alone calls it; what it raises, all raise."""
    if world().size == 1:
        return act()
    is_first = world().rank == 0
    with alone():  # the others do not join in
        mine = tried(act) if is_first else Outcome()
    box = [mine._replace(error=sendable(mine.error))]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    error = mine.error or box[0].error
    if error is not None:
        raise error
    return box[0].value  # pyright: ignore[reportReturnType]


def by_first(act: Callable[[], object]) -> None:
    """The first process calls `act`, the others wait; what it raises, all raise."""

    def silently() -> None:
        act()

    from_first(silently)


def by_all(act: Callable[[], Value]) -> Value:
    """What `act` gives in this process. All call it, and what it raises in one, all raise."""
    if world().size == 1:
        return act()
    mine = tried(act)
    errors = [error for error in everyones(sendable(mine.error)) if error is not None]
    if mine.error is not None or errors:
        raise mine.error or errors[0]
    return mine.value  # pyright: ignore[reportReturnType]


class Poll:
    """Whether any process has raised its flag: asked at every step, settled twice a second.

    All ask equally often, and the slowest one's speed decides after how many askings they exchange
    their flags, so that they come to the same answer at the same step.
    """

    def __init__(self) -> None:
        self.left = self.asked = 1  # askings until the next exchange, and between the last two
        self.since = time.monotonic()

    def __call__(self, flag: bool) -> bool:
        if world().size == 1:
            return flag
        self.left -= 1
        if self.left:
            return False
        seconds = (time.monotonic() - self.since) / self.asked
        raised, slowest = highest(float(flag), seconds)
        self.asked = self.left = min(max(int(POLL_SECONDS / max(slowest, 1e-9)), 1), 100)
        self.since = time.monotonic()
        return raised > 0
