"""Images whose labels are changed: one generator for all domains."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import NonNegative, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.labels import Labels
from crgan_cli.gan.tasks.base import Casting, GeneratedView, Part, l1_distance
from crgan_cli.gan.tasks.stored_values import (
    StoredValues,
    allow_none,
    is_count,
    is_groups_of_names,
    is_names,
)
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.layers import at_least_fp32
from crgan_cli.system import rng
from crgan_cli.system.distributed.tensors import all_gather
from crgan_cli.system.distributed.world import as_single_process, world


class StarGAN(TwoPlayers):
    """Choi et al. 2018 (arXiv:1711.09020) eqs. 1 to 6: G(x, c) gives an image x the labels c.

    L_D = L_adv(D) + lambda_cls * L_cls(real images and their labels)
    L_G = L_adv(G) + lambda_cls * L_cls(G(x, c), c) + lambda_rec * E |x - G(G(x, c), c')|

    c' are the labels of x, and c those of another image of the batch: the rows of c' in a random
    order. |.| is the mean over values. L_cls is `regularizer=classification`; the paper's L_adv is
    loss=wasserstein with regularizer=gp.

    With several data sets (section 3.3) a batch comes from one of them, and c carries the mask
    vector. D's turn and G's turn draw an order each; the authors' code shares one.
    """

    needs = (
        "task=stargan gives images other labels: type architecture=stargan, or task=generation for "
        "images from latents."
    )

    stored_values: ClassVar[StoredValues] = {
        "dataset.channels": is_count,
        "dataset.classes": lambda value: value == 0 or is_count(value),
        "dataset.attributes": allow_none(is_names),
        "dataset.exclusive": allow_none(is_groups_of_names),
        "dataset.parts.*.classes": lambda value: value == 0 or is_count(value),
        "dataset.parts.*.attributes": allow_none(is_names),
        "dataset.parts.*.exclusive": allow_none(is_groups_of_names),
    }

    def __init__(
        self,
        G: nn.Module,
        adversary: Adversary,
        labels: Labels,
        *,
        n_dis: PositiveInt,
        lambda_rec: NonNegative,
    ) -> None:
        super().__init__(G, adversary)
        self.labels = labels
        self.lambda_rec = lambda_rec
        self.turns = ("d",) * n_dis + ("g",)

    @classmethod
    def casting(cls, config: Mapping[str, Any]) -> Casting:
        labels = Labels.from_settings(config["dataset"])
        return {
            "g": {"": Part("generator", {"label_planes": labels.planes})},
            "d": {"": Part("discriminator", {"d_labels": labels.size})},
        }

    @classmethod
    def arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        labels, n_dis = Labels.from_settings(config["dataset"]), config["optimizer"]["n_dis"]
        if math.gcd(n_dis, len(labels.groups)) > 1:
            raise UserError(
                f"optimizer.n_dis={n_dis} D steps on {len(labels.groups)} data sets in turn would "
                "end on the same one each time, and the G step takes the batch of the last D step. "
                f"Type optimizer.n_dis={n_dis + 1}"
            )
        return {**super().arguments(config), "labels": labels}

    @classmethod
    def draws(
        cls, config: Mapping[str, Any], class_names: Sequence[str] = ()
    ) -> dict[str, GeneratedView]:
        labels = Labels.from_settings(config["dataset"], class_names)
        return {
            name: make_translation(labels, {name: True}, config["dataset"])
            for group in labels.groups
            for name in group.names
        }

    @classmethod
    def choose_translation(
        cls, config: Mapping[str, Any], to: str | None, class_names: Sequence[str] = ()
    ) -> GeneratedView:
        """NAME, or several with commas: attributes to switch on, or with - before them off."""
        labels = Labels.from_settings(config["dataset"], class_names)
        known = [name for group in labels.groups for name in group.names]
        changes = read_changes(to or "", known)
        if not changes or not {*changes} <= {*known}:
            wrong = ", ".join(sorted({*changes} - {*known}))
            problem = f"--to {to}: there is no {wrong}" if wrong else "there are several domains"
            raise UserError(f"{problem}. Type --to with one of {', '.join(known)}.")
        groups = [group for group in labels.groups if {*changes} <= {*group.names}]
        if not groups:
            raise UserError(
                f"--to {to}: these labels come from several data sets, and G changes those of one "
                "at a time. Type --to with labels of one of "
                + "; ".join(", ".join(group.names) for group in labels.groups)
            )
        switched_on = [name for name, value in changes.items() if value]
        rivals = [name for name in switched_on if groups[0].rivals(name) & {*switched_on}]
        if rivals:
            raise UserError(
                f"--to {to}: {' and '.join(rivals)} exclude one another. Type --to {rivals[0]}"
            )
        if groups[0].kind == "classes" and not switched_on:
            raise UserError(
                f"--to {to}: an image is always one of {', '.join(groups[0].names)}. Type the "
                "one that it should become."
            )
        return make_translation(labels, changes, config["dataset"])

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        x, y = reals["real"]
        assert y is not None, "Labels.from_settings has refused a data set without labels"
        real = Batch(x, self.labels.encode(y))
        target = shuffle_rows(self.labels.encode(y))
        with torch.set_grad_enabled(who == "g"):  # a D step updates D only
            fake = Batch(at_least_fp32(self.G(x, target)), target)
        if who == "d":
            return self.adversary.discriminator_loss(real, {"fake": fake})
        back = at_least_fp32(self.G(fake.x, real.y))
        loss = self.adversary.generator_loss(real, {"fake": fake})
        reconstruction = {"reconstruction": self.lambda_rec * l1_distance(back, x)}
        return PlayerLoss(loss.terms | reconstruction, loss.diagnostics)

    def describe_turns(self) -> list[str]:
        return [
            f"D step, {self.turns.count('d')} per G step: 1 G call, "
            f"{self.adversary.describe_calls()}",
            f"G step: 2 G calls, there and back; {self.adversary.describe_generator_calls()}",
        ]


def shuffle_rows(y: Tensor) -> Tensor:
    """Return the rows of y (N, planes) in a random order, over the rows of all processes."""
    everyone = all_gather(y).flatten(0, 1) if world().world_size > 1 else y
    with as_single_process():
        order = rng.rand(len(everyone), device=y.device).argsort()
    return rng.local_rows(everyone.index_select(0, order))


def read_changes(to: str, known: Collection[str]) -> dict[str, bool]:
    """Read NAME,+NAME,-NAME: label -> whether it is switched on. Names need not be known."""
    changes, parts = {}, to.split(",")
    while parts:
        name, value, count = read_first_change(parts, known)
        parts = parts[count:]
        if name:
            changes[name] = value
    return changes


def read_first_change(parts: Sequence[str], known: Collection[str]) -> tuple[str, bool, int]:
    """Return the first label, whether it is switched on, and how many parts it takes.

    A known name may have commas in it, or + or - in front.
    """
    for count in range(len(parts), 0, -1):
        word = ",".join(parts[:count]).strip()
        if word in known:
            return word, True, count
        if word[:1] in ("+", "-") and word[1:] in known:
            return word[1:], word[0] == "+", count
    word = parts[0].strip()
    return word.lstrip("+-"), not word.startswith("-"), 1


def make_translation(
    labels: Labels, changes: Mapping[str, bool], dataset: Mapping[str, Any]
) -> GeneratedView:
    """Return the translation that switches labels of one group on or off.

    It is compared with the real images that have those which are switched on, and not the others.
    """
    views = list(dataset.get("parts") or ["real"])
    number = next(i for i, group in enumerate(labels.groups) if {*changes} <= {*group.names})
    view = views[number]
    wanted = {labels.column(name): value for name, value in changes.items()}

    def encode(images: Batch) -> Tensor:
        if images.y is None:  # a file: nothing is known of it
            return images.x.new_zeros(len(images.x), labels.planes)
        return labels.encode(images.y).to(images.x.device)

    def translate(G: nn.Module, images: Batch) -> Tensor:
        return G(images.x, labels.switch(encode(images), changes))

    def back(G: nn.Module, images: Batch) -> Tensor:
        return G(images.x, encode(images))

    return GeneratedView(
        translate,
        source=view,
        target=view,
        choose=partial(has_labels, labels, wanted),
        back=back,
        in_channels=dataset["channels"],
        needs_labels=labels.groups[number].kind == "attributes",
    )


def has_labels(labels: Labels, wanted: Mapping[int, bool], y: Tensor) -> Tensor:
    """(N, ...) labels -> (N,) bool: the rows whose encoded labels have these values by column."""
    encoded = labels.encode(y)
    columns = [encoded[:, column] == float(value) for column, value in wanted.items()]
    return torch.stack(columns).all(0)
