"""Batches of real images: endless, seeded, and without state in the checkpoint.

A data set that fits is kept on the device as uint8, followed by its mirror images: a batch is a
list of positions, and a flip is another position. For a CPU it is there already, and not copied. A
larger one stays in (memory-mapped) CPU memory, and a thread reads one batch ahead. Random crops are
offsets beside the positions; the device cuts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler, BlockShuffle
from crgan_cli.data.images import Images, to_float
from crgan_cli.data.on_device import DeviceImages, SharedImages
from crgan_cli.data.samplers import SHUFFLE, ImageSampler
from crgan_cli.data.streamed import HostImages
from crgan_cli.errors import UserError
from crgan_cli.gan.types import Batch, BatchInputs, Views
from crgan_cli.system.distributed.world import world

MAX_BYTES_WITHOUT_GPU = 2 * 1024**3
"""Data sets up to this size are kept on a device that is no GPU, if no setting says else."""


def get_image_limit(device: torch.device, gib: float | None) -> int:
    """Return how many bytes of images a device keeps: `gib`, or what `choose_limit` says.

    Raises UserError for more than a GPU has.
    """
    on_gpu = device.type == "cuda"
    return choose_limit(
        torch.cuda.get_device_properties(device).total_memory if on_gpu else None, gib
    )


def choose_limit(memory: int | None, gib: float | None) -> int:
    """Return `gib` in bytes, or a quarter of a GPU's `memory`, or MAX_BYTES_WITHOUT_GPU.

    `memory` is None for other devices. Raises UserError for more than a GPU's.
    """
    if gib is None:
        return MAX_BYTES_WITHOUT_GPU if memory is None else memory // 4
    if memory is not None and gib * 1024**3 > memory:
        raise UserError(
            f"engine.images_gib={gib:g} is more than the {memory / 1024**3:.1f} GiB of this GPU, "
            "which the networks need too. Leave it out: a quarter of them is the default."
        )
    return int(gib * 1024**3)


class TrainingImages(ABC):
    """Where a run's real images come from, a batch at a time."""

    batch_size: int
    """Images of each set, of all processes."""

    @abstractmethod
    def inputs(self, index: int) -> BatchInputs:
        """Return what `to_views` needs for batch `index` >= 0.

        The tensors may be views of internal state: do not write to them.
        """

    @abstractmethod
    def to_views(self, *inputs: Tensor) -> Views:
        """Return the real images of a turn by view, on the device.

        No random numbers and no synchronisation: a CUDA graph can capture it.
        """


class Batches(TrainingImages):
    """batches[i] is batch i of an endless sequence. To resume, ask for i.

    It depends on (seed, i) only: not on the device, nor on earlier calls. `batch_size` is the total
    of all processes; each gets an equal part. `crop` is the side of a random square that is cut out
    of each image, anew in each epoch; None, or the side of the images: they are used whole.
    `name` is that of the view; `parts`, `stream`, `sampler` and `blocks` are those of
    `BatchSampler`. Of images that take more than `limit` bytes on the device, batches are read
    ahead; None: the device's default.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        flip: bool,
        crop: int | None = None,
        layout: torch.memory_format = torch.contiguous_format,
        name: str = "real",
        parts: Sequence[int] = (),
        stream: int = 0,
        sampler: ImageSampler = SHUFFLE,
        blocks: BlockShuffle | None = None,
        limit: int | None = None,
    ) -> None:
        for size in parts or (len(images.x),):
            require_valid_batch_size(batch_size, size, world().world_size)
        height, width = images.x.shape[2:]
        if crop == height == width:
            crop = None
        in_place = device.type == "cpu"
        stored_mirrored = flip and crop is None and not in_place  # see DeviceImages
        allowed = get_image_limit(device, None) if limit is None else limit
        needed = images.x.nbytes * (1 + stored_mirrored)
        on_device = needed <= allowed
        self.kept_bytes = needed if on_device else 0
        """Of images that the device keeps."""
        order = BatchSampler(
            images.y,
            batch_size,
            seed=seed,
            flip=flip,
            device=device if on_device else torch.device("cpu"),
            slack=None if crop is None else (height - crop, width - crop),
            parts=parts,
            stream=stream,
            sampler=sampler,
            blocks=blocks,
        )
        self.batch_size = batch_size
        self.name = name
        self.inputs_count = 1 + (not on_device) + (crop is not None)
        """Number of tensors that `inputs` returns."""
        self._source: SharedImages | DeviceImages | HostImages
        if on_device and in_place:
            self._source = SharedImages(images, order, flip=flip, crop=crop, layout=layout)
        elif on_device:
            self._source = DeviceImages(
                images, order, flip=flip, crop=crop, device=device, layout=layout
            )
        else:
            self._source = HostImages(images, order, crop=crop, device=device, layout=layout)

    def inputs(self, index: int) -> BatchInputs:
        return self._source.inputs(index)

    def to_views(self, *inputs: Tensor) -> Views:
        """Return the view `name`: x (n, C, H, W) float32 in [-1, 1], in `layout`, and the labels y
        (n,) or (n, planes), on the device."""
        x, y = self._source.to_batch(*inputs)
        return {self.name: Batch(to_float(x), y)}

    def __getitem__(self, index: int) -> Batch:
        """Return batch `index` >= 0."""
        return self.to_views(*self.inputs(index))[self.name]


class SideBySideBatches(TrainingImages):
    """Batch i of each of several sets, which may have unlike counts: a view per set.

    The sets must have been given different streams, or their orders would be tied.
    """

    def __init__(self, sets: Sequence[Batches]) -> None:
        self.sets = tuple(sets)
        self.batch_size = self.sets[0].batch_size

    def inputs(self, index: int) -> BatchInputs:
        return tuple(tensor for each in self.sets for tensor in each.inputs(index))

    def to_views(self, *inputs: Tensor) -> Views:
        views: Views = {}
        for each in self.sets:
            views |= each.to_views(*inputs[: each.inputs_count])
            inputs = inputs[each.inputs_count :]
        return views


def make_batches(
    sets: Mapping[str, Images],
    parts: Mapping[str, Sequence[int]],
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    flip: bool,
    crop: int | None,
    layout: torch.memory_format,
    stream: int = 0,
    sampler: ImageSampler = SHUFFLE,
    blocks: BlockShuffle | None = None,
    limit: int | None = None,
) -> TrainingImages:
    """Return the batches of a data set's sets. `parts` are those of each set; see `Batches`.

    The sets have the streams from `stream` on. Those that `limit` bytes have room for, in turn, are
    kept on the device; None: the device's default.
    """
    left = get_image_limit(device, None) if limit is None else limit
    made: list[Batches] = []
    for number, (name, images) in enumerate(sets.items(), stream):
        each = Batches(
            images,
            batch_size=batch_size,
            seed=seed,
            device=device,
            flip=flip,
            crop=crop,
            layout=layout,
            name=name,
            parts=parts[name],
            stream=number,
            sampler=sampler,
            blocks=blocks,
            limit=left,
        )
        left -= each.kept_bytes
        made.append(each)
    return made[0] if len(made) == 1 else SideBySideBatches(made)


def require_valid_batch_size(
    batch_size: int, count: int, processes: int, *, name: str = "", remedy: str = ""
) -> None:
    """Raise UserError if `count` images are too few, or processes cannot share a batch equally.

    `name` is that of the set, if there are several; `remedy` what else there is than a smaller one.
    """
    if batch_size > count:
        most = count // processes * processes or count
        of_set = f" ({name})" if name else ""
        raise UserError(
            f"A batch of {batch_size} images cannot be drawn from a training set of {count}"
            f"{of_set}. Type batch_size={most}{remedy}."
        )
    if batch_size % processes:
        nearest = max(1, round(batch_size / processes)) * processes
        raise UserError(
            f"batch_size={batch_size} is of all processes together, but {processes} of them cannot "
            f"take equal parts of it. Give a multiple of {processes}, e.g. batch_size={nearest}, "
            "or start another number of processes."
        )
