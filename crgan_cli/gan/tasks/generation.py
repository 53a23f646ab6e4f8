"""Noise to images: the task of all papers that crgan implements."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.scoring import Origin
from crgan_cli.gan.tasks.base import Casting, GeneratedView
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Batch, Generator, PlayerLoss, Views
from crgan_cli.system import rng


class Prior:
    """p(z): N(0, 1) or U[-1, 1] per coordinate. p(y): uniform over the classes."""

    def __init__(self, kind: Literal["normal", "uniform"], z_dim: int, classes: int) -> None:
        self.kind = kind
        self.z_dim = z_dim
        self.classes = classes

    def sample_z(
        self, n: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n, z_dim) latents. Without `generator`, from the device's default generator."""
        if self.kind == "normal":
            return rng.randn(n, self.z_dim, device=device, generator=generator)
        return rng.rand(n, self.z_dim, device=device, generator=generator) * 2 - 1

    def sample_y(
        self, n: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """(n,) class ids; None if there are no classes."""
        if not self.classes:
            return None
        return rng.randint(0, self.classes, n, device=device, generator=generator)

    def truncate(self, z: Tensor, limit: float) -> Tensor:
        """The truncation trick, Brock et al. 2019 (arXiv:1809.11096) section 3.1.

        Normal prior: truncated at +-`limit`. Each coordinate moves to the same quantile of the
        truncated distribution, so none has to be drawn again. Uniform prior: scaled by `limit`.
        """
        if self.kind == "uniform":
            return z * limit
        inside = math.erf(limit / math.sqrt(2))  # the probability of |z| <= limit
        quantile = torch.erf(z.double() / math.sqrt(2)) * inside  # uniform in +-inside
        return (torch.erfinv(quantile) * math.sqrt(2)).to(z.dtype).clamp(-limit, limit)


class Generation(TwoPlayers):
    """`n_dis` D steps, each on a new batch, then one G step. Every turn draws new latents.

    Extra latents of a regularizer ("near" of zCR) keep the labels of z. G makes their images in a
    call of their own, so that its batch norm treats them like any other batch.
    """

    has_latents = True
    accumulates = True
    needs = (
        "task=generation draws images from latents: type an architecture for it, such as "
        "architecture=sndcgan, or task=pix2pix for one that translates images."
    )

    def __init__(
        self, G: nn.Module, adversary: Adversary, prior: Prior, *, n_dis: PositiveInt
    ) -> None:
        super().__init__(G, adversary)
        self.prior = prior
        self.turns = ("d",) * n_dis + ("g",)

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        if "channels_in" in config.get("dataset", {}):  # a checkpoint is read without its data
            raise UserError(
                "task=generation draws single images, and this data set has pairs. Type "
                "task=pix2pix architecture=unet, or dataset=folder for single images."
            )
        if "channels_a" in config.get("dataset", {}):
            raise UserError(
                "task=generation draws images of one set, and this data set is two. Type "
                "task=cyclegan architecture=translator, or dataset=folder for one set."
            )
        return super().casting(config)

    @classmethod
    def draws(
        cls, config: Mapping[str, Any], class_names: Sequence[str] = ()
    ) -> dict[str, GeneratedView]:
        return {"": GeneratedView(lambda G, latents: G(*latents))}

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        real = reals["real"] if self.prior.classes else reals["real"]._replace(y=None)
        origin = self.sample_latents(len(real.x), real.x.device)
        if who == "g":
            return self.adversary.generator_loss(real, generate(origin), origin)
        with torch.no_grad():  # a D step updates D only
            fakes = generate(origin)
        return self.adversary.discriminator_loss(real, fakes)

    def sample_latents(self, n: int, device: torch.device) -> Origin:
        """n new latents and labels, and the regularizer's extra latents."""
        z, y = self.prior.sample_z(n, device), self.prior.sample_y(n, device)
        latents = {"fake": z} | self.adversary.regularizer.extra_latents(z)
        return Origin(cast(Generator, self.G), latents, y)

    def describe_turns(self) -> list[str]:
        return [
            f"D step, {self.turns.count('d')} per G step: {self.adversary.describe_calls()}",
            f"G step: {self.adversary.describe_generator_calls()}",
        ]


def generate(origin: Origin) -> Views:
    """G's images of the latents of each role."""
    G, latents, y = origin
    return {role: Batch(G(z, y), y) for role, z in latents.items()}
