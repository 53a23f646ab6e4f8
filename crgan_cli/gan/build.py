"""From a checked configuration to the networks, the prior and the task."""

from typing import NamedTuple, cast

import torch
from omegaconf import DictConfig
from torch import nn

from crgan_cli.config.build import build_group
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import Chain
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.types import Generator


class Networks(NamedTuple):
    """The two networks."""

    G: nn.Module
    D: nn.Module


def build_networks(config: DictConfig) -> Networks:
    """G and D, with the initial weights that the run's seed gives."""
    torch.manual_seed(config.seed)
    built = build_group(config.architecture)
    return Networks(built["generator"], built["discriminator"])


def build_prior(config: DictConfig, G: nn.Module) -> Prior:
    """p(z), and p(y) where G takes labels."""
    generator = cast(Generator, G)
    return Prior(config.architecture.prior, generator.z_dim, generator.classes)


def build_task(config: DictConfig, players: Networks) -> Task:
    """The game: the players, what they play for, and in what order."""
    T = Chain(**build_group(config.augment))
    T.require(config.dataset.resolution)
    regularizer = CombinedRegularizer(**build_group(config.regularizer))
    adversary = Adversary(players.D, build_group(config.loss), regularizer, T)
    return build_group(
        config.task,
        G=players.G,
        adversary=adversary,
        prior=build_prior(config, players.G),
        n_dis=config.optimizer.n_dis,
    )
