"""The order in which a run sees its images."""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.system.distributed.world import world


class BatchSampler:
    """Positions of the images of each batch: i < count is image i, count + i its mirror image.

    Each epoch visits an image at most once, as it is or mirrored. It is drawn from (seed, epoch)
    only. A last partial batch is dropped. Each process gets an equal part of every batch.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, flip: bool, device: torch.device
    ) -> None:
        self.batches_per_epoch = count // batch_size
        self._count = count
        self._batch_size = batch_size
        self._rank, world_size, _ = world()
        self.local_batch_size = batch_size // world_size
        self._seed = seed
        self._flip = flip
        self._device = device
        self._epoch = -1
        self._positions = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, index: int) -> Tensor:
        """(n,) int64 positions of batch `index` >= 0, on the device. A view: do not write to it."""
        if index < 0:
            raise IndexError(f"batch indices start at 0, got {index}")
        epoch, batch = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            self._positions, self._epoch = self._draw(epoch).to(self._device), epoch
        start = batch * self._batch_size + self._rank * self.local_batch_size
        return self._positions[start : start + self.local_batch_size]

    def _draw(self, epoch: int) -> Tensor:
        # SeedSequence mixes the pair: seed 1, epoch 0 differs from seed 0, epoch 1. Drawn on the
        # CPU, once per epoch: a run sees the same images, flipped alike, on every device.
        mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
        positions = torch.randperm(self._count, generator=generator)
        if not self._flip:
            return positions
        mirrored = torch.randint(0, 2, (self._count,), generator=generator)
        return positions + self._count * mirrored
