"""T, the stochastic transforms to which a consistent discriminator is invariant.

Zhang et al. 2020, "Consistency Regularization for Generative Adversarial Networks"
(arXiv:1910.12027), compare Gaussian noise, random shift and flip, cutout, and cutout with shift and
flip. A transform draws new random numbers per image, works on a whole batch on its device, keeps
shapes, and passes gradients to the pixels. It takes the whole Batch, so that an image and the image
that it is conditioned on can move together.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from crgan_cli.config.bounds import NonNegative, NonNegativeInt, PositiveInt, Probability
from crgan_cli.errors import UserError
from crgan_cli.gan.pick import pick_pixels, pick_rows
from crgan_cli.gan.types import Batch, Terms
from crgan_cli.system import rng


class Augment(nn.Module):
    """A stochastic map from images to images of the same shape. Labels stay as they are.

    Lengths in its settings are pixels of images at full size. While networks grow, smaller images
    get the same share of their side, rounded. Sides are the shorter ones.
    """

    _full_side: int | None = None  # of the run's images; None: lengths are pixels of any image

    def scale_length(self, pixels: int, side: int) -> int:
        """`pixels` of an image at full size as pixels of one with this shorter side."""
        return pixels if self._full_side is None else round(pixels * side / self._full_side)

    def transform(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the same shape, with random numbers of its own per image."""
        raise NotImplementedError

    def set_full_side(self, side: int) -> None:
        """Say how large the run's images are, by their shorter side.

        Raise UserError if the settings make no sense.
        """
        self._full_side = side

    def require_channels(self, channels: int) -> None:
        """Raise UserError if images with so many channels cannot be transformed."""

    def observe(self, real: Tensor) -> None:
        """Learn from D's logits of the real images of a D step."""

    def diagnostics(self) -> Terms:
        """Numbers for the log."""
        return {}

    def forward(self, batch: Batch) -> Batch:
        """T(batch)."""
        return batch._replace(x=self.transform(batch.x))


class Chain(Augment):
    """Several transforms, applied in order."""

    def __init__(self, **transforms: Augment) -> None:
        super().__init__()
        self.transforms = nn.ModuleDict(transforms)
        self.members = transforms  # the same, as a type checker knows them

    def set_full_side(self, side: int) -> None:
        for T in self.members.values():
            T.set_full_side(side)

    def require_channels(self, channels: int) -> None:
        for T in self.members.values():
            T.require_channels(channels)

    def transform(self, x: Tensor) -> Tensor:
        for T in self.members.values():
            x = T.transform(x)
        return x

    def observe(self, real: Tensor) -> None:
        for T in self.members.values():
            T.observe(real)

    def diagnostics(self) -> Terms:
        return {name: each for T in self.members.values() for name, each in T.diagnostics().items()}


class FlipShift(Augment):
    """Horizontal flip with probability `flip`, then a shift of -shift .. shift whole pixels along
    each axis, uniform.

    New pixels at the edge are mirrored ones (`reflect`) or 0, mid-grey (`zero`).
    """

    def __init__(
        self, shift: NonNegativeInt, flip: Probability, padding: Literal["reflect", "zero"]
    ) -> None:
        super().__init__()
        self.shift = shift
        self.flip = flip
        self.padding = padding
        self._tables: dict[tuple[torch.Size, torch.device], SourceTables] = {}

    def set_full_side(self, side: int) -> None:
        super().set_full_side(side)
        if self.shift >= side:
            raise UserError(
                f"augment.shift={self.shift} can move images of {side} pixels out of view. Give at "
                f"most augment.shift={side - 1}; {side // 8} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        moves = 2 * self.scale_length(self.shift, min(x.shape[2:])) + 1
        tables = self.tables(x)
        down, right = rng.randint(0, moves, len(x), 2, device=x.device).unbind(1)
        flipped = rng.rand(len(x), device=x.device) < self.flip
        which = torch.add(right, flipped, alpha=moves)  # the table's second half is for flips
        rows = tables.rows.index_select(0, down)
        columns = tables.columns.index_select(0, which)
        return gather_pixels(x, rows, columns, tables.offsets, zeros=self.padding == "zero")

    def tables(self, x: Tensor) -> "SourceTables":
        """The tables for images like x, built once per shape and device."""
        key = x.shape, x.device
        if key not in self._tables:
            n, _, h, w = x.shape
            shift = self.scale_length(self.shift, min(h, w))
            rows, columns = (shifted_positions(size, shift, x.device) for size in (h, w))
            fill = mark_outside if self.padding == "zero" else reflect
            self._tables[key] = SourceTables(
                fill(rows, h) * w,
                fill(torch.cat([columns, w - 1 - columns]), w),
                torch.arange(0, n * h * w, h * w, device=x.device),
            )
        return self._tables[key]


class SourceTables(NamedTuple):
    """Where pixels come from. One row of a table per shift of -shift .. shift."""

    rows: Tensor  # (shifts, H): position of the first pixel in the source of each row
    columns: Tensor  # (2 * shifts, W): source of each column, and of each in a flipped image
    offsets: Tensor  # (N,): position of each image's first pixel in the batch


def shifted_positions(size: int, most: int, device: torch.device) -> Tensor:
    """(2 * most + 1, size): the source of each position after a shift of -most .. most."""
    shifts = torch.arange(-most, most + 1, device=device)
    return torch.arange(size, device=device) - shifts[:, None]


def reflect(index: Tensor, size: int) -> Tensor:
    """Reflect positions outside the image at its edge. The edge pixel is not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index).clamp(0, size - 1)


def mark_outside(index: Tensor, size: int) -> Tensor:
    """Set positions outside the image to OUTSIDE."""
    return torch.where((index >= 0) & (index < size), index, OUTSIDE)


OUTSIDE = 2**40
"""So large that it stays beyond all pixels when multiplied or added to another position."""


def gather_pixels(
    x: Tensor, rows: Tensor, columns: Tensor, offsets: Tensor, *, zeros: bool
) -> Tensor:
    """x at the positions rows (N, H) + columns (N, W), in the memory format of x.

    With `zeros`, positions beyond the last pixel give 0.
    """
    n, c, h, w = x.shape
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        pixels = x.reshape(n, c, h * w)
        at = (rows[:, :, None] + columns[:, None, :]).view(n, 1, h * w)
        if zeros:
            pixels, at = pad(pixels, (0, 1)), at.clamp_(max=h * w)
        return pick_pixels(pixels, at).view(n, c, h, w)
    # channels last: select whole pixels, counted over the batch
    pixels = x.permute(0, 2, 3, 1).reshape(n * h * w, c)
    at = ((rows + offsets[:, None])[:, :, None] + columns[:, None, :]).view(-1)
    if zeros:
        pixels, at = pad(pixels, (0, 0, 0, 1)), at.clamp_(max=n * h * w)
    return pick_rows(pixels, at).view(n, h, w, c).permute(0, 3, 1, 2)


class GaussianNoise(Augment):
    """x + e, e ~ N(0, std^2) per value, not clipped. `std` is on the scale of [-1, 1]."""

    def __init__(self, std: NonNegative) -> None:
        super().__init__()
        self.std = std

    def transform(self, x: Tensor) -> Tensor:
        # by shape, not randn_like: the same draws in every memory format
        noise = rng.randn(*x.shape, device=x.device, dtype=x.dtype)
        return torch.add(x, noise, alpha=self.std)


class Cutout(Augment):
    """DeVries & Taylor 2017 (arXiv:1708.04552): set a square with sides of `size` pixels to 0.

    0 is mid-grey. The centre is uniform over the image, so the square may reach over an edge.
    """

    def __init__(self, size: PositiveInt) -> None:
        super().__init__()
        self.size = size
        self._visible: dict[tuple[int, int, torch.device], Tensor] = {}

    def set_full_side(self, side: int) -> None:
        super().set_full_side(side)
        if self.size > side:
            raise UserError(
                f"augment.size={self.size} is larger than images of {side} pixels. Give at most "
                f"augment.size={side}; {side // 2} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        size = self.scale_length(self.size, min(h, w))
        rows, columns = (
            self.visible(length, size, x.device).index_select(
                0, rng.randint(0, length, n, device=x.device)
            )
            for length in (h, w)
        )
        return x * (rows[:, None, :, None] | columns[:, None, None, :])

    def visible(self, length: int, size: int, device: torch.device) -> Tensor:
        """(length, length) booleans: per centre, the positions outside a square of side `size`.

        Built once per length, size and device.
        """
        key = length, size, device
        if key not in self._visible:
            position = torch.arange(length, device=device)
            first = position[:, None] - size // 2
            self._visible[key] = (position < first) | (position >= first + size)
        return self._visible[key]
