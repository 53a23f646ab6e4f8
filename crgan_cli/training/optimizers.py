"""Adam for both players, with the papers' settings, and the learning rate over time."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn
from torch.optim import Adam as TorchAdam
from torch.optim import Optimizer

from crgan_cli.config.bounds import Decay, Positive, PositiveInt


class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980) for G and D, and the number of D steps per G step."""

    def __init__(
        self,
        lr_g: Positive,
        lr_d: Positive,
        beta1: Decay,
        beta2: Decay,
        eps: Positive,
        n_dis: PositiveInt,
        decay: Literal["none", "linear"],
        decay_from: Decay = 0.0,
    ) -> None:
        self.lr = {"g": lr_g, "d": lr_d}
        self.betas = (beta1, beta2)
        self.eps = eps
        self.n_dis = n_dis
        self.decay = decay
        self.decay_from = decay_from

    def build(self, players: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """Build one Adam per player. Fused: one pass over all parameters of a player."""
        return {who: self.build_one(who, list(players[who].parameters())) for who in players}

    def build_one(self, who: str, parameters: list[nn.Parameter]) -> Optimizer:
        """Build the Adam of one player."""
        return TorchAdam(parameters, **self.settings(who, parameters[0].device))

    def settings(self, who: str, device: torch.device) -> dict:
        """Arguments of a player's Adam. The learning rate is a tensor, for CUDA graphs to read."""
        return {
            "lr": torch.tensor(self.lr[who], device=device),
            "betas": self.betas,
            "eps": self.eps,
            "fused": device.type in ("cpu", "cuda"),
            "capturable": device.type == "cuda",
        }

    def learning_rate(self, who: str, step: int, steps: int) -> float:
        """Return a player's learning rate in step `step` of `steps`, counted from 0.

        With `decay=linear` it is constant for the share `decay_from` of all steps, and falls
        linearly to 0 over the others.
        """
        if self.decay == "none":
            return self.lr[who]
        return self.lr[who] * min(1.0, (1 - step / steps) / (1 - self.decay_from))

    def schedule(self, optimizers: Mapping[str, Optimizer], step: int, steps: int) -> None:
        """Set the learning rates of step `step` of `steps`, counted from 0."""
        if self.decay == "none":
            return
        for who, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"].fill_(self.learning_rate(who, step, steps))

    def refresh(self, optimizers: Mapping[str, Optimizer]) -> None:
        """After loading a checkpoint: use this configuration's settings, not the saved ones."""
        for who, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group.update(self.settings(who, group["params"][0].device))
            match_layouts(optimizer)


@torch.no_grad()
def match_layouts(optimizer: Optimizer) -> None:
    """Give every moment the strides of its parameter.

    A loaded state keeps the strides it was saved with, those of another `engine.channels_last`
    perhaps. Fused kernels walk through parameter and moments side by side in memory, so on a CPU
    each weight would get the moments of another one, and on CUDA they raise.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
