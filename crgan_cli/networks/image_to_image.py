"""What the generators from images to images share: upsampling, reflection padding, sizes."""

from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from crgan_cli.errors import UserError
from crgan_cli.networks.fast.convolution import TransposedConvolution
from crgan_cli.networks.fast.fused_resample import NearestConv3
from crgan_cli.networks.layers import require_resolution

Upsampling = Literal["deconv", "resize"]


def upsample(
    kind: Upsampling, c_in: int, c_out: int, *, bias: bool, kernel: Literal[3, 4] = 4
) -> nn.Module:
    """(H, W) -> (2H, 2W). deconv: a transposed convolution, as in the papers, with this kernel.

    resize: nearest upsampling and a 3x3 convolution, against checkerboards (Odena et al. 2016,
    doi:10.23915/distill.00003).
    """
    if kind == "resize":
        return NearestConv3(c_in, c_out, bias=bias)
    if kernel == 4:
        return TransposedConvolution(c_in, c_out, 4, 2, 1, bias=bias)
    return nn.ConvTranspose2d(c_in, c_out, kernel, 2, 1, output_padding=4 - kernel, bias=bias)


QUARTER, SHORTEST = 4, 8
"""Generators that halve a side twice: the multiple of a side, and the shortest. The blocks at its
quarter then see 2 x 2 places, which reflection and instance norm need."""


def require_quarters(resolution: int, name: str) -> None:
    """Raise UserError if a side cannot be halved twice."""
    nearest = max(SHORTEST, round(resolution / QUARTER) * QUARTER)
    require_resolution(
        nearest == resolution,
        resolution,
        name,
        f"{SHORTEST}, {SHORTEST + QUARTER} or another multiple of {QUARTER}",
        f"dataset.resolution={nearest}",
    )


def require_sides(x: Tensor, name: str, *, multiple: int, least: int) -> None:
    """Raise UserError if a side of images (N, C, H, W) is below `least` or no multiple.

    `least` is a multiple of `multiple`; `name` is what the user calls the network.
    """
    sides = x.shape[2:]
    fitting = [max(least, ceil(side / multiple) * multiple) for side in sides]
    if fitting == list(sides):
        return
    wanted = f"sides that are multiples of {multiple}"
    if least > multiple:
        wanted += f", and at least {least}"
    raise UserError(
        f"The images are {'x'.join(map(str, sides))} pixels (height x width), but this {name} "
        f"needs {wanted}. Pad or resize them to {'x'.join(map(str, fitting))}."
    )


# --- reflection padding --------------------------------------------------------------------------


class ReflectionPad(nn.Module):
    """nn.ReflectionPad2d with a deterministic gradient on CUDA, and in the memory format of x.

    Forward the same bits; the gradient is the same sum. torch's own has no deterministic backward
    pass on CUDA; on a CPU it has, and is used.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H + 2p, W + 2p), for sides above p."""
        assert min(x.shape[2:]) > self.padding, "a side is too short to be reflected"
        if x.device.type == "cpu":
            return F.pad(x, (self.padding,) * 4, mode="reflect")
        padded = Reflect.apply(x, self.padding)
        assert isinstance(padded, Tensor)
        return padded

    def extra_repr(self) -> str:
        return str(self.padding)


class PaddingContext(FunctionCtx):
    """What `Reflect` saves for backward."""

    padding: int


class Reflect(torch.autograd.Function):
    """Concatenate flipped borders; backward adds their gradients to those of the inside.

    Autograd's own backward of the slices would fill a whole image with zeros for each border.
    """

    @staticmethod
    def forward(ctx: PaddingContext, x: Tensor, padding: int) -> Tensor:
        ctx.padding = p = padding
        for axis in (-1, -2):
            side = x.shape[axis]
            first, last = x.narrow(axis, 1, p), x.narrow(axis, side - 1 - p, p)
            x = torch.cat([first.flip(axis), x, last.flip(axis)], axis)
        return x

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: PaddingContext, grad: Tensor
    ) -> tuple[Tensor, None]:
        p = ctx.padding
        for axis in (-2, -1):
            side = grad.shape[axis] - 2 * p
            inside = grad.narrow(axis, p, side).clone()
            inside.narrow(axis, 1, p).add_(grad.narrow(axis, 0, p).flip(axis))
            inside.narrow(axis, side - 1 - p, p).add_(grad.narrow(axis, side + p, p).flip(axis))
            grad = inside
        return grad, None
