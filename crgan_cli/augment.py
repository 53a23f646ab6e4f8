"""T, the stochastic transforms that a consistent discriminator should not notice.

Zhang et al. 2020, "Consistency Regularization for GANs" (arXiv:1910.12027), compares Gaussian
noise, random shift and flip, cutout, and cutout with shift and flip. All are drawn per image,
work on the whole batch on its device, keep its shape, and pass gradients to the pixels. A
transform takes the whole Batch, so that an image and one it is conditioned on can move together.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from crgan_cli.bounds import Count, NonNegative, Probability, Whole
from crgan_cli.errors import UserError
from crgan_cli.types import Batch


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
        self, shift: Whole, flip: Probability, padding: Literal["reflect", "zero"]
    ) -> None:
        super().__init__()
        self.shift = shift
        self.flip = flip
        self.padding = padding

    def require(self, side: int) -> None:
        if self.shift >= side:
            raise UserError(
                f"augment.shift={self.shift} moves images of {side} pixels out of sight. Give at "
                f"most augment.shift={side - 1}; {side // 8} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        dy, dx = torch.randint(-self.shift, self.shift + 1, (2, n, 1), device=x.device)
        rows = torch.arange(h, device=x.device) - dy  # (N, H): the source of each row
        columns = torch.arange(w, device=x.device) - dx
        flipped = torch.rand(n, 1, device=x.device) < self.flip
        y = gather(x, mirror(rows, h), turn(mirror(columns, w), w, flipped))
        if self.padding == "reflect":
            return y
        inside = within(rows, h)[:, None, :, None] & within(columns, w)[:, None, None, :]
        return torch.where(inside, y, torch.zeros((), dtype=y.dtype, device=y.device))


def mirror(index: Tensor, size: int) -> Tensor:
    """Positions beyond an edge -> those as far inside it; the edge pixel itself is not repeated."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index).clamp(0, size - 1)


def turn(columns: Tensor, width: int, flipped: Tensor) -> Tensor:
    """Column sources of images of which the `flipped` ones are mirrored left to right."""
    return torch.where(flipped, width - 1 - columns, columns)


def within(index: Tensor, size: int) -> Tensor:
    """Which positions lie inside the image."""
    return (index >= 0) & (index < size)


def gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x[n, c, rows[n, i], columns[n, j]] for all n, c, i, j, in one kernel."""
    n, c, h, w = x.shape
    flat = (rows[:, :, None] * w + columns[:, None, :]).view(n, 1, h * w)
    return x.reshape(n, c, h * w).gather(2, flat.expand(n, c, h * w)).view(n, c, h, w)


class GaussianNoise(Augment):
    """x + e, e ~ N(0, std^2) for every pixel, not clipped. `std` is on the scale of [-1, 1]."""

    def __init__(self, std: NonNegative) -> None:
        super().__init__()
        self.std = std

    def transform(self, x: Tensor) -> Tensor:
        # randn(shape), not randn_like: the same draws in whatever order the pixels lie in memory
        return x + self.std * torch.randn(x.shape, device=x.device, dtype=x.dtype)


class Cutout(Augment):
    """DeVries & Taylor 2017 (arXiv:1708.04552): a square of `size` pixels becomes 0, mid-grey.

    Its centre is uniform over the image, so the square may hang over the edge.
    """

    def __init__(self, size: Count) -> None:
        super().__init__()
        self.size = size

    def require(self, side: int) -> None:
        if self.size > side:
            raise UserError(
                f"augment.size={self.size} hides more than images of {side} pixels have. Give at "
                f"most augment.size={side}; {side // 2} is usual."
            )

    def transform(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        hidden_rows = hidden(n, h, self.size, x.device)[:, None, :, None]
        hidden_columns = hidden(n, w, self.size, x.device)[:, None, None, :]
        nothing = torch.zeros((), dtype=x.dtype, device=x.device)
        return torch.where(hidden_rows & hidden_columns, nothing, x)


def hidden(n: int, length: int, size: int, device: torch.device) -> Tensor:
    """(n, length) booleans: `size` positions in a row are true, around a centre drawn per image."""
    first = torch.randint(0, length, (n, 1), device=device) - size // 2
    position = torch.arange(length, device=device)
    return (position >= first) & (position < first + size)
