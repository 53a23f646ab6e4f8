"""What the two ResNets for 32 px share (Miyato et al. 2018, arXiv:1802.05957, table 4).

`resnet` and `resnet_sngan` differ in their blocks, the pooling and the initial weights.
"""

from torch import nn

from crgan_cli.config.bounds import NonNegativeInt, Positive, PositiveInt
from crgan_cli.networks.blocks import ResidualDiscriminator, ResidualGenerator
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import count_labels, require_resolution, scale_channels
from crgan_cli.networks.norms import Norm, PlainBatchNorm, label_batch_norm


def _require_32(resolution: int, name: str) -> None:
    others = "architecture=biggan_lite (32, 64), resnet5 (128) or sndcgan (any multiple of 8)"
    require_resolution(resolution == 32, resolution, name, "32", others)


class ResNet32Generator(ResidualGenerator):
    """Three blocks up at 256 channels, with batch norm by class in the blocks."""

    name: str
    conditional_final_norm: bool

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        z_dim: PositiveInt,
        width: Positive,
    ) -> None:
        _require_32(resolution, self.name)
        labels = count_labels(conditional, classes)
        norm = label_batch_norm(labels)
        super().__init__(
            [scale_channels(256, width)] * 4,
            lambda c_in, c_out: self.make_block(c_in, c_out, norm),
            norm if self.conditional_final_norm else PlainBatchNorm,
            z_dim=z_dim,
            channels=channels,
            classes=labels,
        )
        self.init_weights()

    @staticmethod
    def make_block(c_in: int, c_out: int, norm: Norm) -> nn.Module:
        """Build a block that doubles the size."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the initial weights."""
        raise NotImplementedError


class ResNet32Discriminator(ResidualDiscriminator):
    """Four blocks at 128 channels, the first two down; with labels, a projection head."""

    name: str

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        width: Positive,
        spectral_norm: bool,
    ) -> None:
        _require_32(resolution, self.name)
        c = scale_channels(128, width)
        super().__init__(self.make_blocks(channels, c), c, count_labels(conditional, classes))
        self.init_weights()
        if spectral_norm:
            apply_spectral_norm(self)

    def make_blocks(self, channels: int, c: int) -> list[nn.Module]:
        """Build the blocks, from the `channels` of the image to `c` feature maps."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the initial weights."""
        raise NotImplementedError
