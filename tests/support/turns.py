"""Single turns of small games, outside any run."""

import torch
from torch import Tensor

from crgan_cli.data.batches import TrainingImages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import Batch, BatchInputs, Views
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from support.tiny import SIDE

CPU = torch.device("cpu")
ADAM = Adam(
    lr_g=1e-3, lr_d=1e-3, beta1=0.5, beta2=0.999, eps=1e-8, n_dis=1, decay="none"
)  # fmt: skip


def real(n: int = 6, channels: int = 3, side: int = SIDE, classes: int = 0) -> Batch:
    """Noise for images, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, channels, side, side, generator=generator) * 2 - 1
    return Batch(x, torch.arange(n) % classes if classes else None)


class Given(TrainingImages):
    """Batches whose tickets are the images themselves."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def inputs(self, index: int) -> BatchInputs:
        return tuple(part for part in self.batch if part is not None)

    def to_views(self, *inputs: Tensor) -> Views:
        return {"real": Batch(*inputs)}


def prepared(task: Task, engine: Eager, batch: Batch | None = None, ema: EMA | None = None) -> Task:
    """The task on the CPU, and the engine ready for its turns, with new optimizers."""
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    engine.attach(ADAM.build(engine.players), ema)
    engine.begin(Given(batch or real()))
    return task


def played(engine: Eager, who: str, *, measure: bool = False, seed: int = 5) -> dict[str, Tensor]:
    """The numbers of one turn whose random numbers are seeded."""
    torch.manual_seed(seed)
    reading = engine.turn(who, 0, engine.batches.inputs(0), measure=measure)
    return dict(zip(reading.names, reading.values.clone(), strict=True))
