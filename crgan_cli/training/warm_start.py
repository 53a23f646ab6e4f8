"""Start a run from the networks of another one: other images, another method, other classes."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from crgan_cli.config.settings import Run
from crgan_cli.config.sides import Sides
from crgan_cli.config.stored import read_stored
from crgan_cli.errors import UserError
from crgan_cli.evaluation.load import find_checkpoint
from crgan_cli.gan.tasks.base import Task
from crgan_cli.networks.growth import Growth
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.training.ema import EMA

log = logging.getLogger(__name__)
SHOWN = 5
"""Tensors that are named if they do not fit; the others are counted."""


class WarmStart:
    """The networks of the checkpoint `init_from`.

    A tensor is taken if this run has one of the same name and shape, weights and batch statistics
    alike; all others keep their new values, and are named. Optimizers, step and regularizer start
    anew.
    """

    def __init__(self, init_from: str) -> None:
        """Read the checkpoint. Raises UserError if there is none."""
        try:
            self.source: LoadedCheckpoint = find_checkpoint(Path(init_from))
        except UserError as error:
            raise UserError(f"init_from={init_from}: {error}") from None
        self.step = self.source.content["step"]
        self.taken: set[str] = set()  # names in the state of the task

    @classmethod
    def from_settings(cls, settings: Run) -> Self | None:
        """Read `init_from`. Raise UserError if it, or what goes with it, cannot be used."""
        if settings.init_from is not None:
            return cls(settings.init_from)
        if settings.freeze_d:
            raise UserError(
                f"freeze_d={settings.freeze_d} keeps layers as another run trained them: give "
                "init_from=RUN or a checkpoint with it."
            )
        return None

    def describe(self) -> str:
        """Return what tells this checkpoint from others, for the provenance."""
        return f"{self.source.path}, step {self.step}, SHA-256 {self.source.sha256}"

    def take_networks(self, task: Task) -> None:
        """Give the players what fits. Raises UserError if nothing of a network does."""
        theirs = self.source.content["states"]["task"]
        states = {
            name: {f"{name}.{key}": value for key, value in network.state_dict().items()}
            for name, network in named_networks(task)
        }
        for name, mine in states.items():
            if not any(mine[key].dim() > 1 for key in find_fitting(mine, theirs)):
                there = read_stored(self.source.content["config"], str(self.source.path))
                raise UserError(
                    f"init_from={self.source.path} has nothing that fits {name} of this run: it "
                    f"was trained with {describe_networks(there)}. Use its architecture, "
                    "resolution and task, or leave init_from out."
                )
        for name, mine in states.items():
            self.taken.update(copy_fitting(name, mine, theirs))

    def take_average(self, ema: EMA | None) -> None:
        """Give the average of G what fits of theirs; without one it begins as G itself."""
        theirs = self.source.content["states"].get("ema")
        if theirs is not None and ema is not None:
            copy_fitting("the average of G", ema.state_dict(), theirs)
        elif theirs is not None:
            log.info("init_from: its average of G is not taken: ema.decay=null keeps none")


def named_networks(task: Task) -> Iterator[tuple[str, nn.Module]]:
    """The networks of all players, with their names in the state of the task."""
    names = {id(module): name for name, module in task.named_modules()}
    for who in dict.fromkeys(task.turns):
        for network in task.networks(who):
            yield names[id(network)], network


def find_fitting(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that both have, of one shape."""
    return [key for key, x in mine.items() if key in theirs and theirs[key].shape == x.shape]


@torch.no_grad()
def copy_fitting(name: str, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Copy what fits, log how much that is and what is left, and return the names that fit."""
    fitting = find_fitting(mine, theirs)
    for key in fitting:
        mine[key].copy_(theirs[key])
    log.info("init_from: %s has %d of its %d tensors from there", name, len(fitting), len(mine))
    left = [key for key in mine if key not in set(fitting)]
    for key in left[:SHOWN]:
        there = f"{tuple(theirs[key].shape)} there" if key in theirs else "not there"
        log.info("  new: %s %s, %s", key, tuple(mine[key].shape), there)
    if len(left) > SHOWN:
        log.info("  new: %d more", len(left) - SHOWN)
    return fitting


def describe_networks(config: Mapping) -> str:
    """Return the classes of a stored configuration's networks, and the size of its images."""
    targets = config["architecture"]["_target_"]
    names = {path.rpartition(".")[2] for path in dict(targets).values()}
    sides = Sides.read(config["architecture"]["resolution"])
    return f"{' and '.join(sorted(names))} at {sides} pixels"


def freeze_layers(task: Task, count: int, warm: WarmStart | None) -> None:
    """Keep the first `count` layers of each D as they are (FreezeD, Mo et al. 2020,
    arXiv:2002.10964). A layer is what has a weight of two or more axes, with its bias.

    Raises UserError if no layer would be left to learn, if one of them was not taken (None: the
    run is resumed), or if the first layers are not those that see the image.
    """
    for name, network in named_networks(task):
        if not count or network not in task.networks("d"):
            continue
        layers = [module for module in network.modules() if has_weight(module)]
        if count >= len(layers):
            raise UserError(
                f"freeze_d={count} leaves nothing to learn: {name} has {len(layers)} layers with "
                f"weights. Type at most freeze_d={len(layers) - 1}."
            )
        if any(isinstance(module, Growth) for module in network.modules()):
            raise UserError(
                f"freeze_d={count}: a network that grows has first layers of its own at each "
                "resolution. Leave freeze_d out."
            )
        frozen = {id(each) for layer in layers[:count] for each in layer.parameters()}
        names = [f"{name}.{key}" for key, each in network.named_parameters() if id(each) in frozen]
        if warm and (new := [key for key in names if key not in warm.taken]):
            raise UserError(
                f"freeze_d={count} keeps layers as init_from has them, and {new[0]} is not there "
                "in this shape. Use its architecture and width, or leave freeze_d out."
            )
        for layer in layers[:count]:
            layer.requires_grad_(False)
        log.info("freeze_d: %d of the %d layers of %s stay as they are", count, len(layers), name)


def has_weight(module: nn.Module) -> bool:
    """Whether a module is a layer: a convolution, a linear layer or an embedding."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1
