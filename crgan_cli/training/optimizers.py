"""The optimizers of both players, and how their settings change over the steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import unwrap
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam as TorchAdam
from torch.optim import Optimizer

from crgan_cli.config.bounds import (
    AtLeastOne,
    Decay,
    NonNegativeInt,
    Positive,
    PositiveInt,
    UpTo1000,
)
from crgan_cli.errors import UserError
from crgan_cli.training.momentum import MomentumSGD
from crgan_cli.training.plain_optimizer import PlainOptimizer


def find_trainable(player: nn.Module) -> list[nn.Parameter]:
    """Return a player's parameters without frozen ones, before the first turn: turns set
    `requires_grad` of these."""
    return [parameter for parameter in player.parameters() if parameter.requires_grad]


class Optimization(ABC):
    """One optimizer per player, and the number of D steps per G step.

    `settings` that change over the steps are tensors. `schedule` writes to them where they lie,
    since a captured turn (`engine/graphs.py`) reads them there: a Python number would stay as it
    was at the capture.

    With `clip_grad_norm` c, a player's whole gradient v becomes v * min(1, c / (|v| + 1e-6)), with
    the Euclidean norm: Pascanu et al. 2013 (arXiv:1211.5063), algorithm 1, as
    torch.nn.utils.clip_grad_norm_ has it.
    """

    moments = 1
    """Numbers that it keeps of each weight."""

    def __init__(
        self, lr_g: float, lr_d: float, n_dis: int, clip_grad_norm: float | None = None
    ) -> None:
        self.lr = {"g": lr_g, "d": lr_d}
        self.n_dis = n_dis
        self.clip_grad_norm = clip_grad_norm

    def require_steps(self, steps: int) -> None:  # noqa: B027 - most have nothing to check
        """Raise UserError if a run of so many steps is too short for the schedule."""

    def build(self, players: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """Build one optimizer per player."""
        return {who: self.build_one(who, find_trainable(players[who])) for who in players}

    @abstractmethod
    def build_one(self, who: str, parameters: list[nn.Parameter]) -> Optimizer:
        """Build the optimizer of one player."""

    @abstractmethod
    def settings(self, who: str, device: torch.device) -> dict:
        """Arguments of a player's optimizer in the first step."""

    @abstractmethod
    def scheduled(self, who: str, step: int, steps: int) -> dict[str, float]:
        """Return the settings of step `step` of `steps`, counted from 0, that change over the
        steps. "lr" is one of them unless it is constant."""

    def learning_rate(self, who: str, step: int, steps: int) -> float:
        """Return a player's learning rate in step `step` of `steps`, counted from 0."""
        return self.scheduled(who, step, steps).get("lr", self.lr[who])

    def schedule(
        self, optimizers: Mapping[str, Optimizer], step: int, steps: int, rate: float = 1.0
    ) -> None:
        """Set the settings of step `step` of `steps`, counted from 0. `rate` is a factor of the
        learning rates."""
        for who, optimizer in optimizers.items():
            settings = {"lr": self.lr[who], **self.scheduled(who, step, steps)}
            settings["lr"] *= rate
            for key, value in settings.items():
                for group in optimizer.param_groups:
                    group[key].fill_(value)

    def reset(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Forget all moments, where they lie: captured turns read them there."""
        for optimizer in optimizers.values():
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def refresh(self, optimizers: Mapping[str, Optimizer]) -> None:
        """After loading a checkpoint: use this configuration's settings, not the saved ones."""
        for who, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group.update(self.settings(who, group["params"][0].device))
            match_layouts(optimizer)


class Adam(Optimization):
    """Kingma & Ba 2015 (arXiv:1412.6980), with the papers' settings.

    In step t of T, counted from 0, the learning rate is lr * min(1, (t + 1) / warmup) * f(p):

    - warm-up: Goyal et al. 2017 (arXiv:1706.02677), section 2.2.
    - p = max(0, (t / T - s) / (1 - s)) is the share of the decay that is over. It begins at the
      share s = max(decay_from, warmup / T) of the steps.
    - `decay=none`: f = 1. `linear`: f = 1 - p. `cosine`: f = (1 + cos(pi p)) / 2, Loshchilov &
      Hutter 2017 (arXiv:1608.03983) eq. 5, without restarts and down to 0.

    `decay_d`, `decay_from_d` and `warmup_d` are D's own; None: as G's.
    """

    moments = 2

    def __init__(
        self,
        lr_g: Positive,
        lr_d: Positive,
        beta1: Decay,
        beta2: Decay,
        eps: Positive,
        n_dis: UpTo1000,
        decay: Literal["none", "linear", "cosine"],
        decay_from: Decay = 0.0,
        warmup: NonNegativeInt = 0,
        decay_d: Literal["none", "linear", "cosine"] | None = None,
        decay_from_d: Decay | None = None,
        warmup_d: NonNegativeInt | None = None,
        clip_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr_g, lr_d, n_dis, clip_grad_norm)
        self.betas = (beta1, beta2)
        self.eps = eps
        self.decay = {"g": decay, "d": decay_d or decay}
        self.decay_from = {"g": decay_from, "d": first_set(decay_from_d, decay_from)}
        self.warmup = {"g": warmup, "d": first_set(warmup_d, warmup)}

    def require_steps(self, steps: int) -> None:
        for who, key in (("g", "warmup"), ("d", "warmup_d")):
            if self.warmup[who] > steps:
                raise UserError(
                    f"optimizer.{key}={self.warmup[who]} is longer than the run, steps={steps}: "
                    "the learning rate would never be reached. Type fewer steps of warm-up, or "
                    "more steps."
                )

    def build_one(self, who: str, parameters: list[nn.Parameter]) -> Optimizer:
        """Build the Adam of one player. Fused: one pass over all parameters."""
        return AdamInMemoryOrder(parameters, **self.settings(who, parameters[0].device))

    def settings(self, who: str, device: torch.device) -> dict:
        return {
            "lr": torch.tensor(self.lr[who], device=device),
            "betas": self.betas,
            "eps": self.eps,
            "fused": device.type in ("cpu", "cuda"),
            "capturable": device.type == "cuda",
        }

    def scheduled(self, who: str, step: int, steps: int) -> dict[str, float]:
        if self.decay[who] == "none" and not self.warmup[who]:
            return {}
        return {"lr": self.lr[who] * self.rise(who, step) * self.fall(who, step, steps)}

    def rise(self, who: str, step: int) -> float:
        """Return the share of the learning rate that warm-up has reached."""
        return min(1.0, (step + 1) / self.warmup[who]) if self.warmup[who] else 1.0

    def fall(self, who: str, step: int, steps: int) -> float:
        """Return the share of the learning rate that decay has left."""
        start = max(self.decay_from[who], self.warmup[who] / steps)
        if self.decay[who] == "none" or start >= 1:
            return 1.0
        left = min(1.0, (1 - step / steps) / (1 - start))
        return left if self.decay[who] == "linear" else (1 - math.cos(math.pi * left)) / 2


class SGD(Optimization):
    """Gradient descent with momentum, as Goodfellow et al. 2014 (arXiv:1406.2661) train on MNIST.

    In step t, counted from 0, the learning rate is lr * max(1 / decay_factor^t, lr_floor), and the
    momentum rises linearly from `momentum` to `final_momentum` in `momentum_steps` steps. In the
    authors' code the momentum rises once per epoch.
    """

    def __init__(
        self,
        lr_g: Positive,
        lr_d: Positive,
        n_dis: UpTo1000,
        decay_factor: AtLeastOne,
        lr_floor: Decay,
        momentum: Decay,
        final_momentum: Decay,
        momentum_steps: PositiveInt,
        clip_grad_norm: Positive | None = None,
    ) -> None:
        super().__init__(lr_g, lr_d, n_dis, clip_grad_norm)
        self.decay_factor = decay_factor
        self.lr_floor = lr_floor
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.momentum_steps = momentum_steps

    def build_one(self, who: str, parameters: list[nn.Parameter]) -> Optimizer:
        return MomentumSGD(parameters, **self.settings(who, parameters[0].device))

    def settings(self, who: str, device: torch.device) -> dict:
        first = self.scheduled(who, 0, 1)
        return {key: torch.tensor(value, device=device) for key, value in first.items()}

    def scheduled(self, who: str, step: int, steps: int) -> dict[str, float]:
        share = min(step / self.momentum_steps, 1.0)
        return {
            "lr": self.lr[who] * max(self.decay_factor**-step, self.lr_floor),
            "momentum": (1 - share) * self.momentum + share * self.final_momentum,
        }


def first_set(own: float | None, other: float) -> float:
    """Return a player's own setting, or the other one's if it has none."""
    return other if own is None else own


class AdamInMemoryOrder(PlainOptimizer, TorchAdam):
    """PyTorch's Adam, which on a CPU sees tensors in channels_last as contiguous ones.

    Its fused kernel copies what is not contiguous: half of its time. The bits are the same.
    """

    step = torch.no_grad()(unwrap(TorchAdam.step))  # its decorator imports torch._dynamo too

    def _init_group(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, group: dict, *lists: list[Tensor]
    ) -> bool:
        has_complex = super()._init_group(group, *lists)
        for i, parameter in enumerate(lists[0]):
            if parameter.device.type != "cpu" or parameter.ndim != 4 or parameter.is_contiguous():
                continue
            views = [each[i].permute(0, 2, 3, 1) for each in lists[:4]]  # weight, gradient, moments
            if all(view.is_contiguous() for view in views):
                for each, view in zip(lists, views, strict=False):
                    each[i] = view
        return has_complex


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
