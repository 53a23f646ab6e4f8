"""Build the networks, the prior and the task from a checked configuration."""

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
    """Generator and discriminator."""

    G: nn.Module
    D: nn.Module


def build_networks(config: DictConfig) -> Networks:
    """G and D, with initial weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    built = build_group(config.architecture)
    return Networks(built["generator"], built["discriminator"])


def build_prior(config: DictConfig, G: nn.Module) -> Prior:
    """p(z), and p(y) if G takes labels."""
    generator = cast(Generator, G)
    return Prior(config.architecture.prior, generator.z_dim, generator.classes)


def build_task(config: DictConfig, networks: Networks) -> Task:
    """The task: both networks, their loss terms, and the order of their turns.

    Raise UserError if T makes no sense for the resolution.
    """
    T = Chain(**build_group(config.augment))
    T.require_size(config.dataset.resolution)
    regularizer = CombinedRegularizer(**build_group(config.regularizer))
    adversary = Adversary(networks.D, build_group(config.loss), regularizer, T)
    return build_group(
        config.task,
        G=networks.G,
        adversary=adversary,
        prior=build_prior(config, networks.G),
        n_dis=config.optimizer.n_dis,
    )
