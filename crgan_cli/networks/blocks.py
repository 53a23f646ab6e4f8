"""Residual blocks, and the generator and discriminator that the residual networks share.

What differs between the networks is a value here: the norm, the resampling, the shortcut.
ReLUs are never in place: the shortcut needs x, and an in-place ReLU would change it to relu(x).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from crgan_cli.config.sides import Sides
from crgan_cli.networks.fast.fused_resample import (
    NearestConv3,
    PooledConv3,
    ZeroInsertionConv3,
    insert_zeros,
)
from crgan_cli.networks.layers import logit_head, sum_pool
from crgan_cli.networks.norms import Norm

STEM_SIDES = (4, 6)
"""Shorter sides of the first feature map of the residual generators: 6 for 48, 96 or 192 px."""

Conv3x3 = Callable[[int, int], nn.Module]
"""Channels in and out -> a 3x3 convolution: `conv3x3`, or a FusedResampleConv3, which resamples."""


def conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    """3x3, stride 1, same size."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


# --- up ------------------------------------------------------------------------------------------


class UpBlock(nn.Module):
    """norm, ReLU, `up` (upsampling and 3x3 in one), norm, ReLU, 3x3; plus the shortcut."""

    def __init__(self, c_in: int, c_out: int, norm: Norm, up: Conv3x3, shortcut: nn.Module) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), up(c_in, c_out)
        self.norm2, self.conv2 = norm(c_out), conv3x3(c_out, c_out)
        self.shortcut = shortcut

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.conv1(torch.relu(self.norm1(x, condition)))
        h = self.conv2(torch.relu(self.norm2(h, condition)))
        return h + self.shortcut(x)


def nearest_block(c_in: int, c_out: int, norm: Norm) -> UpBlock:
    """Nearest upsampling, with a 1x1 shortcut (SNGAN, BigGAN).

    1x1 before upsampling: the same numbers as after it, for a quarter of the work.
    """
    upsample = nn.Upsample(scale_factor=2, mode="nearest")
    shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1), upsample)
    return UpBlock(c_in, c_out, norm, NearestConv3, shortcut)


def zero_insertion_block(c_in: int, c_out: int, norm: Norm) -> UpBlock:
    """Zeros inserted, then 3x3, in the shortcut too (compare_gan's ResNets)."""
    # named "1": its weights had this name when zero insertion was a separate layer
    shortcut = nn.Sequential(OrderedDict({"1": ZeroInsertionConv3(c_in, c_out)}))
    return UpBlock(c_in, c_out, norm, ZeroInsertionConv3, shortcut)


class InsertZeros(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W): each value in the top left of a 2x2 square of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return insert_zeros(x)


def zero_insertion_1x1_block(c_in: int, c_out: int, norm: Norm) -> UpBlock:
    """Zeros inserted, then 3x3, with a 1x1 shortcut of the same (compare_gan's BigGAN)."""
    # the convolution is named "0", as in `nearest_block`; its bias is at the zeros too
    layers = {"zeros": InsertZeros(), "0": nn.Conv2d(c_in, c_out, 1)}
    return UpBlock(c_in, c_out, norm, ZeroInsertionConv3, nn.Sequential(OrderedDict(layers)))


# --- down ----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def block_body(c_in: int, c_out: int, last: Conv3x3, *, first_relu: bool = True) -> nn.Sequential:
    """ReLU, 3x3, ReLU, `last`. `last` is PooledConv3 in a block that goes down, else conv3x3.

    SNGAN's first block, which sees the image and not features, has no `first_relu`.
    """
    start = [nn.ReLU()] if first_relu else []
    return nn.Sequential(*start, conv3x3(c_in, c_out), nn.ReLU(), last(c_out, c_out))


def shortcut_1x1(c_in: int, c_out: int, *, down: bool) -> nn.Module:
    """1x1 after average pooling: the same numbers as before it, for a quarter of the work."""
    pool = nn.AvgPool2d(2) if down else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(c_in, c_out, 1))


def residual_1x1(
    c_in: int,
    c_out: int,
    *,
    down: bool,
    first_relu: bool = True,
    always: bool = True,
    skips_relu: bool = True,
) -> nn.Module:
    """A block with a 1x1 shortcut if the width or the size changes (SNGAN, BigGAN).

    Else the shortcut is the identity. Without `always`, a block that keeps its width has none.
    Without `skips_relu`, the shortcut too sees relu(x), where there is a first ReLU.
    """
    inside = first_relu and skips_relu
    body = block_body(c_in, c_out, PooledConv3 if down else conv3x3, first_relu=inside)
    if c_in == c_out and not always:
        return body
    same = c_in == c_out and not down
    block = Residual(body, nn.Identity() if same else shortcut_1x1(c_in, c_out, down=down))
    return block if skips_relu or not first_relu else nn.Sequential(nn.ReLU(), block)


def residual_3x3(c_in: int, c_out: int, *, down: bool) -> Residual:
    """A block with a 3x3 shortcut (compare_gan's ResNets)."""
    last = PooledConv3 if down else conv3x3
    return Residual(block_body(c_in, c_out, last), nn.Sequential(last(c_in, c_out)))


# --- networks ------------------------------------------------------------------------------------


class ResidualGenerator(nn.Module):
    """linear -> a small image, blocks up, norm, ReLU, 3x3, `squash`.

    `widths` are the channels before, between and after the blocks; `block(c_in, c_out)` returns a
    module called with (x, condition). Each block doubles the sides, up to `resolution`. `stem_dim`
    is the number of latents that the linear layer sees, all by default.
    """

    def __init__(
        self,
        widths: Sequence[int],
        block: Callable[[int, int], nn.Module],
        final_norm: Norm,
        *,
        resolution: int | tuple[int, int],
        z_dim: int,
        channels: int,
        classes: int,
        stem_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.z_dim, self.classes, self.channels = z_dim, classes, channels
        self.resolution = resolution
        self.stem_sides = Sides.read(resolution) // 2 ** (len(widths) - 1)
        self.stem = nn.Linear(stem_dim or z_dim, widths[0] * self.stem_sides.pixels)
        self.blocks = nn.ModuleList(block(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.final_norm = final_norm(widths[-1])
        self.out = conv3x3(widths[-1], channels)

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        """Map the last layer to [-1, 1]."""
        return torch.tanh(x)

    def conditions(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return the input of the stem and the condition of each block: here z, and the labels."""
        return z, [y] * len(self.blocks)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1]."""
        z, conditions = self.conditions(z, y)
        h = self.stem(z).unflatten(1, (-1, *self.stem_sides))
        for block, condition in zip(self.blocks, conditions, strict=True):
            h = block(h, condition)
        return self.squash(self.out(torch.relu(self.final_norm(h, conditions[-1]))))


class ResidualDiscriminator(nn.Module):
    """blocks, ReLU, `pool`, head: a projection head for `classes` > 0."""

    pool = staticmethod(sum_pool)

    def __init__(self, blocks: Sequence[nn.Module], features: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.blocks = nn.Sequential(*blocks)
        self.head = logit_head(features, classes)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits."""
        return self.head(self.pool(torch.relu(self.blocks(x))), y)
