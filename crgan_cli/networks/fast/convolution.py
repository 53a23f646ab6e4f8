"""Convolutions that, on CPUs without AMX, take the form that costs least.

oneDNN, which PyTorch uses there, spends on every call a time that grows with the kernel and not
with the image, and computes few channels as if they were many. `choose_forms` says where another
form (`convolution_forms`) is cheaper.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.fast.convolution_forms import (
    LIBRARY,
    Convolve,
    Forms,
    Geometry,
    SpreadOut,
    small_side,
)

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
