"""Images that are read from memory or a file, ahead of their use."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.images import Images
from crgan_cli.gan.types import BatchInputs

CHUNK = 4096  # images on their way to the device: bounds the memory that the move takes


class HostImages:
    """Images that stay in CPU memory. A ticket is a copy: (n, C, H, W) uint8 and (n,) int64.

    While a batch is trained on, a thread reads the next one. It works on CPU memory alone, which a
    capture of CUDA graphs does not mind, and ends with the process or with this object.
    """

    def __init__(
        self,
        images: Images,
        order: BatchSampler,
        *,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._images = images
        self._order = order
        self._device = device
        self._layout = layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: dict[int, Future[Images]] = {}
        self._to_device = make_copier(device)

    def inputs(self, index: int) -> BatchInputs:
        coming = self._coming.pop(index, None)
        found = (
            coming.result()
            if coming
            else read_batch(self._images, self._order[index], self._buffer())
        )
        self._prefetch(index + 1)
        return self._to_device(found)

    def to_batch(self, *ticket: Tensor) -> Images:
        x, y = ticket
        return Images(
            x.contiguous(memory_format=self._layout), y
        )  # faster there than in `read_batch`

    def _prefetch(self, index: int) -> None:
        if index in self._coming:
            return
        for stale in self._coming.values():
            stale.cancel()
        positions, room = self._order[index], self._buffer()
        self._coming = {index: self._thread.submit(read_batch, self._images, positions, room)}

    def _buffer(self) -> Images:
        """Memory for a batch; page-locked where a GPU is to copy from it without the CPU."""
        n, pin = self._order.share, self._device.type == "cuda"
        shape = (n, *self._images.x.shape[1:])
        x = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        return Images(x, torch.empty(n, dtype=torch.int64, pin_memory=pin))


def read_batch(images: Images, positions: Tensor, room: Images) -> Images:
    """The images at `positions` (n,), mirrored where these say so, written into `room`."""
    count = len(images.x)
    mirrored = positions >= count
    picked = positions % count
    torch.index_select(images.x, 0, picked, out=room.x)
    torch.index_select(images.y, 0, picked, out=room.y)
    room.x[mirrored] = room.x[mirrored].flip(3)
    return room


def make_copier(device: torch.device) -> Callable[[Images], BatchInputs]:
    """What copies a batch to the device; to a GPU, while that is still busy with earlier turns."""
    if device.type != "cuda":
        return lambda images: tuple(part.to(device) for part in images)
    aside = torch.cuda.Stream(device)

    def carry(images: Images) -> BatchInputs:
        with torch.cuda.stream(aside):
            # page-locked memory is not handed out again before the copy is over
            there = tuple(part.to(device, non_blocking=True) for part in images)
        turns = torch.cuda.current_stream(device)
        turns.wait_stream(aside)
        for part in there:
            part.record_stream(turns)
        return there

    return carry
