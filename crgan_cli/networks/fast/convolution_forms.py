"""The products of a convolution, each in several forms that are equal up to rounding.

A convolution Y = X * W, the transposed one and the gradient of both kernels are three sides of one
sum:

    S(X, Y, W) = sum_{n, o, i, k, c} Y[n, k, o] W[k, c, i] X[n, c, stride o + i - padding].

`Convolve` is its derivative by Y, `SpreadOut` by X, `Correlate` by W. Each is linear in two of the
three, so its gradients are the other two, and all can be differentiated as often as one likes.

- library: what PyTorch takes, oneDNN.
- windows: all windows of X are copied, then one matrix product.
- residues: the rows and columns of X modulo the stride are channels of one ordinary convolution.
- shifts: products of each pixel with all taps, summed along shifts. For few channels of Y.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Geometry(NamedTuple):
    """Of a square window. Both axes have the same."""

    kernel: int
    stride: int
    padding: int


class Forms(NamedTuple):
    """How each of the three derivatives is computed."""

    convolve: str = "library"
    spread: str = "library"
    correlate: str = "library"


LIBRARY = Forms()


# --- the three derivatives, by each form ---------------------------------------------------------


def small_side(side: int, at: Geometry) -> int:
    """A side of Y, from that of X."""
    return (side + 2 * at.padding - at.kernel) // at.stride + 1


def copy_windows(x: Tensor, geometry: Geometry) -> Tensor:
    """(N, C, H, W) -> (N h w, kernel kernel C): what each position of Y sees of X."""
    kernel, stride, padding = geometry
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    n, height, width, c = x.shape
    h, w = ((side - kernel) // stride + 1 for side in (height, width))
    s = x.stride()
    shape = (n, h, w, kernel, kernel, c)
    strides = (s[0], stride * s[1], stride * s[2], s[1], s[2], s[3])
    return x.as_strided(shape, strides).reshape(n * h * w, kernel * kernel * c)


def to_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C). A view of a tensor in channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def to_images(rows: Tensor, n: int, h: int, w: int) -> Tensor:
    """Invert `to_rows`."""
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def flatten_kernel(weight: Tensor) -> Tensor:
    """(K, C, k, k) -> (K, k k C). A view of a kernel in channels_last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def multiply(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """rows @ matrix + bias."""
    return rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)


def convolve_by(form: str, x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
    """Y, from X and W."""
    if form == "library":
        return F.conv2d(x, weight, bias, at.stride, at.padding)
    (n, _, *sides), k = x.shape, len(weight)
    h, w = (small_side(side, at) for side in sides)
    if form == "windows":
        return to_images(multiply(copy_windows(x, at), flatten_kernel(weight).T, bias), n, h, w)
    # shifts: the products of each pixel with all taps, then for each output the sum of its own
    taps = to_rows(x) @ weight.permute(1, 2, 3, 0).flatten(1)
    p = at.padding
    taps = F.pad(taps.view(n, *sides, -1), (0, 0, p, p, p, p))
    s, kernel = taps.stride(), at.kernel
    shape, strides = (n, h, w, kernel, kernel, k), (*s[:3], s[1] + kernel * k, s[2] + k, 1)
    y = taps.as_strided(shape, strides).sum((3, 4)).permute(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def spread_by(
    form: str,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sides: tuple[int, int],
    at: Geometry,
) -> Tensor:
    """X, from Y and W; `sides` are its height and width."""
    kernel, stride, padding = at
    n, k, h, w = y.shape
    c = weight.shape[1]
    if form == "shifts":  # an ordinary convolution with the mirrored kernel
        rows = copy_windows(y, Geometry(kernel, 1, kernel - 1 - padding))
        matrix = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, c)
        return to_images(multiply(rows, matrix, bias), n, *sides)
    if form == "residues":
        # row stride q + a of X, padded, is sum_t Y[q - t] W[stride t + a]: a convolution of Y
        taps = kernel // stride
        split = weight.reshape(k, c, taps, stride, taps, stride).flip(2, 4)
        split = split.permute(3, 5, 1, 0, 2, 4).reshape(stride * stride * c, k, taps, taps)
        split = split.contiguous(memory_format=torch.channels_last)
        shift = None if bias is None else bias.repeat(stride * stride)
        x = F.conv2d(y, split, shift, padding=taps - 1).permute(0, 2, 3, 1)
        x = x.view(n, h + taps - 1, w + taps - 1, stride, stride, c).transpose(2, 3)
        x = x.reshape(n, stride * (h + taps - 1), stride * (w + taps - 1), c)
        ends = (padding + side for side in sides)
        x = x[:, padding : next(ends), padding : next(ends)].permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)
    more = [
        side - (stride * (small - 1) + kernel - 2 * padding)
        for side, small in zip(sides, (h, w), strict=True)
    ]
    return F.conv_transpose2d(y, weight, bias, stride, padding, more)


def correlate_by(form: str, x: Tensor, y: Tensor, at: Geometry) -> Tensor:
    """W, from X and Y."""
    kernel, stride, padding = at
    c, k = x.shape[1], y.shape[1]
    if form == "windows":
        return (to_rows(y).T @ copy_windows(x, at)).view(k, kernel, kernel, c).permute(0, 3, 1, 2)
    if form == "shifts":
        rows = copy_windows(y, Geometry(kernel, 1, kernel - 1 - padding))
        weight = (rows.T @ to_rows(x)).view(kernel, kernel, k, c).flip(0, 1).permute(2, 3, 0, 1)
        return weight.contiguous(memory_format=torch.channels_last)
    shape = (k, c, kernel, kernel)  # its memory format becomes the gradient's
    like = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        y, x, like, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask
    )[1]


# --- the three derivatives, with gradients -------------------------------------------------------


class Wanted:
    """What backward passes compute here."""

    weights = True


@contextmanager
def gradients_of_images_only() -> Iterator[None]:
    """Compute no gradients of weights and biases in the backward passes of the body.

    For `torch.autograd.grad` with respect to images: it discards those, but a function in Python
    is not told so (`needs_input_grad` is that of the forward pass).
    """
    before, Wanted.weights = Wanted.weights, False
    try:
        yield
    finally:
        Wanted.weights = before


def needed(ctx: Any) -> tuple[bool, bool, bool]:
    """Whether the gradient of an operand is needed, that of the weight, and that of the bias."""
    operand, weight, bias, *_ = ctx.needs_input_grad
    return operand, weight and Wanted.weights, bias and Wanted.weights


class Convolve(torch.autograd.Function):
    """Y = X * W + bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry, forms: Forms
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = at, forms
        return in_this_precision(convolve_by, forms.convolve, x, weight, bias, at)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        return *differentiate_convolution(grad, x, weight, needed(ctx), *ctx.rest), None, None


def differentiate_convolution(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: tuple[bool, bool, bool],
    at: Geometry,
    forms: Forms,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of X, W and the bias, as far as the mask has them, with gradients."""
    for_x, for_weight, for_bias = mask
    return (
        SpreadOut.apply(grad, weight, None, x.shape[2:], at, forms) if for_x else None,
        Correlate.apply(x, grad, at, forms) if for_weight else None,
        grad.sum((0, 2, 3)) if for_bias else None,
    )


class SpreadOut(torch.autograd.Function):
    """X = transposed convolution of Y with W, + bias."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sides: tuple[int, int],
        at: Geometry,
        forms: Forms,
    ) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.rest = at, forms
        return in_this_precision(spread_by, forms.spread, y, weight, bias, sides, at)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, weight = ctx.saved_tensors
        for_y, for_weight, for_bias = needed(ctx)
        return (
            Convolve.apply(grad, weight, None, *ctx.rest) if for_y else None,
            Correlate.apply(grad, y, *ctx.rest) if for_weight else None,
            grad.sum((0, 2, 3)) if for_bias else None,
            None,
            None,
            None,
        )


class Correlate(torch.autograd.Function):
    """W: the sum over all positions of what X and Y have there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, at: Geometry, forms: Forms) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.rest = at, forms
        return in_this_precision(correlate_by, forms.correlate, x, y, at)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y = ctx.saved_tensors
        for_x, for_y, *_ = ctx.needs_input_grad
        return (
            SpreadOut.apply(y, grad, None, x.shape[2:], *ctx.rest) if for_x else None,
            Convolve.apply(x, grad, None, *ctx.rest) if for_y else None,
            None,
            None,
        )


def in_this_precision(compute: Callable[..., Any], *args: object) -> Any:
    """Call `compute` without autocast, which would cast fp32 operands of a backward pass."""
    if not torch.is_autocast_enabled("cpu"):  # entering a context takes 10 us
        return compute(*args)
    with torch.autocast("cpu", enabled=False):
        return compute(*args)
