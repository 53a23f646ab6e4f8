"""Images that live on the device."""

import torch
from torch import Tensor

from crgan_cli.data.batch_sampler import BatchSampler
from crgan_cli.data.images import Images
from crgan_cli.data.streamed import CHUNK
from crgan_cli.gan.types import BatchInputs


class DeviceImages:
    """Images that live on the device. A ticket is the positions of a batch: (n,) int64."""

    def __init__(
        self,
        images: Images,
        order: BatchSampler,
        *,
        flip: bool,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._order = order
        self._shape = (-1, *images.x.shape[1:])
        self._last = layout == torch.channels_last
        self._x = flat_images(images.x, flip=flip, device=device, channels_last=self._last)
        self._y = images.y.to(device).repeat(1 + flip)

    def inputs(self, index: int) -> BatchInputs:
        return (self._order[index],)

    def to_batch(self, *ticket: Tensor) -> Images:
        (positions,) = ticket
        x = self._x.index_select(0, positions)
        return Images(unflatten(x, self._shape, self._last), self._y.index_select(0, positions))


def flat_images(x: Tensor, *, flip: bool, device: torch.device, channels_last: bool) -> Tensor:
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
