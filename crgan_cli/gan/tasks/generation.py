"""Noise to images: the game of all the papers that crgan is about."""

import math
from collections.abc import Hashable
from typing import Literal

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import PositiveInt
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.system import rng


class Prior:
    """p(z): N(0, 1) or U[-1, 1] for every coordinate, and labels uniform over the classes."""

    def __init__(self, kind: Literal["normal", "uniform"], z_dim: int, classes: int) -> None:
        self.kind = kind
        self.z_dim = z_dim
        self.classes = classes

    def sample_z(
        self, n: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n, z_dim) codes, from the device's default generator unless one is given."""
        if self.kind == "normal":
            return rng.randn(n, self.z_dim, device=device, generator=generator)
        return rng.rand(n, self.z_dim, device=device, generator=generator) * 2 - 1

    def sample_y(
        self, n: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """(n,) class ids, or None without classes."""
        if not self.classes:
            return None
        return rng.randint(0, self.classes, n, device=device, generator=generator)

    def truncate(self, z: Tensor, limit: float) -> Tensor:
        """Higher fidelity for less variety: Brock et al. 2019 (arXiv:1809.11096) section 3.1.

        Normal: cut off at +-`limit`, each coordinate moved to its quantile of what is left, so that
        none has to be drawn again. Uniform: scaled by `limit`.
        """
        if self.kind == "uniform":
            return z * limit
        inside = math.erf(limit / math.sqrt(2))  # the probability of |z| <= limit
        quantile = torch.erf(z.double() / math.sqrt(2)) * inside  # uniform in +-inside
        return (torch.erfinv(quantile) * math.sqrt(2)).to(z.dtype).clamp(-limit, limit)


class Generation(Task):
    """D moves `n_dis` times, each on a new batch, then G once. z is drawn anew for every turn.

    The codes that a regularizer adds ("near", for zCR) keep the labels of z. They go through G in
    a call of their own, so that G's batch normalisation sees them as it sees any other batch.
    """

    def __init__(
        self, G: nn.Module, adversary: Adversary, prior: Prior, *, n_dis: PositiveInt
    ) -> None:
        super().__init__()
        self.G = G
        self.adversary = adversary
        self.prior = prior
        self.turns = ("d",) * n_dis + ("g",)

    def player(self, who: str) -> nn.Module:
        return {"d": self.adversary.D, "g": self.G}[who]

    def set_turn(self, who: str, turn: int) -> None:
        self.adversary.regularizer.set_turn(turn)

    def signature(self) -> Hashable:
        return self.adversary.regularizer.active_mask

    def players_with_double_backward(self) -> tuple[str, ...]:
        return ("d",) if self.adversary.needs_double_backward else ()

    def player_loss(self, who: str, batch: Batch) -> PlayerLoss:
        if who == "g":
            return self.adversary.generator_loss(self.generate(len(batch.x), batch.x.device))
        real = batch if self.prior.classes else batch._replace(y=None)
        with torch.no_grad():  # D's turn changes D alone
            fakes = self.generate(len(batch.x), batch.x.device)
        return self.adversary.discriminator_loss(real, fakes)

    def generate(self, n: int, device: torch.device) -> Views:
        """G's images of n new codes, and of the codes that the regularizer puts beside them."""
        z, y = self.prior.sample_z(n, device), self.prior.sample_y(n, device)
        codes = {"fake": z} | self.adversary.regularizer.latents(z)
        return {role: Batch(self.G(code, y), y) for role, code in codes.items()}

    def describe_turns(self) -> list[str]:
        roles = self.adversary.roles
        calls = 1 if self.adversary.score_jointly else len(roles)
        reason = "" if self.adversary.score_jointly else " (D's layers mix the images of a batch)"
        sloped = [
            part.gradient_views
            for part in self.adversary.regularizer.members
            if part.gradient_views
        ]
        own = len(sloped) if self.adversary.score_jointly else sum(sloped)
        way = "double backward" if self.adversary.needs_double_backward else "adjoint network"
        penalty = f"; {own} more for a gradient, by {way}" if own else ""
        return [
            f"d turn, {self.turns.count('d')} a step: {calls} D call{'s'[: calls > 1]} for "
            f"{len(roles)} views{reason}: {' '.join(roles)}{penalty}",
            f"g turn, {self.turns.count('g')} a step: 1 D call for 1 view: fake",
        ]
