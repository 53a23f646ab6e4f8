"""The common SNGAN ResNet for 32 px, as in the authors' own code.

Miyato et al. 2018 (arXiv:1802.05957) table 4 and Miyato & Koyama 2018 (arXiv:1802.05637), as built
in pfnet-research/sngan_projection. Against `resnet`: nearest upsampling, 1x1 shortcuts only where
the shape changes, a first block without ReLU, images in [-1, 1], sum pooling, Glorot weights.
"""

import torch
from torch import nn

from crgan_cli.config.bounds import NonNegativeInt, Positive, PositiveInt
from crgan_cli.networks.blocks import (
    Residual,
    ResidualDiscriminator,
    ResidualGenerator,
    UpBlock,
    body,
    conv3,
    down_shortcut_1x1,
    first_body,
    up_shortcut_1x1,
)
from crgan_cli.networks.fast.folding import NearestConv3, PooledConv3
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    ConditionalBatchNorm,
    PlainBatchNorm,
    head,
    init_glorot_sngan,
    init_weights,
    label_count,
    label_norm,
    require_resolution,
    scale_channels,
    sum_pool,
)


def _require_32(resolution: int) -> None:
    others = "architecture=biggan_lite (32, 64), resnet5 (128) or sndcgan (any multiple of 8)"
    require_resolution(resolution == 32, resolution, "resnet_sngan", "32", others)


class SNGANGenerator(ResidualGenerator):
    """Three blocks up at 256 channels, tanh; the last batch norm is unconditional."""

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        z_dim: PositiveInt,
        width: Positive,
    ) -> None:
        _require_32(resolution)
        labels = label_count(conditional, classes)
        norm = label_norm(labels)
        super().__init__(
            [scale_channels(256, width)] * 4,
            lambda a, b: UpBlock(a, b, norm, NearestConv3, up_shortcut_1x1(a, b)),
            PlainBatchNorm,
            torch.tanh,
            seed_dim=z_dim,
            z_dim=z_dim,
            channels=channels,
            classes=labels,
        )
        init_weights(self, init_glorot_sngan)
        nn.init.xavier_uniform_(self.out.weight)  # gain sqrt 2 belongs to the blocks' 3x3 only
        _start_neutral(self)


class SNGANDiscriminator(ResidualDiscriminator):
    """Four blocks at 128 channels, the first two down; with labels, a projection head."""

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        width: Positive,
        spectral_norm: bool,
    ) -> None:
        _require_32(resolution)
        labels = label_count(conditional, classes)
        c, pool = scale_channels(128, width), nn.AvgPool2d(2)
        blocks = [
            Residual(first_body(channels, c, PooledConv3), down_shortcut_1x1(channels, c, pool)),
            Residual(body(c, c, PooledConv3), down_shortcut_1x1(c, c, pool)),
            Residual(body(c, c, conv3), nn.Identity()),
            Residual(body(c, c, conv3), nn.Identity()),
        ]
        super().__init__(blocks, sum_pool, head(c, labels), labels)
        init_weights(self, init_glorot_sngan)
        if spectral_norm:
            apply_spectral_norm(self)


def _start_neutral(generator: nn.Module) -> None:
    """Every class begins with gain 1 and shift 0, as in sngan_projection."""
    for module in generator.modules():
        if isinstance(module, ConditionalBatchNorm):
            init_weights(module, nn.init.zeros_)
