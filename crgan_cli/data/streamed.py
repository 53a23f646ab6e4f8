"""Images that stay in CPU memory or in a file, and are read one batch ahead of their use."""

import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.crop import cut
from crgan_cli.data.images import Images
from crgan_cli.data.pixel_files import StoredPixels
from crgan_cli.gan.types import BatchInputs


class HostImages:
    """Images in CPU memory. The inputs of a batch are copies: (n, C, H, W) uint8 and (n,) int64.

    With a crop, whole stored images are copied, and their offsets; the device cuts them.
    While a batch is used, a thread reads the next one. The thread only touches CPU memory, so it
    does not disturb the capture of a CUDA graph. It ends with this object or with the process.
    Images of a file are read from a map of its own, and blocks of a `BlockShuffle` ahead.
    """

    def __init__(
        self,
        images: Images,
        sampler: BatchSampler,
        *,
        crop: int | None,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._images = images
        self._sampler = sampler
        self._crop = crop
        self._device = device
        self._layout = layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._prefetched: dict[int, Future[Images]] = {}
        self._read_ahead = ReadAhead(images.stored) if images.stored else None
        self._copy_to_device = make_copier(device)

    def inputs(self, index: int) -> BatchInputs:
        positions, *offsets = self._sampler[index]
        prefetched = self._prefetched.pop(index, None)
        batch = (
            prefetched.result()
            if prefetched
            else read_batch(self._images, positions, self._buffer())
        )
        self._prefetch(index + 1)
        return self._copy_to_device((*batch, *offsets))

    def to_batch(self, x: Tensor, y: Tensor, offsets: Tensor | None = None) -> Images:
        if self._crop is not None and offsets is not None:
            x = cut(x, torch.arange(len(x), device=x.device), offsets, self._crop)
        # change the layout on the device, where it is faster than in `read_batch`
        return Images(x.contiguous(memory_format=self._layout), y)

    def _prefetch(self, index: int) -> None:
        if index in self._prefetched:
            return
        for stale in self._prefetched.values():
            stale.cancel()
        (positions, *_), buffer = self._sampler[index], self._buffer()
        if self._read_ahead:
            self._thread.submit(self._read_ahead.ask_for, self._sampler.find_near_blocks(index))
        future = self._thread.submit(read_batch, self._images, positions, buffer)
        self._prefetched = {index: future}

    def _buffer(self) -> Images:
        """Memory for a batch; pinned for a GPU, so that the copy needs no CPU time."""
        n, pin = self._sampler.local_batch_size, self._device.type == "cuda"
        shape = (n, *self._images.x.shape[1:])
        x = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        y = self._images.y
        return Images(x, torch.empty(n, *y.shape[1:], dtype=y.dtype, pin_memory=pin))


class ReadAhead:
    """Asks the operating system to read blocks of a file into its cache: no number depends on it.

    One image of a shuffled window alone is some ten small reads. A block is one large one.
    """

    def __init__(self, stored: StoredPixels) -> None:
        self._stored = stored
        self._asked: set[tuple[int, int]] = set()

    def ask_for(self, blocks: list[tuple[int, int]]) -> None:
        """Ask for what of these blocks, first image and count, was not asked for the last time."""
        new = [block for block in blocks if block not in self._asked]
        self._asked = set(blocks)
        if not new or not hasattr(os, "posix_fadvise"):  # neither macOS nor Windows has it
            return
        size = math.prod(self._stored.shape[1:])
        with self._stored.open() as file:
            for first, count in new:
                advice = os.POSIX_FADV_WILLNEED
                os.posix_fadvise(file.fileno(), first * size, count * size, advice)


def read_batch(images: Images, positions: Tensor, buffer: Images) -> Images:
    """Write the images at `positions` (n,), see BatchSampler, into `buffer` and return it."""
    count = len(images.x)
    mirrored = positions >= count
    indices = positions % count
    x = images.stored.remap() if images.stored else images.x
    torch.index_select(x, 0, indices, out=buffer.x)
    torch.index_select(images.y, 0, indices, out=buffer.y)
    buffer.x[mirrored] = buffer.x[mirrored].flip(3)
    return buffer


def make_copier(device: torch.device) -> Callable[[BatchInputs], BatchInputs]:
    """Return a function that copies a batch to the device; to a GPU, during earlier turns."""
    if device.type != "cuda":
        return lambda parts: tuple(part.to(device) for part in parts)
    copy_stream = torch.cuda.Stream(device)

    def copy(parts: BatchInputs) -> BatchInputs:
        with torch.cuda.stream(copy_stream):
            # torch does not reuse pinned memory before the copy is complete; the few offsets are
            # not pinned, and CUDA takes them over before it returns
            copies = tuple(part.to(device, non_blocking=True) for part in parts)
        compute_stream = torch.cuda.current_stream(device)
        compute_stream.wait_stream(copy_stream)
        for part in copies:
            part.record_stream(compute_stream)
        return copies

    return copy
