"""Steps of a trainer, and everything that they leave behind."""

import torch
from torch import Tensor

from crgan_cli.training.trainer import Trainer


def run(of: Trainer, steps: int) -> dict[str, Tensor]:
    """Take steps; return copies of everything that has a state: task, optimizers, average."""
    of.begin()
    for _ in range(steps):
        of.train_step()
    found = dict(of.task.state_dict())
    for who, optimizer in of.optimizers.items():
        for number, each in optimizer.state_dict()["state"].items():
            found |= {f"{who}.{number}.{key}": value for key, value in each.items()}
    assert of.ema
    found |= {f"ema.{key}": value for key, value in of.ema.state_dict().items()}
    return {key: value.clone() for key, value in found.items()}


def different(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The names of what is not the same to the last bit."""
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])]


def go_on(first: Trainer, second: Trainer, step: int) -> None:
    """Give the state of `first`, at `step`, to `second`, as a checkpoint does."""
    for name, part in second.stateful_parts().items():
        part.load_state_dict(first.stateful_parts()[name].state_dict())
    second.step = step
