"""Batches of real images: endless, seeded, and without state for a checkpoint to keep."""

import numpy as np
import torch
from torch import Tensor

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import UserError
from crgan_cli.types import Batch

RESIDENT_BYTES = 2 * 1024**3
"""Pixels up to this size live on the device; larger sets stay in (memory-mapped) CPU memory."""


class Batches:
    """batches[i] is the i-th batch of an endless shuffled run, so resuming = asking for i.

    Each epoch visits an image at most once: its order depends on (seed, epoch) only, and a last
    partial batch is dropped. Several processes share a run by asking for i * world_size + rank.
    """

    def __init__(
        self, images: Images, *, batch_size: int, seed: int, device: torch.device, flip: bool
    ) -> None:
        if batch_size > len(images.x):
            raise UserError(
                f"A batch of {batch_size} images cannot be drawn from a training set of "
                f"{len(images.x)}: lower the batch size to at most {len(images.x)}, or raise "
                "dataset.fraction."
            )
        self.batch_size = batch_size
        self.batches_per_epoch = len(images.x) // batch_size
        self._seed = seed
        self._device = device
        self._flip = flip
        self._x = images.x.to(device) if images.x.nbytes <= RESIDENT_BYTES else images.x
        self._y = images.y.to(self._x.device)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, index: int) -> Batch:
        """x (N, C, H, W) float32 in [-1, 1] and y (N,) int64, both on the device; index >= 0."""
        if index < 0:
            raise IndexError(f"batches are numbered from 0, and {index} was asked for")
        epoch, batch = divmod(index, self.batches_per_epoch)
        start = batch * self.batch_size
        picked = self._permutation(epoch)[start : start + self.batch_size]
        x = self._to_device(self._x.index_select(0, picked))
        y = self._to_device(self._y.index_select(0, picked))
        return Batch(to_float(self._flipped(x) if self._flip else x), y)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            # SeedSequence mixes the pair, so seed 1 epoch 0 is not seed 0 epoch 1. Drawn on the
            # CPU, once an epoch: a run sees the same batches on every device.
            mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
            order = torch.randperm(len(self._x), generator=generator)
            self._order, self._epoch = order.to(self._x.device), epoch
        return self._order

    def _to_device(self, part: Tensor) -> Tensor:
        if part.device.type == self._device.type:  # resident pixels are there already
            return part
        # the caching pinned allocator waits for the copy before it hands this memory out again
        pinned = part.pin_memory() if self._device.type == "cuda" else part
        return pinned.to(self._device, non_blocking=True)

    def _flipped(self, x: Tensor) -> Tensor:
        mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        return torch.where(mirrored, x.flip(3), x)
