"""3x3 convolutions that halve or double the size, each in two forms with the same values.

The plain form is the papers': average pooling after the convolution, or upsampling before it. The
fused form is one strided convolution, with a kernel computed from the same weights. Pooling and
upsampling are linear, so only rounding differs. The fused form needs 4/9 (PooledConv3,
NearestConv3) or 1/4 (ZeroInsertionConv3) of the multiplications. `FUSED_PAYS` says on which kinds
of device it is used.

1x1 convolutions next to a change of size are not here: `blocks` applies them at the smaller size,
which is exact too, and cheaper on every device.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.fast.convolution import convolve, convolve_transposed
from crgan_cli.networks.fast.convolution_forms import Geometry

HALVING = Geometry(kernel=4, stride=2, padding=1)

Form = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FusedResampleConv3(nn.Conv2d):
    """A 3x3 convolution with a change of size. `use_fused` selects the fused form.

    The forms are functions of (x, weight, bias), so they also work for other tensors.
    """

    plain: Form
    fused: Form

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=bias)
        self.use_fused = False

    def forward(self, input: Tensor) -> Tensor:
        return self.resample(input, self.weight)

    def resample(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution of x with another weight of the same shape."""
        # only in training: samples and scores do not depend on the form
        form = self.fused if self.use_fused and self.training else self.plain
        return form(x, weight, self.bias)


class PooledConv3(FusedResampleConv3):
    """3x3, then 2x2 average pooling: (H, W) -> (H // 2, W // 2).

    Fused: 4x4 with stride 2, K[m] = sum_{a in {0,1}} w[m - a] / 2 along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, with_average_pool(weight, divisor=4), bias, HALVING)


class NearestConv3(FusedResampleConv3):
    """Nearest upsampling (each value fills a 2x2 square), then 3x3: (H, W) -> (2H, 2W).

    Fused: 4x4 transposed with stride 2, K = (w2, w2 + w1, w1 + w0, w0) along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv2d(upsampled, weight, bias, padding=1)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernel = with_average_pool(transpose_kernel(weight), divisor=1)
        return convolve_transposed(x, kernel, bias, HALVING)


class ZeroInsertionConv3(FusedResampleConv3):
    """Zero insertion (`insert_zeros`), then 3x3 (compare_gan): (H, W) -> (2H, 2W).

    Fused: 3x3 transposed with stride 2, K = (w2, w1, w0) along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(insert_zeros(x), weight, bias, padding=1)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # output_padding: the zeros at the bottom and the right see the last values too
        return F.conv_transpose2d(
            x, transpose_kernel(weight), bias, stride=2, padding=1, output_padding=1
        )


def with_average_pool(weight: Tensor, *, divisor: int) -> Tensor:
    """(.., 3, 3) -> (.., 4, 4): convolve with a 2x2 square of 1 / `divisor`.

    Computed by average pooling: one kernel forward and one backward. It keeps the layout, and never
    uses TF32, unlike a convolution.
    """
    return F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=divisor)


def transpose_kernel(kernel: Tensor) -> Tensor:
    """Return the kernel with which a transposed convolution computes the same products.

    It is made contiguous while it is small. Otherwise the convolution would reorder the larger
    result of `with_average_pool`, forward and backward.
    """
    layout = torch.contiguous_format if kernel.is_contiguous() else torch.channels_last
    return kernel.flip(2, 3).transpose(0, 1).contiguous(memory_format=layout)


def insert_zeros(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): each value becomes the top left of a 2x2 square, with zeros.

    Keeps the layout.
    """
    n, c, h, w = x.shape
    if x.is_contiguous():
        corners = F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1))
        return corners.reshape(n, c, 2 * h, 2 * w)
    corners = F.pad(x.permute(0, 2, 3, 1)[:, :, None, :, None], (0, 0, 0, 1, 0, 0, 0, 1))
    return corners.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


# --- which form ----------------------------------------------------------------------------------

FUSED_PAYS = {"cpu": True, "cuda": True, "mps": True}
"""Device type -> whether engine.fold=auto uses the fused form.

Measured on a CPU, in fp32 and in bf16 (RESULTS.md, "2026-11-26: folded convolutions, on a CPU").
Not measured on cuda and mps: the fused form is used there because it multiplies less. A table, not
a measurement at run time, because equal commands must give equal bits.
"""


def fusable_layers(network: nn.Module) -> dict[str, FusedResampleConv3]:
    """Return the layers of `network` that have two forms, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, FusedResampleConv3)}


def choose_fused(
    network: nn.Module, fold: Literal["auto", "always", "never"], device: torch.device
) -> dict[str, bool]:
    """Return, by layer name, whether to use the fused form, as `engine.fold` says."""
    fused = FUSED_PAYS.get(device.type, True) if fold == "auto" else fold == "always"
    return dict.fromkeys(fusable_layers(network), fused)


def set_fused(network: nn.Module, choices: Mapping[str, bool]) -> None:
    """Set the forms of `network` to what `choose_fused` returned for it or for an equal network."""
    layers = fusable_layers(network)
    assert choices.keys() == layers.keys(), "the choices are for another network"
    for name, fused in choices.items():
        layers[name].use_fused = fused
