"""BigGAN, for 128 px and, as `biggan_lite`, for 32 and 64 px; from 6x6 on, for 48, 96 and 192 px.

Brock et al. 2019 (arXiv:1809.11096), as built in compare_gan/architectures/resnet_biggan.py and,
for 32 px, in StudioGAN's big_resnet. The widths are `ch` times the multipliers. Where the two
differ there is a setting; defaults are what crgan had before the setting, for stored runs.
"""

from functools import partial
from itertools import pairwise
from math import log2
from typing import Literal

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import ImageSize, NonNegative, NonNegativeInt, Positive, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.networks.blocks import (
    STEM_SIDES,
    ResidualDiscriminator,
    ResidualGenerator,
    nearest_block,
    residual_1x1,
    zero_insertion_1x1_block,
)
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    ProjectionHead,
    SelfAttention,
    ToUnitInterval,
    count_labels,
    init_weights,
    require_residual,
    scale_channels,
)
from crgan_cli.networks.norms import PlainBatchNorm, vector_batch_norm


def _blocks_up(resolution: int | tuple[int, int], multipliers: int) -> int:
    """Return log2(shorter side / 4 or 6). UserError if there are not enough multipliers for it."""
    if multipliers < 4:
        raise UserError(
            f"architecture.g_multipliers and architecture.d_multipliers need at least 4 numbers "
            f"for images of 32x32, and one more per doubling, not {multipliers}."
        )
    sides = {stem * 2**n: n for n in range(3, multipliers) for stem in STEM_SIDES}
    return sides[
        require_residual(resolution, sides, "biggan or biggan_lite with these multipliers")
    ]


def _chunk_size(z_dim: int, chunks: int) -> int:
    if z_dim % chunks:
        near = max(1, round(z_dim / chunks)) * chunks
        raise UserError(
            f"architecture.z_dim={z_dim} cannot be split into {chunks} equal chunks (one for the "
            f"first layer and one for each block). Use architecture.z_dim={near}."
        )
    return z_dim // chunks


class WithAttention(nn.Module):
    """A generator's block followed by self-attention."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.attention = SelfAttention(channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.attention(self.block(x, condition))


class BigGANGenerator(ResidualGenerator):
    """z is split into chunks (Brock et al. 2019, figure 15). The first is the stem's input. Each
    other chunk, with the shared label embedding if any, conditions the batch norms of one block.

    Self-attention is at half the image's side. `g_multipliers` starts at the stem, so a smaller
    image uses the first ones. The gains of the conditional batch norms are `gain_offset` + A c: 1
    in the paper and StudioGAN, 0 in compare_gan. That also upsamples by inserting "zeros".
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        z_dim: PositiveInt,
        embed_dim: PositiveInt,
        ch: PositiveInt,
        g_multipliers: list[PositiveInt],
        attention: bool,
        width: Positive,
        spectral_norm: bool,
        bn_eps: Positive = 1e-5,
        g_upsampling: Literal["nearest", "zeros"] = "nearest",
        gain_offset: NonNegative = 1.0,
    ) -> None:
        count = _blocks_up(resolution, len(g_multipliers))
        labels = count_labels(conditional, classes)
        chunk = _chunk_size(z_dim, count + 1)
        condition = chunk + (embed_dim if labels else 0)
        norm = vector_batch_norm(condition, eps=bn_eps, offset=gain_offset)
        up = nearest_block if g_upsampling == "nearest" else zero_insertion_1x1_block
        widths = [scale_channels(ch * m, width) for m in g_multipliers[: count + 1]]
        super().__init__(
            widths,
            lambda c_in, c_out: up(c_in, c_out, norm),
            partial(PlainBatchNorm, eps=bn_eps),
            resolution=resolution,
            stem_dim=chunk,
            z_dim=z_dim,
            channels=channels,
            classes=labels,
        )
        if attention:
            self.blocks[-2] = WithAttention(self.blocks[-2], widths[-2])
        init_weights(self, nn.init.orthogonal_)
        if spectral_norm:
            apply_spectral_norm(self)
        # Built last, so that it has no spectral norm, which would cripple the conditioning.
        self.shared = nn.Embedding(labels, embed_dim) if labels else None
        if self.shared is not None:
            nn.init.orthogonal_(self.shared.weight)

    def conditions(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the first chunk of z, and for each block its chunk and the label embedding."""
        first, *chunks = z.chunk(len(self.blocks) + 1, dim=1)
        if self.shared is None:
            return first, chunks
        label = self.shared(y)
        return first, [torch.cat([chunk, label.to(chunk)], dim=1) for chunk in chunks]


class BigGANDiscriminator(ResidualDiscriminator):
    """Blocks down to a side of `d_bottom` (or 1.5 times that), then blocks of that size; sum
    pooling, projection head.

    `d_skip` says which blocks have a shortcut: "always" is the published network;
    "widths_differ" is compare_gan's, where a block that keeps its width has none. "always_relu" is
    StudioGAN's: its ReLUs are in place, so that the shortcuts after the first see relu(x).

    `input_range` is what the first block sees: images in [-1, 1], without a ReLU before its
    convolution (StudioGAN, BigGAN-PyTorch), or moved to [0, 1], where compare_gan's ReLU changes
    nothing. `d_multipliers` ends at the last block, so a smaller image uses the last ones.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        ch: PositiveInt,
        d_multipliers: list[PositiveInt],
        d_bottom: Literal[4, 8],
        d_skip: Literal["always", "always_relu", "widths_differ"],
        attention: bool,
        width: Positive,
        spectral_norm: bool,
        input_range: Literal["minus_one_one", "zero_one"] = "zero_one",
    ) -> None:
        count = _blocks_up(resolution, len(d_multipliers)) + 1
        labels = count_labels(conditional, classes)
        widths = [channels, *(scale_channels(ch * m, width) for m in d_multipliers[-count:])]
        downs = count - 1 - int(log2(d_bottom // 4))  # from 48 px, where a bottom of 4 is 6
        moved = input_range == "zero_one"
        blocks = [
            residual_1x1(
                c_in,
                c_out,
                down=i < downs,
                first_relu=i > 0 or moved,
                always=d_skip != "widths_differ",
                skips_relu=d_skip != "always_relu",
            )
            for i, (c_in, c_out) in enumerate(pairwise(widths))
        ]
        if attention:
            blocks.insert(1, SelfAttention(widths[1]))
        super().__init__(
            [ToUnitInterval() if moved else nn.Identity(), *blocks], widths[-1], labels
        )
        init_weights(self, nn.init.orthogonal_)
        if isinstance(self.head, ProjectionHead):
            nn.init.xavier_normal_(self.head.embed.weight)  # as in compare_gan
        if spectral_norm:
            apply_spectral_norm(self)
