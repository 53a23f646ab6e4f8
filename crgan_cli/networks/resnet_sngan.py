"""The common SNGAN ResNet for 32 px, as in the authors' own code.

Miyato et al. 2018 (arXiv:1802.05957) table 4 and Miyato & Koyama 2018 (arXiv:1802.05637), as built
in pfnet-research/sngan_projection. Unlike `resnet`: nearest upsampling, 1x1 shortcuts only where
the shape changes, a first block without ReLU, images in [-1, 1], sum pooling, Glorot weights.
"""

from torch import nn

from crgan_cli.networks.blocks import nearest_block, residual_1x1
from crgan_cli.networks.layers import init_glorot_sngan, init_weights
from crgan_cli.networks.norms import ConditionalBatchNorm
from crgan_cli.networks.resnet32 import ResNet32Discriminator, ResNet32Generator


class SNGANGenerator(ResNet32Generator):
    """Three blocks up at 256 channels, tanh; the last batch norm is unconditional."""

    name = "resnet_sngan"
    conditional_final_norm = False
    make_block = staticmethod(nearest_block)

    def init_weights(self) -> None:
        init_weights(self, init_glorot_sngan)
        nn.init.xavier_uniform_(self.out.weight)  # gain sqrt 2 is for the 3x3 of the blocks only
        for module in self.modules():
            if isinstance(module, ConditionalBatchNorm):  # every class starts with gain 1, shift 0
                init_weights(module, nn.init.zeros_)


class SNGANDiscriminator(ResNet32Discriminator):
    """Four blocks at 128 channels, the first two down; with labels, a projection head."""

    name = "resnet_sngan"

    def make_blocks(self, channels: int, c: int) -> list[nn.Module]:
        return [
            residual_1x1(channels, c, down=True, first_relu=False),
            residual_1x1(c, c, down=True),
            residual_1x1(c, c, down=False),
            residual_1x1(c, c, down=False),
        ]

    def init_weights(self) -> None:
        init_weights(self, init_glorot_sngan)
