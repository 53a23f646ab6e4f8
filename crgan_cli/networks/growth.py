"""How far networks have grown: Karras et al. 2018 (arXiv:1710.10196) section 3 and figure 2."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Growth(nn.Module):
    """The level that networks work at, and the share alpha to which it has faded in.

    One object that G, D and the average of G share: a deep copy is the object itself. Its buffers
    are in their state_dicts, so a checkpoint tells how far they were. Level 0 is 4x4, each further
    one doubles the side.
    """

    stored_level: Tensor  # (), int64
    alpha: Tensor  # (), of the newest level, in [0, 1]; a captured turn reads it where it lies

    def __init__(self, top: int) -> None:
        """`top` is the last level: where networks are that do not grow."""
        super().__init__()
        self.top = self.level = top
        self.mixes = False
        """Whether the level before is computed too."""
        self.register_buffer("stored_level", torch.tensor(top))
        self.register_buffer("alpha", torch.ones(()))

    def follow(self, level: int, alpha: float) -> None:
        """Set the level and alpha. Level and `mixes` decide what networks compute."""
        if level != self.level:
            self.level = level
            self.stored_level.fill_(level)
        self.mixes = level > 0 and (alpha < 1 or self.serves_both_phases)
        self.alpha.fill_(alpha)

    def find_level(self, side: int, full: int) -> int:
        """The level of images of `side` pixels, if those of the last one have `full`."""
        return self.top - ((full // side).bit_length() - 1)

    def find_side(self, level: int, full: int) -> int:
        """The inverse of `find_level`."""
        return full >> (self.top - level)

    @property
    def serves_both_phases(self) -> bool:
        """Whether the level before is computed at alpha = 1 too, where it counts for nothing: on
        CUDA one captured turn then serves the fade and what follows. Elsewhere that is waste."""
        return self.alpha.is_cuda

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.level = int(self.stored_level)  # it has changed already: `follow` does not see it
        self.follow(self.level, float(self.alpha))

    def fade(self, old: Tensor, new: Tensor) -> Tensor:
        """(1 - alpha) old + alpha new; exactly `new` at alpha = 1, also in bf16."""
        return torch.lerp(old, new, self.alpha.to(new.dtype))


def double(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): each value fills a 2x2 square."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2): the means of 2x2 squares."""
    return F.avg_pool2d(x, 2)
