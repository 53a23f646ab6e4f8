"""Convolutions whose products are computed, on CPUs without AMX, in the form that costs least.

A convolution Y = X * W, the transposed one and both weight gradients are three sides of one sum:

    S(X, Y, W) = sum_{n, o, i, k, c} Y[n, k, o] W[k, c, i] X[n, c, stride o + i - padding].

`Convolve` is its derivative by Y, `SpreadOut` by X, `Correlate` by W. Each is linear in two of the
three, so its gradients are the other two, and all can be differentiated as often as one likes.

oneDNN, which PyTorch uses for all of them, spends on every call a time that grows with the kernel
and not with the image, and computes few channels as if they were many. `choose_forms` says where
another form is cheaper: matrix products with copies of all windows, a convolution for every residue
of the output's rows and columns modulo the stride, or products summed along shifts.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
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


# --- which form ----------------------------------------------------------------------------------

LARGE_KERNEL = 2**16
"""Weights of a kernel from which on oneDNN spends more on it than a function in Python costs."""

FEW = {torch.float32: 4, torch.bfloat16: 8}
"""Channels of X that oneDNN computes as slowly as it would 16."""

MANY_POSITIONS = 1024
"""Positions from which on the residues save more than it costs to put them in order."""

MANY_CHANNELS = 32
"""Channels of X from which on shifts are cheaper, for one channel of Y."""


@cache
def forms_pay(dtype: torch.dtype) -> bool:
    """Whether other forms can be cheaper on this CPU: measured on x86 with AVX-512, without AMX."""
    fp32 = (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not torch.cpu._is_amx_tile_supported()
    )
    bf16 = fp32 and torch.cpu._is_avx512_bf16_supported()
    return {torch.float32: fp32, torch.bfloat16: bf16}.get(dtype, False)


@cache
def choose_forms(
    positions: int, c_small: int, c_large: int, at: Geometry, dtype: torch.dtype
) -> Forms:
    """Return the cheapest forms. `positions`: N h w of Y, with `c_small` channels; X has `c_large`.

    A rule, not a measurement at run time, because equal commands must give equal bits. The limits
    were measured (RESULTS.md, "2026-11-26: convolutions by another form, on a CPU").
    """
    if c_small == 1 and c_large >= MANY_CHANNELS and at.stride == 1 < at.kernel:
        return Forms("shifts", "shifts", "shifts")
    strided_bf16 = at.stride > 1 and dtype == torch.bfloat16
    large = c_small * c_large * at.kernel**2 >= LARGE_KERNEL
    few = c_large <= FEW[dtype] < c_small and positions >= MANY_POSITIONS
    by_windows = large and positions <= c_small / (1 if strided_bf16 else 8)
    return Forms(
        convolve="windows" if by_windows else "library",
        spread="residues" if few and at.kernel == 2 * at.stride > 2 else "library",
        correlate="windows"
        if large and positions <= c_small * (4 if strided_bf16 else 1)
        else "library",
    )


def find_forms(x: Tensor, weight: Tensor, positions: int, at: Geometry) -> Forms:
    """Return the forms for x and a weight, with their precision under autocast."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if (
        x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or not forms_pay(dtype)
        or not x.is_contiguous(memory_format=torch.channels_last)
        or not weight.is_contiguous(memory_format=torch.channels_last)
    ):
        return LIBRARY
    return choose_forms(positions, *weight.shape[:2], at, dtype)


def to_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Cast as autocast would, which does not look into functions of our own."""
    if not torch.is_autocast_enabled("cpu"):
        return list(tensors)
    dtype = torch.get_autocast_dtype("cpu")
    return [None if x is None else x.to(dtype) for x in tensors]


# --- layers --------------------------------------------------------------------------------------


class Convolution(nn.Conv2d):
    """nn.Conv2d that in training takes the form that costs least."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, bias=bias)
        self.geometry = Geometry(kernel, stride, padding)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # only in training: samples and scores do not depend on the form
        if not self.training:
            return super()._conv_forward(input, weight, bias)
        return convolve(input, weight, bias, self.geometry)


class TransposedConvolution(nn.ConvTranspose2d):
    """nn.ConvTranspose2d that in training takes the form that costs least."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, padding: int, *, bias: bool = True
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, bias=bias)
        self.geometry = Geometry(kernel, stride, padding)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.training or output_size is not None:
            return super().forward(input, output_size)
        return convolve_transposed(input, self.weight, self.bias, self.geometry)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
    """F.conv2d in the form that costs least: equal up to rounding."""
    h, w = (small_side(side, at) for side in x.shape[2:])
    forms = find_forms(x, weight, len(x) * h * w, at)
    if forms == LIBRARY:
        return F.conv2d(x, weight, bias, at.stride, at.padding)
    return Convolve.apply(*to_autocast(x, weight, bias), at, forms)


def convolve_transposed(y: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
    """F.conv_transpose2d in the form that costs least: equal up to rounding."""
    n, _, *sides = y.shape
    forms = find_forms(y, weight, n * sides[0] * sides[1], at)
    if forms == LIBRARY:
        return F.conv_transpose2d(y, weight, bias, at.stride, at.padding)
    height, width = (at.stride * (side - 1) + at.kernel - 2 * at.padding for side in sides)
    return SpreadOut.apply(*to_autocast(y, weight, bias), (height, width), at, forms)


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
        for_x, for_weight, for_bias, *_ = ctx.needs_input_grad
        return (
            SpreadOut.apply(grad, weight, None, x.shape[2:], *ctx.rest) if for_x else None,
            Correlate.apply(x, grad, *ctx.rest) if for_weight else None,
            grad.sum((0, 2, 3)) if for_bias else None,
            None,
            None,
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
        for_y, for_weight, for_bias, *_ = ctx.needs_input_grad
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


def in_this_precision(compute: Callable[..., Tensor], *args: object) -> Tensor:
    """Call `compute` without autocast, which would cast fp32 operands of a backward pass."""
    if not torch.is_autocast_enabled("cpu"):  # entering a context takes 10 us
        return compute(*args)
    with torch.autocast("cpu", enabled=False):
        return compute(*args)
