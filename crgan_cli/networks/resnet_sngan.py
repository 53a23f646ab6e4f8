"""The common SNGAN ResNet for 32 and 128 px, as in the authors' own code, and for 48 px (STL-10).

Miyato et al. 2018 (arXiv:1802.05957) tables 4 and 5 and Miyato & Koyama 2018 (arXiv:1802.05637), as
built in pfnet-research/sngan_projection; for 48 px the channels of kwotsin/mimicry's sngan_48.py.
Unlike `resnet`: nearest upsampling, 1x1 shortcuts only where the shape changes, a first block
without ReLU, images in [-1, 1], sum pooling, Glorot weights.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import nn

from crgan_cli.networks.blocks import nearest_block, residual_1x1
from crgan_cli.networks.layers import init_glorot_sngan, init_weights
from crgan_cli.networks.norms import ConditionalBatchNorm
from crgan_cli.networks.resnet_shared import (
    LabelledResNetDiscriminator,
    LabelledResNetGenerator,
)


class SNGANGenerator(LabelledResNetGenerator):
    """Three blocks up, at 256 channels or, for 48 px, from 512 to 64; five for 128 px; tanh.

    The last batch norm is unconditional.
    """

    name = "resnet_sngan"
    conditional_final_norm = False
    table: ClassVar = LabelledResNetGenerator.table | {128: (1024, 1024, 512, 256, 128, 64)}
    make_block = staticmethod(nearest_block)

    def init_weights(self) -> None:
        init_weights(self, init_glorot_sngan)
        nn.init.xavier_uniform_(self.out.weight)  # gain sqrt 2 is for the 3x3 of the blocks only
        for module in self.modules():
            if isinstance(module, ConditionalBatchNorm):  # every class starts with gain 1, shift 0
                init_weights(module, nn.init.zeros_)


class SNGANDiscriminator(LabelledResNetDiscriminator):
    """Four blocks at 128 channels, the first two down; for 48 px five and for 128 px six, all but
    the last down.

    With labels, a projection head.
    """

    name = "resnet_sngan"
    table: ClassVar = LabelledResNetDiscriminator.table | {128: (64, 128, 256, 512, 1024, 1024)}

    def make_blocks(self, widths: Sequence[int]) -> list[nn.Module]:
        downs = self.count_downs(len(widths) - 1)
        return [
            residual_1x1(c_in, c_out, down=number < downs, first_relu=number > 0)
            for number, (c_in, c_out) in enumerate(pairwise(widths))
        ]

    def init_weights(self) -> None:
        init_weights(self, init_glorot_sngan)
