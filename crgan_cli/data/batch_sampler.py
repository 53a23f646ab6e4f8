"""The order in which a run sees its images."""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.gan.types import BatchInputs
from crgan_cli.system.distributed.world import world


class BatchSampler:
    """Positions of the images of each batch: i < count is image i, count + i its mirror image.

    Each epoch visits an image at most once, as it is or mirrored. It is drawn from (seed, epoch)
    only. A last partial batch is dropped. Each process gets an equal part of every batch.

    `slack` is how many pixels the images are higher and wider than the squares that are cut out of
    them; None: they are used whole. Each image of an epoch then has an offset of its own.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        flip: bool,
        device: torch.device,
        slack: tuple[int, int] | None = None,
    ) -> None:
        self.batches_per_epoch = count // batch_size
        self._count = count
        self._batch_size = batch_size
        self._rank, world_size, _ = world()
        self.local_batch_size = batch_size // world_size
        self._seed = seed
        self._flip = flip
        self._slack = slack
        self._device = device
        self._epoch = -1
        self._drawn: BatchInputs = ()

    def __getitem__(self, index: int) -> BatchInputs:
        """Batch `index` >= 0: positions (n,) and, with a slack, offsets (n, 2): top and left.

        int64, on the device. Views: do not write to them.
        """
        if index < 0:
            raise IndexError(f"batch indices start at 0, got {index}")
        epoch, batch = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            self._drawn = tuple(part.to(self._device) for part in self._draw(epoch))
            self._epoch = epoch
        start = batch * self._batch_size + self._rank * self.local_batch_size
        return tuple(part[start : start + self.local_batch_size] for part in self._drawn)

    def _draw(self, epoch: int) -> BatchInputs:
        # SeedSequence mixes the pair: seed 1, epoch 0 differs from seed 0, epoch 1. Drawn on the
        # CPU, once per epoch: a run sees the same images, flipped alike, on every device.
        mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
        positions = torch.randperm(self._count, generator=generator)
        if self._flip:
            positions += self._count * self._draw_below(2, generator)
        if self._slack is None:
            return (positions,)
        # last, so that the order and the flips are those of a run without crops
        offsets = [self._draw_below(slack + 1, generator) for slack in self._slack]
        return positions, torch.stack(offsets, 1)

    def _draw_below(self, end: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, end, (self._count,), generator=generator)
