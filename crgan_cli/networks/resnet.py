"""compare_gan's ResNets: the 32 px one of the papers' "ResNet" column, with that for the 48 px of
STL-10, and ResNet5 for 128 px.

Sources: Miyato et al. 2018 (arXiv:1802.05957) tables 4 and 5 and Gulrajani et al. 2017
(arXiv:1704.00028) as built in compare_gan/architectures/resnet_cifar.py, resnet_stl.py, resnet5.py
and resnet_ops.py. Its unusual points are kept: upsampling by zero insertion, a 3x3 convolution in
every shortcut, a first block that starts with a ReLU on the image in [0, 1], and mean pooling
before the logit.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from crgan_cli.config.bounds import ImageSize, Positive, PositiveInt
from crgan_cli.networks.blocks import (
    ResidualDiscriminator,
    ResidualGenerator,
    residual_3x3,
    zero_insertion_block,
)
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    ToUnitInterval,
    init_normal_002,
    init_weights,
    mean_pool,
    require_residual,
    scale_channels,
    sigmoid_image,
)
from crgan_cli.networks.norms import PlainBatchNorm
from crgan_cli.networks.resnet_shared import (
    LabelledResNetDiscriminator,
    LabelledResNetGenerator,
)


class ResNetGenerator(LabelledResNetGenerator):
    """Three blocks up, at 256 channels or, for 48 px, from 512 to 64.

    With labels, every batch norm is conditional.
    """

    name = "resnet"
    conditional_final_norm = True
    make_block = staticmethod(zero_insertion_block)
    squash = staticmethod(sigmoid_image)

    def init_weights(self) -> None:
        init_weights(self, init_normal_002)


class ResNetDiscriminator(LabelledResNetDiscriminator):
    """Four blocks at 128 channels, the first two down; for 48 px five, all but the last down.

    With labels, a projection head.
    """

    name = "resnet"
    pool = staticmethod(mean_pool)

    def make_blocks(self, widths: Sequence[int]) -> list[nn.Module]:
        downs = self.count_downs(len(widths) - 1)
        return [
            ToUnitInterval(),
            *(
                residual_3x3(c_in, c_out, down=number < downs)
                for number, (c_in, c_out) in enumerate(pairwise(widths))
            ),
        ]

    def init_weights(self) -> None:
        init_weights(self, init_normal_002)


RESNET5_SIDES = (128, 192)


class ResNet5Generator(ResidualGenerator):
    """Five blocks up: 512, 512, 256, 256, 128, 64 channels. 192 px, from 6x6, is our addition."""

    squash = staticmethod(sigmoid_image)

    def __init__(
        self, resolution: ImageSize, channels: PositiveInt, z_dim: PositiveInt, width: Positive
    ) -> None:
        require_residual(resolution, RESNET5_SIDES, "resnet5")
        super().__init__(
            [scale_channels(64 * m, width) for m in (8, 8, 4, 4, 2, 1)],
            lambda c_in, c_out: zero_insertion_block(c_in, c_out, PlainBatchNorm),
            PlainBatchNorm,
            resolution=resolution,
            z_dim=z_dim,
            channels=channels,
            classes=0,
        )
        init_weights(self, init_normal_002)


class ResNet5Discriminator(ResidualDiscriminator):
    """Six blocks, all of them down (128 to 2, 192 to 3): 64, 128, 256, 256, 512, 512 channels."""

    pool = staticmethod(mean_pool)

    def __init__(
        self, resolution: ImageSize, channels: PositiveInt, width: Positive, spectral_norm: bool
    ) -> None:
        require_residual(resolution, RESNET5_SIDES, "resnet5")
        widths = [channels, *(scale_channels(64 * m, width) for m in (1, 2, 4, 4, 8, 8))]
        blocks = [residual_3x3(c_in, c_out, down=True) for c_in, c_out in pairwise(widths)]
        super().__init__([ToUnitInterval(), *blocks], widths[-1], classes=0)
        init_weights(self, init_normal_002)
        if spectral_norm:
            apply_spectral_norm(self)
