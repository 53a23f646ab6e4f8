"""Batches of real images: endless, seeded, and without state for a checkpoint to keep.

A set that fits lives on the device as bytes, its mirror images behind the images: a batch is then a
list of positions, and a flip is another position. A larger set stays in (memory-mapped) CPU memory,
and a thread reads one batch ahead of the training.
"""

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.images import Images, to_float
from crgan_cli.data.on_device import DeviceImages
from crgan_cli.data.streamed import HostImages
from crgan_cli.errors import UserError
from crgan_cli.gan.types import Batch, BatchInputs
from crgan_cli.system.distributed.world import world

RESIDENT_BYTES = 2 * 1024**3
"""Pixels up to this size live in the memory of a device that is no GPU."""


def fits_in_memory(pixels: int, memory: int | None) -> bool:
    """Whether a set of `pixels` bytes lives on the device: a GPU of `memory` bytes gives a quarter.

    None stands for any other device, which gives RESIDENT_BYTES.
    """
    return pixels <= (RESIDENT_BYTES if memory is None else memory // 4)


def memory_of(device: torch.device) -> int | None:
    """All the memory of a GPU in bytes, None for any other device."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory


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
        require_enough_images(batch_size, len(images.x), world().world_size)
        resident = fits_in_memory(images.x.nbytes * (1 + flip), memory_of(device))
        order = BatchSampler(
            len(images.x),
            batch_size,
            seed=seed,
            flip=flip,
            device=device if resident else torch.device("cpu"),
        )
        self.batch_size = batch_size
        self.batches_per_epoch = order.batches_per_epoch
        self._source: DeviceImages | HostImages
        if resident:
            self._source = DeviceImages(images, order, flip=flip, device=device, layout=layout)
        else:
            self._source = HostImages(images, order, device=device, layout=layout)

    def inputs(self, index: int) -> BatchInputs:
        """What `to_batch` makes the batch `index` >= 0 from.

        The tensors may be views of what is kept here, so they are not to be written to.
        """
        return self._source.inputs(index)

    def to_batch(self, *ticket: Tensor) -> Batch:
        """x (n, C, H, W) float32 in [-1, 1], in `layout`, and y (n,) int64, both on the device.

        Draws nothing and waits for nothing: a CUDA graph can capture it.
        """
        x, y = self._source.to_batch(*ticket)
        return Batch(to_float(x), y)

    def __getitem__(self, index: int) -> Batch:
        """The batch itself."""
        return self.to_batch(*self.inputs(index))


def require_enough_images(batch_size: int, count: int, processes: int) -> None:
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
