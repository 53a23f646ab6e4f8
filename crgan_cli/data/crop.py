"""Cut squares out of stored images."""

import torch
from torch import Tensor


def cut(
    x: Tensor, images: Tensor, offsets: Tensor, side: int, mirrored: Tensor | None = None
) -> Tensor:
    """(N, C, H, W) -> (n, C, side, side): of each of `images` (n,), the square at its offset.

    `offsets` (n, 2) are top and left, in the mirror image where `mirrored` (n,). One gather without
    synchronisation, so that a CUDA graph can capture it. The result is in channels_last.
    """
    span = torch.arange(side, device=x.device)
    rows, columns = offsets[:, :1] + span, offsets[:, 1:] + span  # (n, side)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], x.shape[3] - 1 - columns, columns)
    pixels = x.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)
