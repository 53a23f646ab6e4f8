"""Gradient accumulation: a turn's batch in equal parts, one after the other.

The loss is a mean over the images, so its gradient is the mean of those of the parts: only the
order of the sums differs. Random numbers are those of the whole batch (`rng.each_part`).
"""

import logging

from torch import nn

from crgan_cli.errors import UserError
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Batch, Views

log = logging.getLogger(__name__)


def cut_views(views: Views, parts: int) -> list[Views]:
    """Return the parts of all views: consecutive images."""
    if parts == 1:
        return [views]
    cut = [{} for _ in range(parts)]
    for name, (x, y) in views.items():
        size = len(x) // parts
        for number, part in enumerate(cut):
            rows = slice(number * size, (number + 1) * size)
            part[name] = Batch(x[rows], None if y is None else y[rows])
    return cut


def observes(T: Augment) -> bool:
    """Whether it changes with D's scores."""
    return type(T).observe is not Augment.observe


def require_parts(task: Task, parts: int, batch_sizes: list[int], ranks: int) -> None:
    """Raise UserError unless a turn in parts is a turn with the whole batch.

    Batch norm is allowed, and logged: its statistics are then those of each part.
    """
    if parts == 1:
        return
    typed = f"accumulate={parts}"
    for size in batch_sizes:
        if size % (parts * ranks):
            raise UserError(
                f"{typed} cuts the batch of each process into {parts} equal parts, and "
                f"batch_size={size} of {ranks} process{'es'[: 2 * (ranks > 1)]} cannot be. Give a "
                f"multiple of {parts * ranks}."
            )
    if not task.accumulates or not isinstance(task, TwoPlayers):
        raise UserError(
            f"{typed}: task={type(task).__name__.lower()} keeps images from turn to turn and "
            "cannot cut its batches. Type accumulate=1, and a smaller batch_size."
        )
    for name, part in task.adversary.regularizer.named_members.items():
        if part.mixes_samples:
            raise UserError(
                f"{typed}: regularizer={name} compares images of a batch, so its parts would be "
                "another loss. Type accumulate=1, or another regularizer."
            )
    changing = [each for each in task.adversary.T_both.members.values() if observes(each)]
    if changing:
        raise UserError(
            f"{typed}: {type(changing[0]).__name__} changes with D's mean score of a batch, and "
            "would with that of each part. Type accumulate=1, or augment_both=none."
        )
    norms = 0
    for who in dict.fromkeys(task.turns):
        for network in task.networks(who):
            if any(getattr(layer, "mixes_samples", False) for layer in network.modules()):
                raise UserError(
                    f"{typed}: {type(network).__name__} has a layer that compares the images of a "
                    "batch (minibatch standard deviation), so its parts would be another network. "
                    "Type accumulate=1, or another architecture."
                )
            norms += sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    if norms:
        size = batch_sizes[-1] // parts
        log.warning(
            "%s: the %d layers of batch norm take the statistics of %d images, a part, and not of "
            "the %d of a batch",
            *(typed, norms, size, batch_sizes[-1]),
        )
