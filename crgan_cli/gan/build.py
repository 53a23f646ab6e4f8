"""Build the networks, the prior and the task from a checked configuration."""

from inspect import signature
from typing import NamedTuple, cast

import torch
from omegaconf import DictConfig
from torch import nn

from crgan_cli.config.build import build_from, build_group, import_class, import_classes
from crgan_cli.config.resolve import Settings
from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import Chain
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.tasks.base import Part, Task
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.types import Generator


class Networks(NamedTuple):
    """The players: each a network, or an nn.ModuleDict of several."""

    G: nn.Module
    D: nn.Module


def get_task_class(config: Settings) -> type[Task]:
    """The class of the task."""
    return import_class(config["task"]["_target_"])


def build_networks(config: Settings) -> Networks:
    """G and D as the task casts them, with initial weights drawn from the run's seed.

    Raise UserError if the architecture or the data set is not for this task.
    """
    torch.manual_seed(config["seed"])
    task = get_task_class(config)
    classes, settings = import_classes(config["architecture"])

    def build_player(parts: dict[str, Part]) -> nn.Module:
        networks = {}
        for name, part in parts.items():
            require_fit(classes[part.kind], settings, part, task)
            networks[name] = build_from(classes[part.kind], settings, **part.settings)
        return networks[""] if "" in networks else nn.ModuleDict(networks)

    casting = task.casting(config)
    return Networks(build_player(casting["g"]), build_player(casting["d"]))


def require_fit(network: type, settings: Settings, part: Part, task: type[Task]) -> None:
    """Raise UserError if a network does not take what the task gives, or needs more than that."""
    takes = signature(network).parameters
    refused = [name for name in part.settings if name not in takes]
    given = {*settings, *part.settings}
    missing = [n for n, p in takes.items() if p.default is p.empty and n not in given]
    if refused or missing:
        verb, names = ("does not take", refused) if refused else ("needs", missing)
        raise UserError(
            f"{network.__name__} {verb} {', '.join(names)}: it is not for {task.__name__}. "
            f"{task.needs}"
        )


def build_prior(config: DictConfig, G: nn.Module) -> Prior:
    """p(z), and p(y) if G takes labels."""
    generator = cast(Generator, G)
    return Prior(config.architecture.prior, generator.z_dim, generator.classes)


def build_task(config: DictConfig, networks: Networks) -> Task:
    """The task: its networks, their loss terms, and the order of their turns.

    Raise UserError if T makes no sense for the resolution, or a regularizer none for the task.
    """
    T = Chain(**build_group(config.augment))
    side = min(Sides.read(config.dataset.resolution))
    T.set_full_side(side)
    task = get_task_class(config)
    arguments = task.arguments(config)
    labels = arguments.get("labels")  # of a task that changes them
    casting = task.casting(config)

    def build_adversary(name: str, D: nn.Module) -> Adversary:
        regularizer = CombinedRegularizer(**build_group(config.regularizer, labels=labels))
        T_both = Chain(**build_group(config.augment_both))  # with a state of its own for each D
        T_both.set_full_side(side)
        seen = casting["d"][name].settings.get("d_in_channels", config.dataset.channels)
        assert isinstance(seen, int)
        for each in (T, T_both):
            each.require_channels(seen)
        adversary = Adversary(D, build_group(config.loss), regularizer, T, T_both)
        adversary.require_roles(task.roles, latents=task.has_latents, task=task.__name__)
        adversary.require_classes(latents=task.has_latents)
        return adversary

    D = networks.D
    return build_group(
        config.task,
        G=networks.G,
        **(
            {"adversaries": {name: build_adversary(name, each) for name, each in D.items()}}
            if isinstance(D, nn.ModuleDict)
            else {"adversary": build_adversary("", D)}
        ),
        **({"prior": build_prior(config, networks.G)} if task.has_latents else {}),
        **arguments,
    )
