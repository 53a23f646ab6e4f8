"""PGGAN: a generator and a discriminator that grow from 4x4 on.

Karras et al. 2018 (arXiv:1710.10196) tables 2 and 3, section 4 and appendix A.1, as built in
tkarras/progressive_growing_of_gans (networks.py).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.config.bounds import NetworkSide, NonNegativeInt, Positive, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.networks.equalized import (
    SLOPE,
    EqualizedConv,
    EqualizedLeakyConv,
    EqualizedLinear,
    EqualizedLogit,
    EqualizedNearestConv3,
)
from crgan_cli.networks.fast.exported import is_exported
from crgan_cli.networks.fast.pixel_norm import NormalizePixels
from crgan_cli.networks.growth import Growth, double, halve
from crgan_cli.networks.layers import (
    at_least_fp32,
    count_labels,
    require_resolution,
    scale_channels,
)
from crgan_cli.networks.verdict import Verdict

FIRST_SIDE = 4
"""Side of the images of level 0."""

EPSILON = 1e-8
"""Under the square roots of pixel norm and of the minibatch standard deviation."""

LabelUse = Literal["none", "ac", "projection"]


def count_levels(resolution: int) -> int:
    """The number of levels from 4x4 up to `resolution`. Raise UserError if there are none."""
    supported = resolution >= FIRST_SIDE and resolution.bit_count() == 1
    require_resolution(
        supported,
        resolution,
        "pggan",
        "4, 8, 16, 32 or another power of two",
        "the next one, which your images are resized to: dataset.resolution="
        f"{max(FIRST_SIDE, 1 << (max(resolution, 2) - 1).bit_length())}",
    )
    return (resolution // FIRST_SIDE).bit_length()


def choose_widths(levels: int, fmap_base: int, fmap_max: int, width: float) -> list[int]:
    """Channels of the features of each level: min(fmap_base / 2^s, fmap_max) with s = 1 at 4x4."""
    return [
        scale_channels(min(fmap_base >> stage, fmap_max), width) for stage in range(1, levels + 1)
    ]


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8), section 4.2. The mean is in fp32."""
    recorded = torch.compiler.is_compiling() or is_exported()
    if x.device.type == "cpu" and x.ndim == 4 and not recorded:
        return NormalizePixels.apply(x, EPSILON)
    square = at_least_fp32(x).square().mean(1, keepdim=True)
    return x * (square + EPSILON).rsqrt().to(x.dtype)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2."""
    return F.leaky_relu(x, SLOPE)


class MinibatchStd(nn.Module):
    """Minibatch standard deviation, section 3: one more channel, the same number everywhere.

    The samples are in M = N / group groups; sample n is in group n mod M. The number is the mean
    over channels and places of the standard deviation over the group (biased, 1e-8 under the root).
    A batch smaller than `group` is one group.
    """

    mixes_samples = True

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + 1, H, W)."""
        n, _, h, w = x.shape
        members = min(self.group, n)
        grouped = at_least_fp32(x).reshape(members, n // members, *x.shape[1:])
        variance = (grouped - grouped.mean(0)).square().mean(0)
        deviation = (variance + EPSILON).sqrt().mean((1, 2, 3))  # (M,)
        plane = deviation.repeat(members)[:, None, None, None].expand(n, 1, h, w)
        return torch.cat([x, plane.to(x.dtype)], 1)


def require_groups(network: nn.Module, n: int) -> None:
    """Raise UserError if a network cannot divide a batch of n images into its groups."""
    for layer in network.modules():
        if isinstance(layer, MinibatchStd) and n % min(layer.group, n):
            nearest = max(1, round(n / layer.group)) * layer.group
            raise UserError(
                f"D compares images in groups of {layer.group} (architecture.mbstd_group), and a "
                f"process has a batch of {n}, which is no multiple of it. Give a multiple, such as "
                f"{nearest} per process, or architecture.mbstd_group=1."
            )


# --- generator -----------------------------------------------------------------------------------


class PGGANFirstBlock(nn.Module):
    """A dense layer to 4x4 with one bias a channel, then 3x3; both with LReLU and pixel norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.dense = EqualizedLinear(c_in, c_out * FIRST_SIDE**2, gain=2**0.5 / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.conv = EqualizedLeakyConv(c_out, c_out, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z).unflatten(1, (-1, FIRST_SIDE, FIRST_SIDE))
        x = pixel_norm(leaky(x + self.bias.to(x.dtype)[:, None, None]))
        return pixel_norm(self.conv(x))


class PGGANUpBlock(nn.Module):
    """Nearest upsampling, 3x3, 3x3; both with LReLU and pixel norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.up = EqualizedNearestConv3(c_in, c_out)
        self.conv = EqualizedLeakyConv(c_out, c_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(self.conv(pixel_norm(leaky(self.up(x)))))


class PGGANGenerator(nn.Module):
    """Normalised latents and labels -> 4x4, then a block per level; each level has a toRGB.

    The image of the newest level fades in over the doubled one of the level before. toRGB is
    linear: values are about in [-1, 1], and clamped where they are shown or scored.

    A generator that has not grown up yet makes smaller images in training. In evaluation mode they
    are doubled to `resolution`, as the authors do for all metrics.
    """

    def __init__(
        self,
        resolution: NetworkSide,
        channels: PositiveInt,
        classes: NonNegativeInt,
        labels: LabelUse,
        z_dim: PositiveInt,
        fmap_base: PositiveInt,
        fmap_max: PositiveInt,
        width: Positive,
    ) -> None:
        super().__init__()
        levels = count_levels(resolution)
        widths = choose_widths(levels, fmap_base, fmap_max, width)
        self.resolution, self.channels, self.z_dim = resolution, channels, z_dim
        self.classes = count_labels(labels != "none", classes, "labels=none")
        self.growth = Growth(levels - 1)
        self.first = PGGANFirstBlock(z_dim + self.classes, widths[0])
        self.blocks = nn.ModuleList(map(PGGANUpBlock, widths[:-1], widths[1:]))
        self.to_rgb = nn.ModuleList(EqualizedConv(c, channels, 1, gain=1.0) for c in widths)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) and (N,) class ids -> (N, C, H, W)."""
        if self.classes:
            assert y is not None, "a conditional generator was called without labels"
            z = torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], 1)
        level = self.growth.level
        x = self.first(pixel_norm(z))
        before = x
        for block in self.blocks[:level]:
            before, x = x, block(x)
        image = self.to_rgb[level](x)
        if self.growth.mixes:
            # in fp32: bf16 has 8 bits for alpha
            old = double(at_least_fp32(self.to_rgb[level - 1](before)))
            image = self.growth.fade(old, at_least_fp32(image))
        return image if self.training else self.enlarge(image)

    def enlarge(self, image: Tensor) -> Tensor:
        """Double an image until it has the full size."""
        while image.shape[-1] < self.resolution:
            image = double(image)
        return image


# --- discriminator -------------------------------------------------------------------------------


class PGGANDownBlock(nn.Module):
    """3x3, 3x3, both with LReLU, then the mean of 2x2 squares."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = EqualizedLeakyConv(c_in, c_in, 3)
        self.conv2 = EqualizedLeakyConv(c_in, c_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return halve(self.conv2(self.conv1(x)))


class PGGANLastBlock(nn.Module):
    """Minibatch standard deviation, 3x3, and a dense layer from 4x4 to features."""

    def __init__(self, c: int, features: int, mbstd_group: int) -> None:
        super().__init__()
        self.mbstd = MinibatchStd(mbstd_group)
        self.conv = EqualizedLeakyConv(c + 1, c, 3)
        self.dense = EqualizedLinear(c * FIRST_SIDE**2, features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.mbstd(x))
        return leaky(self.dense(x.flatten(1)))


class PGGANDiscriminator(nn.Module):
    """The generator mirrored: a fromRGB and a block per level, down to 4x4; no norm.

    The features of the newest fromRGB and block fade in over those of the halved image. In
    evaluation mode, images that are larger than those of the level are halved to it.

    `labels`: "ac", logits of the classes beside the real one (AC-GAN, Odena et al. 2017,
    arXiv:1610.09585), as the authors; "projection", <embed(y), features> is added to the logit
    (Miyato & Koyama 2018, arXiv:1802.05637, eq. 4).
    """

    def __init__(
        self,
        resolution: NetworkSide,
        channels: PositiveInt,
        classes: NonNegativeInt,
        labels: LabelUse,
        fmap_base: PositiveInt,
        fmap_max: PositiveInt,
        mbstd_group: PositiveInt,
        width: Positive,
    ) -> None:
        super().__init__()
        levels = count_levels(resolution)
        widths = choose_widths(levels, fmap_base, fmap_max, width)
        features = scale_channels(min(fmap_base, fmap_max), width)
        known = count_labels(labels != "none", classes, "labels=none")
        self.classifies = labels == "ac"
        self.classes = known if labels == "projection" else 0
        """Number of classes that the logit is conditioned on."""
        self.growth = Growth(levels - 1)
        self.from_rgb = nn.ModuleList(EqualizedLeakyConv(channels, c, 1) for c in widths)
        self.blocks = nn.ModuleList(map(PGGANDownBlock, widths[1:], widths[:-1]))
        self.last = PGGANLastBlock(widths[0], features, mbstd_group)
        self.logits = EqualizedLogit(features, 1 + known * self.classifies, gain=1.0)
        if self.classes:
            self.embed = nn.Embedding(self.classes, features)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor | Verdict:
        """Images of the size of the level, and (N,) class ids -> (N,) logits, or a Verdict."""
        level = self.growth.level
        while not self.training and x.shape[-1] > FIRST_SIDE << level:
            x = halve(x)
        h = self.from_rgb[level](x)
        for i in reversed(range(level)):
            h = self.blocks[i](h)
            if i == level - 1 and self.growth.mixes:
                h = self.growth.fade(self.from_rgb[i](halve(x)), h)
        h = self.last(h)
        logits = self.logits(h)
        if self.classifies:
            return Verdict(logits[:, 0], logits[:, 1:])
        if self.classes:
            assert y is not None, "a conditional discriminator was called without labels"
            return logits[:, 0] + (self.embed(y) * at_least_fp32(h)).sum(1)
        return logits[:, 0]
