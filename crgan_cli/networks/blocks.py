"""Residual blocks, and the generator and discriminator that the four residual networks share.

What differs between the networks is a value here: the norm, the way up or down, the shortcut.
ReLUs are never in place: the skip must carry x, and an in-place ReLU would make it relu(x).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from crgan_cli.networks.fast.folding import ZeroInsertionConv3
from crgan_cli.networks.layers import LinearHead, Norm

SEED_SIDE = 4
"""Side of the first feature map of every residual generator."""


def nearest() -> nn.Module:
    """The common way up: each value fills a 2x2 square."""
    return nn.Upsample(scale_factor=2, mode="nearest")


Conv3 = Callable[[int, int], nn.Module]
"""Channels in and out -> a 3x3 convolution: `conv3`, or one of `folding` that changes the size."""


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    """3x3, stride 1, same size."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def up_shortcut_1x1(c_in: int, c_out: int) -> nn.Module:
    """1x1 before nearest: the same numbers as after it, for a quarter of the work."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1), nearest())


def up_shortcut_3x3(c_in: int, c_out: int) -> nn.Module:
    """compare_gan's CIFAR ResNet: zeros inserted, then 3x3 (these two do not commute)."""
    # named 1, where its weights have been since zero insertion was a layer of its own
    return nn.Sequential(OrderedDict({"1": ZeroInsertionConv3(c_in, c_out)}))


def down_shortcut_1x1(c_in: int, c_out: int, pool: nn.Module) -> nn.Module:
    """1x1 after average pooling: the same numbers as before it, for a quarter of the work."""
    return nn.Sequential(pool, nn.Conv2d(c_in, c_out, 1))


def down_shortcut_3x3(c_in: int, c_out: int, last: Conv3) -> nn.Module:
    """compare_gan's CIFAR ResNet: `last` alone, a PooledConv3 or a conv3."""
    return nn.Sequential(last(c_in, c_out))


class UpBlock(nn.Module):
    """norm, ReLU, up and conv3 in one (`up`), norm, ReLU, conv3, and a shortcut beside it."""

    def __init__(self, c_in: int, c_out: int, norm: Norm, up: Conv3, shortcut: nn.Module) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), up(c_in, c_out)
        self.norm2, self.conv2 = norm(c_out), conv3(c_out, c_out)
        self.shortcut = shortcut

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        h = self.conv1(torch.relu(self.norm1(x, code)))
        h = self.conv2(torch.relu(self.norm2(h, code)))
        return h + self.shortcut(x)


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def first_body(c_in: int, c_out: int, last: Conv3) -> nn.Sequential:
    """conv3, ReLU, `last`: SNGAN's first block, which sees the image and not features.

    `last` is PooledConv3 where the block goes down, else conv3.
    """
    return nn.Sequential(conv3(c_in, c_out), nn.ReLU(), last(c_out, c_out))


def body(c_in: int, c_out: int, last: Conv3) -> nn.Sequential:
    """ReLU, conv3, ReLU, `last`: the way through a discriminator's block."""
    return nn.Sequential(nn.ReLU(), *first_body(c_in, c_out, last))


class ResidualGenerator(nn.Module):
    """linear -> 4x4, blocks up, norm, ReLU, conv3, squash.

    `widths` are the channels before, between and after the blocks; `block(c_in, c_out)` makes a
    module called with (x, code). The side of the images is 4 * 2^blocks.
    """

    def __init__(
        self,
        widths: Sequence[int],
        block: Callable[[int, int], nn.Module],
        final_norm: Norm,
        squash: Callable[[Tensor], Tensor],
        *,
        seed_dim: int,
        z_dim: int,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.z_dim, self.classes, self.channels = z_dim, classes, channels
        self.resolution = SEED_SIDE * 2 ** (len(widths) - 1)
        self.stem = nn.Linear(seed_dim, widths[0] * SEED_SIDE**2)
        self.blocks = nn.ModuleList(block(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.final_norm = final_norm(widths[-1])
        self.out = conv3(widths[-1], channels)
        self.squash = squash

    def codes(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        """What the stem gets, and what each block's norms get: here z, and the labels."""
        return z, [y] * len(self.blocks)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1]."""
        seed, codes = self.codes(z, y)
        h = self.stem(seed).unflatten(1, (-1, SEED_SIDE, SEED_SIDE))
        for block, code in zip(self.blocks, codes, strict=True):
            h = block(h, code)
        return self.squash(self.out(torch.relu(self.final_norm(h, codes[-1]))))


class ResidualDiscriminator(nn.Module):
    """blocks, ReLU, pooling over places, head. `classes` is 0 where `head` takes no labels."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        pool: Callable[[Tensor], Tensor],
        head: LinearHead,
        classes: int,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.blocks = nn.Sequential(*blocks)
        self.pool = pool
        self.head = head

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits."""
        return self.head(self.pool(torch.relu(self.blocks(x))), y)
