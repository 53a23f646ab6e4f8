"""What the ResNets of SNGAN and of compare_gan share (Miyato et al. 2018, arXiv:1802.05957).

`resnet` and `resnet_sngan` differ in their blocks, the pooling and the initial weights.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from crgan_cli.config.bounds import ImageSize, NonNegativeInt, Positive, PositiveInt
from crgan_cli.networks.blocks import ResidualDiscriminator, ResidualGenerator
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    count_labels,
    require_residual,
    scale_channels,
)
from crgan_cli.networks.norms import Norm, PlainBatchNorm, label_batch_norm


def scale_widths(
    table: Mapping[int, Sequence[int]], resolution: int | tuple[int, int], width: float, name: str
) -> list[int]:
    """Return the channels for the shorter side, times `width`. UserError if there are none."""
    shorter = require_residual(resolution, table, name)
    return [scale_channels(channels, width) for channels in table[shorter]]


class LabelledResNetGenerator(ResidualGenerator):
    """Blocks up, with batch norm by class in the blocks."""

    name: str
    conditional_final_norm: bool
    table: ClassVar[dict[int, tuple[int, ...]]] = {32: (256,) * 4, 48: (512, 256, 128, 64)}
    """Resolution -> channels before, between and after the blocks."""

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        z_dim: PositiveInt,
        width: Positive,
    ) -> None:
        widths = scale_widths(self.table, resolution, width, self.name)
        labels = count_labels(conditional, classes)
        norm = label_batch_norm(labels)
        super().__init__(
            widths,
            lambda c_in, c_out: self.make_block(c_in, c_out, norm),
            norm if self.conditional_final_norm else PlainBatchNorm,
            resolution=resolution,
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


class LabelledResNetDiscriminator(ResidualDiscriminator):
    """Blocks, the first ones down; with labels, a projection head."""

    name: str
    table: ClassVar[dict[int, tuple[int, ...]]] = {
        32: (128,) * 4,
        48: (64, 128, 256, 512, 1024),
    }
    """Resolution -> channels after each block."""

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        width: Positive,
        spectral_norm: bool,
    ) -> None:
        widths = scale_widths(self.table, resolution, width, self.name)
        blocks = self.make_blocks([channels, *widths])
        super().__init__(blocks, widths[-1], count_labels(conditional, classes))
        self.init_weights()
        if spectral_norm:
            apply_spectral_norm(self)

    @staticmethod
    def count_downs(blocks: int) -> int:
        """Return how many of the first blocks go down: at 32 px two of four, else all but one."""
        return 2 if blocks == 4 else blocks - 1

    def make_blocks(self, widths: Sequence[int]) -> list[nn.Module]:
        """Build the blocks. `widths` are the channels of the image, and those after each block."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the initial weights."""
        raise NotImplementedError
