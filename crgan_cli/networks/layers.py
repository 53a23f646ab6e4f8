"""Layers that several networks share: conditional batch norm, attention, heads.

Sources: Miyato & Koyama 2018 (arXiv:1802.05637), Zhang et al. 2019 (arXiv:1805.08318), Brock et
al. 2019 (arXiv:1809.11096); layer shapes as in google/compare_gan.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.errors import UserError

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)
"""The layers that are initialised and spectrally normalised. Batch norm is neither."""


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1."""
    return max(1, round(channels * width))


def require_resolution(fits: bool, resolution: int, name: str, able: str, instead: str) -> None:
    """Raise UserError where a network cannot make `resolution`; `able` and `instead` are words."""
    if not fits:
        raise UserError(
            f"dataset.resolution is {resolution}, but architecture={name} works at {able} pixels "
            f"a side. Use {instead}, or another dataset.resolution."
        )


def label_count(conditional: bool, classes: int) -> int:
    """The number of classes a network is conditioned on, 0 for none; UserError without labels."""
    if conditional and classes == 0:
        raise UserError(
            "architecture.conditional=true needs a data set with classes, and dataset.classes is "
            "0. Use architecture.conditional=false, or a data set with labels (cifar10, demo, or "
            "a folder with one sub-folder a class)."
        )
    return classes if conditional else 0


# --- initialisation ------------------------------------------------------------------------------


def has_weight(root: nn.Module) -> Iterator[nn.Module]:
    """The layers of `root` with a weight matrix or kernel."""
    return (module for module in root.modules() if isinstance(module, WEIGHTED))


def init_weights(root: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """`draw` fills every weight of `root` in place; every bias becomes 0."""
    for module in has_weight(root):
        assert isinstance(module.weight, Tensor)
        draw(module.weight)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)


def init_normal_002(weight: Tensor) -> Tensor:
    """N(0, 0.02), compare_gan's default for every weight."""
    return nn.init.normal_(weight, std=0.02)


def init_glorot_sngan(weight: Tensor) -> Tensor:
    """SNGAN's Glorot uniform: gain sqrt 2 for 3x3 kernels, 1 for everything else."""
    gain = 2**0.5 if weight.ndim == 4 and weight.shape[-1] == 3 else 1.0
    return nn.init.xavier_uniform_(weight, gain)


# --- normalisation with a condition --------------------------------------------------------------

Norm = Callable[[int], nn.Module]
"""channels -> a module called with (x, code)."""


class PlainBatchNorm(nn.Module):
    """Batch norm that ignores the code. It wraps and does not inherit, so that the batch norm
    within can be exchanged for a synchronised one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        return self.norm(x)


class ConditionalBatchNorm(nn.Module):
    """Batch norm with (1 + A code) as gain and B code as shift (Brock et al. 2019, appendix B).

    compare_gan leaves the 1 out, which centres the gain on 0 (its issue 54): not copied.
    `affine(channels)` makes A and B: an embedding for labels, a linear map for vectors.
    """

    def __init__(self, channels: int, affine: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = affine(channels)
        self.shift = affine(channels)

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        h = self.norm(x)
        # to(h): an embedding stays fp32 under autocast and would promote the whole feature map
        gain, shift = (1 + self.gain(code)).to(h), self.shift(code).to(h)
        return h * gain[:, :, None, None] + shift[:, :, None, None]


def label_norm(classes: int) -> Norm:
    """Batch norm by class, or plain batch norm where `classes` is 0."""
    if classes == 0:
        return PlainBatchNorm
    return lambda channels: ConditionalBatchNorm(channels, lambda c: nn.Embedding(classes, c))


def code_norm(code_dim: int) -> Norm:
    """Batch norm by a vector of `code_dim` numbers, through linear maps without bias."""
    return lambda channels: ConditionalBatchNorm(
        channels, lambda c: nn.Linear(code_dim, c, bias=False)
    )


# --- attention -----------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Non-local block: x + sigma * W_o(softmax(theta(x)^T phi(x)) g(x)) (Zhang et al. 2019, eq. 3).

    sigma starts at 0; phi and g are max-pooled 2x2; no biases. Keys have 1/8 and values 1/2 of the
    channels. Written out in matrix products: the fused kernels have no double backward, which
    gradient penalties need.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        keys, values = max(1, channels // 8), max(1, channels // 2)
        self.theta = nn.Conv2d(channels, keys, 1, bias=False)
        self.phi = nn.Conv2d(channels, keys, 1, bias=False)
        self.g = nn.Conv2d(channels, values, 1, bias=False)
        self.out = nn.Conv2d(values, channels, 1, bias=False)
        self.sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)
        key = F.max_pool2d(self.phi(x), 2).flatten(2)
        value = F.max_pool2d(self.g(x), 2).flatten(2)
        places = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        seen = (value @ places.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.sigma * self.out(seen)


# --- heads and ends ------------------------------------------------------------------------------


class LogitLayer(nn.Linear):
    """A linear map to the logit, in fp32 under autocast too.

    A consistency term is a small difference of logits, of which bf16 keeps 8 bits.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_meta or not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class LinearHead(nn.Module):
    """One logit per feature vector: (N, features) -> (N,)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = LogitLayer(features, 1)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        return self.linear(h).squeeze(1)


class ProjectionHead(LinearHead):
    """w^T h + b + <embed(y), h> (Miyato & Koyama 2018, eq. 4)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features)
        self.embed = nn.Embedding(classes, features)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None, "a conditional discriminator was called without labels"
        return super().forward(h, y) + (self.embed(y) * h).sum(1)


def head(features: int, classes: int) -> LinearHead:
    """The projection head for `classes` classes, or the linear head where that is 0."""
    return ProjectionHead(features, classes) if classes else LinearHead(features)


def sum_pool(h: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the sum over places."""
    return h.sum((2, 3))


def mean_pool(h: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the mean over places."""
    return h.mean((2, 3))


class ToUnitInterval(nn.Module):
    """[-1, 1] -> [0, 1]: the range that compare_gan's discriminators see."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


def sigmoid_image(x: Tensor) -> Tensor:
    """compare_gan's sigmoid image in [0, 1], carried to [-1, 1]."""
    return 2 * torch.sigmoid(x) - 1
