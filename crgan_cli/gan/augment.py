"""T, the stochastic transforms that a consistent discriminator should not notice.

Zhang et al. 2020, "Consistency Regularization for GANs" (arXiv:1910.12027), compares Gaussian
noise, random shift and flip, cutout, and cutout with shift and flip. All are drawn per image,
work on the whole batch on its device, keep its shape, and pass gradients to the pixels. A
transform takes the whole Batch, so that an image and one it is conditioned on can move together.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from crgan_cli.config.bounds import NonNegative, NonNegativeInt, PositiveInt, Probability
from crgan_cli.errors import UserError
from crgan_cli.gan.types import Batch
from crgan_cli.system import rng


class Augment(nn.Module):
    """A stochastic map from images to images of the same shape; labels stay as they are."""

    def transform(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the same, drawn anew for every image."""
        raise NotImplementedError

    def require(self, side: int) -> None:
        """Raises UserError where the settings make no sense for images of `side` pixels."""

    def forward(self, batch: Batch) -> Batch:
        """T(batch)."""
        return batch._replace(x=self.transform(batch.x))


class Chain(Augment):
    """Several transforms, one after the other."""

    def __init__(self, **transforms: Augment) -> None:
        super().__init__()
        self.transforms = nn.ModuleDict(transforms)
        self.in_order = tuple(transforms.values())

    def require(self, side: int) -> None:
        for each in self.in_order:
            each.require(side)

    def transform(self, x: Tensor) -> Tensor:
        for each in self.in_order:
            x = each.transform(x)
        return x


class FlipShift(Augment):
    """Horizontal flip with probability `flip`, then a shift by up to `shift` whole pixels each way.

    With `reflect` the pixels that come in are mirrored ones; with `zero` they are 0, mid-grey.
    """

    def __init__(
        self, shift: NonNegativeInt, flip: Probability, padding: Literal["reflect", "zero"]
    ) -> None:
        super().__init__()
        self.shift = shift
        self.flip = flip
        self.padding = padding
        self._sources: dict[tuple[torch.Size, torch.device], Sources] = {}

    def require(self, side: int) -> None:
        if self.shift >= side:
            raise UserError(
                f"augment.shift={self.shift} moves images of {side} pixels out of sight. Give at "
                f"most augment.shift={side - 1}; {side // 8} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        moves = 2 * self.shift + 1
        sources = self.sources(x)
        down, right = rng.randint(0, moves, len(x), 2, device=x.device).unbind(1)
        flipped = rng.rand(len(x), device=x.device) < self.flip
        turned = torch.add(right, flipped, alpha=moves)  # the table's second half is for flips
        rows = sources.rows.index_select(0, down)
        columns = sources.columns.index_select(0, turned)
        return gather(x, rows, columns, sources.firsts, zeros=self.padding == "zero")

    def sources(self, x: Tensor) -> "Sources":
        """The tables for images like these, made once for each shape and device."""
        key = x.shape, x.device
        if key not in self._sources:
            n, _, h, w = x.shape
            rows, columns = (shifts(size, self.shift, x.device) for size in (h, w))
            fill = beyond if self.padding == "zero" else mirror
            self._sources[key] = Sources(
                fill(rows, h) * w,
                fill(torch.cat([columns, w - 1 - columns]), w),
                torch.arange(0, n * h * w, h * w, device=x.device),
            )
        return self._sources[key]


class Sources(NamedTuple):
    """Where pixels come from, a row of each table a move of -shift .. shift."""

    rows: Tensor  # (moves, H): position of the first pixel in the source of each row
    columns: Tensor  # (2 * moves, W): source of each column, and of each in a flipped image
    firsts: Tensor  # (N,): position of an image's first pixel in a batch


def shifts(size: int, most: int, device: torch.device) -> Tensor:
    """(2 * most + 1, size): the source of each position after a move by -most .. most."""
    moves = torch.arange(-most, most + 1, device=device)
    return torch.arange(size, device=device) - moves[:, None]


def mirror(index: Tensor, size: int) -> Tensor:
    """Positions beyond an edge -> those as far inside it; the edge pixel itself is not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index).clamp(0, size - 1)


def beyond(index: Tensor, size: int) -> Tensor:
    """Positions outside the image -> one beyond all pixels of any batch."""
    return torch.where((index >= 0) & (index < size), index, BEYOND)


BEYOND = 2**40  # so far that no sum with another position, and no multiple, comes back


def gather(x: Tensor, rows: Tensor, columns: Tensor, firsts: Tensor, *, zeros: bool) -> Tensor:
    """x at the positions rows (N, H) + columns (N, W), in the order that x has in memory.

    With `zeros`, positions beyond the last are 0.
    """
    n, c, h, w = x.shape
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        pixels = x.reshape(n, c, h * w)
        at = (rows[:, :, None] + columns[:, None, :]).view(n, 1, h * w)
        if zeros:
            pixels, at = pad(pixels, (0, 1)), at.clamp_(max=h * w)
        return pixels.gather(2, at.expand(n, c, h * w)).view(n, c, h, w)
    # the channels of a pixel lie together, so whole pixels are selected, counted over the batch
    pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, c)
    at = ((rows + firsts[:, None])[:, :, None] + columns[:, None, :]).view(-1)
    if zeros:
        pixels, at = pad(pixels, (0, 0, 0, 1)), at.clamp_(max=n * h * w)
    return pixels.index_select(0, at).view(n, h, w, c).permute(0, 3, 1, 2)


class GaussianNoise(Augment):
    """x + e, e ~ N(0, std^2) for every pixel, not clipped. `std` is on the scale of [-1, 1]."""

    def __init__(self, std: NonNegative) -> None:
        super().__init__()
        self.std = std

    def transform(self, x: Tensor) -> Tensor:
        # by shape, not randn_like: the same draws in whatever order the pixels lie in memory
        noise = rng.randn(*x.shape, device=x.device, dtype=x.dtype)
        return torch.add(x, noise, alpha=self.std)


class Cutout(Augment):
    """DeVries & Taylor 2017 (arXiv:1708.04552): a square of `size` pixels becomes 0, mid-grey.

    Its centre is uniform over the image, so the square may hang over the edge.
    """

    def __init__(self, size: PositiveInt) -> None:
        super().__init__()
        self.size = size
        self._visible: dict[tuple[int, torch.device], Tensor] = {}

    def require(self, side: int) -> None:
        if self.size > side:
            raise UserError(
                f"augment.size={self.size} hides more than images of {side} pixels have. Give at "
                f"most augment.size={side}; {side // 2} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows, columns = (
            self.visible(size, x.device).index_select(0, rng.randint(0, size, n, device=x.device))
            for size in (h, w)
        )
        return x * (rows[:, None, :, None] | columns[:, None, None, :])

    def visible(self, length: int, device: torch.device) -> Tensor:
        """(length, length) booleans: for each centre, the positions that lie outside the square.

        Made once for each length and device.
        """
        key = length, device
        if key not in self._visible:
            position = torch.arange(length, device=device)
            first = position[:, None] - self.size // 2
            self._visible[key] = (position < first) | (position >= first + self.size)
        return self._visible[key]
