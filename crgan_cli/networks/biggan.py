"""BigGAN, for 128 px and, as `biggan_lite`, for 32 and 64 px.

Brock et al. 2019 (arXiv:1809.11096), as built in compare_gan/architectures/resnet_biggan.py and,
for 32 px, in StudioGAN's big_resnet. Widths are `ch` times the multipliers of the YAML file.
"""

from itertools import pairwise
from math import log2
from typing import Literal

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NonNegativeInt, Positive, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.networks.blocks import (
    SEED_SIDE,
    Residual,
    ResidualDiscriminator,
    ResidualGenerator,
    UpBlock,
    body,
    conv3,
    down_shortcut_1x1,
    up_shortcut_1x1,
)
from crgan_cli.networks.fast.folding import NearestConv3, PooledConv3
from crgan_cli.networks.fast.spectral import apply_spectral_norm
from crgan_cli.networks.layers import (
    Norm,
    PlainBatchNorm,
    ProjectionHead,
    SelfAttention,
    ToUnitInterval,
    code_norm,
    head,
    init_weights,
    label_count,
    require_resolution,
    scale_channels,
    sum_pool,
)


def _blocks_up(resolution: int, multipliers: int) -> int:
    """log2(resolution / 4), once it is sure that there are multipliers for it."""
    if multipliers < 4:
        raise UserError(
            f"architecture.g_multipliers and architecture.d_multipliers need at least 4 numbers, "
            f"for 32 pixels a side, and one more for every doubling, not {multipliers}."
        )
    sides = [SEED_SIDE * 2**n for n in range(3, multipliers)]
    require_resolution(
        resolution in sides,
        resolution,
        "biggan or biggan_lite with these multipliers",
        " or ".join(map(str, sides)),
        "architecture=biggan_lite (32, 64), biggan (32, 64, 128) or sndcgan (any multiple of 8)",
    )
    return int(log2(resolution // SEED_SIDE))


def _chunk(z_dim: int, chunks: int) -> int:
    if z_dim % chunks:
        near = max(1, round(z_dim / chunks)) * chunks
        raise UserError(
            f"architecture.z_dim={z_dim} cannot be cut into {chunks} equal chunks (one for the "
            f"first layer and one for each block). Use architecture.z_dim={near}."
        )
    return z_dim // chunks


class WithAttention(nn.Module):
    """A generator's block followed by self-attention."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.attention = SelfAttention(channels)

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        return self.attention(self.block(x, code))


def _up(c_in: int, c_out: int, norm: Norm) -> nn.Module:
    return UpBlock(c_in, c_out, norm, NearestConv3, up_shortcut_1x1(c_in, c_out))


class BigGANGenerator(ResidualGenerator):
    """z is cut into chunks: the first makes the 4x4 seed, each other one joins the shared label
    embedding and sets one block's batch norms (Brock et al. 2019, figure 15).

    Without labels the chunk alone does. Self-attention sits where the features have half the
    image's side. `g_multipliers` runs from the seed on, so a smaller image uses its first ones.
    """

    def __init__(
        self,
        resolution: PositiveInt,
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
    ) -> None:
        count = _blocks_up(resolution, len(g_multipliers))
        labels = label_count(conditional, classes)
        chunk = _chunk(z_dim, count + 1)
        norm = code_norm(chunk + (embed_dim if labels else 0))
        widths = [scale_channels(ch * m, width) for m in g_multipliers[: count + 1]]
        super().__init__(
            widths,
            lambda c_in, c_out: _up(c_in, c_out, norm),
            PlainBatchNorm,
            torch.tanh,
            seed_dim=chunk,
            z_dim=z_dim,
            channels=channels,
            classes=labels,
        )
        if attention:
            self.blocks[-2] = WithAttention(self.blocks[-2], widths[-2])
        init_weights(self, nn.init.orthogonal_)
        if spectral_norm:
            apply_spectral_norm(self)
        # Made last, to stay out of spectral norm: normalised, it cripples the conditioning.
        self.shared = nn.Embedding(labels, embed_dim) if labels else None
        if self.shared is not None:
            nn.init.orthogonal_(self.shared.weight)

    def codes(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The first chunk of z, and for each block its chunk beside the label embedding."""
        seed, *chunks = z.chunk(len(self.blocks) + 1, dim=1)
        if self.shared is None:
            return seed, chunks
        label = self.shared(y)
        return seed, [torch.cat([chunk, label.to(chunk)], dim=1) for chunk in chunks]


class BigGANDiscriminator(ResidualDiscriminator):
    """Blocks down to a `d_bottom` map and on at that size; sum pooling, projection head.

    `d_skip` says which blocks have a skip: "always" is the published network and StudioGAN's;
    "widths_differ" is compare_gan's, where a block that keeps its width has none. The ReLU that
    begins the first block sees the image in [0, 1], as in compare_gan. `d_multipliers` runs to the
    last block, so a smaller image uses its last ones.
    """

    def __init__(
        self,
        resolution: PositiveInt,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        ch: PositiveInt,
        d_multipliers: list[PositiveInt],
        d_bottom: Literal[4, 8],
        d_skip: Literal["always", "widths_differ"],
        attention: bool,
        width: Positive,
        spectral_norm: bool,
    ) -> None:
        count = _blocks_up(resolution, len(d_multipliers)) + 1
        labels = label_count(conditional, classes)
        widths = [channels, *(scale_channels(ch * m, width) for m in d_multipliers[-count:])]
        downs = int(log2(resolution // d_bottom))
        block = {"always": _always_skipping, "widths_differ": _skipping_to_new_widths}[d_skip]
        blocks = [block(c_in, c_out, i < downs) for i, (c_in, c_out) in enumerate(pairwise(widths))]
        if attention:
            blocks.insert(1, SelfAttention(widths[1]))
        super().__init__([ToUnitInterval(), *blocks], sum_pool, head(widths[-1], labels), labels)
        init_weights(self, nn.init.orthogonal_)
        if isinstance(self.head, ProjectionHead):
            nn.init.xavier_normal_(self.head.embed.weight)  # compare_gan, whatever the rest has
        if spectral_norm:
            apply_spectral_norm(self)


def _body(c_in: int, c_out: int, down: bool) -> nn.Module:
    return body(c_in, c_out, PooledConv3 if down else conv3)


def _skip_1x1(c_in: int, c_out: int, down: bool) -> nn.Module:
    return down_shortcut_1x1(c_in, c_out, nn.AvgPool2d(2) if down else nn.Identity())


def _always_skipping(c_in: int, c_out: int, down: bool) -> nn.Module:
    """A block with an identity for a skip where neither width nor size changes, else 1x1."""
    same = c_in == c_out and not down
    return Residual(
        _body(c_in, c_out, down), nn.Identity() if same else _skip_1x1(c_in, c_out, down)
    )


def _skipping_to_new_widths(c_in: int, c_out: int, down: bool) -> nn.Module:
    """A block with a 1x1 skip where the width changes, and with none where it does not."""
    through = _body(c_in, c_out, down)
    return through if c_in == c_out else Residual(through, _skip_1x1(c_in, c_out, down))
