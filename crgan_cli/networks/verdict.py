"""The answer of a discriminator that also classifies."""

from typing import NamedTuple

from torch import Tensor


class Verdict(NamedTuple):
    """What a discriminator that also classifies says of images.

    Such a network has the attribute `classifies = True`.
    """

    logits: Tensor  # (N,) or maps (N, 1, h, w): real or generated
    classes: Tensor | None = None  # (N, c) logits, one per label; None if D does not classify
