"""The smallest players that still have convolutions, and a game between them."""

import torch
from torch import Tensor, nn

from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import AdversarialLoss, NonSaturating
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.tasks.generation import Generation, Prior
from crgan_cli.networks.fast.spectral import spectral_norm

SIDE = 8


class TinyGenerator(nn.Module):
    """z -> linear -> convolution -> tanh; a label moves the code."""

    def __init__(self, z_dim: int = 4, classes: int = 0) -> None:
        super().__init__()
        self.z_dim, self.classes, self.resolution, self.channels = z_dim, classes, SIDE, 3
        self.linear = nn.Linear(z_dim, 2 * SIDE * SIDE)
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.embed = nn.Embedding(max(classes, 1), z_dim)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        if y is not None:
            z = z + self.embed(y)
        return torch.tanh(self.conv(self.linear(z).view(-1, 2, SIDE, SIDE)))


class TinyDiscriminator(nn.Module):
    """convolution -> leaky ReLU -> linear, with or without spectral norm and batch norm."""

    def __init__(self, *, spectral: bool = False, batch_norm: bool = False) -> None:
        super().__init__()
        self.classes = 0
        wrap = spectral_norm if spectral else nn.Identity()
        self.conv = wrap(nn.Conv2d(3, 4, 3, stride=2, padding=1))
        self.norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.linear = wrap(nn.Linear(4 * (SIDE // 2) ** 2, 1))
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        self.calls += 1
        h = torch.nn.functional.leaky_relu(self.norm(self.conv(x)), 0.1)
        return self.linear(h.flatten(1)).squeeze(1)


def game(
    *regularizers: Regularizer,
    loss: AdversarialLoss | None = None,
    spectral: bool = False,
    batch_norm: bool = False,
    n_dis: int = 1,
    classes: int = 0,
) -> Generation:
    """A task in float64 with the given regularizers, seeded."""
    torch.manual_seed(0)
    parts = {type(part).__name__: part for part in regularizers}
    adversary = Adversary(
        TinyDiscriminator(spectral=spectral, batch_norm=batch_norm),
        loss or NonSaturating(),
        CombinedRegularizer(**parts),
        FlipShift(shift=2, flip=0.5, padding="reflect"),
    )
    G = TinyGenerator(classes=classes)
    task = Generation(G, adversary, Prior("normal", G.z_dim, classes), n_dis=n_dis)
    return task.double()


class TinyTranslator(nn.Module):
    """Image -> convolution -> tanh -> convolution -> tanh."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(4, out_channels, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TinyPatchDiscriminator(nn.Module):
    """Image -> convolution -> leaky ReLU -> a map of logits."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
        self.logits = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.logits(torch.nn.functional.leaky_relu(self.conv(x), 0.1))
