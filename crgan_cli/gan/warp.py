"""Images moved by affine maps: T as a rotation, and the sampling that it needs."""

import math

import torch
from torch import Tensor

from crgan_cli.config.bounds import NonNegative
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.pick import pick_pixels
from crgan_cli.system import rng


def warp_images(x: Tensor, source: Tensor) -> Tensor:
    """Sample (N, C, H, W) at the positions `source` @ (column, row, 1) of each pixel.

    `source` is (N, 2, 3) or (N, 3, 3), in pixels from the centre of the image. Bilinear; positions
    outside are reflected at the edge pixels. Not by `grid_sample`, whose backward pass has no
    deterministic form on CUDA.
    """
    n, c, h, w = x.shape
    rows = torch.arange(h, device=x.device, dtype=x.dtype) - (h - 1) / 2
    columns = torch.arange(w, device=x.device, dtype=x.dtype) - (w - 1) / 2
    a = source[:, :2, :, None, None].to(x.dtype)
    at_x = a[:, 0, 0] * columns + a[:, 0, 1] * rows[:, None] + a[:, 0, 2] + (w - 1) / 2
    at_y = a[:, 1, 0] * columns + a[:, 1, 1] * rows[:, None] + a[:, 1, 2] + (h - 1) / 2
    left, right, to_right = neighbours(at_x, w)
    above, below, to_below = neighbours(at_y, h)
    pixels = x.reshape(n, c, h * w)

    def pick(row: Tensor, column: Tensor) -> Tensor:
        at = (row * w + column).view(n, 1, h * w)
        return pick_pixels(pixels, at).view(n, c, h, w)

    top = torch.lerp(pick(above, left), pick(above, right), to_right[:, None])
    bottom = torch.lerp(pick(below, left), pick(below, right), to_right[:, None])
    return like_layout(torch.lerp(top, bottom, to_below[:, None]), x)


def like_layout(made: Tensor, x: Tensor) -> Tensor:
    """`made` in the memory format of x."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return made.contiguous(memory_format=torch.channels_last) if channels_last else made


def neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions -> the indices of the two pixels around each, and the share of the second."""
    period = max(2 * (size - 1), 1)
    inside = position.remainder(period)
    inside = torch.where(inside > size - 1, period - inside, inside).clamp(0, size - 1)
    first = inside.floor()
    second = (first + 1).clamp_(max=size - 1)
    return first.long(), second.long(), inside - first


def rotations(angle: Tensor) -> Tensor:
    """Angles (N,) in radians -> (N, 3, 3)."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return matrices([cos, -sin, zero], [sin, cos, zero], [zero, zero, zero + 1])


def matrices(*rows: list[Tensor]) -> Tensor:
    """Entries (N,) -> (N, rows, columns)."""
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


class Rotation(Augment):
    """A turn about the centre by -degrees .. degrees, uniform.

    Bilinear; the corners show the image reflected at its edges, so that no border can leak.
    """

    def __init__(self, degrees: NonNegative) -> None:
        super().__init__()
        self.degrees = degrees

    def transform(self, x: Tensor) -> Tensor:
        turn = 2 * rng.rand(len(x), device=x.device) - 1
        return warp_images(x, rotations(turn * math.radians(self.degrees)))
