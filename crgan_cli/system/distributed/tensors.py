"""Average, broadcast and gather tensors across ranks."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from crgan_cli.system.distributed.world import world


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the ranks, in one all-reduce."""
    if world().world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([in_memory_order(gradient) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world().world_size
    parts = flat.split([gradient.numel() for gradient in gradients])
    averaged = [shaped_as(old, new) for old, new in zip(gradients, parts, strict=True)]
    torch._foreach_copy_(gradients, averaged)  # pyright: ignore[reportPrivateImportUsage]


def in_memory_order(x: Tensor) -> Tensor:
    """Flatten x to (n,) without a copy, also if x is channels_last."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).reshape(-1)
    return x.reshape(-1)


def shaped_as(x: Tensor, flat: Tensor) -> Tensor:
    """Invert `in_memory_order`: give `flat` the shape and layout of x."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = x.shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(x.shape)


@torch.no_grad()
def all_reduce_mean(values: Tensor) -> Tensor:
    """Return the mean of a tensor over the ranks, without gradient."""
    if world().world_size == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world().world_size


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by rank 0's."""
    if world().world_size > 1:
        for tensor in tensors:
            dense = tensor.contiguous()
            dist.broadcast(dense, 0)
            tensor.copy_(dense)


class AllGather(torch.autograd.Function):
    """(...) on each rank -> (world_size, ...) on every rank. Supports double backward."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        flat = own.new_empty(world().world_size * own.numel())
        dist.all_gather_into_tensor(flat, own.reshape(-1))
        return flat.view(world().world_size, *own.shape)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ReduceScatter.apply(gradient)


class ReduceScatter(torch.autograd.Function):
    """Transpose of `AllGather`: (world_size, ...) on each rank -> the sum of this rank's rows."""

    @staticmethod
    def forward(ctx: object, rows: Tensor) -> Tensor:
        total = rows.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[world().rank].clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return AllGather.apply(gradient)


def all_gather(own: Tensor) -> Tensor:
    """Gather tensors of one shape: (world_size, ...), by rank. Differentiable."""
    return AllGather.apply(own)


@torch.no_grad()
def all_gather_rows(rows: Tensor) -> list[Tensor]:
    """Gather tensors by rank. They may differ in their number of rows."""
    if world().world_size == 1:
        return [rows]
    counts = all_gather(torch.tensor(len(rows))).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return [part[:count] for part, count in zip(all_gather(padded), counts, strict=True)]
