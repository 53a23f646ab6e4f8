"""The processes that train one run together, one a GPU: who this one is, and what they agree on.

Each draws and scores its share of every batch (`chance`, `data.batches`), and their gradients are
averaged, so that all hold the same weights. A run on its own is the world of one process, in which
everything here does nothing. Numbers on a GPU go through NCCL; what the host must know, through
Gloo, so that no process waits for its GPU on that account.
"""

import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    contextmanager,
    suppress,
)
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.system import launch
from crgan_cli.system.voices import one_voice, quiet_stdout

Value = TypeVar("Value")

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others. One that has died ends the run at once; this is for one
that downloads a data set, or computes what the others wait for."""

POLL_SECONDS = 0.5
"""A flag that any process may raise is seen by all about as late as this."""


class World(NamedTuple):
    """This process among those of its run."""

    rank: int = 0
    size: int = 1
    local: int = 0  # number of this process on its machine, and of its GPU


_world = World()


def world() -> World:
    """Who this process is."""
    return _world


# --- coming together ------------------------------------------------------------------------------


@contextmanager
def joined() -> Iterator[World]:
    """While the body runs, this process is one of those that torchrun or Slurm has started.

    Without them, it is alone. An error that several processes have is said by one of them.
    """
    if _world.size > 1 or not launch.together():
        yield _world
        return
    if not launch.by_torchrun():
        export_submitit()
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    with among(World(rank, size, int(os.environ["LOCAL_RANK"]))):
        try:
            with one_voice(PrefixStore("voice", store), rank), quiet_stdout():
                yield _world
                with suppress(RuntimeError):  # all is done: who has gone already may go
                    wait()
        finally:
            dist.destroy_process_group()


def export_submitit() -> None:
    """Sets torchrun's variables from those of Slurm.

    Which GPU is whose is settled in `own_device`, so the visible ones stay as they are.
    """
    from submitit.helpers import (  # type: ignore[import-not-found]
        TorchDistributedEnvironment,
    )

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


@contextmanager
def among(them: World) -> Iterator[None]:
    """`world()` is `them` while the body runs."""
    global _world
    before, _world = _world, them
    try:
        yield
    finally:
        _world = before


def alone() -> AbstractContextManager[None]:
    """While the body runs, this process counts as a run of its own, and waits for no other.

    For what each does by itself, such as drawing the images of one batch of an evaluation.
    """
    return among(World())


def own_device(device: torch.device) -> torch.device:
    """The device of this process: where `device` is "cuda", the GPU with its number.

    Raises UserError where the processes would share a GPU, or have devices of different kinds.
    """
    if _world.size == 1:
        return device
    if device.index is not None:
        raise UserError(
            f"device={device} is one GPU, and {_world.size} processes train this run, one a GPU. "
            "Type device=cuda or device=auto."
        )
    kinds = sorted({str(kind) for kind in everyones(device.type)})
    if len(kinds) > 1 or device.type not in ("cpu", "cuda"):
        raise UserError(
            f"{_world.size} processes train this run, and their devices are {' and '.join(kinds)}: "
            "all must have a CUDA device, or all the CPU. Type device=cpu, or start them where "
            "each has a GPU."
        )
    if device.type == "cpu":
        return device
    here = torch.cuda.device_count()
    index = _world.local % here  # Slurm may show each process its own GPU alone
    gpu = f"{socket.gethostname()} {torch.cuda.get_device_properties(index).uuid}"
    require_one_each(everyones(gpu), here)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def require_one_each(gpus: Sequence[str], here: int) -> None:
    """Raises UserError where two processes have one GPU; `here` is their number on this machine."""
    _, most = Counter(gpus).most_common(1)[0]
    if most > 1:
        raise UserError(
            f"{most} of the {len(gpus)} processes of this run have the same GPU; this machine has "
            f"{here}. Start one process a GPU, as in torchrun --nproc-per-node {here}; what shares "
            "a GPU well is several runs (sweep.per_device)."
        )


# --- numbers --------------------------------------------------------------------------------------


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Every gradient becomes its mean over the processes, in one call for all."""
    if _world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([in_memory_order(gradient) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= _world.size
    parts = flat.split([gradient.numel() for gradient in gradients])
    averaged = [shaped_as(old, new) for old, new in zip(gradients, parts, strict=True)]
    torch._foreach_copy_(gradients, averaged)  # pyright: ignore[reportPrivateImportUsage]


def in_memory_order(x: Tensor) -> Tensor:
    """All numbers of x, (n,); of a channels_last tensor without a copy as well."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).reshape(-1)
    return x.reshape(-1)


def shaped_as(x: Tensor, flat: Tensor) -> Tensor:
    """The inverse of `in_memory_order`: `flat` in the shape and layout of x."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = x.shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(x.shape)


@torch.no_grad()
def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes, without gradient."""
    if _world.size == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / _world.size


@torch.no_grad()
def spread(tensors: Iterable[Tensor]) -> None:
    """Every tensor becomes what it is in the first process."""
    if _world.size > 1:
        for tensor in tensors:
            dense = tensor.contiguous()
            dist.broadcast(dense, 0)
            tensor.copy_(dense)


class Stacked(torch.autograd.Function):
    """(...) of each process -> (size, ...) of all, in every one; may be differentiated twice."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        flat = own.new_empty(_world.size * own.numel())
        dist.all_gather_into_tensor(flat, own.reshape(-1))
        return flat.view(_world.size, *own.shape)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Collected.apply(gradient)


class Collected(torch.autograd.Function):
    """The transpose of `Stacked`: (size, ...) of each process -> the sum of this one's rows."""

    @staticmethod
    def forward(ctx: object, rows: Tensor) -> Tensor:
        total = rows.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[_world.rank].clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Stacked.apply(gradient)


def stacked(own: Tensor) -> Tensor:
    """(size, ...): a tensor of every process, by rank. The shapes are the same."""
    return Stacked.apply(own)


@torch.no_grad()
def gathered(rows: Tensor) -> list[Tensor]:
    """A tensor of every process, by rank. They may differ in their number of rows."""
    if _world.size == 1:
        return [rows]
    counts = stacked(torch.tensor(len(rows))).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return [part[:count] for part, count in zip(stacked(padded), counts, strict=True)]


# --- decisions ------------------------------------------------------------------------------------


def wait() -> None:
    """Until all processes are here."""
    agree(False)


def agree(flag: bool) -> bool:
    """Whether any process says so."""
    return highest(float(flag))[0] > 0 if _world.size > 1 else flag


def highest(*values: float) -> list[float]:
    """The largest of each value over the processes."""
    table = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(table, dist.ReduceOp.MAX)
    return table.tolist()


def everyones(value: Value) -> list[Value]:
    """A value of every process, by rank. It must be one that can be pickled."""
    if _world.size == 1:
        return [value]
    values: list[Value | None] = [None] * _world.size
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
    if _world.size == 1:
        return act()
    is_first = _world.rank == 0
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
    if _world.size == 1:
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
        if _world.size == 1:
            return flag
        self.left -= 1
        if self.left:
            return False
        seconds = (time.monotonic() - self.since) / self.asked
        raised, slowest = highest(float(flag), seconds)
        self.asked = self.left = min(max(int(POLL_SECONDS / max(slowest, 1e-9)), 1), 100)
        self.since = time.monotonic()
        return raised > 0
