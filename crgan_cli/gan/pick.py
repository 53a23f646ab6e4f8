"""Pixels by their positions, with a gradient that adds in the same order on every device.

On CUDA the backward passes of `gather` and `index_select` add with atomics, in any order, so that
equal commands would not give equal bits. `index_put_` sorts there before it adds.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def pick_rows(rows: Tensor, at: Tensor) -> Tensor:
    """(M, C) rows at the positions (K,) -> (K, C)."""
    return rows.index_select(0, at) if rows.device.type == "cpu" else pick_entries(rows, at)


def pick_pixels(pixels: Tensor, at: Tensor) -> Tensor:
    """(N, C, L) pixels at the positions (N, 1, K), the same in all channels -> (N, C, K)."""
    n, c, length = pixels.shape
    if pixels.device.type == "cpu":
        return pixels.gather(2, at.expand(n, c, -1))
    first = torch.arange(0, pixels.numel(), length, device=at.device)
    return pick_entries(pixels.reshape(-1), (at + first.view(n, c, 1)).view(-1)).view(n, c, -1)


def pick_entries(values: Tensor, at: Tensor) -> Tensor:
    """(M, ...) values at the positions (K,) -> (K, ...)."""
    picked = Pick.apply(values, at)
    assert isinstance(picked, Tensor)
    return picked


class PickContext(FunctionCtx):
    """What `Pick` and `Add` save for backward."""

    at: Tensor
    size: int


class Pick(torch.autograd.Function):
    """y_k = x_at(k). The gradient is `Add`."""

    @staticmethod
    def forward(ctx: PickContext, values: Tensor, at: Tensor) -> Tensor:
        ctx.at, ctx.size = at, len(values)
        return values.index_select(0, at)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: PickContext, grad: Tensor
    ) -> tuple[Tensor, None]:
        added = Add.apply(grad, ctx.at, ctx.size)
        assert isinstance(added, Tensor)
        return added, None


class Add(torch.autograd.Function):
    """x_i = the sum of all y_k with at(k) = i. The gradient is `Pick`."""

    @staticmethod
    def forward(ctx: PickContext, grad: Tensor, at: Tensor, size: int) -> Tensor:
        ctx.at = at
        return grad.new_zeros(size, *grad.shape[1:]).index_put_((at,), grad, accumulate=True)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: PickContext, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        return pick_entries(grad, ctx.at), None, None
