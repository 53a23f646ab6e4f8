"""The training step of other programs for networks that grow.

It plays PGGAN's game with crgan's weights and formulas of its own. Its structure is that of the
programs for PyTorch in words and code of our own:

- weights are fp32 in NCHW, and scaled in each layer whenever it is called; 3x3 convolutions come
  after an upsampling, in front of a mean of 2x2;
- D is called for real, generated and interpolated images one after the other; the penalty is
  differentiated twice by autograd;
- the level before is computed only while the newest one fades in; real images fade as well;
- Adam and the average of G go from parameter to parameter; real images come one by one from the
  host. The rest is as in `peers`.
"""

from types import MethodType
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from crgan_cli.errors import UserError
from crgan_cli.gan.tasks.progressive import Progressive
from crgan_cli.gan.types import Batch
from crgan_cli.networks.pggan import PGGANDiscriminator, PGGANGenerator
from crgan_cli.networks.verdict import Verdict

from .peers import PeerStep, Sets, Settings

DEFAULTS = (
    "task=progressive",
    "loss=wasserstein",
    "optimizer=pggan",
    "architecture.z_dim=128",
    "architecture.fmap_base=4096",
    "architecture.fmap_max=128",
    "architecture.width=0.25",
    "batch_size=16",
    "ema.decay=0.999",
)
"""The paper's settings for CIFAR-10, at a quarter of the width, unless others are given."""


# --- the networks --------------------------------------------------------------------------------


def scaled(layer: Any) -> Tensor:
    """The weight of a layer with an equalised learning rate."""
    return layer.weight * layer.scale


def convolve_1x1(layer: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, scaled(layer), layer.bias)


def convolve_3x3(layer: Any, x: Tensor) -> Tensor:
    """With leaky ReLU."""
    return F.leaky_relu(F.conv2d(x, scaled(layer), layer.bias, padding=1), 0.2)


def normalise(x: Tensor) -> Tensor:
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def draw(G: PGGANGenerator, z: Tensor, y: Tensor | None) -> Tensor:
    """G's images in training."""
    if y is not None and G.classes:
        z = torch.cat([z, F.one_hot(y, G.classes).float()], 1)
    level, alpha = G.growth.level, G.growth.alpha.item()
    first = G.first
    x = F.linear(normalise(z), scaled(first.dense)).view(len(z), -1, 4, 4)
    x = normalise(F.leaky_relu(x + first.bias.view(1, -1, 1, 1), 0.2))
    x = before = normalise(convolve_3x3(first.conv, x))
    blocks: list[Any] = list(G.blocks)[:level]
    for block in blocks:
        before = x
        x = normalise(convolve_3x3(block.up, upsample(x)))
        x = normalise(convolve_3x3(block.conv, x))
    image = convolve_1x1(G.to_rgb[level], x)
    if level == 0 or alpha == 1:
        return image
    old = convolve_1x1(G.to_rgb[level - 1], before)
    return (1 - alpha) * upsample(old) + alpha * image


def judge(D: PGGANDiscriminator, x: Tensor, y: Tensor | None) -> Tensor | Verdict:
    """D's logits, and those of classes if it gives some."""
    level, alpha = D.growth.level, D.growth.alpha.item()

    def see(x: Tensor, i: int) -> Tensor:
        return F.leaky_relu(convolve_1x1(D.from_rgb[i], x), 0.2)

    h = see(x, level)
    for i in reversed(range(level)):
        block: Any = D.blocks[i]
        h = F.avg_pool2d(convolve_3x3(block.conv2, convolve_3x3(block.conv1, h)), 2)
        if i == level - 1 and alpha < 1:
            h = (1 - alpha) * see(F.avg_pool2d(x, 2), i) + alpha * h
    members = min(D.last.mbstd.group, len(h))
    groups = h.view(members, -1, *h.shape[1:])
    groups = groups - groups.mean(0, keepdim=True)
    deviation = torch.sqrt((groups**2).mean(0) + 1e-8).mean([1, 2, 3], keepdim=True)
    h = torch.cat([h, deviation.repeat(members, 1, *h.shape[2:])], 1)
    h = convolve_3x3(D.last.conv, h).flatten(1)
    h = F.leaky_relu(F.linear(h, scaled(D.last.dense), D.last.dense.bias), 0.2)
    logits = F.linear(h, scaled(D.logits), D.logits.bias)
    if D.classifies:
        return Verdict(logits[:, 0], logits[:, 1:])
    if D.classes:
        assert y is not None
        return logits[:, 0] + (D.embed(y) * h).sum(1)
    return logits[:, 0]


# --- the step ------------------------------------------------------------------------------------


class GrowingPeerStep(PeerStep):
    """Turns at the level and alpha that the task is at. The networks are copied, and stay."""

    def __init__(
        self,
        task: Progressive,
        sets: Sets,
        settings: Settings,
        config: DictConfig,
        device: torch.device,
    ) -> None:
        if config.loss._target_.rpartition(".")[2] != "Wasserstein":
            raise UserError("the step of other programs for pggan has loss=wasserstein.")
        networks = (task.G, task.adversary.D)
        super().__init__(networks, task.prior, sets["real"], settings, device)
        assert isinstance(self.G, PGGANGenerator)
        assert isinstance(self.D, PGGANDiscriminator)
        self.growth = self.D.growth = self.G.growth
        self.G.forward = MethodType(draw, self.G)
        self.D.forward = MethodType(judge, self.D)
        self.batches = map(self.fade, self.batches)

    def fade(self, real: Batch) -> Batch:
        """Real images as sharp as the level."""
        alpha = self.growth.alpha.item()
        if self.growth.level == 0 or alpha == 1:
            return real
        old = upsample(F.avg_pool2d(real.x, 2))
        return real._replace(x=(1 - alpha) * old + alpha * real.x)

    def d_loss(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return on_fake.mean() - on_real.mean()

    def g_loss(self, on_fake: Tensor) -> Tensor:
        return -on_fake.mean()
