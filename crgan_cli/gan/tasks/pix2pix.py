"""Pairs of images: G translates an input to its target."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.tasks.base import (
    Casting,
    GeneratedView,
    Part,
    hold,
    l1_distance,
    require_one_d_step,
)
from crgan_cli.gan.tasks.stored_values import StoredValues, is_count
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Batch, PlayerLoss, Views, split_pair
from crgan_cli.networks.layers import at_least_fp32


class Pix2Pix(TwoPlayers):
    """Isola et al. 2017 (arXiv:1611.07004) eqs. 1, 3 and 4, for pairs of an input x and a target y.

    G* = arg min_G max_D  L_cGAN(G, D) + lambda_l1 * E |y - G(x)|, the mean over values

    D judges pairs: x and y, or x and G(x), as channels of one image. So a regularizer's T moves
    both. `conditional: false` shows D the second image alone (section 4.1, "GAN"). G's noise is its
    dropout.

    A step is a G step, then a D step on the images that G has just made. G runs once: half as often
    as in two independent turns. The authors' code computes D's gradient first, on the same images;
    their G step also uses D's activations from before D's update (phillipi/pix2pix train.lua).
    """

    needs = (
        "task=pix2pix translates images: type an architecture for it, such as architecture=unet, "
        "or task=generation for images from latents."
    )
    turns = ("g", "d")
    stored_values: ClassVar[StoredValues] = {
        "dataset.channels_in": is_count,
        "dataset.channels_out": is_count,
    }

    def __init__(
        self,
        G: nn.Module,
        adversary: Adversary,
        channels_in: int,
        *,
        n_dis: PositiveInt,
        lambda_l1: NonNegative,
        conditional: bool = True,
    ) -> None:
        super().__init__(G, adversary)
        require_one_d_step("pix2pix", n_dis)
        self.channels_in = channels_in
        self.lambda_l1 = lambda_l1
        self.show: Callable[[Tensor, Tensor], Tensor] = join_pair if conditional else second
        self.fake: Tensor | None = None  # G(x) of the last G step

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        dataset = config["dataset"]
        if "channels_in" not in dataset:
            raise UserError(
                "task=pix2pix needs pairs of images, and this data set has none. Type "
                "dataset=pairs dataset.root=PATH, or dataset=demo_pairs."
            )
        source, target = dataset["channels_in"], dataset["channels_out"]
        judged = source + target if config["task"].get("conditional", True) else target
        return {
            "g": {"": Part("generator", {"in_channels": source, "out_channels": target})},
            "d": {"": Part("discriminator", {"d_in_channels": judged})},
        }

    @classmethod
    def arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().arguments(config), "channels_in": config["dataset"]["channels_in"]}

    @classmethod
    def draws(
        cls, config: Mapping[str, Any], class_names: Sequence[str] = ()
    ) -> dict[str, GeneratedView]:
        return {
            "": GeneratedView(
                lambda G, inputs: G(inputs.x),
                source="input",
                target="target",
                paired=True,
                in_channels=config["dataset"]["channels_in"],
            )
        }

    def players_run(self, who: str) -> tuple[str, ...]:
        return ("d",) if who == "d" else ("g", "d")

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        x, y = split_pair(reals["real"].x, self.channels_in)
        if who == "g":
            fake = at_least_fp32(self.G(x))
            self.fake = hold(self.fake, fake)
            loss = self.adversary.generator_loss(
                Batch(self.show(x, y)), {"fake": Batch(self.show(x, fake))}
            )
            return PlayerLoss(
                loss.terms | {"l1": self.lambda_l1 * l1_distance(y, fake)}, loss.diagnostics
            )
        assert self.fake is not None, "a step begins with G"
        real, fake = Batch(self.show(x, y)), Batch(self.show(x, self.fake))
        return self.adversary.discriminator_loss(real, {"fake": fake})

    def describe_turns(self) -> list[str]:
        return [
            f"G step: 1 G call, {self.adversary.describe_generator_calls()}",
            f"D step, on the same images: {self.adversary.describe_calls()}",
        ]


def join_pair(x: Tensor, y: Tensor) -> Tensor:
    """(N, A, H, W) and (N, B, H, W) -> (N, A + B, H, W)."""
    return torch.cat([x, y], 1)


def second(x: Tensor, y: Tensor) -> Tensor:
    """y, whatever x is."""
    return y
