"""The averaged generator that samples and metrics are drawn from, where a run asks for one."""

from copy import deepcopy

import torch
from torch import nn

from crgan_cli.bounds import Memory


class EMA:
    """The exponential moving average of G: average <- decay * average + (1 - decay) * G.

    Until step `start` the average is G itself, as in BigGAN (Brock et al. 2019, arXiv:1809.11096).
    Buffers are copied: batch statistics and spectral norm's vectors are not averaged.
    """

    def __init__(self, G: nn.Module, decay: Memory, start: int) -> None:
        self.G = deepcopy(G).requires_grad_(False)
        self.decay = decay
        self.start = start

    @torch.no_grad()
    def update(self, G: nn.Module, step: int) -> None:
        """After step number `step`, counted from 1."""
        average: list[torch.Tensor] = list(self.G.parameters())
        new: list[torch.Tensor] = list(G.parameters())
        share = 1.0 if step <= self.start else 1 - self.decay
        torch._foreach_lerp_(average, new, share)  # pyright: ignore[reportPrivateImportUsage]
        for buffer, now in zip(self.G.buffers(), G.buffers(), strict=True):
            buffer.copy_(now)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.G.state_dict()

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        self.G.load_state_dict(state_dict)
