"""compare_gan's ResNets: the 32 px one of the papers' "ResNet" column, and ResNet5 for 128 px.

Sources: Miyato et al. 2018 (arXiv:1802.05957) table 4 and Gulrajani et al. 2017 (arXiv:1704.00028)
as built in compare_gan/architectures/resnet_cifar.py, resnet5.py and resnet_ops.py. Kept of its odd
points: zero insertion on the way up, a 3x3 convolution in every shortcut, a first block that begins
with a ReLU on the image in [0, 1], and mean pooling before the logit.
"""

from itertools import pairwise

from torch import nn

from crgan_cli.config.bounds import NonNegativeInt, Positive, PositiveInt
from crgan_cli.networks.blocks import (
    Conv3,
    Residual,
    ResidualDiscriminator,
    ResidualGenerator,
    UpBlock,
    body,
    conv3,
    down_shortcut_3x3,
    up_shortcut_3x3,
)
from crgan_cli.networks.fast.folding import PooledConv3, ZeroInsertionConv3
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    Norm,
    PlainBatchNorm,
    ToUnitInterval,
    head,
    init_normal_002,
    init_weights,
    label_count,
    label_norm,
    mean_pool,
    require_resolution,
    scale_channels,
    sigmoid_image,
)


def _up(c_in: int, c_out: int, norm: Norm) -> nn.Module:
    return UpBlock(c_in, c_out, norm, ZeroInsertionConv3, up_shortcut_3x3(c_in, c_out))


def _down(c_in: int, c_out: int, last: Conv3) -> nn.Module:
    return Residual(body(c_in, c_out, last), down_shortcut_3x3(c_in, c_out, last))


def _require_32(resolution: int) -> None:
    others = "architecture=biggan_lite (32, 64), resnet5 (128) or sndcgan (any multiple of 8)"
    require_resolution(resolution == 32, resolution, "resnet", "32", others)


def _require_128(resolution: int) -> None:
    others = "architecture=resnet (32), biggan_lite (32, 64) or sndcgan (any multiple of 8)"
    require_resolution(resolution == 128, resolution, "resnet5", "128", others)


class ResNetGenerator(ResidualGenerator):
    """Three blocks up at 256 channels; with labels, every batch norm is conditional."""

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
            lambda c_in, c_out: _up(c_in, c_out, norm),
            norm,
            sigmoid_image,
            seed_dim=z_dim,
            z_dim=z_dim,
            channels=channels,
            classes=labels,
        )
        init_weights(self, init_normal_002)


class ResNetDiscriminator(ResidualDiscriminator):
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
        c = scale_channels(128, width)
        blocks = [
            ToUnitInterval(),
            _down(channels, c, PooledConv3),
            _down(c, c, PooledConv3),
            _down(c, c, conv3),
            _down(c, c, conv3),
        ]
        super().__init__(blocks, mean_pool, head(c, labels), labels)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)


class ResNet5Generator(ResidualGenerator):
    """Five blocks up: 512, 512, 256, 256, 128, 64 channels."""

    def __init__(
        self, resolution: PositiveInt, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        _require_128(resolution)
        super().__init__(
            [scale_channels(64 * m, width) for m in (8, 8, 4, 4, 2, 1)],
            lambda c_in, c_out: _up(c_in, c_out, PlainBatchNorm),
            PlainBatchNorm,
            sigmoid_image,
            seed_dim=z_dim,
            z_dim=z_dim,
            channels=channels,
            classes=0,
        )
        init_weights(self, init_normal_002)


class ResNet5Discriminator(ResidualDiscriminator):
    """Six blocks, all of them down (128 to 2): 64, 128, 256, 256, 512, 512 channels."""

    def __init__(
        self, resolution: PositiveInt, channels: PositiveInt, width: Positive, spectral_norm: bool
    ) -> None:
        _require_128(resolution)
        widths = [channels, *(scale_channels(64 * m, width) for m in (1, 2, 4, 4, 8, 8))]
        blocks = [_down(c_in, c_out, PooledConv3) for c_in, c_out in pairwise(widths)]
        super().__init__([ToUnitInterval(), *blocks], mean_pool, head(widths[-1], 0), classes=0)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)
