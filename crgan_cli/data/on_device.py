"""Images that are kept in the memory of the device, or are in it already."""

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.crop import cut
from crgan_cli.data.images import Images
from crgan_cli.gan.types import BatchInputs

IMAGES_PER_COPY = 4096
"""Images copied to the device at once. Bounds the extra memory that the copy needs."""


class SharedImages:
    """Images in CPU memory, for a CPU: used where they are, so that no byte is there twice.

    They may be memory-mapped. The inputs of a batch are those of `DeviceImages`.
    """

    def __init__(
        self,
        images: Images,
        sampler: BatchSampler,
        *,
        flip: bool,
        crop: int | None,
        layout: torch.memory_format,
    ) -> None:
        self._images = images
        self._sampler = sampler
        self._flip = flip
        self._crop = crop
        self._layout = layout

    def inputs(self, index: int) -> BatchInputs:
        return self._sampler[index]

    def to_batch(self, positions: Tensor, offsets: Tensor | None = None) -> Images:
        count = len(self._images.x)
        chosen, mirrored = positions, None
        if self._flip:
            chosen, mirrored = positions % count, positions >= count
        if self._crop is None or offsets is None:
            x = self._images.x.index_select(0, chosen)
            if mirrored is not None:
                x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        else:
            x = cut(self._images.x, chosen, offsets, self._crop, mirrored)
        y = self._images.y.index_select(0, chosen)
        return Images(x.contiguous(memory_format=self._layout), y)


class DeviceImages:
    """Images on the device. The inputs of a batch are its positions and, with a crop, offsets.

    Without a crop, mirror images are stored too: they cost memory, but no time in a turn. A crop is
    a gather of single pixels anyway, which mirrors at no cost.
    """

    def __init__(
        self,
        images: Images,
        sampler: BatchSampler,
        *,
        flip: bool,
        crop: int | None,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._sampler = sampler
        self._shape = (-1, *images.x.shape[1:])
        self._count = len(images.x)
        self._crop = crop
        self._layout = layout
        self._channels_last = layout == torch.channels_last
        stored_flip = flip and crop is None
        self._x = flat_images(
            images.x, flip=stored_flip, device=device, channels_last=self._channels_last
        )
        self._y = torch.cat([images.y.to(device)] * (1 + flip))

    def inputs(self, index: int) -> BatchInputs:
        return self._sampler[index]

    def to_batch(self, positions: Tensor, offsets: Tensor | None = None) -> Images:
        if self._crop is None or offsets is None:
            x = unflatten(self._x.index_select(0, positions), self._shape, self._channels_last)
        else:
            stored = unflatten(self._x, self._shape, self._channels_last)
            images, mirrored = positions % self._count, positions >= self._count
            x = cut(stored, images, offsets, self._crop, mirrored)
            x = x.contiguous(memory_format=self._layout)
        return Images(x, self._y.index_select(0, positions))


def flat_images(x: Tensor, *, flip: bool, device: torch.device, channels_last: bool) -> Tensor:
    """(N, C, H, W) -> (N or 2N, C * H * W) on the device; with `flip`, the mirror images follow.

    One row per image: selecting rows is one copy, whatever the order of the pixels within a row.
    """
    n = len(x)
    rows = torch.empty(n * (1 + flip), x[0].numel(), dtype=x.dtype, device=device)
    pixels = unflatten(rows, (-1, *x.shape[1:]), channels_last)
    for start in range(0, n, IMAGES_PER_COPY):
        part = x[start : start + IMAGES_PER_COPY].to(device)
        pixels[start : start + len(part)] = part
        if flip:
            pixels[n + start : n + start + len(part)] = part.flip(3)
    return rows


def unflatten(x: Tensor, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """(N, C * H * W) -> (N, C, H, W), a view; `channels_last` is the order of pixels in a row."""
    if not channels_last:
        return x.view(shape)
    n, c, h, w = shape
    return x.view(n, h, w, c).permute(0, 3, 1, 2)
