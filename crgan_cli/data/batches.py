"""Batches of real images: endless, seeded, and without state for a checkpoint to keep.

A set that fits lives on the device as bytes, its mirror images behind the images: a batch is then a
list of positions, and a flip is another position. A larger set stays in (memory-mapped) CPU memory,
and a thread reads one batch ahead of the training.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import UserError
from crgan_cli.gan.types import Batch, Ticket
from crgan_cli.system.processes import world

RESIDENT_BYTES = 2 * 1024**3
"""Pixels up to this size live in the memory of a device that is no GPU."""

CHUNK = 4096  # images on their way to the device: bounds the memory that the move takes


def fits(pixels: int, memory: int | None) -> bool:
    """Whether a set of `pixels` bytes lives on the device: a GPU of `memory` bytes gives a quarter.

    None stands for any other device, which gives RESIDENT_BYTES.
    """
    return pixels <= (RESIDENT_BYTES if memory is None else memory // 4)


def memory_of(device: torch.device) -> int | None:
    """All the memory of a GPU in bytes, None for any other device."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory


class Order:
    """Which images a batch holds. Position i < count is image i, and count + i its mirror image.

    Each epoch visits an image at most once, as itself or mirrored, by a draw from (seed, epoch)
    only; a last partial batch is dropped. Of several processes, each gets its part of a batch.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, flip: bool, device: torch.device
    ) -> None:
        self.batches_per_epoch = count // batch_size
        self._count = count
        self._batch_size = batch_size
        self._rank, size, _ = world()
        self.share = batch_size // size
        self._seed = seed
        self._flip = flip
        self._device = device
        self._epoch = -1
        self._positions = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, index: int) -> Tensor:
        """(n,) int64 positions of batch `index` >= 0, on the device; a view, so leave them be."""
        if index < 0:
            raise IndexError(f"batches are numbered from 0, and {index} was asked for")
        epoch, batch = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            self._positions, self._epoch = self._draw(epoch).to(self._device), epoch
        start = batch * self._batch_size + self._rank * self.share
        return self._positions[start : start + self.share]

    def _draw(self, epoch: int) -> Tensor:
        # SeedSequence mixes the pair, so seed 1 epoch 0 is not seed 0 epoch 1. Drawn on the CPU,
        # once an epoch: a run sees the same images, flipped alike, on every device.
        mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
        positions = torch.randperm(self._count, generator=generator)
        if not self._flip:
            return positions
        mirrored = torch.randint(0, 2, (self._count,), generator=generator)
        return positions + self._count * mirrored


class Resident:
    """Images that live on the device. A ticket is the positions of a batch: (n,) int64."""

    def __init__(
        self,
        images: Images,
        order: Order,
        *,
        flip: bool,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._order = order
        self._shape = (-1, *images.x.shape[1:])
        self._last = layout == torch.channels_last
        self._x = rows(images.x, flip=flip, device=device, channels_last=self._last)
        self._y = images.y.to(device).repeat(1 + flip)

    def ticket(self, index: int) -> Ticket:
        return (self._order[index],)

    def open(self, *ticket: Tensor) -> Images:
        (positions,) = ticket
        x = self._x.index_select(0, positions)
        return Images(unflatten(x, self._shape, self._last), self._y.index_select(0, positions))


def rows(x: Tensor, *, flip: bool, device: torch.device, channels_last: bool) -> Tensor:
    """(N, C, H, W) -> a row an image on the device, and with `flip` their mirror images after them.

    In rows a selection is one copy of memory, whatever the order of the pixels in them.
    """
    n = len(x)
    kept = torch.empty(n * (1 + flip), x[0].numel(), dtype=x.dtype, device=device)
    pixels = unflatten(kept, (-1, *x.shape[1:]), channels_last)
    for start in range(0, n, CHUNK):
        part = x[start : start + CHUNK].to(device)
        pixels[start : start + len(part)] = part
        if flip:
            pixels[n + start : n + start + len(part)] = part.flip(3)
    return kept


def unflatten(x: Tensor, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """(N, C * H * W) -> (N, C, H, W), a view of rows in either order of pixels."""
    if not channels_last:
        return x.view(shape)
    n, c, h, w = shape
    return x.view(n, h, w, c).permute(0, 3, 1, 2)


class Streamed:
    """Images that stay in CPU memory. A ticket is a copy: (n, C, H, W) uint8 and (n,) int64.

    While a batch is trained on, a thread reads the next one. It works on CPU memory alone, which a
    capture of CUDA graphs does not mind, and ends with the process or with this object.
    """

    def __init__(
        self, images: Images, order: Order, *, device: torch.device, layout: torch.memory_format
    ) -> None:
        self._images = images
        self._order = order
        self._device = device
        self._layout = layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: dict[int, Future[Images]] = {}
        self._to_device = courier(device)

    def ticket(self, index: int) -> Ticket:
        coming = self._coming.pop(index, None)
        found = coming.result() if coming else read(self._images, self._order[index], self._room())
        self._look_ahead(index + 1)
        return self._to_device(found)

    def open(self, *ticket: Tensor) -> Images:
        x, y = ticket
        return Images(x.contiguous(memory_format=self._layout), y)  # faster there than in `read`

    def _look_ahead(self, index: int) -> None:
        if index in self._coming:
            return
        for stale in self._coming.values():
            stale.cancel()
        positions, room = self._order[index], self._room()
        self._coming = {index: self._thread.submit(read, self._images, positions, room)}

    def _room(self) -> Images:
        """Memory for a batch; page-locked where a GPU is to copy from it without the CPU."""
        n, pin = self._order.share, self._device.type == "cuda"
        shape = (n, *self._images.x.shape[1:])
        x = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        return Images(x, torch.empty(n, dtype=torch.int64, pin_memory=pin))


def read(images: Images, positions: Tensor, room: Images) -> Images:
    """The images at `positions` (n,), mirrored where these say so, written into `room`."""
    count = len(images.x)
    mirrored = positions >= count
    picked = positions % count
    torch.index_select(images.x, 0, picked, out=room.x)
    torch.index_select(images.y, 0, picked, out=room.y)
    room.x[mirrored] = room.x[mirrored].flip(3)
    return room


def courier(device: torch.device) -> Callable[[Images], Ticket]:
    """What copies a batch to the device; to a GPU, while that is still busy with earlier turns."""
    if device.type != "cuda":
        return lambda images: tuple(part.to(device) for part in images)
    aside = torch.cuda.Stream(device)

    def carry(images: Images) -> Ticket:
        with torch.cuda.stream(aside):
            # page-locked memory is not handed out again before the copy is over
            there = tuple(part.to(device, non_blocking=True) for part in images)
        turns = torch.cuda.current_stream(device)
        turns.wait_stream(aside)
        for part in there:
            part.record_stream(turns)
        return there

    return carry


class Batches:
    """batches[i] is the i-th batch of an endless shuffled run, so resuming = asking for i.

    It depends on (seed, i) only: on no device, on nothing asked before. With several processes,
    `batch_size` is of all together, and each gets a part as large as the others'.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        flip: bool,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        check(batch_size, len(images.x), world().size)
        resident = fits(images.x.nbytes * (1 + flip), memory_of(device))
        order = Order(
            len(images.x),
            batch_size,
            seed=seed,
            flip=flip,
            device=device if resident else torch.device("cpu"),
        )
        self.batch_size = batch_size
        self.batches_per_epoch = order.batches_per_epoch
        self._source: Resident | Streamed
        if resident:
            self._source = Resident(images, order, flip=flip, device=device, layout=layout)
        else:
            self._source = Streamed(images, order, device=device, layout=layout)

    def ticket(self, index: int) -> Ticket:
        """What `open` makes the batch `index` >= 0 from.

        The tensors may be views of what is kept here, so they are not to be written to.
        """
        return self._source.ticket(index)

    def open(self, *ticket: Tensor) -> Batch:
        """x (n, C, H, W) float32 in [-1, 1], in `layout`, and y (n,) int64, both on the device.

        Draws nothing and waits for nothing: a CUDA graph can capture it.
        """
        x, y = self._source.open(*ticket)
        return Batch(to_float(x), y)

    def __getitem__(self, index: int) -> Batch:
        """The batch itself."""
        return self.open(*self.ticket(index))


def check(batch_size: int, count: int, processes: int) -> None:
    """Raises UserError where `count` images give no such batch, or processes no equal parts."""
    if batch_size > count:
        raise UserError(
            f"A batch of {batch_size} images cannot be drawn from a training set of {count}: "
            f"lower the batch size to at most {count}, or raise dataset.fraction."
        )
    if batch_size % processes:
        nearest = max(1, round(batch_size / processes)) * processes
        raise UserError(
            f"batch_size={batch_size} is of all processes together, and {processes} of them cannot "
            f"take equal parts of it. Give a multiple of {processes}, as in batch_size={nearest}, "
            "or start another number of processes."
        )
