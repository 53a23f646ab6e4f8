"""The averaged generator, from which samples and metrics are drawn if a run has one."""

from copy import deepcopy

import torch
from torch import nn

from crgan_cli.config.bounds import Decay


class EMA:
    """The exponential moving average of G: average <- decay * average + (1 - decay) * G.

    Until step `start` the average is G itself, as in BigGAN (Brock et al. 2019, arXiv:1809.11096).
    Buffers are copied: batch statistics and spectral norm's vectors are not averaged.
    """

    def __init__(self, G: nn.Module, decay: Decay, start: int) -> None:
        self.G = deepcopy(G).requires_grad_(False)
        self.decay = decay
        self.start = start

    def lerp_weight(self, step: int) -> float:
        """Return how far the average moves towards G after step `step`, counted from 1."""
        return 1.0 if step <= self.start else 1 - self.decay

    @torch.no_grad()
    def update(self, G: nn.Module, lerp_weight: float) -> None:
        """average <- average + lerp_weight * (G - average), in a few kernels for all weights."""
        torch._foreach_lerp_(list(self.G.parameters()), list(G.parameters()), lerp_weight)  # type: ignore
        pairs = list(zip(self.G.buffers(), G.buffers(), strict=True))
        for floating in (True, False):  # a list of both would be copied one by one
            some = [pair for pair in pairs if pair[0].is_floating_point() == floating]
            if some:
                mine, new = map(list, zip(*some, strict=True))
                torch._foreach_copy_(mine, new)  # type: ignore

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.G.state_dict()

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        self.G.load_state_dict(state_dict)
