"""Pixel norm as one function for a CPU: half of the passes over memory that its operations take."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from crgan_cli.networks.fast.convolution_forms import in_this_precision


class PixelContext(FunctionCtx):
    """What `NormalizePixels` saves for backward."""

    saved_tensors: tuple[Tensor, Tensor]
    eps: float


class NormalizePixels(torch.autograd.Function):
    """y = x / sqrt(mean over channels of x^2 + eps). The mean is in fp32, or wider with x.

    In the type and the memory format of x. Has double backward.
    """

    @staticmethod
    def forward(ctx: PixelContext, x: Tensor, eps: float) -> Tensor:
        """(N, C, ...) -> the same shape."""
        inverse = in_this_precision(find_inverse_length, x, eps)
        ctx.save_for_backward(x, inverse)
        ctx.eps = eps
        return x * inverse.to(x.dtype)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: PixelContext, grad: Tensor
    ) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward: through the length too
            inverse = find_inverse_length(x, ctx.eps)
        along = (grad * x).mean(1, keepdim=True, dtype=inverse.dtype) * inverse.square()
        to_x = torch.addcmul(grad, x, along.to(x.dtype), value=-1)
        return to_x * inverse.to(x.dtype), None


def find_inverse_length(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of x^2 + eps) of each pixel, (N, 1, ...), fp32 or wider."""
    wide: Any = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
    return (length.square() / x.shape[1] + eps).rsqrt()
