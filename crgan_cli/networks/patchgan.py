"""PatchGAN, the discriminator of pix2pix and CycleGAN: one logit for each patch of an image.

Isola et al. 2017 (arXiv:1611.07004) section 3.2.2, as built in phillipi/pix2pix (models.lua) and,
for what has a bias, in the authors' PyTorch port (junyanz/pytorch-CycleGAN-and-pix2pix).
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from crgan_cli.config.bounds import NetworkSide, Positive, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.networks.fast.convolution import Convolution
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    LogitConv,
    init_norm_gains,
    init_normal_002,
    init_weights,
    scale_channels,
)
from crgan_cli.networks.norms import NormKind, needs_bias, norm_layers

RECEPTIVE_FIELDS = (1, 16, 34, 70, 142, 286)
"""Side of the patch, in pixels, that one logit depends on; by `d_layers`."""


class PatchDiscriminator(nn.Module):
    """`d_layers` 4x4 convolutions with stride 2, two with stride 1; LReLU 0.2. 0: the pixel D.

    Widths 64, 128, 256, 512, 512, ...; no norm after the first convolution and the last. The pixel
    D has three 1x1 convolutions instead. `d_in_channels` counts all channels that D sees: those of
    the condition, if it is joined to the image, and those of the image.

    The convolutions before batch norm have no bias; the pixel D's last one has none either if
    `d_norm` is batch, as in the port.
    """

    classes = 0

    def __init__(
        self,
        resolution: NetworkSide,
        d_in_channels: PositiveInt,
        d_layers: Literal[0, 1, 2, 3, 4, 5],
        width: Positive,
        d_norm: NormKind,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        _require_map(resolution, d_layers)
        widths = [scale_channels(64 * min(2**i, 8), width) for i in range(max(d_layers, 1) + 1)]
        kernel, padding, halve = (4, 1, 2) if d_layers else (1, 0, 1)
        bias = needs_bias(d_norm)
        layers = [Convolution(d_in_channels, widths[0], kernel, halve, padding), nn.LeakyReLU(0.2)]
        for i, (c_in, c_out) in enumerate(pairwise(widths), start=1):
            stride = halve if i < d_layers else 1
            layers.append(Convolution(c_in, c_out, kernel, stride, padding, bias=bias))
            layers += [*norm_layers(d_norm, c_out), nn.LeakyReLU(0.2)]
        logits = LogitConv(widths[-1], 1, kernel, 1, padding, bias=bias or d_layers > 0)
        layers.append(logits)
        self.layers = nn.Sequential(*layers)
        init_weights(self, init_normal_002)
        init_norm_gains(self)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, d_in_channels, H, W) in [-1, 1] -> (N, 1, h, w) logits; `y` is not used.

        h = H // 2^d_layers - 2; for the pixel D h = H.
        """
        return self.layers(x)


def _require_map(resolution: int, layers: int) -> None:
    """Raise UserError if the last map would have no logit."""
    if layers and resolution < 3 * 2**layers:
        fitting = max(n for n in range(layers) if n == 0 or resolution >= 3 * 2**n)
        raise UserError(
            f"dataset.resolution is {resolution}, but a discriminator with architecture.d_layers="
            f"{layers} needs at least {3 * 2**layers} pixels per side. Use architecture.d_layers="
            f"{fitting} (patches of {RECEPTIVE_FIELDS[fitting]} pixels), or another "
            "dataset.resolution."
        )
