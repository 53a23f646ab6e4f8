"""The U-Net of pix2pix: an encoder and a decoder with skip connections.

Isola et al. 2017 (arXiv:1611.07004), as built in phillipi/pix2pix (models.lua) and, for what has a
bias, in the authors' PyTorch port (junyanz/pytorch-CycleGAN-and-pix2pix).
"""

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import DropoutRate, NetworkSide, Positive, PositiveInt
from crgan_cli.networks.fast.convolution import Convolution
from crgan_cli.networks.image_to_image import Upsampling, require_sides, upsample
from crgan_cli.networks.layers import (
    RowDropout,
    init_norm_gains,
    init_normal_002,
    init_weights,
    require_resolution,
    scale_channels,
)
from crgan_cli.networks.norms import NormKind, needs_bias, norm_layers

LEAST_HALVINGS, MOST_HALVINGS = 5, 8
"""The port's network for the smallest images, and the authors' for 256 px."""

DROPPED_BLOCKS = 3
"""Blocks of the decoder with dropout, from the innermost on."""


class UNetGenerator(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W), both in [-1, 1].

    The encoder halves the side as often as `resolution` can be halved, at most 8 times: to 1x1 for
    32, 64, 128 and 256 px. Its widths are 64, 128, 256, 512, 512, ... Each block of the decoder
    sees the output of the one before, joined with the encoder's features of the same side.

    Dropout is where the authors' Lua code has it: in the decoder's first three blocks, if they
    have 512 channels. Their PyTorch port has none in the innermost block, and it in the
    log2(side) - 5 blocks after that, so none at 32 px.

    `upsampling`: "deconv" is the paper's transposed convolution, 4x4 with stride 2. "resize" is
    nearest upsampling and a 3x3 convolution, against checkerboards.

    `multiple`: both sides of the input must be multiples of it. They need not be `resolution`.
    """

    def __init__(
        self,
        resolution: NetworkSide,
        in_channels: PositiveInt,
        out_channels: PositiveInt,
        width: Positive,
        norm: NormKind,
        dropout: DropoutRate,
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        halvings = _count_halvings(resolution)
        self.resolution, self.multiple = resolution, 2**halvings
        self.in_channels, self.out_channels = in_channels, out_channels
        widths = [scale_channels(min(64 * 2**i, 512), width) for i in range(halvings)]
        last, bias = halvings - 1, needs_bias(norm)
        self.down = nn.ModuleList()
        for i, c_out in enumerate(widths):
            relu = [nn.LeakyReLU(0.2)] if i else []
            conv = Convolution(widths[i - 1] if i else in_channels, c_out, 4, 2, 1, bias=bias)
            after = norm_layers(norm, c_out) if 0 < i < last else []
            self.down.append(nn.Sequential(*relu, conv, *after))
        self.up = nn.ModuleList()
        for i in reversed(range(halvings)):
            c_in = widths[i] if i == last else 2 * widths[i]
            c_out = widths[i - 1] if i else out_channels
            layers = [nn.ReLU(), upsample(upsampling, c_in, c_out, bias=bias or i == 0)]
            if i:
                layers += norm_layers(norm, c_out)
            if i > max(last - DROPPED_BLOCKS, 3):  # from 3 on, the encoder has 512 channels
                layers.append(RowDropout(dropout))
            self.up.append(nn.Sequential(*layers))
        init_weights(self, init_normal_002)
        init_norm_gains(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images. Raises UserError for a side that is no multiple of `multiple`."""
        require_sides(x, "U-Net", multiple=self.multiple, least=self.multiple)
        features: list[Tensor] = []
        for block in self.down:
            x = block(x)
            features.append(x)
        x = features.pop()
        for block in self.up:
            x = block(x)
            if features:
                x = torch.cat([x, features.pop()], dim=1)
        return torch.tanh(x)


def _count_halvings(resolution: int) -> int:
    halvings = 0
    while halvings < MOST_HALVINGS and resolution % 2 ** (halvings + 1) == 0:
        halvings += 1
    step = 2**LEAST_HALVINGS
    require_resolution(
        halvings >= LEAST_HALVINGS,
        resolution,
        "unet",
        f"32, 64, 128, 256 or another multiple of {step}",
        f"dataset.resolution={max(1, round(resolution / step)) * step}",
    )
    return halvings
