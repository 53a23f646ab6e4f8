"""Fully connected networks as PyTorch-GAN has them, and what `mlp_maxout` shares with them.

eriklindernoren/PyTorch-GAN, gan.py and cgan.py: the widely copied form of Goodfellow et al. 2014
(arXiv:1406.2661) and of Mirza & Osindero 2014 (arXiv:1411.1784). Not copied: BatchNorm1d(n, 0.8)
there sets eps to 0.8, where the momentum was meant.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.config.bounds import (
    DropoutRate,
    ImageSize,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from crgan_cli.config.sides import Sides
from crgan_cli.networks.layers import LogitLayer, RowDropout, count_labels, scale_channels

LabelKind = Literal["one_hot", "embedding"]


class LabelCode(nn.Module):
    """(N,) class ids -> (N, classes): one-hot, or a learned embedding of that length."""

    codes: Tensor  # (classes, classes), one row per class

    def __init__(self, classes: int, kind: LabelKind) -> None:
        super().__init__()
        if kind == "embedding":
            self.codes = nn.Parameter(torch.randn(classes, classes))  # as nn.Embedding starts
        else:
            self.register_buffer("codes", torch.eye(classes), persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        return F.embedding(y, self.codes)


class JoinedNetwork(nn.Module):
    """joint([first(input), label(y)]); without `label`, joint(first(input)). `classes`: 0 then."""

    def __init__(
        self, first: nn.Module, label: nn.Module | None, joint: Sequence[nn.Module], classes: int
    ) -> None:
        super().__init__()
        self.classes = classes
        self.first, self.label = first, label
        self.joint = nn.Sequential(*joint)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Latents or images, with (N,) class ids, to what the last layer makes of them."""
        h = self.first(x)
        if self.label is not None:
            assert y is not None, "a conditional network was called without labels"
            h = torch.cat([h, self.label(y).to(h)], dim=1)
        return self.joint(h)


def image_layers(
    features: int, channels: int, resolution: int | tuple[int, int]
) -> list[nn.Module]:
    """A linear layer to the values of an image, (N, C, H, W)."""
    sides = Sides.read(resolution)
    shape = (channels, *sides)
    return [nn.Linear(features, channels * sides.pixels), nn.Unflatten(1, shape)]


def logit_layers(features: int) -> list[nn.Module]:
    """A linear layer to the logits, (N,)."""
    return [LogitLayer(features, 1), nn.Flatten(0)]


class MLPGenerator(JoinedNetwork):
    """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1].

    Linear layers of `g_units`, each with batch norm but the first, and LReLU 0.2; then tanh. The
    class joins z. Initial weights are torch's.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        label: LabelKind,
        z_dim: PositiveInt,
        g_units: list[PositiveInt],
        width: Positive,
    ) -> None:
        labels = count_labels(conditional, classes)
        layers: list[nn.Module] = []
        features = z_dim + labels
        for index, units in enumerate(scale_channels(n, width) for n in g_units):
            norm = [nn.BatchNorm1d(units)] if index else []
            layers += [nn.Linear(features, units), *norm, nn.LeakyReLU(0.2)]
            features = units
        layers += [*image_layers(features, channels, resolution), nn.Tanh()]
        code = LabelCode(labels, label) if labels else None
        super().__init__(nn.Identity(), code, layers, labels)
        self.z_dim, self.resolution, self.channels = z_dim, resolution, channels


class MLPDiscriminator(JoinedNetwork):
    """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits.

    Linear layers of `d_units` with LReLU 0.2, each with dropout but the first. The class joins the
    pixels. Initial weights are torch's.
    """

    def __init__(
        self,
        resolution: ImageSize,
        channels: PositiveInt,
        classes: NonNegativeInt,
        conditional: bool,
        label: LabelKind,
        d_units: list[PositiveInt],
        d_dropout: DropoutRate,
        width: Positive,
    ) -> None:
        labels = count_labels(conditional, classes)
        layers: list[nn.Module] = []
        features = channels * Sides.read(resolution).pixels + labels
        for index, units in enumerate(scale_channels(n, width) for n in d_units):
            dropout = [RowDropout(d_dropout)] if index else []
            layers += [nn.Linear(features, units), *dropout, nn.LeakyReLU(0.2)]
            features = units
        layers += logit_layers(features)
        code = LabelCode(labels, label) if labels else None
        super().__init__(nn.Flatten(), code, layers, labels)
