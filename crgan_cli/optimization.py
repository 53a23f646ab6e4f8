"""Adam for both players, with the papers' settings, and the learning rate over time."""

from collections.abc import Mapping
from typing import Literal

from torch import nn
from torch.optim import Adam as TorchAdam
from torch.optim import Optimizer

from crgan_cli.bounds import Count, Memory, Positive


class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980) for G and D, and how often D moves for each move of G."""

    def __init__(
        self,
        lr_g: Positive,
        lr_d: Positive,
        beta1: Memory,
        beta2: Memory,
        eps: Positive,
        n_dis: Count,
        decay: Literal["none", "linear"],
    ) -> None:
        self.lr = {"g": lr_g, "d": lr_d}
        self.betas = (beta1, beta2)
        self.eps = eps
        self.n_dis = n_dis
        self.decay = decay

    def optimizers(self, players: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """One Adam a player. Fused: one pass over all parameters of a player."""
        return {
            who: TorchAdam(
                player.parameters(),
                lr=self.lr[who],
                betas=self.betas,
                eps=self.eps,
                fused=next(player.parameters()).device.type in ("cpu", "cuda"),
            )
            for who, player in players.items()
        }

    def schedule(self, optimizers: Mapping[str, Optimizer], step: int, steps: int) -> None:
        """Sets the learning rates of step `step` of `steps`, counted from 0.

        And the other settings: a restored optimizer comes with those that it was saved with.
        """
        left = 1 - step / steps if self.decay == "linear" else 1.0
        for who, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group.update(lr=self.lr[who] * left, betas=self.betas, eps=self.eps)
