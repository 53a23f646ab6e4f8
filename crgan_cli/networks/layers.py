"""Layers that several networks share: conditional batch norm, attention, heads.

Sources: Miyato & Koyama 2018 (arXiv:1802.05637), Zhang et al. 2019 (arXiv:1805.08318), Brock et
al. 2019 (arXiv:1809.11096). Layer shapes are those of google/compare_gan.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError
from crgan_cli.networks.fast.convolution import Convolution
from crgan_cli.system import rng

WEIGHTED_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)
"""The layers that `init_weights` initialises and that can have spectral norm. No batch norm."""


BIGGAN_OR_SNDCGAN = (
    "architecture=biggan_lite (32, 48, 64, 96), biggan (128 and 192 too) or sndcgan (any multiple "
    "of 8)"
)
"""What makes images that a residual network refuses: words for `require_resolution`."""


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1."""
    return max(1, round(channels * width))


def require_resolution(
    supported: bool,
    resolution: int | tuple[int, int],
    name: str,
    possible: str,
    alternatives: str,
    *,
    of_pairs: str = "",
) -> None:
    """Raise UserError if a network does not support `resolution`.

    `of_pairs` is a sentence more on [HEIGHT,WIDTH], if that was given.
    """
    if not supported:
        sides = Sides.read(resolution)
        more = f" {of_pairs}" if of_pairs and not sides.is_square else ""
        raise UserError(
            f"dataset.resolution is {sides.typed}, but architecture={name} works at {possible} "
            f"pixels per side.{more} Use {alternatives}, or another dataset.resolution."
        )


def require_residual(resolution: int | tuple[int, int], squares: Iterable[int], name: str) -> int:
    """Return the shorter side of images: they are made by the blocks that make such squares.

    Raise UserError if a residual network cannot make them: the shorter side must be one of
    `squares`, and the longer one go down through the blocks without a rest.
    """
    squares = list(squares)
    shorter, longer = sorted(Sides.read(resolution))
    multiple = 16 if shorter < 128 else 64
    require_resolution(
        shorter in squares and (longer == shorter or longer % multiple == 0),
        resolution,
        name,
        " or ".join(map(str, squares)),
        BIGGAN_OR_SNDCGAN,
        of_pairs="Of [HEIGHT,WIDTH] the shorter one must be such a side, and the longer one a "
        "multiple of 16, or of 64 from 128 on.",
    )
    return shorter


def count_labels(conditional: bool, classes: int, off: str = "conditional=false") -> int:
    """Return the number of classes that a network is conditioned on, 0 if none.

    Raises UserError for a conditional network and a data set without labels. `off` is the setting
    of the architecture that makes it unconditional.
    """
    if conditional and classes == 0:
        raise UserError(
            "a conditional architecture needs a data set with classes, but dataset.classes is 0. "
            f"Use architecture.{off}, or a data set with labels (cifar10, demo, or a folder with "
            "one sub-folder per class)."
        )
    return classes if conditional else 0


def at_least_fp32(x: Tensor) -> Tensor:
    """fp32 or wider: bf16 would lose small differences of logits, and long sums."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


# --- initialisation ------------------------------------------------------------------------------


def find_weighted_layers(root: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of `root` with a weight matrix or kernel."""
    return (module for module in root.modules() if isinstance(module, WEIGHTED_LAYERS))


def init_weights(root: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Fill every weight of `root` with `draw` (in place), and every bias with 0."""
    for module in find_weighted_layers(root):
        assert isinstance(module.weight, Tensor)
        draw(module.weight)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)


def init_normal_002(weight: Tensor) -> Tensor:
    """N(0, 0.02), compare_gan's default for all weights."""
    return nn.init.normal_(weight, std=0.02)


def init_norm_gains(root: nn.Module) -> None:
    """N(1, 0.02) for the gains of every batch norm of `root`, as in DCGAN, pix2pix and CycleGAN."""
    for module in root.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)


def init_glorot_sngan(weight: Tensor) -> Tensor:
    """SNGAN's Glorot uniform: gain sqrt 2 for 3x3 kernels, 1 for all other weights."""
    gain = 2**0.5 if weight.ndim == 4 and weight.shape[-1] == 3 else 1.0
    return nn.init.xavier_uniform_(weight, gain)


# --- dropout -------------------------------------------------------------------------------------


class RowDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014), drawn through `rng`: one row per image.

    So the masks do not depend on how many processes share a batch. torch's own dropout would
    give all processes the same mask, because they share a seed.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, ...) -> the same shape: kept with probability 1 - p, then divided by it."""
        if not self.training or self.p == 0:
            return input
        kept = rng.rand(len(input), *input.shape[1:], device=input.device) >= self.p
        return input * (kept.to(input.dtype) / (1 - self.p))


# --- attention -----------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Non-local block: x + sigma * W_o(softmax(theta(x)^T phi(x)) g(x)) (Zhang et al. 2019, eq. 3).

    sigma starts at 0; phi and g are max-pooled 2x2; no biases. Keys have 1/8 and values 1/2 of the
    channels. Written as matrix products: torch's fused attention has no double backward, which
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
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        attended = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.sigma * self.out(attended)


# --- heads and ends ------------------------------------------------------------------------------


class InFullPrecision(nn.Module):
    """In front of a layer's class: the layer computes in fp32, also under autocast.

    For logits: a consistency term is a small difference of them, and bf16 has only 8 bits for it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_meta or not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class LogitLayer(InFullPrecision, nn.Linear):
    """A linear map to the logit."""


class LogitConv(InFullPrecision, Convolution):
    """A convolution to a map of logits."""


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


def logit_head(features: int, classes: int) -> LinearHead:
    """The projection head for `classes` classes, or the linear head if `classes` is 0."""
    return ProjectionHead(features, classes) if classes else LinearHead(features)


def sum_pool(h: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the sum over positions."""
    return h.sum((2, 3))


def mean_pool(h: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the mean over positions."""
    return h.mean((2, 3))


class ToUnitInterval(nn.Module):
    """[-1, 1] -> [0, 1]: the range that compare_gan's discriminators see."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


def sigmoid_image(x: Tensor) -> Tensor:
    """compare_gan's sigmoid image in [0, 1], mapped to [-1, 1]."""
    return 2 * torch.sigmoid(x) - 1
