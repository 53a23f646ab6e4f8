"""Records and protocols that all parts of a GAN share."""

from typing import NamedTuple, Protocol

from torch import Tensor

from crgan_cli.networks.verdict import Verdict


class Batch(NamedTuple):
    """Images with the labels that they are conditioned on."""

    x: Tensor  # (N, C, H, W), float, in [-1, 1]
    y: Tensor | None = None  # (N,) class ids, or rows of `gan.labels.Labels`; None: no labels


BatchInputs = tuple[Tensor, ...]
"""Tensors from which a turn builds its real batch. On the device, fixed shapes. Empty: reuse the
last batch."""

Views = dict[str, Batch]
"""role -> images. The real images of a turn: {"real": ...}, or one entry per set of images. What D
scores: "real", "fake", "near", "T(real)", "T(fake)"."""

Terms = dict[str, Tensor]
"""name -> weighted scalar. A player's loss is the sum of its terms; each term is logged."""


class Generator(Protocol):
    """A network from latents to images. `classes` is 0 if it takes no labels."""

    z_dim: int
    classes: int

    def __call__(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1]."""
        ...


class Discriminator(Protocol):
    """A network from images to logits."""

    def __call__(self, x: Tensor, y: Tensor | None) -> Tensor | Verdict:
        """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits, before any activation.

        A D that scores patches returns a map of logits per image, (N, 1, h, w). One that also
        classifies returns a Verdict.
        """
        ...


class PlayerLoss(NamedTuple):
    """The loss of one player in one turn, term by term."""

    terms: Terms  # their sum is the loss
    diagnostics: Terms  # detached, for the log only


class TurnLog(NamedTuple):
    """The numbers of a turn for the log, still on the device."""

    names: tuple[str, ...]
    values: Tensor  # (len(names),) float32


def split_pair(x: Tensor, channels_in: int) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) -> the input, its first `channels_in` channels, and the target: two views."""
    return x[:, :channels_in], x[:, channels_in:]
