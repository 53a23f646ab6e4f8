"""The averaged generator, from which samples and metrics are drawn if a run has one."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import Decay

Pairs = tuple[list[Tensor], list[Tensor]]
"""The average's tensors, and those of the network that it follows."""


class EMA:
    """The exponential moving average of G: average <- decay * average + (1 - decay) * G.

    Until step `start` the average is G itself, as in BigGAN (Brock et al. 2019, arXiv:1809.11096).
    Buffers are copied: batch statistics, of about the last 10 batches, and spectral norm's vectors
    are not averaged. StudioGAN and BigGAN-PyTorch average them with the weights.
    """

    def __init__(self, G: nn.Module, decay: Decay, start: int) -> None:
        self.G = deepcopy(G).requires_grad_(False)
        self.decay = decay
        self.start = start
        self.followed: nn.Module | None = None  # the network of `pairs`
        self.pairs: list[Pairs] = []

    def lerp_weight(self, step: int) -> float:
        """Return how far the average moves towards G after step `step`, counted from 1."""
        return 1.0 if step <= self.start else 1 - self.decay

    @torch.no_grad()
    def update(self, G: nn.Module, lerp_weight: float) -> None:
        """average <- average + lerp_weight * (G - average), in a few kernels for all weights."""
        if self.followed is not G:
            self.followed, self.pairs = G, pair_tensors(self.G, G)
        torch._foreach_lerp_(*self.pairs[0], lerp_weight)  # type: ignore
        for mine, new in self.pairs[1:]:
            torch._foreach_copy_(mine, new)  # type: ignore

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.G.state_dict()

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        self.G.load_state_dict(state_dict)


def pair_tensors(mine: nn.Module, new: nn.Module) -> list[Pairs]:
    """Return the parameters, the floating-point buffers and the others of two equal networks.

    A list of both kinds of buffers would be copied one by one.
    """
    pairs: list[Pairs] = [(list(mine.parameters()), list(new.parameters()))]
    buffers = list(zip(mine.buffers(), new.buffers(), strict=True))
    for floating in (True, False):
        some = [pair for pair in buffers if pair[0].is_floating_point() == floating]
        if some:
            pairs.append(([a for a, _ in some], [b for _, b in some]))
    return pairs
