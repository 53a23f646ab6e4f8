"""A convolution followed by a leaky ReLU, as one function for training on a CPU.

oneDNN applies the slope while it writes the convolution's result, which saves a pass over memory.
Backward reads the slopes off the signs of the result, so the sum before it is not kept. They are
constant almost everywhere. torch's own double backward, which a gradient penalty needs, does not
know that: it adds tensors of zeros, and turns images and gradients around for the gradient of each
kernel, which takes twice the time (RESULTS.md).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from crgan_cli.networks.fast.convolution import convolve, find_forms, to_autocast
from crgan_cli.networks.fast.convolution_forms import (
    LIBRARY,
    Forms,
    Geometry,
    convolve_by,
    differentiate_convolution,
    in_this_precision,
    needed,
    small_side,
)


def convolve_leaky(
    x: Tensor, weight: Tensor, bias: Tensor, slope: float, at: Geometry, *, training: bool
) -> Tensor:
    """leaky_relu(conv2d(x, weight, bias)): equal up to rounding. A `slope` in (0, 1].

    Only in training is another form taken: samples and scores do not depend on it.
    """
    if not training or x.device.type != "cpu" or torch.compiler.is_compiling():
        plain = convolve if training else partial(convolve_by, "library")
        return F.leaky_relu(plain(x, weight, bias, at), slope)
    h, w = (small_side(side, at) for side in x.shape[2:])
    forms = find_forms(x, weight, len(x) * h * w, at)
    return ConvolveLeaky.apply(*to_autocast(x, weight, bias), slope, at, forms)


class LeakyContext(FunctionCtx):
    """What `ConvolveLeaky` and `Slopes` save for backward."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    slope: float
    rest: tuple[Geometry, Forms]


class ConvolveLeaky(torch.autograd.Function):
    """Y = leaky ReLU of (X * W + bias). Can be differentiated as often as one likes."""

    @staticmethod
    def forward(
        ctx: LeakyContext,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        slope: float,
        at: Geometry,
        forms: Forms,
    ) -> Tensor:
        y = in_this_precision(multiply_leaky, x, weight, bias, slope, at, forms)
        ctx.save_for_backward(x, weight, y)
        ctx.slope, ctx.rest = slope, (at, forms)
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: LeakyContext, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        mask, (at, forms) = needed(ctx), ctx.rest
        if forms == LIBRARY and not torch.is_grad_enabled():  # two calls in the place of twelve
            grad = torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, True)
            return *in_this_precision(differentiate_by_library, grad, x, weight, at, mask), *REST
        grad = Slopes.apply(grad, y.detach(), ctx.slope)
        return *differentiate_convolution(grad, x, weight, mask, at, forms), *REST


REST = (None, None, None)  # the gradients of what is no tensor


class Slopes(torch.autograd.Function):
    """The gradient of a leaky ReLU with result y: grad where y > 0, else slope * grad."""

    @staticmethod
    def forward(ctx: LeakyContext, grad: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return torch.ops.aten.leaky_relu_backward(grad, y, slope, True)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: LeakyContext, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return Slopes.apply(grad, y, ctx.slope), None, None


def multiply_leaky(
    x: Tensor, weight: Tensor, bias: Tensor, slope: float, at: Geometry, forms: Forms
) -> Tensor:
    """Y of `ConvolveLeaky`, by a form."""
    fusable = forms.convolve == "library" and x.dtype in (torch.float32, torch.bfloat16)
    if not fusable or not torch.backends.mkldnn.is_available() or x.is_meta:
        return F.leaky_relu_(convolve_by(forms.convolve, x, weight, bias, at), slope)
    side: Any = ([at.padding] * 2, [at.stride] * 2, [1, 1], 1)
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, *side, "leaky_relu", [slope], None
    )


def differentiate_by_library(
    grad: Tensor, x: Tensor, weight: Tensor, at: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of a convolution's image, weight and bias, as far as the mask has them."""
    side: Any = ([at.stride] * 2, [at.padding] * 2, [1, 1], False, [0, 0], 1)
    return torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *side, list(mask))
