"""The records and protocols that the rest of the package speaks in."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """Images with what they are conditioned on."""

    x: Tensor  # (N, C, H, W), float, in [-1, 1]
    y: Tensor | None = None  # (N,) int64 class ids, or None without conditioning


BatchInputs = tuple[Tensor, ...]
"""What a turn is handed to make its batch of: on the device, and of fixed shapes. () is none."""

Views = dict[str, Batch]
"""role -> images: "real", "fake", "near", "T(real)", "T(fake)"."""

Terms = dict[str, Tensor]
"""name -> weighted scalar. A player's loss is the sum of its terms, and the terms are its log."""


class Generator(Protocol):
    """A network from latent codes to images. `classes` is 0 where it takes no labels."""

    z_dim: int
    classes: int

    def __call__(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(N, z_dim) and (N,) class ids -> (N, C, H, W) in [-1, 1]."""
        ...


class Discriminator(Protocol):
    """A network from images to logits."""

    def __call__(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, C, H, W) in [-1, 1] and (N,) class ids -> (N,) logits, before any activation."""
        ...


class PlayerLoss(NamedTuple):
    """What one player's turn comes to."""

    terms: Terms  # their sum is the player's loss
    diagnostics: Terms  # detached, for the log alone


class TurnLog(NamedTuple):
    """The numbers of a turn for the log, still on the device."""

    names: tuple[str, ...]
    values: Tensor  # (len(names),) float32
