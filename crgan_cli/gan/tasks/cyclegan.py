"""Two sets of images without pairs: one generator to each of them, and back again."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NonNegative, NonNegativeInt, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.scoring import mixes_samples
from crgan_cli.gan.tasks.base import (
    Casting,
    GeneratedView,
    Part,
    Task,
    hold,
    l1_distance,
    require_one_d_step,
)
from crgan_cli.gan.tasks.pool import ImagePool
from crgan_cli.gan.tasks.stored_values import StoredValues, is_count
from crgan_cli.gan.types import Batch, PlayerLoss, Terms, Views
from crgan_cli.networks.layers import at_least_fp32


class CycleGAN(Task):
    """Zhu et al. 2017 (arXiv:1703.10593) eqs. 1 to 3; the identity loss of section 5.2; section 4.

    G: a -> b is the network "ab", F: b -> a is "ba". D_b judges G's images, D_a those of F.

    L(G, F, D_a, D_b) = L_GAN(G, D_b) + L_GAN(F, D_a)
        + lambda_a * E_a |F(G(a)) - a| + lambda_b * E_b |G(F(b)) - b|
        + lambda_identity * (lambda_a * E_a |F(a) - a| + lambda_b * E_b |G(b) - b|)

    |.| is the mean over values. lambda_a and lambda_b belong to the cycles that begin in a and b.

    A step is a step of both generators, then one of both discriminators on the images that the
    generators have just made, through a pool of earlier ones; as in the authors' code. Six sets of
    images are generated in a step, in four calls: G(a) and G(b) are one call, unless the layers mix
    the images of a batch. D's turn calls no generator.
    """

    needs = (
        "task=cyclegan translates images: type an architecture for it, such as "
        "architecture=translator, or task=generation for images from latents."
    )
    turns = ("g", "d")
    stored_values: ClassVar[StoredValues] = {
        "dataset.channels_a": is_count,
        "dataset.channels_b": is_count,
    }

    def __init__(
        self,
        G: nn.ModuleDict,
        adversaries: dict[str, Adversary],
        batch_shapes: dict[str, tuple[int, int, int, int]],
        *,
        n_dis: PositiveInt,
        lambda_a: NonNegative,
        lambda_b: NonNegative,
        lambda_identity: NonNegative,
        pool_size: NonNegativeInt,
    ) -> None:
        """`batch_shapes`: (N, C, H, W) of the batches of each side."""
        super().__init__()
        require_one_d_step("cyclegan", n_dis)
        channels = {name: shape[1] for name, shape in batch_shapes.items()}
        if lambda_identity and channels["a"] != channels["b"]:
            raise UserError(
                f"task.lambda_identity={lambda_identity} gives the generator to b images of b, and "
                f"here a has {channels['a']} channels and b has {channels['b']}. Type "
                "task.lambda_identity=0"
            )
        self.G = G
        self.adversaries = nn.ModuleDict(adversaries)
        self.named_adversaries = adversaries  # the same, as a type checker knows them
        self.weights = {"a": lambda_a, "b": lambda_b}
        self.lambda_identity = lambda_identity
        self.named_pools = {name: ImagePool(pool_size, each) for name, each in batch_shapes.items()}
        self.pools = nn.ModuleDict(self.named_pools)
        self.fakes: dict[str, Tensor] = {}  # of the last G step
        self.translate_jointly = not mixes_samples(G)

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        a, b = get_channels(config)
        return {
            "g": {
                "ab": Part("generator", {"in_channels": a, "out_channels": b}),
                "ba": Part("generator", {"in_channels": b, "out_channels": a}),
            },
            "d": {
                "a": Part("discriminator", {"d_in_channels": a}),
                "b": Part("discriminator", {"d_in_channels": b}),
            },
        }

    @classmethod
    def arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        n, side = config["batch_size"], config["dataset"]["resolution"]
        shapes = {
            name: (n, channels, side, side)
            for name, channels in zip("ab", get_channels(config), strict=True)
        }
        return {**super().arguments(config), "batch_shapes": shapes}

    @classmethod
    def draws(
        cls, config: Mapping[str, Any], class_names: Sequence[str] = ()
    ) -> dict[str, GeneratedView]:
        channels = dict(zip("ab", get_channels(config), strict=True))

        def translation(there: str, back: str) -> GeneratedView:
            return GeneratedView(
                lambda G, inputs: get_network(G, there)(inputs.x),
                source=there[0],
                target=there[1],
                back=lambda G, images: get_network(G, back)(images.x),
                in_channels=channels[there[0]],
                network=there,
            )

        return {"b": translation("ab", "ba"), "a": translation("ba", "ab")}

    def player(self, who: str) -> nn.Module:
        if who == "g":
            return self.G
        return nn.ModuleDict({name: each.D for name, each in self.named_adversaries.items()})

    def set_turn(self, who: str, turn: int) -> None:
        for adversary in self.named_adversaries.values():
            adversary.regularizer.set_turn(who, turn)

    def signature(self) -> Hashable:
        return tuple(each.regularizer.signature() for each in self.named_adversaries.values())

    def prepare_turn(self) -> None:
        for adversary in self.named_adversaries.values():
            adversary.prepare_turn()

    def players_with_double_backward(self) -> tuple[str, ...]:
        return self.named_adversaries["a"].players_with_double_backward

    def players_run(self, who: str) -> tuple[str, ...]:
        return ("d",) if who == "d" else ("g", "d")

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        if who == "d":
            return self.discriminators_loss(reals)
        a, b = reals["a"].x, reals["b"].x
        fake, same = self.translate(a, b)
        self.fakes = {name: hold(self.fakes.get(name), each) for name, each in fake.items()}
        cycled = {"a": self.run("ba", fake["b"]), "b": self.run("ab", fake["a"])}
        terms: Terms = {}
        for name, adversary in self.named_adversaries.items():
            loss = adversary.generator_loss(Batch(reals[name].x), {"fake": Batch(fake[name])})
            terms |= name_terms(loss.terms, name)
        for name, x in (("a", a), ("b", b)):
            weight = self.weights[name]
            terms[f"cycle/{name}"] = weight * l1_distance(cycled[name], x)
            if self.lambda_identity:
                terms[f"identity/{name}"] = (
                    self.lambda_identity * weight * l1_distance(same[name], x)
                )
        return PlayerLoss(terms, {})

    def discriminators_loss(self, reals: Views) -> PlayerLoss:
        """Both discriminators, on real images and on generated ones out of the pool."""
        assert self.fakes, "a step begins with G"
        terms: Terms = {}
        diagnostics: Terms = {}
        for name, adversary in self.named_adversaries.items():
            shown = Batch(self.named_pools[name].exchange(self.fakes[name]))
            loss = adversary.discriminator_loss(Batch(reals[name].x), {"fake": shown})
            terms |= name_terms(loss.terms, name)
            diagnostics |= name_terms(loss.diagnostics, name)
        return PlayerLoss(terms, diagnostics)

    def translate(self, a: Tensor, b: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """G(a) and F(b), by the side that they belong to; and the identities F(a) and G(b).

        Without a weight there are no identities.
        """
        if not self.lambda_identity:
            return {"b": self.run("ab", a), "a": self.run("ba", b)}, {}
        if not self.translate_jointly:
            fake = {"b": self.run("ab", a), "a": self.run("ba", b)}
            return fake, {"b": self.run("ab", b), "a": self.run("ba", a)}
        to_b = self.run("ab", torch.cat([a, b])).chunk(2)
        to_a = self.run("ba", torch.cat([b, a])).chunk(2)
        return {"b": to_b[0], "a": to_a[0]}, {"b": to_b[1], "a": to_a[1]}

    def run(self, direction: str, x: Tensor) -> Tensor:
        """One generator's images, in fp32."""
        return at_least_fp32(self.G[direction](x))

    def describe_turns(self) -> list[str]:
        sets = 6 if self.lambda_identity else 4
        calls = 4 if self.translate_jointly else sets
        first = self.named_adversaries["a"]
        identity = (
            f"identity loss with weight {self.lambda_identity} (task.lambda_identity)"
            if self.lambda_identity
            else "no identity loss: colours may change freely (task.lambda_identity=0.5 keeps them)"
        )
        return [
            f"G step of both generators: {calls} G calls for {sets} sets of images",
            f"  and of each discriminator: {first.describe_generator_calls()}",
            identity,
            f"D step of both discriminators, each: {first.describe_calls()}",
        ]


def get_channels(config: Mapping[str, Any]) -> tuple[int, int]:
    """The channels of both sides. Raise UserError if the data set has not two."""
    dataset = config["dataset"]
    if "channels_a" not in dataset:
        raise UserError(
            "task=cyclegan needs two sets of images, and this data set is not two. Type "
            "dataset=domains dataset.root=PATH, or dataset=demo_domains."
        )
    return dataset["channels_a"], dataset["channels_b"]


def get_network(player: nn.Module, name: str) -> nn.Module:
    """A network of a player of several."""
    assert isinstance(player, nn.ModuleDict)
    return player[name]


def name_terms(terms: Terms, name: str) -> Terms:
    """The terms of one of several networks: "adversarial/g" -> "adversarial/g/a"."""
    return {f"{key}/{name}": value for key, value in terms.items()}
