"""The order in which a run sees its images."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crgan_cli.data.samplers import SHUFFLE, ImageSampler, draw_order
from crgan_cli.gan.types import BatchInputs
from crgan_cli.system.distributed.world import world


class BlockShuffle(NamedTuple):
    """An order that reads a large file nearly in sequence.

    The set is cut into blocks of `block` consecutive images; the last one may be shorter. An epoch
    takes the blocks in random order, and shuffles the images of every `window` blocks among
    themselves. So each image is drawn once, images of one block stay within block * window places
    of each other, and what comes next is known, block by block. A window of all blocks is an
    ordinary shuffle. The images of a block should have nothing in common.
    """

    block: int  # images
    window: int  # blocks

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the order of `size` images, (size,) int64, and that of the blocks."""
        firsts = torch.arange(0, size, self.block)
        firsts = firsts[torch.randperm(len(firsts), generator=generator)]
        places = torch.arange(self.block)
        windows = []
        for part in firsts.split(self.window):
            images = (part[:, None] + places).flatten()
            images = images[images < size]  # of a last block that is shorter
            windows.append(images[torch.randperm(len(images), generator=generator)])
        return torch.cat(windows), firsts


class BatchSampler:
    """Positions of the images of each batch: i < count is image i, count + i its mirror image.

    `labels` (count, ...) are those of the images. The order of an epoch, in which an image is as it
    is or mirrored, is drawn from (seed, epoch) only: by the `sampler` or, with `blocks`, by a
    `BlockShuffle`. A last partial batch is dropped. Each process gets an equal part of every batch.

    With several `parts`, consecutive images, batch i comes from part i mod parts, each in an order
    and epochs of its own, drawn from its own labels. `stream` tells sets apart whose batches are
    drawn side by side: their orders have nothing to do with each other.

    `slack` is how many pixels the images are higher and wider than the squares that are cut out of
    them; None: they are used whole. Each image of an epoch then has an offset of its own.
    """

    def __init__(
        self,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int,
        flip: bool,
        device: torch.device,
        slack: tuple[int, int] | None = None,
        parts: Sequence[int] = (),
        stream: int = 0,
        sampler: ImageSampler = SHUFFLE,
        blocks: BlockShuffle | None = None,
    ) -> None:
        sizes = tuple(parts) or (len(labels),)
        firsts = list(accumulate(sizes, initial=0))[:-1]
        self._parts = [
            Stretch(first, size, size // batch_size, stream + number)
            for number, (first, size) in enumerate(zip(firsts, sizes, strict=True))
        ]
        self._labels = labels
        self._batch_size = batch_size
        self._rank, world_size, _ = world()
        self.local_batch_size = batch_size // world_size
        self._seed = seed
        self._flip = flip
        self._slack = slack
        self._device = device
        self._sampler = sampler
        self._blocks = blocks
        self._orders: list[Tensor | None] = [None] * len(self._parts)  # of the blocks
        self._epochs = [-1] * len(self._parts)
        self._drawn: list[BatchInputs] = [()] * len(self._parts)

    def __getitem__(self, index: int) -> BatchInputs:
        """Batch `index` >= 0: positions (n,) and, with a slack, offsets (n, 2): top and left.

        int64, on the device. Views: do not write to them.
        """
        if index < 0:
            raise IndexError(f"batch indices start at 0, got {index}")
        number, start = self._locate(index)
        start += self._rank * self.local_batch_size
        end = start + self.local_batch_size
        return tuple(each[start:end] for each in self._drawn[number])

    def find_near_blocks(self, index: int) -> list[tuple[int, int]]:
        """Return the blocks from the window of batch `index` to one window after the batch, in the
        order of their use: the first image and the number of images of each. Empty without blocks.
        """
        number, start = self._locate(index)
        part, order = self._parts[number], self._orders[number]
        if self._blocks is None or order is None:
            return []
        size, window = self._blocks
        first = start // size // window * window
        end = -(-(start + self._batch_size) // size) + window
        return [
            (part.first + each, min(size, part.size - each)) for each in order[first:end].tolist()
        ]

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the part of a batch, whose epoch is then drawn, and where the batch begins."""
        turn, number = divmod(index, len(self._parts))
        part = self._parts[number]
        epoch, batch = divmod(turn, part.batches_per_epoch)
        if epoch != self._epochs[number]:
            drawn, self._orders[number] = self._draw(part, epoch)
            self._drawn[number] = tuple(each.to(self._device) for each in drawn)
            self._epochs[number] = epoch
        return number, batch * self._batch_size

    def _draw(self, part: "Stretch", epoch: int) -> tuple[BatchInputs, Tensor | None]:
        # SeedSequence mixes the numbers: seed 1, epoch 0 differs from seed 0, epoch 1. Drawn on the
        # CPU, once per epoch: a run sees the same images, flipped alike, on every device.
        entropy = [self._seed, epoch, *([part.stream] if part.stream else [])]
        mixed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)

        def draw_below(end: int) -> Tensor:
            return torch.randint(0, end, (part.size,), generator=generator)

        if self._blocks is None:
            labels = self._labels[part.first : part.first + part.size]
            order, blocks = draw_order(self._sampler, labels, generator), None
        else:
            order, blocks = self._blocks.draw(part.size, generator)
        positions = part.first + order
        if self._flip:
            positions += len(self._labels) * draw_below(2)
        if self._slack is None:
            return (positions,), blocks
        # last, so that the order and the flips are those of a run without crops
        offsets = [draw_below(slack + 1) for slack in self._slack]
        return (positions, torch.stack(offsets, 1)), blocks


class Stretch(NamedTuple):
    """Consecutive images that share batches, and what their order is drawn from."""

    first: int
    size: int
    batches_per_epoch: int  # a last partial batch is dropped
    stream: int
